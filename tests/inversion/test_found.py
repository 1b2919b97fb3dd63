"""Codes that a search found, and codes of other programs, in every verb and on the page."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from verbs import bundled

import flows
from flows import images as pixels
from flows.cli import commands, main
from flows.editing.records import LONGEST, load_history, save_history
from flows.editing.sources import read_found
from flows.errors import Unsupported, UserError
from flows.inversion import Layer, Optimise, Tune, load_codes
from flows.inversion.codes import CodeFile, save_codes
from flows.inversion.found import Adaptation, adapted, blended, found_by, offset
from flows.inversion.records import ImageSource, record_of, save_record
from flows.studio.session import Studio
from flows.studio.state import View

STYLEGAN = bundled("scenes-stylegan")
DIRECTIONS = f"{STYLEGAN}/directions.safetensors"
METHODS = {
    "optimise": lambda: Optimise("w+", steps=8, starts=1),
    "noise": lambda: Optimise("w", steps=8, starts=1, noise=True),
    "layer": lambda: Layer(Optimise("w", steps=8, starts=1), steps=8),
    "tune": lambda: Tune(Optimise("w", steps=8, starts=1), steps=8),
}


@pytest.fixture(scope="module")
def stylegan():
    return flows.load(STYLEGAN)


@pytest.fixture(scope="module")
def pictures(stylegan):
    """Samples of another seed, turned upside down, so that no code gives them exactly."""
    return stylegan.decode_bytes(stylegan.sample(2, "w", 5)).flip(-2)


@pytest.fixture(scope="module")
def inversions(stylegan, pictures):
    return {name: make().invert(stylegan, pictures) for name, make in METHODS.items()}


@pytest.fixture(scope="module")
def records(stylegan, inversions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for name, found in inversions.items():
        record = record_of(found, [ImageSource("a.png"), ImageSource("b.png")], 0)
        save_record(folder / f"{name}.safetensors", record, stylegan)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Decoding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_found_code_decodes_to_its_reconstruction(name, stylegan, inversions, records):
    found = read_found(records / f"{name}.safetensors", stylegan)
    assert found.names == ["a.png", "b.png"] and found.codes.space == ("w+" if name == "optimise" else "w")
    difference = (found.decode(stylegan).int() - inversions[name].reconstruction.int()).abs()
    # Activations become offsets, whose sum differs in the last bit.
    assert difference.max() <= (1 if name == "layer" else 0)
    assert (found.decode(stylegan).int() - stylegan.decode_bytes(found.codes).int()).any() == (
        name != "optimise"
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_moved_code_keeps_what_belongs_to_it(name, stylegan, inversions, records):
    """The oracle decodes by hand: tuned weights loaded, noise given, activations offset."""
    found = read_found(records / f"{name}.safetensors", stylegan)
    step = torch.randn(found.codes.values.shape, generator=torch.Generator().manual_seed(1))
    moved = found.codes.with_values(found.codes.values + step)
    shown, inversion = found.decode_moved(stylegan, [moved])[0], inversions[name]
    with torch.no_grad():
        for i in range(2):
            values = moved.values[i : i + 1]
            if name == "tune":
                own = flows.load(STYLEGAN)
                own.load_state_dict(inversion.weights[i], strict=False)
                image = own.decode(values, moved.space)
            elif name == "noise":
                noise = [each[i : i + 1] for each in inversion.noise]
                image = stylegan.decode_with_noise(values, noise, moved.space)
            elif name == "layer":
                ((layer, value),) = inversion.activations.items()
                image = by_offset(
                    stylegan, layer, value[i : i + 1], inversion.codes.values[i : i + 1], values
                )
            else:
                image = stylegan.decode(values, moved.space)
            assert (pixels.to_bytes(image)[0].int() - shown[i].int()).abs().max() <= 1
    assert (shown != found.decode(stylegan)).any()


def by_offset(model, layer, value, before, after):
    """Decode with torch's own hook that adds the difference of a layer's activations."""
    module, kept = model.get_submodule(layer), []
    handle = module.register_forward_hook(lambda _, __, output: kept.append(output.clone()))
    model.decode(before, "w")
    handle.remove()
    handle = module.register_forward_hook(lambda _, __, output: output + (value - kept[0]))
    image = model.decode(after, "w")
    handle.remove()
    return image


def test_a_adaptation_is_blended_between_its_ends(stylegan, inversions):
    found = found_by(inversions["tune"], ["a", "b"], stylegan)
    one, other = found.adaptations
    name = next(iter(one.weights))
    half = blended(stylegan, one, other, 0.5)
    torch.testing.assert_close(half.weights[name], (one.weights[name] + other.weights[name]) / 2)
    own = blended(stylegan, one, None, 1.0)
    torch.testing.assert_close(own.weights[name], stylegan.state_dict()[name])
    assert blended(stylegan, None, None, 0.3).tensors() == {}
    with offset(stylegan, Adaptation()):
        pass
    assert adapted(stylegan, Adaptation()) is not stylegan


def test_a_adaptation_that_does_not_fit_is_refused(stylegan):
    for tensors, message in (
        ({"weights.no": torch.zeros(1)}, "weights.no: the model has no such tensor"),
        ({"noise.0": torch.zeros(1, 1, 2, 2)}, "noise: expected none or"),
        ({"noise.1": torch.zeros(1, 1, 2, 2)}, "noise: expected numbers 0 … 0, got 1"),
        ({"offsets.no": torch.zeros(1, 1, 2, 2)}, "offsets.no: the model has no such tensor"),
    ):
        with pytest.raises(UserError, match=message):
            Adaptation.of_tensors(tensors).check(stylegan)
    assert Adaptation.of_tensors({"picture": torch.zeros(1)}) is None


# Verbs --------------------------------------------------------------------------------------------


def takes_codes(verb):
    """Whether a verb reads files of codes, by the words of its help."""
    return "`FILE#2`" in inspect.getdoc(commands()[verb])


VERBS = {
    "codes": [STYLEGAN, "FILE", "--output", "out.npz"],
    "decode": [STYLEGAN, "FILE", "--output", "out"],
    "interpolate": [STYLEGAN, "FILE", "FILE#1", "--steps", "3"],
    "paint": [STYLEGAN, "--codes", "FILE", "--strokes", "erase bed", "--exemplars", "60"],
    "steer apply": [STYLEGAN, DIRECTIONS, "--names", "daylight", "--alphas", "0", "2", "--codes", "FILE"],
}


def test_every_verb_that_takes_codes_has_arguments():
    assert set(VERBS) == {verb for verb in commands() if takes_codes(verb)}
    options = {verb: set(inspect.signature(act).parameters) for verb, act in commands().items()}
    named = {verb for verb in options if {"codes", "files"} & options[verb]}
    assert named <= set(VERBS)


@pytest.mark.parametrize("kind", [*METHODS, "history", "npy", "npz", "pt", "safetensors", "plain"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_codes_of_every_kind(verb, kind, stylegan, inversions, records, tmp_path, capsys):
    if kind in METHODS:
        path = records / f"{kind}.safetensors"
    else:
        path = tmp_path / f"found.{'safetensors' if kind in ('history', 'plain') else kind}"
        codes = inversions["noise"].codes
        if kind == "history":
            editor = Studio([STYLEGAN], [], tmp_path).editor("scenes-stylegan")
            save_history(path, editor.sample(3), stylegan)
        elif kind == "plain":
            save_file({"w": codes.values}, path)
        else:
            save_codes(path, CodeFile(codes, ["a", "b"]), stylegan)
    words = [str(path) + word[4:] if word.startswith("FILE") else word for word in VERBS[verb]]
    if kind == "npy" and verb in ("codes", "decode"):
        words += ["--space", "w"]
    if kind == "history":
        words = [word.removesuffix("#1") for word in words]
    if kind == "npy" and verb not in ("codes", "decode", "interpolate"):
        with pytest.raises(SystemExit) as ended:
            main([*verb.split(), *words])
        assert "give --space z or w" in capsys.readouterr().err and ended.value.code == 2
        return
    if kind == "npy" and verb == "interpolate":
        words += ["--space", "w"]
    main([*verb.split(), *words, "--json", "r.json"])
    assert json.loads(Path("r.json").read_text())


def test_what_a_search_found_is_moved_from_its_own_picture(records, inversions, capsys):
    """The unmoved column is the reconstruction, and a move changes it as far as that of a sample."""
    path = records / "tune.safetensors"
    given = ["steer", "apply", STYLEGAN, DIRECTIONS, "--names", "daylight", "--alphas", "0", "3"]
    main([*given, "--codes", str(path), "--output", "out", "--json", "r.json"])
    still = pixels.from_pillow(Image.open("out/a-daylight-+0.png"), 3)
    assert torch.equal(still, inversions["tune"].reconstruction[0])
    changed = json.loads(Path("r.json").read_text())["mean_change"]["daylight"]
    assert changed[0] == 0 and changed[1] > 10


def test_sources_of_codes_exclude_each_other(records, capsys):
    given = ["steer", "apply", STYLEGAN, DIRECTIONS, "--names", "daylight"]
    with pytest.raises(SystemExit) as ended:
        main([*given, "--codes", str(records / "tune.safetensors"), "--test", "2"])
    assert ended.value.code == 2 and "--test and --codes exclude each other" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*given, "--codes", str(records / "tune.safetensors#7")])
    assert "the file has codes 0 … 1" in capsys.readouterr().err
    Image.new("RGB", (32, 32)).save("a.png")
    with pytest.raises(SystemExit):
        main([*given, "--images", "a.png"])
    assert "codes that `flows compare --inverters optimise` finds" in capsys.readouterr().err


# Formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt", ".npy"])
def test_an_encoded_picture_returns_bit_for_bit_from_every_format(suffix, capsys):
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels.to_pillow(image).save("a.png")
    glow = bundled("scenes-glow")
    main(["encode", glow, "a.png", "--output", f"c{suffix}"])
    assert (".npy has the values alone" in capsys.readouterr().out) == (suffix == ".npy")
    main(["decode", glow, f"c{suffix}", "--output", "out"])
    (written,) = Path("out").iterdir()
    assert torch.equal(pixels.from_pillow(Image.open(written), 3), image)


def test_the_formats_are_those_of_their_libraries(stylegan):
    codes = stylegan.sample(3, "w")
    for suffix in (".npy", ".npz", ".pt", ".safetensors"):
        save_codes(f"c{suffix}", CodeFile(codes, ["a", "b", "c"]), stylegan)
    expected = codes.values.numpy()
    assert np.array_equal(np.load("c.npy"), expected)
    assert np.array_equal(np.load("c.npz")["code"], expected)
    assert torch.equal(torch.load("c.pt", weights_only=True)["code"], codes.values)
    with safe_open("c.safetensors", framework="np") as opened:
        assert np.array_equal(opened.get_tensor("code"), expected)


def test_arrays_of_other_programs_are_read_by_their_shape(stylegan):
    w, wide = stylegan.sample(2, "w").values, stylegan.sample(2, "w+").values
    layers = len(stylegan.spaces["w+"].levels)
    np.save("w.npy", wide.reshape(2, layers, -1).double().numpy())
    assert load_codes("w.npy", stylegan).codes.space == "w+"
    np.save("one.npy", w[0].numpy())
    assert torch.equal(load_codes("one.npy", stylegan, "w").codes.values, w[:1])
    torch.save({"w": w, "loss": torch.zeros(2)}, "w.pt")
    assert load_codes("w.pt", stylegan).codes.space == "w"
    big = np.lib.format.descr_to_dtype(">f4")
    np.save("big.npy", w.numpy().astype(big))
    assert torch.equal(load_codes("big.npy", stylegan, "w").codes.values, w)
    for content, message in (
        (w, "give --space z or w"),
        (torch.zeros(2, 5), r"expected codes of shape \(n, \d+\) in z"),
        (torch.full_like(w, float("nan")), "got infinity or NaN"),
    ):
        np.save("x.npy", content.numpy())
        with pytest.raises(UserError, match=message):
            load_codes("x.npy", stylegan, "w" if "NaN" in message else None)


def test_codes_of_another_model_are_refused_in_every_format(stylegan):
    codes = stylegan.sample(1, "w")
    other = flows.load(bundled("scenes-lia"))
    for suffix in (".npz", ".pt", ".safetensors"):
        save_codes(f"c{suffix}", CodeFile(codes, ["a"]), stylegan)
        with pytest.raises(UserError, match="they cannot be used with LIA"):
            load_codes(f"c{suffix}", other)


def test_codes_are_converted_to_another_space(stylegan, capsys):
    save_codes("z.npz", CodeFile(stylegan.sample(2, "z"), ["a", "b"]), stylegan)
    main(["codes", STYLEGAN, "z.npz", "--to", "w+", "--output", "w.pt"])
    wide = load_codes("w.pt", stylegan).codes
    expected = stylegan.convert_codes(stylegan.sample(2, "z"), "w+")
    torch.testing.assert_close(wide.values, expected.values)
    with pytest.raises(SystemExit):
        main(["codes", STYLEGAN, "w.pt", "--to", "z", "--output", "back.pt"])
    assert "no map from space 'w+' to 'z'" in capsys.readouterr().err and not Path("back.pt").exists()


# The page -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """StyleGAN, Glow and LIA, of which LIA has 30 more directions, and some of one name or another space."""
    from dataclasses import replace

    from flows.steering.base import load_directions, save_directions

    folder = tmp_path_factory.mktemp("studio")
    lia = flows.load(bundled("scenes-lia"))
    known = load_directions(f"{bundled('scenes-lia')}/directions.safetensors", lia)
    more = [replace(known[0], name=f"pc{i}") for i in range(30)] + [replace(known[0], name="pc3")]
    size = lia.spaces["z"].shape[0]
    more += [replace(known[0], name="daylight", space="z", vector=torch.eye(size)[0], sigma=2.0)]
    save_directions(folder / "many.safetensors", [*known, *more])
    paths = [bundled(name) for name in ("scenes-lia", "scenes-glow", "scenes-stylegan")]
    return Studio(paths, [], folder, folder / "many.safetensors", exemplars=100)


@pytest.fixture
def room(tmp_path):
    path = tmp_path / "room.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(path)
    return str(path)


def test_every_direction_has_a_slider_on_some_page(studio):
    editor, name = studio.editor("scenes-lia"), "scenes-lia"
    assert len(editor.directions) == 44 and {"daylight (z)", "pc3 (w, 2)"} <= set(editor.directions)
    pages = [studio.slots(name, View("", page)) for page in range(1, studio.pages(name) + 1)]
    assert {slot for page in pages for slot in page if slot} == set(editor.directions)
    assert [slot for slot in studio.slots(name, View("PC2", 1)) if slot][:3] == ["pc2", "pc20", "pc21"]
    assert studio.pages(name, "no such direction") == 1 and not any(studio.slots(name, View("no such", 1)))


def moved(studio, session, view, **sigmas):
    slots = studio.slots(session.name, view)
    return studio.steer(session, [sigmas.get(slot, 0.0) for slot in slots], [], [], 0, view)


def test_a_move_stays_while_other_directions_are_shown(studio, room):
    session = studio.open("scenes-lia", room)
    first = moved(studio, session, View("pc21", 1), pc21=1.5)
    second = moved(studio, first, View("daylight", 1), **{"daylight (z)": 1.0})
    (edit,) = second.history.edits
    assert edit.settings["sigmas"]["pc21"] == 1.5 and edit.settings["sigmas"]["daylight (z)"] == 1.0
    assert "pc21 +1.5 σ, daylight (z) +1 σ" in edit.label


def test_a_direction_of_another_space_moves_by_the_map_between_them(studio, room):
    """LIA's z and w are joined by an exact map: moved in z, and mapped to w."""
    editor = studio.editor("scenes-lia")
    history, model = editor.open(Image.open(room), "room"), editor.model
    after = editor.then(history, editor.move(history, {"daylight (z)": 1.0}))
    with torch.no_grad():
        before_z, after_z = (model.values_in(each.codes, "z") for each in (history, after))
    step = (after_z - before_z)[0]
    assert step[0] == pytest.approx(2.0, abs=0.02) and step[1:].abs().max() < 0.05


