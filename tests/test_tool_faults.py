"""What verbs said or left out wrongly, by kinds: labels of what was done, what is left out, masks."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from flows.checks import some_of
from flows.cli import main
from flows.commands.paint import brush_mask
from flows.errors import UserError

ROOT = Path(__file__).parents[1]
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
    alpha = Image.fromarray((where * 255).byte().numpy(), "L")
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

KEPT = ROOT / "tests/legacy"
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
    path = KEPT / f"{name}.safetensors" if name != "weights" else Path(GLOW) / "model.safetensors"
    others = {"images": "was not written by flows", "weights": "has the weights of a Glow; name its folder"}
    line = refused(capsys, *READERS[reader], path)
    assert {**SENTENCES, **others}[name] in line, line


def test_arrays_of_other_programs_are_no_code_files(capsys):
    torch.save(torch.zeros(1, 3072), "w.pt")
    Path("w.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
    )
    for name in ("w.pt", "w.npy"):
        assert f"{name} is not a code file" in refused(capsys, *READERS["codes"], name)


def test_a_record_never_decides_what_is_downloaded(capsys, monkeypatch):
    from flows.editing.history import History, Start
    from flows.editing.records import save_history
    from flows.models.load import load

    model = load(str(ROOT / "checkpoints/scenes-nice"))
    codes = model.sample(1)
    start = Start(picture=model.decode_bytes(codes)[0], codes=codes, name="a")
    monkeypatch.setattr("flows.stored.hf_hub_download", None)
    for name in ("elsewhere/myglow", "/nowhere/else"):
        save_history("moved.safetensors", History.of(start), model, name)
        line = refused(capsys, "render", "moved.safetensors")
        assert f"names the checkpoint {name}, which is not here; give its place by --checkpoint" in line


def test_a_search_without_a_generator_gives_the_same_code_twice():
    from flows.inversion import Optimise
    from flows.models.load import load

    model = load(str(ROOT / "checkpoints/scenes-dcgan"))
    images = model.decode_bytes(model.sample(1, seed=5))
    first, second = (Optimise("z", steps=2, starts=2).invert(model, images) for _ in range(2))
    assert torch.equal(first.codes.values, second.codes.values)
