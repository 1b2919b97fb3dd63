"""Outputs of all verbs: formats by suffix, pictures at their size, sheets, tables, names, interruptions."""

import inspect
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image
from rich.console import Console
from verbs import RUNS, bundled, words_of

import flows.commands.common as common
from flows import images as pixels
from flows.cli import commands, main
from flows.display import terminal
from flows.display.drawing import draw_rows, file_name, label_font, save_animation, save_picture
from flows.display.table import Table
from flows.errors import UserError
from flows.storage.files import to_json, write_atomically

DRAWING = sorted(
    verb
    for verb, function in commands().items()
    if "drawing=output" in inspect.getsource(inspect.getmodule(function))
)
"""Verbs whose --output is a picture, an animation or a folder."""


def taking(option):
    """Verbs that have an option."""
    return sorted(verb for verb, act in commands().items() if option in inspect.signature(act).parameters)


MOVING, RESIZING, LABELLED = taking("fps"), taking("resize"), taking("label")
SMALL = {
    "interpolate": ["scenes-glow", "a.png", "b.png", "--steps", "3"],
    "paint": ["scenes-glow", "--images", "a.png", "b.png", "--strokes", "erase bed", "erase lamp",
              "--exemplars", "60"],
    "sample": ["scenes-glow", "--n", "3"],
    "steer apply": ["scenes-glow", f"{bundled('scenes-glow')}/directions.safetensors", "--names", "daylight",
                    "--images", "a.png", "b.png", "--alphas", "-2", "0", "2"],
    "encode": ["scenes-glow", "a.png"],
}  # fmt: skip
"""Arguments of the verbs that draw or resize, with two pictures where they take some."""
FRAMES = {"interpolate": 3, "paint": 3, "steer apply": 3}
IMAGES = {"interpolate": 3, "paint": 2, "sample": 3, "steer apply": 6}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(name)


def run(verb, *more):
    main([*verb.split(), *words_of(SMALL[verb], 3), *more, "--device", "cpu"])


def test_every_verb_that_draws_or_resizes_has_arguments():
    assert set(SMALL) == {*DRAWING, *MOVING, *RESIZING}


# Formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", DRAWING)
def test_a_folder_gets_each_picture_at_the_size_of_the_model(verb, capsys):
    run(verb, "--output", "out")
    files = sorted(Path("out").iterdir())
    assert len(files) == IMAGES[verb] and {path.suffix for path in files} == {".png"}
    for path in files:
        with Image.open(path) as opened:
            assert opened.size == (32, 32)
    if verb == "interpolate":  # the ends are the given pictures, byte for byte
        for given, written in (("a.png", files[0]), ("b.png", files[-1])):
            assert np.array_equal(np.asarray(Image.open(given)), np.asarray(Image.open(written)))