def test_models_are_left_and_found_again_with_all_edits(studio, room):
    session = moved(studio, studio.open("scenes-lia", room), View("pc1", 1), pc1=2.0)
    sampled = studio.change_model("scenes-stylegan", session)
    assert sampled.history.start.upload is None and sampled.history.start.name == "sample"
    drawn = studio.sample("scenes-stylegan", 9, 1.0, None, sampled)
    flow = studio.change_model("scenes-glow", drawn)
    assert torch.equal(flow.history.start.upload, session.history.start.upload) and not flow.history.edits
    back = studio.change_model("scenes-lia", flow)
    assert torch.equal(back.history.picture, session.history.picture) and len(back.history.edits) == 1
    assert studio.change_model("scenes-stylegan", back).history.start.seed == 9
    assert studio.change_model("scenes-lia", back) is back
    fresh = studio.open("scenes-glow", room)
    assert not fresh.kept, "another upload begins again everywhere"


def test_a_code_that_optimise_found_is_edited_saved_and_mixed(studio, room, tmp_path):
    session = studio.open("scenes-glow", room)
    *_, (_, text, found) = studio.search("scenes-stylegan", session, 0.5)
    assert "done" in text
    adopted = studio.adopt(session, found)
    start = adopted.history.start
    assert adopted.name == "scenes-stylegan" and start.upload is not None and start.name == "room.png"
    assert torch.equal(adopted.history.picture, session.history.picture), "the residual is kept"
    darker = studio.steer(
        adopted, [-2.0 if slot == "daylight" else 0.0 for slot in studio.slots(adopted.name)], [], [], 0
    )
    assert (darker.history.picture != start.picture).any()
    loaded, same = studio.load("scenes-stylegan", studio.save(darker))
    assert same and torch.equal(loaded.history.picture, darker.history.picture)
    assert loaded.history.start.method.startswith("optimisation, ")
    mixed, _ = studio.mix(adopted, None, 3, False, found)
    torch.testing.assert_close(mixed.other.codes.values, start.codes.values)
    with pytest.raises(UserError, match="was found for scenes-stylegan"):
        studio.mix(session, None, 3, False, found)
    with pytest.raises(UserError, match="no code is found yet"):
        studio.adopt(session, None)
    assert torch.equal(studio.change_model("scenes-glow", adopted).history.picture, session.history.picture)


