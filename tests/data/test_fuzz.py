"""Odd configs, checkpoints, records and pictures are read, or refused in one line, in time and memory.

FLOWS_FUZZ_SEED sets another seed; the number of a case that fails, with its seed, repeats it.
"""

import copy
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import flows
from flows.cli import main as flows_main
from flows.errors import is_user_error
from flows.models.glow import Glow
from flows.models.nice import NICE
from train import main as train_main

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("FLOWS_FUZZ_SEED", "0"))
SECONDS, GIGABYTE = 20, 2**30
IN_OTHER_PROCESSES = 20
"""Number of cases of each kind that run in a process of their own."""

CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if "paper" not in path.parts)
TRAINED = [path for path in CONFIGS if path.parent.name not in ("steering", "dissection")]

EVIL = """
from pathlib import Path
Path(__file__).with_name("ran").write_text("")
from flows.data.digits import Digits
class Evil(Digits):
    pass
"""

SCALARS = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e-320, -1e-30, 1e308,
    float("inf"), float("nan"), "", " ", "x", "null", "None", "yes", "1e3", "é\U0001f600", "\x00", "../..",
    "/dev/zero", "/proc", "~nobody/x", "a" * 300, "%s{}", "evilmod.Evil", "os.system", "flows.cli.main",
]  # fmt: skip
CONTAINERS = [[], {}, [[]], [None], [1, "x"], {"x": 1}, {"class_path": "evilmod.Evil"}, {"": None}, [[[[1]]]]]
TEXTS = [
    b"", b"\x00", b"training: true\n", b"!!int\n", b"training: {images: !!int x}\n", b"a: &a [*a]\n",
    b"[" * 5000, b"a: " * 400, b"- 1\n", b"text", b"training: !!python/object/apply:os.system [touch ran]\n",
    b"%YAML 9\n---\n", b"? [a]\n: b\n", b"? {a: b}\n: c\n", b"a: 1\na: 2\n", b"1: 2\n", b"null: 1\n",
    "training: {images: 64}".encode("utf-16"), "model: é".encode("latin-1"), b"\xef\xbb\xbftraining: {}\n",
    b"\n".join([b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
               + [b"a%d: &a%d [%s]" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)]),
]  # fmt: skip
"""Whole files: among them one that refers to itself, and a "billion laughs"."""


class Reached(Exception):
    """The settings were accepted, and the training would begin."""


class Late(BaseException):
    """A case takes too long."""


def odd(choose):
    """A value that nobody expects."""
    return copy.deepcopy(choose.choice(SCALARS if choose.random() < 0.75 else CONTAINERS))


def places(value, path=()):
    """Paths of all values within a value of YAML or JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def mutated(value, choose):
    """Copy of a value with one to three changes."""
    value = copy.deepcopy(value)
    for _ in range(choose.choice([1, 1, 1, 2, 3])):
        found = list(places(value))
        if not found:
            return odd(choose)
        *outer, key = choose.choice(found)
        inside = value
        for step in outer:
            inside = inside[step]
        way = choose.random()
        if way < 0.15:
            del inside[key]
        elif way < 0.25 and isinstance(inside, dict):
            inside[
                choose.choice(
                    ["x", "", "init_args", "class_path", "é", key * 2 if isinstance(key, str) else "k"]
                )
            ] = odd(choose)
        elif way < 0.3 and isinstance(inside[key], int | float):
            inside[key] = inside[key] * choose.choice([-1, 1000, 10**9, 0.37])
        else:
            inside[key] = odd(choose)
    return value


def damaged(content, choose):
    """Copy of bytes with a few changed, cut off, doubled or taken out."""
    content = bytearray(content)
    for _ in range(choose.choice([1, 2, 5, 20])):
        place = choose.randrange(len(content) + 1)
        way = choose.random()
        if way < 0.5 and place < len(content):
            content[place] = choose.randrange(256)
        elif way < 0.65:
            del content[place : place + choose.choice([1, 4, 100])]
        elif way < 0.8:
            content[place:place] = bytes(choose.randrange(256) for _ in range(choose.choice([1, 8, 64])))
        elif way < 0.9:
            del content[place:]
        else:
            content[place:place] = content[place : place + 200]
        if not content:
            break
    return bytes(content)


@pytest.fixture(name="ground")
def place_of_evil(tmp_path, monkeypatch):
    """A folder with a module that notes that it ran, as the working folder and on the path."""
    (tmp_path / "evilmod.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FLOWS_FUZZ", "1")
    return tmp_path


def peak():
    """Largest memory of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ends_well(run):
    """Fault of a call, or "": an exception that is none of the user's, too much time or memory."""

    def late(number, frame):
        raise Late(f"more than {SECONDS} s in {frame.f_code.co_filename}:{frame.f_lineno}")

    before = peak()
    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        run()
    except SystemExit as ended:
        if ended.code not in (0, 2, None):
            return f"exit code {ended.code}"
    except Reached:
        pass
    except Late as error:
        return str(error)
    except Exception as error:
        if not is_user_error(error):
            return "".join(traceback.format_exception(error)[-3:])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
    if peak() - before > GIGABYTE:
        return f"{(peak() - before) / GIGABYTE:.1f} GB"
    return ""


