"""Faults of verbs by their kinds: labels of what was done, what is left out, masks, files, outputs."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.cli import main
from flows.commands.paint import brush_mask
from flows.core.checks import some_of
from flows.core.schema import check_names
from flows.errors import UserError
from flows.storage.files import write_atomically

ROOT = Path(__file__).parents[2]
GLOW = str(ROOT / "checkpoints/scenes-glow")
DIRECTIONS = f"{GLOW}/directions.safetensors"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    written = capsys.readouterr().err
    assert ended.value.code == 2 and written.count("\n") == 1
    return written


def apply(*words):
    main(["steer", "apply", GLOW, DIRECTIONS, "--n", "2", "--json", "r.json", *map(str, words)])
    return json.loads(Path("r.json").read_text())


# Labels say what was done -------------------------------------------------------------------------


def test_a_change_is_measured_from_the_unmoved_picture():
    alone = apply("--names", "daylight", "--alphas", "3")["mean_change"]["daylight"]
    beside = apply("--names", "daylight", "--alphas", "3", "0")["mean_change"]["daylight"]
    assert alone[0] == beside[0] > 10 and beside[1] == 0


def test_a_step_that_a_budget_cuts_is_named_by_the_sigmas_reached(capsys):
    result = apply("--names", "daylight", "--alphas", "0", "30", "--budget", "0.05")
    still, cut = result["sigmas_within_budget"]["daylight"]
    assert still == 0 and 0 < cut < 25
    assert f"daylight +30: the budget leaves +{cut:.3g} of +30 σ on average" in capsys.readouterr().out


def test_a_move_far_outside_of_all_samples_is_called_so(capsys):
    apply("--names", "daylight", "--alphas", "-3", "3")
    assert "far outside" not in capsys.readouterr().out
    apply("--names", "daylight", "--alphas", "0", "1e30")
    assert "moves of +1e+30 σ lead far outside of all samples" in capsys.readouterr().out


def test_directions_are_in_the_order_of_their_names():
    assert apply("--names", "wood", "daylight", "--alphas", "1")["directions"] == ["wood", "daylight"]


# What is left out is said -------------------------------------------------------------------------


def test_options_that_exclude_each_other_are_refused(capsys):
    Image.new("RGB", (32, 32)).save("a.png")
    for verb in (["steer", "apply", GLOW, DIRECTIONS], ["paint", GLOW, "--strokes", "erase bed"]):
        line = refused(capsys, *verb, "--images", "a.png", "--test", "2")
        assert "--images and --test exclude each other" in line


def test_pictures_that_are_not_read_are_listed(capsys):
    Path("in/inner").mkdir(parents=True)
    for name in ("a.tiff", "b.gif", "c.png"):
        Image.new("RGB", (32, 32), (90, 60, 30)).save(f"in/{name}")
    for name in ("notes.txt", "d.psd"):
        Path(f"in/{name}").touch()
    given = [
        "compare",
        "--models",
        GLOW,
        "--inverters",
        "exact",
        "--images",
        "user:in",
        "--perceptual",
        "none",
    ]
    main([*given, "--edits", "false", "--out", "out"])
    assert json.loads(Path("out/table.json").read_text())["rows"][0]["images"] == 3
    assert "not read, because they are no pictures: d.psd, inner, notes.txt" in capsys.readouterr().out


def test_long_lists_are_shortened():
    assert some_of(["a", "b"]) == "a, b" and some_of(list("abcdefg")) == "a, b, c, d, e and 2 more"


# Masks --------------------------------------------------------------------------------------------


def test_a_mask_with_transparency_is_read_by_its_alpha():
    where = torch.zeros(8, 8, dtype=torch.bool)
    where[2:5, 1:4] = True
    alpha = Image.fromarray((where * 255).byte().numpy())
    for name, colour in (("red", (255, 0, 0)), ("black", (0, 0, 0)), ("white", (255, 255, 255))):
        picture = Image.new("RGB", (8, 8), colour)
        picture.putalpha(alpha)
        picture.save(f"{name}.png")
        assert torch.equal(brush_mask(f"{name}.png", 8, 8), where), name
    opaque = alpha.convert("RGBA")
    opaque.save("opaque.png")
    alpha.save("grey.png")
    for name in ("opaque", "grey"):
        assert torch.equal(brush_mask(f"{name}.png", 8, 8), where), name


def test_a_mask_that_is_dark_everywhere_is_refused():
    Image.new("L", (8, 8), 1).save("ones.png")
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save("clear.png")
    with pytest.raises(
        UserError, match="the brush is nowhere: expected brightness above 127 in ones.png, got at most 1"
    ):
        brush_mask("ones.png", 8, 8)
    with pytest.raises(UserError, match="expected alpha above 127 in clear.png, got at most 0"):
        brush_mask("clear.png", 8, 8)


# Whose file is this? ------------------------------------------------------------------------------

KEPT = ROOT / "tests/models/legacy"
READERS = {
    "codes": ["decode", str(ROOT / "checkpoints/scenes-nice")],
    "directions": ["steer", "apply", GLOW],
    "history-scenes-lia": ["render", "--checkpoint", str(ROOT / "checkpoints/scenes-lia")],
}
SENTENCES = {
    "codes": "is a code file, which `flows decode` reads",
    "directions": "is a file of directions, which `flows steer apply` and `score` read",
    "history-scenes-lia": "is a record of edits, which `flows render` and the studio read",
    "record-exact": "is a record of an inversion, which `flows render` reads",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [*SENTENCES, "images", "weights"])
def test_a_file_of_another_kind_is_called_by_its_name(reader, name, capsys):
    if name == reader or (reader.startswith("history") and name.startswith("record")):
        return
    if reader == "codes" and name.startswith(("record", "history")):
        return  # their codes are read, too
    path = KEPT / f"{name}.safetensors" if name != "weights" else Path(GLOW) / "model.safetensors"
    others = {"images": "was not written by flows", "weights": "has the weights of a Glow; name its folder"}
    line = refused(capsys, *READERS[reader], path)
    assert {**SENTENCES, **others}[name] in line, line


def test_files_that_only_look_like_arrays_are_refused(capsys):
    torch.save([1, 2], "w.pt")
    torch.save(torch.zeros(1, 3071), "short.pt")
    Path("w.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
    )
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("cut.npz").write_bytes(b"PK")
    for name, sentence in {
        "w.pt": "expected a tensor or a dict of tensors, found a list",
        "short.pt": "expected codes of shape (n, 3072) in z, found (1, 3071)",
        "w.npy": "cannot be read as a NumPy file",
        "objects.npy": "cannot be read as a NumPy file",
        "cut.npz": "cannot be read as a NumPy file",
    }.items():
        line = refused(capsys, *READERS["codes"], name)
        assert name in line and sentence in line


def test_a_record_never_decides_what_is_downloaded(capsys, monkeypatch):
    from flows.editing.history import History, Start
    from flows.editing.records import save_history
    from flows.models.load import load

    model = load(str(ROOT / "checkpoints/scenes-nice"))
    codes = model.sample(1)
    start = Start(picture=model.decode_bytes(codes)[0], codes=codes, name="a")
    monkeypatch.setattr("flows.storage.places.hf_hub_download", None)
    for place, name in {"elsewhere/myglow": "elsewhere/myglow", "/home/her/secret": "secret"}.items():
        save_history("moved.safetensors", History.of(start), model, place)
        line = refused(capsys, "render", "moved.safetensors")
        assert f"names the checkpoint {name}, which is not here; give its place by --checkpoint" in line
        assert b"her" not in Path("moved.safetensors").read_bytes() or place != "/home/her/secret"


def test_a_search_without_a_generator_gives_the_same_code_twice():
    from flows.inversion import Optimise
    from flows.models.load import load

    model = load(str(ROOT / "checkpoints/scenes-dcgan"))
    images = model.decode_bytes(model.sample(1, seed=5))
    first, second = (Optimise("z", steps=2, starts=2).invert(model, images) for _ in range(2))
    assert torch.equal(first.codes.values, second.codes.values)


# Outputs ------------------------------------------------------------------------------------------

NICE = str(ROOT / "checkpoints/scenes-nice")


def test_a_device_or_pipe_is_refused_and_a_link_is_written_through(capsys):
    os.mkfifo("pipe")
    line = refused(capsys, "sample", NICE, "--n", "1", "--json", "pipe")
    assert "--json pipe: expected a regular file or a new one, found a device, pipe or socket" in line
    assert stat.S_ISFIFO(os.stat("pipe").st_mode) and not Path("samples.png").exists()
    with pytest.raises(OSError, match="expected a regular file"):
        write_atomically("pipe", lambda path: path.write_text("x"))
    Path("kept").mkdir()
    Path("kept/target.json").write_text("old")
    Path("link.json").symlink_to("kept/target.json")
    main(["sample", NICE, "--n", "1", "--json", "link.json"])
    assert Path("link.json").is_symlink() and json.loads(Path("kept/target.json").read_text())["n"] == 1
    assert sorted(path.name for path in Path("kept").iterdir()) == ["target.json"]


def test_paths_that_are_the_same_are_refused(capsys):
    Image.new("RGB", (32, 32)).save("a.png")
    before = Path("a.png").read_bytes()
    line = refused(capsys, "encode", NICE, "a.png", "--output", "./a.png")
    assert "--output a.png: an input is the same path" in line and Path("a.png").read_bytes() == before
    line = refused(capsys, "sample", NICE, "--output", "s.png", "--json", "s.png")
    assert "--output s.png: --json is the same path" in line and not Path("s.png").exists()


def test_a_picture_that_is_too_large_for_its_format_is_refused(capsys):
    Image.new("RGB", (32, 32)).save("a.png")
    given = ["sample", NICE, "--n", "64", "--zoom", "64", "--output", "x.webp"]
    assert "cannot be written as WEBP" in refused(capsys, *given) and not Path("x.webp").exists()


def test_an_earlier_run_is_cleared_only_when_everything_else_is_in_order(monkeypatch, capsys):
    import train

    config = str(ROOT / "configs/digits/glow.yaml")
    given = ["train.py", "--config", config, "--variant", "tiny", "--folder", "run", "--overwrite", "true"]
    Path("run").mkdir()
    for name in ("config.yaml", "metrics.jsonl", "model.safetensors"):
        (Path("run") / name).write_text("kept")
    for wrong in (
        ["--training.batch", "31", "--training.accumulate", "2"],
        ["--training.accumulate", "7"],
        ["--init", GLOW],
    ):
        monkeypatch.setattr("sys.argv", [*given, *wrong])
        with pytest.raises(SystemExit) as ended:
            train.main()
        assert ended.value.code == 2 and capsys.readouterr().err.splitlines()[-1].startswith("error: ")
        assert [path.read_text() for path in Path("run").iterdir()] == ["kept"] * 3


# Configs, terminals, rights -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "key", "value", "sentence"),
    [
        (["sample", NICE], "n", "null", "n: expected a whole number above 0, got null"),
        (["sample", NICE], "output", "null", "output: expected a path, got null"),
        (["steer", "apply", GLOW, DIRECTIONS], "alphas", "[]", "alphas: expected at least one value, got"),
        (["steer", "apply", GLOW, DIRECTIONS], "images", "[]", "images: expected at least one value, got"),
        (["steer", "apply", GLOW, DIRECTIONS], "alphas", "[.nan]", "alphas"),
    ],
)
def test_null_and_nothing_in_a_config_are_refused(verb, key, value, sentence, capsys):
    Path("c.yaml").write_text(f"{key}: {value}\n")
    assert sentence in refused(capsys, *verb, "--config", "c.yaml")


def test_a_reader_that_went_away_is_no_bug():
    command = [sys.executable, "-m", "flows", "sample", NICE, "--n", "1"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert done.returncode == 141 and "Traceback" not in done.stderr


def test_help_is_printed_in_any_encoding():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "flows", "sample", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Number of samples" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(capsys):
    shutil.copy(KEPT / "codes.safetensors", "codes")
    os.chmod("codes", 0)
    assert "codes: Permission denied" in refused(capsys, *READERS["codes"], "codes")


def test_precisions_are_one_per_code():
    from flows.inversion import decode_exactly
    from flows.models.load import load

    model = load(NICE)
    codes = model.sample(2)
    for wrong in ([], ["fp32"], ["fp16", "fp32"], "fp32"):
        with pytest.raises(UserError, match="precisions: expected 2 of fp32, fp64, one per code"):
            decode_exactly(model, codes, wrong)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pictures_of_more_than_eight_bits_are_refused_at_the_doors(mode):
    from flows.models.load import load

    with pytest.raises(UserError, match=f"expected 8-bit pixels, got Pillow's mode {mode}"):
        load(NICE).encode_bytes(Image.new(mode, (32, 32)))


def test_names_that_no_file_can_have_are_refused():
    for names in (["a\0b"], ["\ud800"], [""]):
        with pytest.raises(UserError, match="names: expected names of files"):
            check_names(names)
    check_names(["a.png", "über.png"])


# Nothing of this machine is published -------------------------------------------------------------


@pytest.mark.long
def test_what_is_published_names_no_folder_of_the_machine(monkeypatch, capsys):
    """A run on a folder of photographs, exported; a comparison; a record of edits."""
    import train
    from flows.editing.editor import open_editor
    from flows.editing.records import save_history

    home = Path.cwd() / "home-of-someone"
    (home / "photos").mkdir(parents=True)
    monkeypatch.chdir(home)
    for i in range(60):
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / f"photos/{i}.png")
    data = f"{{class_path: Folder, init_args: {{path: {home}/photos, size: 8}}}}"
    options = {"images": 64, "batch": 16, "validate_every": 32, "warmup": 16}
    given = ["--config", str(ROOT / "configs/folder/glow.yaml"), "--variant", "tiny", "--data", data,
             "--folder", str(home / "run"), "--model.levels", "2",
             *(f"--training.{key}={value}" for key, value in options.items())]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    train.main()
    main(["export", str(home / "run"), str(home / "published")])
    words = [
        "--inverters",
        "exact",
        "--images",
        f"user:{home}/photos",
        "--perceptual",
        "none",
        "--edits",
        "false",
    ]
    main(["compare", "--models", str(home / "run"), *words, "--out", str(home / "cmp")])
    editor = open_editor(str(home / "run"), device="cpu")
    save_history(home / "edits.safetensors", editor.sample(0), editor.model, editor.checkpoint)
    for path in [*(home / "published").rglob("*"), *(home / "cmp").rglob("*"), home / "edits.safetensors"]:
        if path.is_file() and "logs" not in path.parts:
            assert b"home-of-someone" not in path.read_bytes(), path