@pytest.mark.parametrize("name", METHODS)
def test_records_of_searches_are_edited_on_the_page_with_their_weights(name, studio, records, inversions):
    session, same = studio.load("scenes-stylegan", str(records / f"{name}.safetensors"), 1)
    editor, shown = studio.editor("scenes-stylegan"), inversions[name].reconstruction[1]
    assert same and (session.history.picture.int() - shown.int()).abs().max() <= 1
    after = editor.then(session.history, editor.move(session.history, {"daylight": 2.0}))
    found = read_found(records / f"{name}.safetensors", editor.model)
    values = found.codes.values[1] + after.edits[0].step[0]
    moved = found[1].codes.with_values(values[None])
    expected = found[1].decode_moved(editor.model, [moved])[0][0]
    # Without a residual, the composed picture is the decoded one.
    assert (after.picture.int() - expected.int()).abs().max() <= 1
    again, same = load_history(studio.save(session._replace(history=after)), editor.model)
    assert same and torch.equal(again.picture, after.picture)
    ablated = editor.then(after, editor.ablate(studio.layers("scenes-stylegan")[1], [0]))
    assert len(ablated.edits) == 2
    with pytest.raises(UserError, match="tune.safetensors has codes 0 … 1"):
        studio.load("scenes-stylegan", str(records / "tune.safetensors"), 2)