def in_other_process(words):
    """Fault of a command in a process of its own, or ""."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path.cwd()}"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
    except subprocess.TimeoutExpired:
        return "more than 60 s"
    lines = done.stderr.strip().splitlines()
    if done.returncode == 2 and sum(line.startswith("error: ") for line in lines) == 1:
        return ""
    return "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-600:]}"


def check_all(cases, run, command):
    """Run every case here, and some in processes of their own; `run` and `command` take the case."""
    faults = []
    for number, case in enumerate(cases):
        if number % (len(cases) // IN_OTHER_PROCESSES) == 0:
            fault = in_other_process(command(case))
        else:
            fault = ends_well(lambda case=case: run(case))
        if fault:
            faults.append(f"case {number} of seed {SEED}, {case}: {fault}")
        if Path("ran").exists():
            faults.append(f"case {number} of seed {SEED}, {case}: a module was imported")
            Path("ran").unlink()
    return faults


def show(faults, n):
    assert not faults, f"{len(faults)} of {n}:\n" + "\n\n".join(faults[:12])


# Configs ------------------------------------------------------------------------------------------


def odd_configs(folder, n):
    """Write n configs, each with its options of the command line."""
    choose = random.Random(f"configs {SEED}")
    folder.mkdir()
    for number in range(n):
        path = choose.choice(TRAINED)
        config = yaml.safe_load(path.read_text())
        tiny = config.pop("variants", {}).get("tiny", {})
        words = [
            f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in tiny.items()
        ]
        way = choose.random()
        if way < 0.7:
            text = yaml.safe_dump(mutated(config, choose), allow_unicode=True).encode("utf-8", "replace")
        elif way < 0.85:
            text = damaged(path.read_bytes(), choose)
        else:
            text = choose.choice(TEXTS)
        if choose.random() < 0.3:
            name = choose.choice(
                [word.split("=")[0] for word in words] + ["--training.images", "--training.lr", "--data"]
            )
            words.append(f"{name}={choose.choice(SCALARS)}".replace("\x00", ""))
        (folder / f"{number}.yaml").write_bytes(text)
        yield (
            folder / f"{number}.yaml",
            [word for word in words if word.startswith("--data") or choose.random() < 0.8],
        )


def test_odd_configs(ground, monkeypatch, capfd):
    def reached(*_, **__):
        raise Reached

    def words_of(case):
        path, words = case
        return ["--config", str(path), "--folder", str(ground / "runs" / path.stem), *words]

    def run(case):
        monkeypatch.setattr("sys.argv", ["train.py", *words_of(case)])
        with monkeypatch.context() as patch:
            patch.setattr("flows.run.fit", reached)
            train_main()

    cases = list(odd_configs(ground / "configs", 300))
    starter = (
        "import sys, flows.run, train\n"
        "def stop(*_, **__): raise SystemExit(0)\nflows.run.fit = stop\ntrain.main()"
    )
    show(check_all(cases, run, lambda case: [sys.executable, "-c", starter, *words_of(case)]), 300)


# Checkpoints --------------------------------------------------------------------------------------


@pytest.fixture(name="models", scope="module")
def small_models(tmp_path_factory):
    """Folders of small trained-looking models."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    built = {"glow": Glow((1, 8, 8), 17, levels=2, depth=2, width=4), "nice": NICE((1, 8, 8), 17, width=16)}
    for name, model in built.items():
        source = {"class_path": "flows.data.digits.Digits", "init_args": {}}
        model.description = {"name": "digits", "image_shape": [1, 8, 8], "bins": 17, "transform": "none",
                             "class_names": list("0123456789"), "source": source}  # fmt: skip
        model.save_pretrained(folder / name)
    return folder