@pytest.mark.parametrize("verb", DRAWING)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".pdf"])
def test_the_suffix_decides_the_format_and_a_lossy_one_is_called_so(verb, suffix, capsys):
    run(verb, "--output", f"x{suffix}")
    said = capsys.readouterr().out
    start = Path(f"x{suffix}").read_bytes()[:4]
    assert start.startswith(
        {".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".tiff": b"II", ".pdf": b"%PDF"}[suffix]
    )
    assert (f"{suffix} is lossy" in said) == (suffix in (".jpg", ".pdf"))


@pytest.mark.parametrize("verb", MOVING)
@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_an_animation_has_one_frame_per_step(verb, suffix, capsys):
    run(verb, "--output", f"x{suffix}", "--fps", "5")
    if suffix == ".mp4":
        assert Path("x.mp4").read_bytes()[4:8] == b"ftyp"
        assert count_frames("x.mp4") == FRAMES[verb]
        return
    with Image.open(f"x{suffix}") as opened:
        assert opened.format == suffix[1:].upper() and opened.n_frames == FRAMES[verb]
        opened.seek(1)
        opened.load()
        assert opened.info["duration"] == 200


def count_frames(path):
    import imageio_ffmpeg

    return imageio_ffmpeg.count_frames_and_secs(path)[0]


def test_frames_of_odd_sides_become_a_video_of_the_same_pixels():
    frames = [Image.new("RGB", (33, 17), colour) for colour in ("red", "blue")]
    save_animation(frames, Path("x.mp4"), 2.0)
    import imageio_ffmpeg

    read = ["-i", "x.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *read], capture_output=True, check=True)
    shown = np.frombuffer(done.stdout, np.uint8).reshape(2, 18, 34, 3).astype(int)
    assert abs(shown[0, 8, 8] - (255, 0, 0)).max() < 12 and abs(shown[1, 8, 8] - (0, 0, 255)).max() < 12


def test_a_video_without_its_package_is_refused_before_the_work(monkeypatch, capsys):
    monkeypatch.setattr("flows.display.drawing.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        run("interpolate", "--output", "x.mp4")
    assert ended.value.code == 2 and "exact-flows[video]" in capsys.readouterr().err


def test_webp_keeps_the_bytes():
    image = torch.randint(256, (3, 40, 40), dtype=torch.uint8)
    save_picture(image, Path("x.webp"))
    assert torch.equal(pixels.from_pillow(Image.open("x.webp"), 3), image)


# Sheets -------------------------------------------------------------------------------------------


def pictures(n, side):
    return torch.randint(256, (n, 3, side, side), dtype=torch.uint8)


@pytest.mark.parametrize("side", [16, 48, 64, 100, 256])
def test_a_sheet_shrinks_no_picture(side):
    given = pictures(2, side)
    sheet = pixels.from_pillow(draw_rows([("", given)]), 3)
    zoom = max(1, 64 // side)
    assert torch.equal(sheet[:, : side * zoom : zoom, : side * zoom : zoom], given[0])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 24])
@pytest.mark.parametrize(
    "name", ["input", "error × 4", "scenes-stylegan, optimise:w+:lbfgs", "a" * 200, "living_room_with_tables"]
)
def test_names_take_at_most_a_third_of_a_sheet(n, name):
    sheet = draw_rows([(name, pictures(n, 32)), ("", pictures(n, 32))])
    beside = n * 66
    assert sheet.width <= 1.5 * beside + 1
    grey = np.asarray(sheet.convert("L"))
    assert (grey[:, : sheet.width - beside] < 128).any() or sheet.width == beside


def test_the_font_has_every_sign_that_is_drawn():
    known = FT2Font(str(label_font().path)).get_charmap()
    drawn = set()
    for path in (Path(__file__).parents[2] / "flows").rglob("*.py"):
        drawn |= {letter for letter in path.read_text() if ord(letter) > 126}
    assert not {letter for letter in drawn if ord(letter) not in known}
    assert len(drawn) > 20 and "×" in drawn


def test_a_name_is_drawn_whole_over_several_lines():
    """Each word is found again in the sheet: it is wider than with the words before it alone."""
    wide = draw_rows([("one two three four five six seven eight nine ten eleven twelve", pictures(3, 32))])
    assert wide.height > 66 and np.asarray(wide.convert("L"))[:, : wide.width - 198].min() < 128


# Tables -------------------------------------------------------------------------------------------


def printed(monkeypatch, width, head, rows):
    out = io.StringIO()

    def console():
        return Console(file=out, width=width, force_terminal=width is not None, color_system=None)

    monkeypatch.setattr(terminal, "Console", console)
    Table(head, rows).print()
    return out.getvalue()


@pytest.mark.parametrize("width", [None, 200, 100, 60, 30])
def test_no_cell_of_a_table_is_cut(monkeypatch, width, capsys):
    head = ["direction", "of the model", *(f"figure {i}" for i in range(8))]
    rows = [["a very long name of a direction, with a comma", "scenes-stylegan", *["0.12345"] * 8]]
    written = printed(monkeypatch, width, head, rows)
    assert "…" not in written
    left_out = capsys.readouterr().out
    shown = [name for name in head if name not in left_out]
    letters = Counter("".join([*shown, *rows[0][: len(shown)]])) - Counter(written)
    assert not letters - Counter(" "), "every letter of every cell that is not said to be left out"
    assert bool(left_out) == (width in (100, 60, 30)) and len(shown) >= 2
    assert not left_out or "--json has all columns" in left_out


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["x" * 245, "ш" * 120, "日" * 80 + "x"])
def test_what_was_encoded_is_decoded_whatever_its_name(stem, capsys):
    name = f"{stem}.png"
    shutil.copy("a.png", name)
    main(["encode", bundled("scenes-nice"), name, "--output", "c.safetensors"])
    main(["decode", bundled("scenes-nice"), "c.safetensors", "--output", "out"])
    (written,) = Path("out").iterdir()
    assert np.array_equal(np.asarray(Image.open(written)), np.asarray(Image.open("a.png")))
    Path("in").mkdir()
    shutil.copy("a.png", f"in/{name}")
    words = ["--inverters", "exact", "--images", "user:in", "--perceptual", "none", "--edits", "false"]
    main(["compare", "--models", bundled("scenes-nice"), *words, "--out", "cmp", "--pictures", "true"])
    (record,) = Path("cmp/records").iterdir()
    main(["render", str(record), "--checkpoint", bundled("scenes-nice"), "--output", "again"])
    assert len(list(Path("again").iterdir())) == len(list(Path("cmp/pictures").rglob("*.png"))) == 1


def test_a_temporary_name_never_appears():
    long = "y" * 255
    write_atomically(long, lambda path: path.write_text("whole"))
    assert Path(long).read_text() == "whole" and set(os.listdir()) == {"a.png", "b.png", long}
    with pytest.raises(OSError) as error:
        write_atomically("z" * 300, lambda path: path.write_text("x"))
    assert error.value.filename == "z" * 300
    assert len(os.fsencode(file_name("日" * 200, ".png"))) <= 255


# Reasons ------------------------------------------------------------------------------------------


def test_a_figure_that_is_null_has_its_reason_beside_it():
    nan, inf = float("nan"), float("inf")
    value = {
        "name": "x",
        "psnr": inf,
        "each_psnr": {"a": inf, "b": 20.0},
        "ends_psnr": [1.0, inf],
        "rows": [{"name": "y", "low": nan, "high": 1.0}],
        "trace": [1.0, nan],
        "ratio": -inf,
        "plain": None,
        "count": 3,
    }
    read = json.loads(to_json(value, {"low": "too few"}))
    assert read["psnr"] is None and read["psnr_reason"] == "exact"
    assert read["each_psnr"] == {"a": None, "b": 20.0} and read["each_psnr_reason"] == {"a": "exact"}
    assert read["ends_psnr"] == [1.0, None] and read["ends_psnr_reason"] == [None, "exact"]
    assert read["rows"] == [{"name": "y", "low": None, "low_reason": "too few", "high": 1.0}]
    assert read["trace_reason"] == [None, "unknown"] and read["ratio_reason"] == "infinite"
    assert "plain_reason" not in read and "name_reason" not in read


# What was done ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", RESIZING)
def test_a_crop_is_named_with_its_new_size(verb, capsys):
    Image.new("RGB", (90, 60), (10, 200, 90)).save("a.png")
    run(verb, "--resize", "true")
    assert "the middle 60×60 of 90×60, as 32×32" in capsys.readouterr().out


def test_the_text_of_a_crop():
    text = pixels.crop_text
    assert text((32, 32), (0, 0, 32, 32), 32, 32) == ""
    assert text((64, 64), (0, 0, 64, 64), 32, 32) == "all 64×64, as 32×32"
    assert text((1024, 683), (170, 0, 853, 683), 32, 32) == "the middle 683×683 of 1024×683, as 32×32"
    assert text((100, 50), (0, 0, 50, 50), 32, 32) == "the part 50×50 of 100×50, as 32×32"


def test_checkpoints_of_one_name_get_distinct_names(capsys):
    for folder in ("one", "two"):
        shutil.copytree(bundled("scenes-nice"), f"{folder}/model")
    words = ["--inverters", "exact", "--images", "test:1", "--perceptual", "none", "--edits", "false"]
    main(["compare", "--models", "one/model", "two/model", *words, "--out", "cmp"])
    assert {row["model"] for row in json.loads(Path("cmp/table.json").read_text())["rows"]} == {
        "one/model", "two/model",
    }  # fmt: skip
    assert len(list(Path("cmp/records").iterdir())) == 2
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--models", "one/model", "./one/model", *words, "--out", "no"])
    assert ended.value.code == 2 and "--models: one checkpoint is given twice" in capsys.readouterr().err


# Interruptions ------------------------------------------------------------------------------------

WRITES = {verb: words for verb, words in RUNS.items() if words and verb not in ("export", "steer rank")}
"""Verbs with arguments that lead to a file; `export` needs a run, `steer rank` scores, the others print."""


@pytest.mark.long
@pytest.mark.parametrize("verb", WRITES)
def test_an_interruption_while_a_file_is_written_leaves_no_part_of_it(verb, monkeypatch, capsys):
    (Path.cwd() / "a.png").unlink()
    Image.new("RGB", (32, 32), (90, 60, 30)).save("a.png")

    def interrupt(_):
        raise KeyboardInterrupt

    before = {path for path in Path.cwd().rglob("*") if path.is_file()}
    monkeypatch.setattr("flows.storage.files.os.fsync", interrupt)
    n = 400 if verb in ("atlas", "steer find") else 60
    which = -1 if verb == "steer disentangle" else 0  # the first takes five minutes
    more = ["--cache", "null"] if verb == "steer find" else ["--json", "result.json"]
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), *words_of(RUNS[verb][which], n), *more])
    read = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 130 and read[-1].startswith("interrupted") and "Traceback" not in read
    assert {path for path in Path.cwd().rglob("*") if path.is_file()} == before