def test_a_record_names_the_model_that_it_belongs_to(studio, records, room, tmp_path):
    path = str(records / "tune.safetensors")
    with pytest.raises(UserError) as error:
        studio.load("scenes-glow", path)
    assert "tune.safetensors holds codes of StyleGAN" in str(error.value) and str(records) not in str(
        error.value
    )
    assert studio.owner("scenes-glow", path) == "scenes-stylegan"
    saved = studio.save(studio.open("scenes-lia", room))
    assert studio.owner("scenes-glow", saved) == "scenes-lia" and studio.owner("scenes-lia", saved) is None
    (tmp_path / "x.npy").write_bytes(b"x")
    assert studio.owner("scenes-glow", str(tmp_path / "x.npy")) is None


def test_a_record_of_any_number_of_edits_loads_whole_or_is_not_saved(studio, room, tmp_path, monkeypatch):
    from dataclasses import replace

    from flows.editing.history import Edit

    session = studio.open("scenes-glow", room)
    model = studio.editor("scenes-glow").model
    none = Edit("nothing")
    history = replace(session.history, edits=(none,) * 1200, stages=session.history.stages * 1201)
    save_history(tmp_path / "long.safetensors", history, model)
    monkeypatch.setattr("flows.editing.history.History.again", lambda self, model: self)
    loaded, _ = load_history(tmp_path / "long.safetensors", model)
    assert len(loaded.edits) == 1200
    with pytest.raises(UserError, match=f"at most {LONGEST} edits"):
        save_history(tmp_path / "x.safetensors", replace(history, edits=(none,) * (LONGEST + 1)), model)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_direction_without_a_map_to_the_code_is_unsupported(studio):
    from dataclasses import replace

    editor = studio.editor("scenes-stylegan")
    known = next(iter(editor.directions.values()))
    editor.directions["z only"] = replace(known, name="z only", space="z")
    try:
        history = editor.sample(0)
        with pytest.raises(Unsupported, match="no map to z|not linear"):
            editor.move(history, {"z only": 1.0})
    finally:
        del editor.directions["z only"]