def odd_checkpoints(models, folder, n):
    """Write n checkpoints; in some the checksums and fingerprints are those of the changed files."""
    choose = random.Random(f"checkpoints {SEED}")
    sources = [models / "glow", models / "nice"]
    for number in range(n):
        target = folder / str(number)
        shutil.copytree(choose.choice(sources), target)
        config, weights = target / "config.json", target / "model.safetensors"
        way = choose.random()
        if way < 0.5:
            given = json.loads(config.read_text())
            if choose.random() < 0.4:
                key = choose.choice([key for key in given if key not in ("fingerprint", "weights_sha256")])
                given[key] = choose.choice([10**9, 20_000, 2**40, *SCALARS])
            elif choose.random() < 0.3:
                given["description"]["source"] = choose.choice(
                    [
                        {
                            "class_path": "flows.data.folder.Folder",
                            "init_args": {"path": path, "size": 8, "channels": 1},
                        }
                        for path in ("/dev/zero", "/proc", "/", "/dev/stdin", "//", "~")
                    ]
                    + [
                        {"class_path": name, "init_args": {}}
                        for name in ("evilmod.Evil", "os.system", "flows.data.shards.Shards")
                    ]
                )
            else:
                given = mutated(given, choose)
            if choose.random() < 0.6 and isinstance(given, dict):
                given = with_own_fingerprint(given, weights)
            config.write_text(json.dumps(given))
        elif way < 0.65:
            config.write_bytes(
                choose.choice([damaged(config.read_bytes(), choose), b"[" * 100_000, b"", b"{}"])
            )
        else:
            content = weights.read_bytes()
            cut = choose.random()
            if cut < 0.3:
                content = content[: choose.choice([0, 1, 7, 8, 9, 40, len(content) - 1])]
            elif cut < 0.5:
                tensors = load_file(weights)
                name = choose.choice(list(tensors))
                tensors[name] = choose.choice([
                    torch.zeros(0), torch.zeros(3, 3), tensors[name].half(), tensors[name] * float("nan"),
                    torch.zeros(2, dtype=torch.int64), tensors[name][None],
                ]).contiguous()  # fmt: skip
                save_file(tensors, weights)
                content = weights.read_bytes()
            else:
                content = damaged(content, choose)
            weights.write_bytes(content)
            if choose.random() < 0.8:
                given = json.loads(config.read_text())
                given["weights_sha256"] = hashlib.sha256(content).hexdigest()
                config.write_text(json.dumps(given))
        yield target


def with_own_fingerprint(given, weights):
    """The config of a hostile checkpoint, whose fingerprint is that of what it says."""
    try:
        model = getattr(flows.models, str(given.get("model_type")), Glow)
        given["fingerprint"] = model._fingerprint(given, load_file(weights))
    except Exception:  # an odd value that has no fingerprint
        return given
    return given


def test_odd_checkpoints(ground, models, capfd):
    verbs = (
        ["evaluate", "--images", "4", "--neighbours", "0"],
        ["roundtrip", "--images", "2"],
        ["sample", "--n", "2"],
    )

    def words_of(path):
        verb, *more = verbs[int(path.name) % len(verbs)]
        return [verb, str(path), *more]

    cases = list(odd_checkpoints(models, ground, 300))
    command = [sys.executable, "-m", "flows"]
    show(
        check_all(cases, lambda path: flows_main(words_of(path)), lambda path: [*command, *words_of(path)]),
        300,
    )


# Records ------------------------------------------------------------------------------------------