MODELS = ["--models", bundled("scenes-dcgan"), bundled("scenes-stylegan")]
SEARCH = ["--inverters", "optimise", "--images", "user:in", "--steps", "150", "--starts", "1", "--perceptual",
          "none", "--edits", "false", "--out"]  # fmt: skip


def interrupted_compare(*more, seconds=60, pairs=1):
    """Run `flows compare` on three searches, and interrupt it when some pairs are on disk."""
    words = [*MODELS, *SEARCH, "cmp", *more]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "compare", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + seconds
    while len(list(Path("cmp/pairs").glob("[!.]*.safetensors"))) < pairs and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_an_interrupted_comparison_keeps_its_pairs_and_goes_on(capsys):
    Path("in").mkdir()
    shutil.copy("a.png", "in/a.png")
    code, _, err = interrupted_compare()
    assert (
        code == 130
        and err.strip().startswith("interrupted; finished pairs in cmp: 1")
        and err.count("\n") == 1
    )
    (pair,) = Path("cmp/pairs").iterdir()
    (record,) = Path("cmp/records").iterdir()
    assert Path("cmp/index.html").is_file() and "scenes-dcgan" in Path("cmp/summary.md").read_text()
    made, digest = pair.stat().st_mtime_ns, record.read_bytes()
    main(["compare", *MODELS, *SEARCH, "cmp", "--resume", "true"])
    assert pair.stat().st_mtime_ns == made and record.read_bytes() == digest, (
        "the finished pair was run again"
    )
    main(["compare", *MODELS, *SEARCH, "whole"])

    def rows(folder):
        table = json.loads(Path(f"{folder}/table.json").read_text())["rows"]
        return [{key: row[key] for key in row if key != "seconds"} for row in table]

    assert rows("cmp") == rows("whole")
    # Another setting makes another result: no pair is taken.
    again = [each if each != "150" else "151" for each in SEARCH]
    main(["compare", *MODELS, *again, "cmp", "--resume", "true"])
    assert pair.stat().st_mtime_ns != made