# Odd arrays ---------------------------------------------------------------------------------------


def test_arrays_of_odd_types_are_read_or_refused_in_a_sentence(stylegan, capsys):
    w = stylegan.sample(2, "w").values
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({"w": w.to(dtype)}, "x.pt")
        read = load_codes("x.pt", stylegan).codes
        assert read.values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        main(["codes", STYLEGAN, "x.pt", "--output", "y.npy"])
        torch.testing.assert_close(torch.from_numpy(np.load("y.npy")), w.to(dtype).to(read.values.dtype))
    torch.save(w.to(torch.float8_e4m3fn), "x.pt")
    assert load_codes("x.pt", stylegan, "w").codes.values.dtype == torch.float32
    np.save("fortran.npy", np.asfortranarray(w.numpy()))
    assert torch.equal(load_codes("fortran.npy", stylegan, "w").codes.values, w)
    torch.save(w.clone().requires_grad_(), "x.pt")
    assert not load_codes("x.pt", stylegan, "w").codes.values.requires_grad
    for content, message in (
        (w.to_sparse(), "expected dense tensors"),
        (w.int(), "expected floating-point codes, code has torch.int32"),
        (w.bool(), "expected floating-point codes"),
        (torch.complex(w, w), "expected floating-point codes"),
        (torch.tensor(1.0), "expected one array of codes"),
        (w[:0], "expected codes of shape"),
    ):
        torch.save(content, "x.pt")
        with pytest.raises(UserError, match=message):
            read_found("x.pt", stylegan)