RECORDS = {
    "codes.safetensors": ["decode", "scenes-glow"], "record-exact.safetensors": ["render"],
    "record-encoder.safetensors": ["render"], "history-scenes-glow.safetensors": ["render"],
    "directions.safetensors": ["steer", "apply", "scenes-glow"],
}  # fmt: skip


def odd_records(folder, n):
    """Write n records, codes, histories and files of directions."""
    choose = random.Random(f"records {SEED}")
    for number in range(n):
        name = choose.choice(list(RECORDS))
        source, target = ROOT / "tests/models/legacy" / name, folder / f"{number}-{name}"
        if choose.random() < 0.4:
            target.write_bytes(damaged(source.read_bytes(), choose))
        else:
            with safe_open(source, "pt") as opened:
                metadata = dict(opened.metadata())
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}
            key = choose.choice(list(metadata))
            if choose.random() < 0.6 and metadata[key][:1] in "[{":
                metadata[key] = json.dumps(mutated(json.loads(metadata[key]), choose))
            elif choose.random() < 0.5:
                metadata[key] = choose.choice(["", "9", "-1", "x", "[" * 9999, "{}", "null"])
            else:
                name = choose.choice(list(tensors))
                value = tensors[name]
                tensors[name] = choose.choice([
                    value[:0], value.double() * 1e300, value.to(torch.int8), torch.zeros(1), value[None],
                    torch.full_like(value, float("nan")) if value.is_floating_point() else value + 100,
                ]).contiguous()  # fmt: skip
            save_file(tensors, target, metadata)
        yield target


def test_odd_records(ground, capfd):
    def words_of(path):
        verb = RECORDS[path.name.partition("-")[2]]
        output = ["--output", str(ground / "out.png")]
        if verb[0] == "steer":
            return [*verb, "--directions", str(path), "--n", "1", *output]
        model = [] if verb[-1] == "scenes-glow" else ["scenes-glow"]
        return [*verb, *model, str(path), *output]

    cases = list(odd_records(ground, 150))
    command = [sys.executable, "-m", "flows"]
    show(
        check_all(cases, lambda path: flows_main(words_of(path)), lambda path: [*command, *words_of(path)]),
        150,
    )


# Pictures -----------------------------------------------------------------------------------------

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F", "I"]
FORMATS = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"], "jpg": ["L", "RGB", "CMYK"],
    "tiff": MODES, "gif": ["L", "P", "RGB"], "webp": ["RGB", "RGBA"], "bmp": ["1", "L", "P", "RGB"],
    "ppm": ["1", "L", "RGB"], "avif": ["RGB", "RGBA"], "jp2": ["L", "RGB"], "tga": ["L", "RGB", "RGBA"],
}  # fmt: skip


def odd_pictures(folder, n):
    """Write n pictures of odd sizes and kinds, most of them damaged."""
    choose = random.Random(f"pictures {SEED}")
    values = np.random.default_rng(SEED)
    for number in range(n):
        suffix = choose.choice(list(FORMATS))
        mode = choose.choice(FORMATS[suffix])
        size = choose.choice([(1, 1), (1, 300), (40, 3), (32, 32), (33, 90), (500, 2), (0, 0)])
        size = size if all(size) else (64, 48)
        noise = Image.fromarray(values.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
        target = folder / f"{number}.{suffix}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                (noise.convert("I").convert(mode) if mode == "I;16" else noise.convert(mode)).save(target)
        except (OSError, ValueError):  # this Pillow writes no such file
            target = target.with_suffix(".png")
            noise.save(target)
        way = choose.random()
        if way < 0.6:
            target.write_bytes(damaged(target.read_bytes(), choose))
        elif way < 0.7:
            target.write_bytes(choose.choice([b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<svg/>", bytes(100)]))
        yield target


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, for files that it reads in part
def test_odd_pictures(ground, capfd):
    def words_of(path):
        return [
            "encode",
            "scenes-glow",
            str(path),
            "--resize",
            "true",
            "--output",
            str(ground / "codes.safetensors"),
        ]

    cases = list(odd_pictures(ground, 150))
    command = [sys.executable, "-m", "flows"]
    show(
        check_all(cases, lambda path: flows_main(words_of(path)), lambda path: [*command, *words_of(path)]),
        150,
    )