def test_a_pair_that_was_altered_is_refused(capsys):
    Path("in").mkdir()
    shutil.copy("a.png", "in/a.png")
    words = ["--models", bundled("scenes-nice"), "--inverters", "exact", "--images", "user:in", "--out",
             "cmp", "--perceptual", "none", "--edits", "false"]  # fmt: skip
    main(["compare", *words])
    (pair,) = Path("cmp/pairs").iterdir()
    pair.write_bytes(pair.read_bytes()[:100])
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words, "--resume", "true"])
    assert ended.value.code == 2 and pair.name in capsys.readouterr().err


def test_an_interruption_of_the_imports_is_one_line():
    code = "import flows.errors as e, flows.__main__ as m, sys\nsys.modules['flows.cli'] = None\n"
    planted = (
        "import builtins; real = builtins.__import__\n"
        "def broken(name, *rest):\n"
        "    if name == 'flows.cli': raise KeyboardInterrupt\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = broken\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}{planted}m.main()"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130 and done.stderr == "interrupted\n"


def test_samples_in_a_folder_are_written_batch_by_batch(monkeypatch, capsys):
    from flows.models.base import LatentModel

    real, calls = LatentModel.decode_bytes, []

    def decode(self, codes, batch=100):
        calls.append(len(codes))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, codes, batch)

    monkeypatch.setattr(LatentModel, "decode_bytes", decode)
    with pytest.raises(SystemExit) as ended:
        main(["sample", bundled("scenes-nice"), "--n", "10", "--batch", "2", "--output", "out"])
    assert ended.value.code == 130 and len(list(Path("out").iterdir())) == 4