def test_the_names_of_arrays_say_their_space(stylegan):
    w, z = stylegan.sample(2, "w").values.numpy(), stylegan.sample(2, "z").values.numpy()
    np.savez("w.npz", w=w)
    assert load_codes("w.npz", stylegan).codes.space == "w"
    with pytest.raises(UserError, match="has codes of space 'w', expected 'z'"):
        load_codes("w.npz", stylegan, "z")
    np.savez("both.npz", w=w, z=z)
    with pytest.raises(UserError, match="give --space z or w"):
        load_codes("both.npz", stylegan)
    assert np.array_equal(load_codes("both.npz", stylegan, "z").codes.values, z)


def test_a_space_is_that_of_arrays_alone(stylegan, records, capsys):
    np.save("w.npy", stylegan.sample(2, "w").values.numpy())
    record = str(records / "noise.safetensors")
    main(["codes", STYLEGAN, "w.npy", record, "--space", "w", "--output", "x.npz"])
    assert len(load_codes("x.npz", stylegan).codes) == 4
    main(["interpolate", STYLEGAN, "w.npy#0", f"{record}#1", "--space", "w", "--steps", "2"])
    given = ["steer", "apply", STYLEGAN, DIRECTIONS, "--names", "daylight", "--codes", "w.npy"]
    main([*given, "--space", "w"])


def test_a_code_is_taken_by_its_number(stylegan, records):
    found = read_found(records / "tune.safetensors", stylegan)
    assert torch.equal(found[-1].decode(stylegan), found[1].decode(stylegan))
    assert found[-1].adaptations[0] is found.adaptations[1]
    with pytest.raises(IndexError):
        found[2]


def test_a_box_of_fractions_is_refused(studio, room):
    with pytest.raises(UserError, match="box: expected four whole numbers"):
        studio.editor("scenes-glow").open(Image.open(room), "room", (0.0, 0.0, 20.5, 20.5))
