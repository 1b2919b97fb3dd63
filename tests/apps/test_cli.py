"""The command line: every verb on real pictures, and one line for every mistake."""

import inspect
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from PIL import Image

import flows
from flows import images as pixels
from flows.cli import commands, find_verbs, main, make_parser
from flows.commands.completion import script
from flows.commands.groups import GroupReader
from flows.config import experiment_parser, parse_experiment
from flows.core.parser import describe
from flows.data.digits import Digits
from flows.help import FILE as WRITTEN
from flows.inversion import invert_exactly, load_codes
from flows.models.biggan import BigGAN
from flows.models.glow import Glow
from flows.models.lia import LIA

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", name="checkpoint")
def _checkpoint(tmp_path_factory) -> Path:
    """A Glow on digits with its data-dependent layers set."""
    torch.manual_seed(0)
    data = Digits()
    model = Glow(data.image_shape, data.bins, levels=2, depth=2, width=8)
    model.initialise(data.split("train").first(256).images)
    model.description = {
        "name": data.name, "bins": data.bins, "image_shape": list(data.image_shape),
        "source": {"class_path": "flows.data.digits.Digits", "init_args": {}},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("digits-glow")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(name="pictures")
def _pictures(tmp_path) -> list[Path]:
    paths = []
    for i, image in enumerate(Digits().split("test").first(3).images):
        paths.append(tmp_path / f"digit{i}.png")
        pixels.to_pillow(image).save(paths[-1])
    return paths


def run(*arguments) -> None:
    main([str(argument) for argument in arguments])


def refused(capsys, *arguments) -> str:
    """Run a command that must fail for the user's mistake; returns its one line."""
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_every_verb_is_a_file():
    assert set(commands()) == {
        "distances", "evaluate", "roundtrip", "sample", "encode", "decode", "codes", "interpolate", "compare",
        "render", "export",
        "steer find", "steer apply", "steer score", "steer disentangle", "steer levels", "steer rank",
        "dissect", "omissions", "paint", "atlas", "studio", "configs", "models", "completion", "data",
    }  # fmt: skip


def test_verbs_are_found_without_being_imported():
    for name, verb in find_verbs().items():
        assert verb.summary == inspect.getdoc(verb.load()).splitlines()[0], name


@pytest.mark.parametrize(
    ("arguments", "unused", "said"),
    [
        (["--help"], {"torch", "numpy"}, "usage: flows"),
        (["steer", "--help"], {"torch", "numpy"}, "usage: flows"),
        (["configs"], {"torch", "numpy"}, "digits/glow"),
        (["models"], {"torch", "numpy"}, "digits-glow"),
        (["completion", "bash"], {"torch", "numpy"}, "complete"),
        (["--version"], {"torch", "numpy"}, flows.__version__),
        (["sample", "--help"], {"matplotlib", "accelerate", "tensorboard", "sklearn"}, "usage: flows"),
        (["steer", "find", "--help"], {"matplotlib", "accelerate", "tensorboard"}, "usage: flows"),
    ],
)
def test_a_verb_imports_only_what_it_uses(arguments, unused, said):
    text = """
import sys
from flows.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    run = [sys.executable, "-c", text, *arguments]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert said in done.stdout and not unused & set(done.stderr.split())


@pytest.mark.parametrize("verb", sorted(commands()))
def test_help_describes_every_option(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*verb.split(), "--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    loads = {
        "steer rank": ("scores",),
        "configs": ("--show",),
        "data": ("folder", "--masks"),
        "models": ("--download",),
        "completion": ("shell",),
        "compare": ("--device", "--models"),
    }.get(verb, ("--device", "checkpoint"))
    assert "130 interrupted" in " ".join(text.split())
    result = () if verb in ("studio", "completion") else ("--json",)  # a page and a script have none
    for option in (*result, "--config", *loads):
        assert option in text


def test_the_studio_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert refused(capsys, "studio").startswith(
        'error: the studio needs gradio; run `pip install "exact-flows[studio]"`'
    )


def parse(verb: str, *arguments: str) -> dict:
    """Values of a verb's options; the checkpoint is the first argument."""
    return vars(make_parser().parse_args([verb, "checkpoint", *arguments])[verb])


def test_former_names_of_options_are_accepted_with_a_warning(tmp_path):
    (tmp_path / "old.yaml").write_text("level: 0.03\n")
    assert parse("dissect", "--share", "0.02")["share"] == 0.02
    for given, warning, share in (
        (["--level", "0.02"], "^--level is deprecated; use --share$", 0.02),
        (["--level=0.02"], "^--level is deprecated; use --share$", 0.02),
        (["--config", str(tmp_path / "old.yaml")], "^the key level is deprecated; use share$", 0.03),
    ):
        with pytest.warns(FutureWarning, match=warning):
            assert parse("dissect", *given)["share"] == share


def test_the_former_word_for_images_gives_a_warning(checkpoint):
    model = flows.load(checkpoint)
    with pytest.warns(FutureWarning, match="^--images foreign is deprecated; use --images ood$"):
        former = GroupReader({"glow": model}).read("foreign")["foreign"]
    assert torch.equal(former.images, GroupReader({"glow": model}).read("ood")["ood"].images)


def test_a_former_name_is_one_line_on_the_terminal():
    done = subprocess.run(
        [sys.executable, "-m", "flows", "dissect", "nowhere/at/all", "--level", "0.02"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    warning, error = done.stderr.strip().splitlines()
    assert warning == "warning: --level is deprecated; use --share"
    assert error.startswith("error: there is no folder") and done.returncode == 2


@pytest.mark.parametrize("word", ["null", "None", "none"])
def test_null_is_typed_as_none_too(word):
    given = parse("sample", "--temperature", word)
    assert given["temperature"] is None
    free = parse("sample", f"--device={word}", "--json", word)
    if word == "none":  # a legal name
        assert free["device"] == word and free["json"] == Path(word)
    else:
        assert free["device"] is None and free["json"] is None


def test_null_is_typed_for_lists_and_within_a_model(tmp_path, monkeypatch):
    (tmp_path / "null.yaml").write_text("device: null\n")
    config = ["--config", str(tmp_path / "mine.yaml")]
    (tmp_path / "mine.yaml").write_text("layers: [z]\n")
    assert parse("dissect", *config)["layers"] == ["z"]
    assert parse("dissect", *config, "--layers", "None")["layers"] is None
    assert parse("dissect", "--layers", "None", "--layers", "a")["layers"] == ["a"]
    assert parse("dissect", "--device", "cpu", "--config", str(tmp_path / "null.yaml"))["device"] is None
    monkeypatch.chdir(ROOT)
    _, settings = parse_experiment(
        ["--folder", "out", "--model.input_bound", "None", "--training.clip=None", "--resume", "None"]
    )
    assert settings.model.init_args.input_bound is None
    assert settings.training.clip is None and settings.resume is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("sample x --n 0", "--n: expected a whole number above 0, got 0"),
        ("sample x --n=1.5", "--n: expected a whole number above 0, got 1.5"),
        ("sample x --n None", "--n: expected a whole number above 0, got 'None'"),
        (
            "sample x --temperature abc",
            "--temperature: expected a number of at least 0, or null; got 'abc'",
        ),
        ("compare --seconds abc", "--seconds: expected a number above 0, or null; got 'abc'"),
        ("compare --seconds 0", "--seconds: expected a number above 0, or null; got 0"),
        ("compare --lr 0", "--lr: expected a number above 0, got 0"),
        ("compare --perceptual_weight -1", "--perceptual_weight: expected a number of at least 0, got -1"),
        ("compare --noise maybe", "--noise: expected true or false, got 'maybe'"),
        ("dissect x --source image",
         "--source: expected one of samples, images; got 'image'. Did you mean 'images'?"),
        ("compare --models a --images 3", "required, but not given: --inverters"),
        ("sample", "required, but not given: checkpoint"),
        ("compare --models", "--models: expected at least one value"),
        ("sample x --output", "--output: expected one value"),
        ("sample x y", "unexpected argument 'y'."),
        ("sample x --temprature 3", "there is no option --temprature. Did you mean 'temperature'?"),
        ("steer find x --method Boundry",
         "--method: there is no class named 'Boundry'. Did you mean 'Boundary'?"),
        ("steer", "expected a verb of steer: apply, disentangle, find, levels, rank, score"),
        ("steer fnd", "there is no verb 'fnd'; expected one of apply, disentangle, find, levels, rank, "
         "score. Did you mean 'find'?"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_plain_sentence(arguments, sentence, capsys):
    assert refused(capsys, *arguments.split()) == f"error: {sentence}"


def test_a_wrong_value_in_a_file_is_named_by_its_key(tmp_path, capsys):
    for text, sentence in {
        "n: 0": "n: expected a whole number above 0, got 0",
        "temperature: abc": "temperature: expected a number of at least 0, or null; got 'abc'",
        "bogus: 1": "sample: there is no option 'bogus'.",
    }.items():
        (tmp_path / "mine.yaml").write_text(text)
        line = refused(capsys, "sample", "x", "--config", tmp_path / "mine.yaml")
        assert line == f"error: {sentence}"


@pytest.mark.parametrize(
    ("kind", "short", "sentence"),
    [
        (int, "whole number", "a whole number"),
        (NonNegativeInt | None, "whole number ≥ 0, or null", "a whole number of at least 0, or null"),
        (ClosedUnitInterval, "number ≥ 0 and ≤ 1", "a number of at least 0 and at most 1"),
        (bool | None, "true or false, or null", "true or false, or null"),
        (Literal["a", 3] | None, "one of a, 3, or null", "one of a, 3, or null"),
        (Path, "path", "a path"),
        (str | None, "text, or null", "text, or null"),
        (list[PositiveInt], "list, each a whole number above 0", "a list, each a whole number above 0"),
        (tuple[float, float], "list of 2, each a number", "a list of 2, each a number"),
        (dict[str, Any], "mapping", "a mapping"),
        (Glow | None, "name of a class, or null", "the name of a class, or null"),
    ],
)
def test_types_are_described_in_plain_words(kind, short, sentence):
    assert describe(kind) == short and describe(kind, sentence=True) == sentence


RAW = r"type:|<class|Literal\[|Union|Optional\[|Positive|NonNegative|\bstr\b|\bfloat\b|\bint\b"
"""Names of types in Python, as a regular expression."""


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("compare", ["(path; default: comparison)", "(whole number > 0; default: 1)",
                     "(whole number > 0, or null; default: null)",
                     "(number > 0, or null; default: null)", "(number ≥ 0; default: 0.0)",
                     "(required; text)"]),
        ("steer find", ["(name of a class; default: Boundary; one of ", "Boundary, Displacement, ",
                        "(one of samples, images; default: samples)", "(path, or null; default: null)"]),
        ("dissect", ["(text, or null; default: null)"]),
    ],
)  # fmt: skip
def test_help_shows_types_in_plain_words(verb, words, capsys):
    with pytest.raises(SystemExit):
        run(*verb.split(), "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert [each for each in words if each not in text] == []
    assert re.search(RAW, text) is None, re.search(RAW, text)


def test_help_of_train_shows_types_in_plain_words():
    text = " ".join(experiment_parser().format_help().split())
    assert (
        "(required; path)" in text
        and "(list, each one of flip, shift, zoom, brightness; default: ())" in text
    )
    assert re.search(RAW, text) is None, re.search(RAW, text)


def test_evaluate(checkpoint, tmp_path, capsys):
    run("evaluate", checkpoint, "--iwbo", 4, "--output", tmp_path / "out", "--json", tmp_path / "e.json")
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["images"] == 200
    assert sum(result["terms"].values()) == pytest.approx(result["bits_per_dim"], abs=1e-4)
    assert result["iwbo"] < result["bits_per_dim"]
    assert 0 < result["neighbours"]["test"] < result["neighbours"]["samples"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"samples.png", "neighbours.png"}
    assert f"{result['bits_per_dim']:.4f} bits/dim" in capsys.readouterr().out


def test_roundtrip(checkpoint, tmp_path, capsys):
    run(
        "roundtrip",
        checkpoint,
        "--levels",
        "true",
        "--json",
        tmp_path / "r.json",
        "--picture",
        tmp_path / "r.png",
    )
    result = json.loads((tmp_path / "r.json").read_text())
    groups = {row["group"] for row in result["rows"]}
    assert {"test", "cat", "person", "text", "digits", "uniform noise", "black", "white"} <= groups
    assert all(row["bit_exact"] == 1.0 and row["finite"] for row in result["rows"])
    assert all(set(row["level_error"]) == {"level1", "level2"} for row in result["rows"])
    double = [row["max_error"] for row in result["rows"] if row["precision"] == "fp64"]
    assert double and max(double) < 1e-12
    assert result["certified"] == result["images"]
    assert "images are reconstructed bit for bit in fp32" in capsys.readouterr().out
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.width > 1000


def test_sample_i_is_the_same_for_every_n(checkpoint, tmp_path):
    run("sample", checkpoint, "--n", 3, "--output", tmp_path / "few", "--seed", 4)
    run("sample", checkpoint, "--n", 5, "--output", tmp_path / "many", "--seed", 4, "--batch", 2)
    for i in range(3):
        few, many = (tmp_path / name / f"{i:06d}.png" for name in ("few", "many"))
        assert few.read_bytes() == many.read_bytes()
    assert len(list((tmp_path / "many").iterdir())) == 5


def test_encode_then_decode_returns_the_files_byte_for_byte(checkpoint, pictures, tmp_path, capsys):
    codes = tmp_path / "codes.safetensors"
    run("encode", checkpoint, *pictures, "--output", codes, "--json", tmp_path / "c.json")
    certificates = json.loads((tmp_path / "c.json").read_text())["certificates"]
    assert [given["bit_exact"] for given in certificates] == [True] * 3
    run("decode", checkpoint, codes, "--output", tmp_path / "back")
    for path in pictures:
        original, back = Image.open(path), Image.open(tmp_path / "back" / path.name)
        assert original.tobytes() == back.tobytes()
    assert "bit-exact at 17 grey levels in fp32" in capsys.readouterr().out


def test_codes_of_another_model_are_refused_with_both_names(checkpoint, pictures, tmp_path, capsys):
    codes = tmp_path / "codes.safetensors"
    run("encode", checkpoint, *pictures, "--output", codes)
    other = Glow((1, 8, 8), 17, levels=1, depth=1, width=4)
    other.description = {}
    other.save_pretrained(tmp_path / "other")
    capsys.readouterr()
    line = refused(capsys, "decode", tmp_path / "other", codes, "--output", tmp_path / "back")
    assert flows.load(checkpoint).fingerprint() in line and other.fingerprint() in line
    assert not (tmp_path / "back").exists()


def test_an_image_that_fp32_misses_is_certified_in_fp64(checkpoint, tmp_path, pictures, capsys):
    """Pixels pushed to 1.5 million and back lose their bytes in fp32, where eighths remain; not in fp64."""
    model = Glow((1, 8, 8), 256, levels=1, depth=2, width=4, permutation="reverse", learned_top=False)
    first, second = (model.bijection.levels[0].steps[i].steps for i in (2, 3))
    with torch.no_grad():
        for norm, sign in ((first[0], 1), (second[0], -1)):
            norm.bias.fill_(1.5e6 * sign)
    model.description = {}
    model.save_pretrained(tmp_path / "hard")
    codes = tmp_path / "codes.safetensors"
    run("encode", tmp_path / "hard", *pictures, "--output", codes)
    assert "bit-exact in fp64" in capsys.readouterr().out
    run("decode", tmp_path / "hard", codes, "--output", tmp_path / "back")
    for path in pictures:
        assert Image.open(path).tobytes() == Image.open(tmp_path / "back" / path.name).tobytes()


@pytest.mark.parametrize("path", ["line", "sphere"])
def test_interpolation_ends_are_the_pictures(checkpoint, pictures, tmp_path, path):
    output = tmp_path / "strip.png"
    run(
        "interpolate",
        checkpoint,
        *pictures[:2],
        "--path",
        path,
        "--steps",
        5,
        "--zoom",
        1,
        "--output",
        output,
    )
    strip = Image.open(output)
    assert strip.size == (5 * 10 + 2, 12)
    for place, picture in ((2, pictures[0]), (2 + 4 * 10, pictures[1])):
        assert strip.crop((place, 2, place + 8, 10)).tobytes() == Image.open(picture).tobytes()


def test_interpolation_by_a_learned_encoder_stands_between_the_pictures(tmp_path, capsys):
    torch.manual_seed(0)
    model = LIA((3, 16, 16), size=8, channels=(8, 8, 6), encoder_channels=(6, 8, 8)).eval()
    model.description = {}
    model.save_pretrained(tmp_path / "lia")
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    for name, image in zip("ab", images, strict=True):
        pixels.to_pillow(image).save(tmp_path / f"{name}.png")
    given = [tmp_path / "lia", tmp_path / "a.png", tmp_path / "b.png", "--steps", 3, "--zoom", 1]
    run("interpolate", *given, "--output", tmp_path / "strip.png", "--json", tmp_path / "i.json")
    assert "along the line in w" in capsys.readouterr().out
    strip = pixels.from_pillow(Image.open(tmp_path / "strip.png"), 3)
    tiles = [strip[:, 2:18, 2 + 18 * i : 18 + 18 * i] for i in range(5)]
    assert torch.equal(tiles[0], images[0]) and torch.equal(tiles[4], images[1])
    with torch.no_grad():
        w = model.encode(pixels.to_unit(images), "w")
        middle = pixels.to_bytes(model.decode(w.mean(0, keepdim=True), "w"))[0]
    assert (tiles[2].int() - middle.int()).abs().max() <= 1
    assert json.loads((tmp_path / "i.json").read_text())["ends_bit_exact"] is False


def test_an_exported_run_is_half_the_size_and_reports_on_itself(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = [
        "--config",
        "configs/scenes/dcgan.yaml",
        "--variant",
        "tiny",
        "--folder",
        str(tmp_path / "run"),
    ]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    run("export", tmp_path / "run", tmp_path / "out", "--half", "true")
    published = (tmp_path / "out/config.yaml").read_text()
    assert "folder: out\n" in published and str(tmp_path) not in published
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("run", "out")]
    assert sizes[1] < 0.7 * sizes[0]
    model = flows.load(str(tmp_path / "out"))
    assert model.dtype == torch.float32
    assert all(torch.equal(value, value.half().float()) for value in model.parameters())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["fingerprint"] == model.fingerprint() != flows.load(str(tmp_path / "run")).fingerprint()
    assert not list((tmp_path / "out").glob("state-*"))
    capsys.readouterr()
    assert "holds a model already" in refused(capsys, "export", tmp_path / "run", tmp_path / "out")
    assert "expected the folder of a run" in refused(capsys, "export", tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_sphere_keeps_the_length_and_the_ends():
    from flows.editing.paths import sphere

    a, b = torch.randn(2, 1, 300, dtype=torch.float64)
    b = b * a.norm() / b.norm()
    path = sphere(a, b, torch.linspace(0, 1, 7, dtype=torch.float64)[:, None])
    assert torch.allclose(path.norm(dim=1), a.norm().expand(7))
    assert torch.allclose(path[0], a[0]) and torch.allclose(path[-1], b[0])
    angles = torch.arccos((path[1:] * path[:-1]).sum(1) / a.norm() ** 2)
    assert torch.allclose(angles, angles[0].expand(6))


# Mistakes ---------------------------------------------------------------------------------------------


def test_mistakes_of_the_user_are_one_line(checkpoint, pictures, tmp_path, capsys):
    wide = tmp_path / "wide.png"
    Image.new("L", (20, 10)).save(wide)
    line = refused(capsys, "encode", checkpoint, wide, "--output", tmp_path / "c.safetensors")
    assert "20×10 pixels, the model expects 8×8; --resize true" in line
    assert not (tmp_path / "c.safetensors").exists()
    run("encode", checkpoint, wide, "--output", tmp_path / "c.safetensors", "--resize", "true")
    capsys.readouterr()

    assert "is missing" in refused(capsys, "encode", checkpoint, tmp_path / "no.png")
    (tmp_path / "text.png").write_text("no picture")
    assert "cannot be decoded" in refused(capsys, "encode", checkpoint, tmp_path / "text.png")
    assert "there is no folder" in refused(capsys, "sample", tmp_path / "nothing")
    assert "--n: expected a whole number above 0, got 0" in refused(capsys, "sample", checkpoint, "--n", 0)
    assert "not class-conditional" in refused(
        capsys, "sample", checkpoint, "--label", 3, "--output", tmp_path
    )
    assert "is not a code file" in refused(capsys, "decode", checkpoint, tmp_path / "text.png")
    line = refused(capsys, "evaluate", checkpoint, "--data", "Fashion")
    assert "--data Fashion has images (1, 32, 32)" in line
    assert "Did you mean 'sample'?" in refused(capsys, "sampel", checkpoint)
    assert "Did you mean 'Digits'?" in refused(capsys, "evaluate", checkpoint, "--data", "Digit")
    assert "temperature" in refused(capsys, "sample", checkpoint, "--temprature", 1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.levles", "3"], "Did you mean 'levels'?"),
        (["--model", "Glw"], "there is no class named 'Glw'. Did you mean 'Glow'?"),
        (["--data", "Digitz"], "Did you mean 'Digits'?"),
        (["--training.btach", "3"], "Did you mean 'training.batch'?"),
        (["--model.scale", "two-side"], "Did you mean 'two-sided'?"),
        (["--training.batch", "0"], "--training.batch: expected a whole number above 0, got 0"),
        (["--model.levels", "many"], "levels"),
        (["--config", "no.yaml"], "does not exist"),
        (["--variant", "tinny"], "this config's variants are: tiny"),
    ],
)
def test_mistakes_in_a_config_name_the_nearest_valid_word(arguments, expected, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        parse_experiment(["--config", "configs/digits/glow.yaml", *arguments])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and expected in lines[0], lines


def test_a_misspelt_key_in_a_file_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "configs/digits/glow.yaml").read_text().replace("warmup:", "warmpu:")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SystemExit):
        parse_experiment(["--config", str(tmp_path / "mine.yaml")])
    error = capsys.readouterr().err
    assert "warmpu" in error and re.search("Did you mean '(training.)?warmup'", error)


def test_a_checkpoint_that_names_code_of_others_is_refused(checkpoint, tmp_path, capsys):
    """A config may come from a stranger: it resolves classes of this package only."""
    model = flows.load(checkpoint)
    model.description["source"] = {"class_path": "os.system", "init_args": {"command": "true"}}
    model.save_pretrained(tmp_path / "bad")
    assert "is not one of flows.data" in refused(capsys, "evaluate", tmp_path / "bad")


@pytest.mark.parametrize(
    "source",
    [
        {"class_path": "flows.data.shards.Shards", "init_args": {"test": "pipe:touch pwned"}},
        {"class_path": "flows.data.folder.open_file", "init_args": {}},
        {"class_path": "flows.data.digits.Digits", "init_args": {"unknown": 1}},
        {},
    ],
)
def test_a_stored_data_set_is_a_data_set_and_no_command(checkpoint, tmp_path, capsys, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = flows.load(checkpoint)
    model.description["source"] = source
    model.save_pretrained(tmp_path / "bad")
    assert "data set" in refused(capsys, "evaluate", tmp_path / "bad")
    assert not (tmp_path / "pwned").exists()


def test_an_altered_config_is_refused(checkpoint, tmp_path, capsys):
    model = flows.load(checkpoint)
    for key, value in {"scale": "sigmoid", "bins": 32, "depth": 3}.items():
        model.save_pretrained(tmp_path / key)
        path = tmp_path / key / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        assert "config.json" in refused(capsys, "sample", tmp_path / key)


def test_a_likelihood_that_is_not_finite_is_one_line(checkpoint, tmp_path, capsys):
    model = flows.load(checkpoint)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    model.save_pretrained(tmp_path / "nan")
    assert "the likelihood of image 0 is nan" in refused(capsys, "evaluate", tmp_path / "nan")
    assert "--device nowhere: torch cannot use it" in refused(
        capsys, "sample", checkpoint, "--device", "nowhere"
    )


def test_class_conditional_verbs(tmp_path, pictures):
    """Labels go with their images through every verb."""
    torch.manual_seed(0)
    data = Digits()
    model = Glow(data.image_shape, data.bins, levels=2, depth=1, width=8, num_classes=10)
    train = data.split("train").first(128)
    model.initialise(train.images, train.labels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.description = {"source": {"class_path": "flows.data.digits.Digits", "init_args": {}}}
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    run("evaluate", folder, "--json", tmp_path / "e.json", "--neighbours", 3)
    run("roundtrip", folder, "--json", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["certified"] == result["images"]
    run("encode", folder, *pictures, "--label", 3, "--output", tmp_path / "c.safetensors")
    run("decode", folder, tmp_path / "c.safetensors", "--output", tmp_path / "back")
    for path in pictures:
        assert Image.open(path).tobytes() == Image.open(tmp_path / "back" / path.name).tobytes()
    run("sample", folder, "--label", 3, "--n", 2, "--output", tmp_path / "s.png")


def test_verbs_without_a_label_take_the_default_of_the_model(tmp_path, pictures, capsys):
    """Inferred where the model infers labels, in turn for samples; refused only where neither is possible."""
    torch.manual_seed(0)
    model = Glow((1, 8, 8), 17, levels=2, depth=1, width=8, num_classes=10).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    images = torch.stack([pixels.from_pillow(Image.open(path), 1) for path in pictures])
    labels = model.infer_labels(images)
    run("encode", folder, *pictures, "--output", tmp_path / "c.safetensors")
    assert torch.equal(load_codes(tmp_path / "c.safetensors", model).codes.labels, labels)
    run("interpolate", folder, *pictures[:2], "--steps", 3, "--zoom", 1, "--output", tmp_path / "i.png")
    codes = invert_exactly(model, images[:2]).codes
    first, last = codes.values
    way = codes[[0, 0, 1]].with_values(torch.stack([first, (first + last) / 2, last]))
    strip = pixels.grid(model.decode_bytes(way), 3, zoom=1)
    assert torch.equal(pixels.from_pillow(Image.open(tmp_path / "i.png"), 1), strip)
    run("sample", folder, "--n", 12, "--temperature", 1, "--output", tmp_path / "s")
    wanted = model.decode_bytes(model.sample(12, labels=[*range(10), 0, 1]))
    for i, image in enumerate(wanted):
        assert torch.equal(pixels.from_pillow(Image.open(tmp_path / "s" / f"{i:06d}.png"), 1), image)
    gan = BigGAN((1, 8, 8), 10, 17, size=4, width=4, channels=(8, 8), attention=0).eval()
    gan.save_pretrained(tmp_path / "gan")
    run("sample", tmp_path / "gan", "--space", "z+c", "--n", 2, "--output", tmp_path / "any")
    for label in (1, 3):
        out = tmp_path / str(label)
        run("sample", tmp_path / "gan", "--space", "z+c", "--n", 2, "--label", label, "--output", out)
        wanted = gan.decode_bytes(gan.sample(2, "z", labels=[label] * 2))
        for i, image in enumerate(wanted):
            assert torch.equal(pixels.from_pillow(Image.open(out / f"{i:06d}.png"), 1), image)
    assert "--label: expected a class in 0 … 9, got 10" in refused(
        capsys, "sample", folder, "--label", 10, "--output", tmp_path / "no.png"
    )


def test_python_m_flows_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "flows", "sample", "nowhere/at/all"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and done.stderr.startswith("error: there is no folder")


# Help, written ahead --------------------------------------------------------------------------------

WITHOUT_PLUGINS = (
    "import flows.core.plugins as p; p.modules_of = lambda group: (); from flows import help; import json;"
)


def test_the_written_help_is_that_of_the_parsers():
    """`python -m flows.help` writes it; other versions of Python break lines elsewhere."""
    code = f"{WITHOUT_PLUGINS} print(json.dumps(help.texts()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made, written = json.loads(done.stdout), json.loads(WRITTEN.read_text())
    assert made.keys() == written.keys()
    if sys.version_info[:2] == (3, 11):
        assert made == written, "run `python -m flows.help`"
    for verb, text in made.items():
        assert set(re.findall(r"--\w+", text)) == set(re.findall(r"--\w+", written[verb])), verb


def test_the_written_completions_are_those_of_the_parsers():
    """`python -m flows.help` writes them, too."""
    code = f"{WITHOUT_PLUGINS} print(json.dumps(help.scripts()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    written = {shell: script(shell) for shell in made}
    if sys.version_info[:2] == (3, 11):
        assert made == written, "run `python -m flows.help`"
    for shell, text in made.items():
        assert set(re.findall(r"--[\w.]+", text)) == set(re.findall(r"--[\w.]+", written[shell])), shell


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("flows rou", ["roundtrip"]),
        ("flows steer di", ["disentangle"]),
        ("flows encode scenes64-g", ["scenes64-glow"]),
        ("flows encode pic", ["picture.png"]),
        ("flows train --config digits/n", ["digits/nice"]),
        ("flows train --training.memory rev", ["reversible"]),
        ("flows compare --noise t", ["true"]),
        ("flows completion z", ["zsh"]),
    ],
)
def test_bash_completes(typed, offered, tmp_path, capsys):
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "picture.png").touch()
    words = typed.split()
    code = f"""
source ./script
COMP_WORDS=({typed})
COMP_CWORD={len(words) - 1}
_shtab_flows
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered and done.stderr == ""


def test_help_is_shown_without_torch():
    code = (
        "import sys; import flows.help as h; h.entry_points = lambda: type('none', (), {'groups': []});"
        "from flows.cli import main\n"
        "try: main(['steer', 'find', '--help'])\n"
        "except SystemExit as ended: assert ended.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: flows steer find") and "--allow_import" in done.stdout