def test_unknown_classes_are_refused_with_the_names(capsys):
    for label in ("7", "castle", "-1"):
        with pytest.raises(SystemExit) as ended:
            main(["sample", bundled("scenes-biggan"), "--n", "2", "--label", label])
        line = capsys.readouterr().err
        assert ended.value.code == 2 and "0 … 3 or one of bedroom, living room, kitchen, church" in line


def test_every_option_label_takes_a_number_or_a_name():
    assert {"sample", "encode", "interpolate", "compare", "paint", "steer apply"} <= set(LABELLED)
    for verb in LABELLED:
        parameter = inspect.signature(commands()[verb]).parameters["label"]
        assert str(parameter.annotation) == "int | str | None", verb
    for label, name in (("2", "x.png"), ("kitchen", "y.png")):
        main(["sample", bundled("scenes-biggan"), "--n", "2", "--label", label, "--output", name])
    assert Path("x.png").read_bytes() == Path("y.png").read_bytes()
    with pytest.raises(UserError, match="not class-conditional"):
        common.option_labels(flows_model("scenes-glow"), "kitchen", 1)


def flows_model(name):
    import flows

    return flows.load(bundled(name))


# What is refused before the work ------------------------------------------------------------------


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    written = capsys.readouterr().err
    assert ended.value.code == 2 and written.count("\n") == 1, written
    return written


def test_outputs_that_would_destroy_something_are_refused(capsys):
    nice = bundled("scenes-nice")
    main(["encode", nice, "a.png", "b.png", "--output", "g.safetensors"])
    shutil.copytree(nice, "mine")
    for words, sentence in (
        (["codes", "mine", "g.safetensors", "--output", "mine/model.safetensors"], "part of a checkpoint"),
        (["codes", nice, "g.safetensors#1", "--output", "g.safetensors"], "an input is the same path"),
        (["sample", nice, "--output", "odir", "--json", "odir/0.png"], "expected a file of JSON"),
        (["sample", nice, "--output", "a1.png", "--json", "a1.png/x.json"], "--output a1.png is a file"),
        (["sample", nice, "--output", ""], "expected a name"),
        (["sample", nice, "--output", ".png"], "expected a name before the suffix"),
        (
            ["steer", "find", bundled("scenes-lia"), "--scores", "daylight", "--output", "f.png"],
            "(.safetensors)",
        ),
    ):
        assert sentence in refused(capsys, *words), words
    glow = bundled("scenes-glow")
    Image.new("L", (32, 32), 255).save("m.png")
    stroke = "draw window m.png"
    line = refused(capsys, "paint", glow, "--strokes", stroke, "--output", "m.png")
    assert "an input is the same path" in line
    if Path("/proc").is_dir():
        for place in ("/proc/x.png", "/proc/a/x.png"):
            assert "nothing can be written in /proc" in refused(capsys, "sample", nice, "--output", place)


def test_moves_and_names_that_are_close_get_a_file_each(capsys):
    name = f"{'L' * 240}.png"
    shutil.copy("a.png", name)
    given = ["steer", "apply", *words_of(SMALL["steer apply"][:4], 1)]
    main([*given, "--images", name, "--alphas", "1", "1.0000001", "2", "1", "--output", "long"])
    assert len(list(Path("long").iterdir())) == 4
    main([*given, "--images", "a.png", "b.png", "--alphas", "1", "1.0000001", "--output", "short"])
    assert {path.name for path in Path("short").iterdir()} == {
        f"{picture}-daylight-{alpha}.png" for picture in "ab" for alpha in ("+1", "+1.0000001")
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample", "scenes-glow", "--zoom", "3", "--output", "out"], "--zoom is that of a sheet"),
        (["interpolate", "scenes-glow", "a.png", "b.png", "--fps", "3"], "--fps is that of an animation"),
        (["steer apply", "--images", "a.png", "--n", "5"], "--n, --temperature and --seed are of samples"),
        (["steer apply", "--test", "2", "--seed", "5"], "--n, --temperature and --seed are of samples"),
        (["steer apply", "--images", "a.png", "--space", "z"], "--space is that of arrays in --codes"),
        (["paint", "scenes-glow", "--strokes", "erase bed", "--units", "3"], "are those of --brush units"),
        (["compare", "--models", "scenes-nice", "--inverters", "exact", "--images", "test:1", "--label", "0"],
         "--label is the class of the images of user and ood"),
        (["sample", "scenes-nice", "--output", "x.gif", "--zoom", "64", "--n", "1000"], "written as GIF"),
        (["interpolate", "scenes-nice", "a.png", "b.png", "--output", "x.jpg", "--steps", "2000"], "JPEG"),
        (["interpolate", "scenes-nice", "a.png", "b.png", "--output", "x.gif", "--fps", "0.001"], "--fps"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_refused(words, sentence, capsys):
    verb, *rest = words
    given = words_of(SMALL[verb][:4], 1) if verb == "steer apply" else []
    line = refused(capsys, *verb.split(), *given, *words_of(rest, 1))
    assert sentence in line and not list(Path.cwd().glob("x.*"))


def test_less_than_was_asked_for_is_said(capsys):
    words = ["compare", "--models", bundled("scenes-nice"), "--inverters", "exact", "--edits", "false",
             "--perceptual", "none", "--out", "cmp", "--images"]  # fmt: skip
    main([*words, "test:3"])
    assert "all are used" not in capsys.readouterr().out
    main(["encode", bundled("scenes-nice"), "a.png", "b.png", "--output", "g.npz"])
    main(["interpolate", bundled("scenes-nice"), "g.npz", "g.npz#1", "--steps", "2"])
    assert (
        "g.npz has 2 codes, of which the first is taken; g.npz#1 names the next one"
        in capsys.readouterr().out
    )
    line = refused(capsys, "interpolate", bundled("scenes-biggan"), "g.npz", "g.npz", "--label", "0")
    assert "codes of a file have their classes" in line


def test_the_rate_of_an_animation_is_that_of_its_format(capsys):
    given = ["interpolate", bundled("scenes-nice"), "a.png", "b.png", "--steps", "3"]
    main([*given, "--output", "x.gif", "--fps", "30"])
    assert "x.gif, 33.3 frames per second" in capsys.readouterr().out
    with Image.open("x.gif") as opened:
        assert opened.info["duration"] == 30


# Whose file is this? ------------------------------------------------------------------------------


def test_every_kind_of_file_in_every_place(capsys):
    nice, stylegan = bundled("scenes-nice"), bundled("scenes-stylegan")
    Path("in").mkdir()
    shutil.copy("a.png", "in/a.png")
    main(["encode", nice, "a.png", "--output", "g.safetensors"])
    words = ["--inverters", "exact", "--images", "user:in", "--perceptual", "none", "--edits", "false"]
    main(["compare", "--models", nice, *words, "--out", "cmp"])
    (pair,) = Path("cmp/pairs").iterdir()
    Path("t.txt").write_text("hello")
    for words, sentence in (
        (["decode", nice, pair], "is a finished pair of `flows compare --resume`; the record beside it"),
        (["render", pair, "--checkpoint", nice], "is a finished pair"),
        (["render", "t.txt"], "was not written by flows; expected a record"),
        (["render", "g.safetensors"], "is a code file, which `flows decode` reads; expected a record"),
        (["encode", nice, "g.safetensors"], "is a code file, which `flows decode` reads; expected a picture"),
        (["encode", nice, "in"], "in is a folder: expected a picture file"),
        (["decode", nice, "in"], "in is a folder: expected a code file"),
        (["render", "in"], "in is a folder: expected a record"),
        (["steer", "apply", stylegan, "in"], "in is a folder: expected a file of directions"),
        (["decode", nice, "/dev/null"], "/dev/null is a device, pipe or socket: expected a code file"),
        (["sample", "g.safetensors"], "g.safetensors is a file: expected the folder of a checkpoint"),
        (["sample", ""], "the name of the checkpoint is empty"),
        (["sample", "no/such.safetensors"], "there is no folder no/such.safetensors"),
    ):
        assert sentence in refused(capsys, *words), words


# Ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_work_is_one_line_and_leaves_no_temporary_file(number, code):
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "sample", bundled("scenes-nice"), "--n", "100000", "--batch", "4",
         "--output", "out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while len(list(Path("out").glob("*.png"))) < 20:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code and err.strip() in ("interrupted", "terminated")
    assert all(path.name[0] != "." for path in Path("out").iterdir())
    for path in Path("out").iterdir():
        with Image.open(path) as opened:
            opened.load()
