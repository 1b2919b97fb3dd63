"""The studio: what people bring, what its buttons do, many clients at once, no file that is not theirs."""

import concurrent.futures
import io
import json
import os
import re
import shutil
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from served import serving, status

from flows import images as pixels
from flows.cli import main
from flows.data.scenes import Scenes
from flows.display.page import as_text
from flows.editing.editor import USUAL
from flows.semantics.segmenter import UNetSegmenter
from flows.studio import actions, views
from flows.studio.session import POOL, Studio, crop, mask_of_drawing
from flows.studio.uploads import LARGEST_SIDE, open_upload

SHIPPED = Path(__file__).parents[2] / "checkpoints"
MODELS = ("scenes-glow", "scenes-lia", "scenes-dcgan")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytest.importorskip("gradio", reason="needs the extra `studio`")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A picture file: a test image of scenes, enlarged, in a wider picture."""
    image = Scenes(test=2, cache=None).split("test").images[1]
    whole = Image.new("RGB", (400, 300), "#445566")
    whole.paste(pixels.to_pillow(image).resize((300, 300), Image.Resampling.NEAREST), (50, 0))
    path = tmp_path_factory.mktemp("room") / "room.png"
    whole.save(path)
    return path


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    paths = [str(SHIPPED / name) for name in (*MODELS, "scenes64-glow")]
    return Studio(paths, [], tmp_path_factory.mktemp("studio"), exemplars=150)


# Uploads ------------------------------------------------------------------------------------------


def saved(path, image, **options):
    image.save(path, **options)
    return path


def png_of(width, height):
    """The head of a PNG that says it is so large, and hardly anything behind it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_pictures_of_every_kind_are_opened(tmp_path):
    """An orange corner shows which way is up."""
    plain = Image.new("RGB", (60, 40), "#204060")
    plain.paste("#ff8800", (0, 0, 20, 20))
    rotated = plain.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6  # turn by 270 degrees counter-clockwise to see it upright
    shorter = plain.resize((30, 20))
    files = [
        saved(tmp_path / "plain.png", plain),
        saved(tmp_path / "rotated.jpg", rotated, exif=exif, quality=95),
        saved(tmp_path / "ink.jpg", plain.convert("CMYK"), quality=95),
        saved(tmp_path / "film.gif", plain, save_all=True, append_images=[shorter.resize((60, 40))]),
        saved(tmp_path / "palette.png", plain.quantize(8)),
        saved(tmp_path / "see-through.webp", plain.convert("RGBA"), lossless=True),
    ]
    for path in files:
        picture = open_upload(path)
        assert picture.mode == "RGB" and picture.size == (60, 40), path.name
        corner, far = (np.asarray(picture)[y, x].astype(int) for y, x in ((8, 8), (30, 50)))
        assert abs(corner - (255, 136, 0)).max() < 60 and abs(far - (32, 64, 96)).max() < 60, path.name
    glass = saved(tmp_path / "glass.png", Image.new("RGBA", (9, 9), (0, 0, 0, 0)))
    assert np.asarray(open_upload(glass)).min() == 255
    wide = open_upload(saved(tmp_path / "wide.jpg", Image.new("RGB", (5000, 3000))))
    assert max(wide.size) == LARGEST_SIDE


def test_what_is_no_picture_is_named_in_a_sentence(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (300, 300)).save(content, "JPEG")
    for name, data, sentence in (
        ("words.png", b"hello", "not a picture"),
        ("empty.png", b"", "not a picture"),
        ("cut.jpg", content.getvalue()[:200], "cannot be decoded"),
        ("large.png", png_of(10_000, 10_000), "10000×10000 pixels, expected at most 40 million"),
        ("bomb.png", png_of(60_000, 60_000), "cannot be decoded"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        start = time.monotonic()
        with pytest.raises(ValueError, match=re.escape(name)) as error:
            open_upload(path)
        assert sentence in str(error.value) and "\n" not in str(error.value) and time.monotonic() - start < 2
    deep = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    with pytest.raises(ValueError, match="expected 8-bit pixels"):
        open_upload(saved(tmp_path / "deep.png", deep))


def test_a_crop_stays_in_the_picture():
    wide = Image.new("RGB", (400, 300))
    assert crop(wide, (32, 32), 1.0, 0.5, 0.5) == (50, 0, 350, 300)
    assert crop(wide, (32, 32), 0.5, 0.0, 1.0) == (0, 150, 150, 300)
    assert crop(wide, (32, 32), 0.1, 1.0, 0.0) == (370, 0, 400, 30)


def test_a_brush_on_the_enlarged_picture_is_one_on_the_small():
    layer = np.zeros((384, 384, 4), np.uint8)
    layer[24:60, 120:156, 3] = 255
    mask = mask_of_drawing({"layers": [layer]}, (32, 32))
    wanted = torch.zeros(32, 32, dtype=torch.bool)
    wanted[2:5, 10:13] = True
    assert torch.equal(mask, wanted)
    assert not mask_of_drawing(None, (32, 32)).any() and not mask_of_drawing({"layers": []}, (32, 32)).any()


# Views --------------------------------------------------------------------------------------------


def test_views_show_what_they_say():
    picture = torch.arange(3 * 4 * 4, dtype=torch.uint8).reshape(3, 4, 4)
    large = pixels.from_pillow(views.enlarged(picture), 3)
    assert large.shape == (3, 384, 384) and torch.equal(large[:, ::96, ::96], picture)
    other = picture.clone()
    other[1, 2, 3] += 50
    shown, most = views.amplified_error(picture, other)
    assert most == 50 and np.asarray(shown).max() == 255 and np.asarray(shown)[200, 300] == 255
    assert np.asarray(shown)[:150].max() == 0 and views.amplified_error(picture, picture)[1] == 0
    assert views.change_summary(picture, picture) == "no pixel differs"
    assert views.change_summary(picture, other) == "6.2 % of the pixels differ"
    upload = torch.full((3, 60, 90), 200, dtype=torch.uint8)
    framed = np.asarray(views.cropped_from(upload, (30, 0, 90, 60)))
    assert framed[100, 50].max() < 120 and framed[100, 250].min() == 200

    def mark(value):
        red = np.asarray(views.gauge(value, torch.linspace(-0.02, 0.02, 99))).astype(int)
        return float(np.nonzero((red[..., 0] > 200) & (red[..., 1] < 60))[1].mean())

    assert mark(-0.08) < mark(0.0) < mark(0.08)
    assert mark(0.0) == pytest.approx(views.SIDE / 2, abs=2)


# Studio -------------------------------------------------------------------------------------------


def values(studio, name, **sigmas):
    return [sigmas.get(slot, 0.0) for slot in studio.slots(name)]


def test_every_direction_has_a_slider_in_its_group(studio):
    slots = studio.slots("scenes-glow")
    groups = studio.editor("scenes-glow").groups
    assert [each for each in slots if each] == [each for names in groups.values() for each in names[:POOL]]
    assert "daylight" in groups["attributes"] and "wall_hue cos" in groups["colour"]
    assert "yaw" in groups["layout"]


@pytest.mark.parametrize("name", ["scenes-glow", "scenes-lia"])
def test_a_strangers_path(studio, room, name):
    session = studio.open(name, str(room))
    found = actions.inverted(studio.editor(name), session.history)
    assert ("Bit-exact" in found.certificate) == (name == "scenes-glow")
    assert abs(found.typicality) < 1 and len(found.sample_typicality) == USUAL
    first = session.history.picture
    darker = studio.steer(session, values(studio, name, daylight=-1.5), [], [], 0)
    darkest = studio.steer(darker, values(studio, name, daylight=-2.5), [], [], 0)
    assert len(darkest.history.edits) == 1, "a slider that is moved on is one edit"
    assert darkest.history.picture.float().mean() < darker.history.picture.float().mean()
    seen = actions.compare_readings(studio.editor(name), first, darker.history.picture, asked=["wood"])
    assert seen[0][0].name == "wood"
    assert any(before.name == "daylight" and after.value < before.value for before, after in seen)
    layer = np.zeros((384, 384, 4), np.uint8)
    layer[150:300, 250:370, 3] = 255
    painted = studio.paint(darker, {"layers": [layer]}, "plant", "draw", 1.0)
    assert "units" in actions.units_touched(painted.history) and actions.sliders_of(painted.history) == {}
    again = studio.steer(painted, values(studio, name, wood=1.0), [], [], 0)
    assert [edit.label for edit in again.history.edits] == ["daylight -1.5 σ", "draw plant", "wood +1 σ"]
    assert torch.equal(studio.undo(studio.undo(again)).history.picture, darker.history.picture)
    assert torch.equal(studio.reset(again).history.picture, first)
    loaded, same = studio.load(name, studio.save(again))
    assert same and torch.equal(loaded.history.picture, again.history.picture)
    assert actions.sliders_of(loaded.history)["wood"] == 1.0
    with Image.open(studio.picture_file(again)) as opened:
        assert opened.size == (400, 300) and opened.getpixel((10, 10)) == (0x44, 0x55, 0x66)
    other = "scenes-lia" if name == "scenes-glow" else "scenes-glow"
    with pytest.raises(ValueError, match="edits of .+ they cannot be used with"):
        studio.load(other, studio.save(again))
    elsewhere = studio.change_model(other, again)
    assert elsewhere.name == other and torch.equal(elsewhere.history.picture, first)


def test_a_picture_of_64_pixels_is_read_and_painted_on(studio, room):
    """The semantic models are those of its size; models of other sizes are not offered for comparison."""
    session = studio.open("scenes64-glow", str(room))
    editor, first = studio.editor("scenes64-glow"), session.history.picture
    assert first.shape == (3, 64, 64) and studio.alike("scenes64-glow") == ["scenes64-glow"]
    assert studio.alike("scenes-glow") == [*MODELS]
    layer = np.zeros((384, 384, 4), np.uint8)
    layer[150:300, 250:370, 3] = 255
    painted = studio.paint(session, {"layers": [layer]}, "plant", "draw", 1.0).history.picture
    plant = editor.segmenter.classes.index("plant")
    seen = editor.segmenter.segment(pixels.to_unit(torch.stack([first, painted])))[:, plant, 25:50, 42:62]
    assert seen[1].sum() > seen[0].sum() + 100
    assert torch.equal(first[:, :20], painted[:, :20])
    seen = {
        one.name: (one.value, two.value) for one, two in actions.compare_readings(editor, first, painted, 99)
    }
    assert seen["plant"][1] > 0.5 and abs(seen["daylight"][0] - seen["daylight"][1]) < 0.2


def test_semantic_models_of_another_data_set_are_taken_where_they_are_named(tmp_path):
    """A predictor of rooms does not apply to clothes unless the user names it."""
    rooms = UNetSegmenter((1, 32, 32), ["wall"])
    rooms.description = {"name": "scenes"}
    paths = [str(SHIPPED / "fashion-glow")]
    assert Studio(paths, [], tmp_path).editor("fashion-glow").segmenter is None
    assert Studio(paths, [rooms], tmp_path).editor("fashion-glow").segmenter is rooms


def test_mixing_and_sampling(studio, room):
    editor = studio.editor("scenes-lia")
    session = studio.open("scenes-lia", str(room))
    session, sheet = studio.mix(session, None, 4, True)
    assert sheet.width >= 7 * 96
    way = actions.interpolate_histories(editor, session.history, session.other, steps=5)
    assert torch.equal(way[0], session.history.picture) and torch.equal(way[-1], editor.sample(4).picture)
    arrived = studio.take_share(session, 1.0, [])
    torch.testing.assert_close(arrived.history.codes.values, session.other.codes.values)
    samples = studio.samples("scenes-lia", 3, 1.0)
    assert samples[1][1] == "seed 4"
    shown = pixels.from_pillow(samples[1][0], 3)[:, ::4, ::4]
    assert torch.equal(shown, editor.sample(4).picture)
    train = Scenes(images=3, cache=None).split("train").images[2]
    found, apart = actions.nearest_training_image(editor, train)
    assert torch.equal(found, train) and apart == 0


def test_a_search_goes_on_and_ends_when_it_is_left(studio, room, monkeypatch):
    """Better with time, from the mean of the space; closed, it leaves no thread behind."""
    picture = studio.open("scenes-glow", str(room)).history.picture
    editor = studio.editor("scenes-dcgan")
    steps = list(actions.search(editor, picture, 1.5, every=0.2))
    assert steps[-1].found and len(steps) > 3 and steps[-1].psnr > steps[0].psnr + 2
    assert not any(step.found for step in steps[:-1])
    monkeypatch.setattr(actions, "LEFT", 1.0)
    for leave in (lambda search: search.close(), lambda search: None):
        going = actions.search(editor, picture, 60, every=0.1)
        next(going)
        before = threading.active_count()
        leave(going)
        end = time.monotonic() + 10
        while threading.active_count() >= before and time.monotonic() < end:
            time.sleep(0.05)
        assert threading.active_count() < before, "the search goes on, and nobody looks"


def test_a_picture_is_compared_by_all_models(studio, room, tmp_path):
    """The figures of `flows compare` on the same picture; a model that cannot is a line that says why."""
    session = studio.open("scenes-glow", str(room))
    *_, (table, grid) = studio.compare(["scenes-glow", "scenes-lia", "scenes-dcgan"], session, 0.5)
    glow, lia, dcgan = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.split("\n")[2:])
    assert glow[:4] == ["scenes-glow", "inverse", "∞", "1"] and glow[5] == "yes"
    assert lia[1] == "encoder" and lia[5] == "no" and dcgan[1] == "optimisation" and dcgan[6] == "–"
    assert grid.height == 20 + 2 * 130 and grid.width == 4 * 130
    folder = tmp_path / "one"
    folder.mkdir()
    pixels.to_pillow(session.history.start.picture).save(folder / "room.png")
    command = ["compare", "--models", str(SHIPPED / "scenes-lia"), "--inverters", "encoder", "--images"]
    main([*command, f"user:{folder}", "--out", str(tmp_path / "out")])
    row = json.loads((tmp_path / "out" / "table.json").read_text())["rows"][0]
    names = [*actions.COMPARED][:-1]  # seconds are another run's
    assert lia[2:-1] == ["no" if name == "bit_exact" else as_text(row[name], 3) for name in names]
    small = torch.zeros(3, 8, 8, dtype=torch.uint8)
    (refused,) = actions.compare_on_model(studio.editor("scenes-glow"), small, 1)
    assert "expects pictures of 32×32 pixels, this one has 8×8" in actions.compared_table([refused])


def test_looking_inside(studio, monkeypatch):
    monkeypatch.setattr(actions, "SEEN", 100)
    monkeypatch.setattr(actions, "COUNTED", 100)
    layer = studio.layers("scenes-dcgan")[1]
    shown, names = studio.units("scenes-dcgan", layer)
    assert len({name.split(" ", 1)[1] for name in names}) > 3, "units of several classes"
    assert len(names) == 6 and len(shown) == 24 and re.fullmatch(r"\d+ \(.+\)", names[0])
    session = studio.sample("scenes-dcgan", 0, 1.0)
    off = studio.ablate(session, layer, names[:2])
    assert off.history.edits[0].label.startswith(f"off: {layer} {names[0].split()[0]}, ")
    rows = actions.missing_classes(studio.editor("scenes-dcgan"))
    assert {"wall", "window", "banner"} <= {label for label, _, _ in rows}
    assert 10 < {label: real for label, real, _ in rows}["wall"] < 60
    for act, message in (
        (lambda: studio.ablate(session, layer, []), "no unit is chosen"),
        (lambda: studio.undo(None), "there is no picture yet"),
        (lambda: studio.open("scenes-glow", None), "there is no picture yet"),
        (lambda: studio.editor("scenes-none"), "no model 'scenes-none' here; there are scenes-glow"),
        (lambda: studio.samples("scenes-dcgan", -1, 1.0), "expected a whole number"),
        (lambda: studio.samples("scenes-dcgan", None, 1.0), "expected a whole number"),
        (lambda: studio.take_share(session, 1.0, []), "no second picture yet"),
        (lambda: studio.crop_again("scenes-dcgan", session, 1, 0, 0), "a sample cannot be cropped"),
    ):
        with pytest.raises(ValueError, match=message):
            act()


# Served -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address():
    names = [str(SHIPPED / name) for name in MODELS]
    with serving("--checkpoint", *names, "--exemplars", "150") as (found, process):
        yield found
        # Tests before this are some 25 visitors, each with pictures, codes and edits of their own.
        assert memory(process.pid) < 2500, "megabytes"


def memory(pid):
    """Megabytes that a process holds."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        pytest.skip("memory is measured on Linux only")
    return int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) / 1024


@pytest.mark.long
@pytest.mark.browser
def test_twenty_clients_at_once(address, room, studio):
    """Every move of everybody's slider is answered with a picture of their own."""
    from gradio_client import Client, handle_file

    index = studio.slots("scenes-glow").index("daylight")
    count = len(studio.slots("scenes-glow"))

    def visit(number):
        client = Client(address, verbose=False)
        client.predict("scenes-glow", handle_file(room), api_name="/open")
        answers = []
        for move in range(20):
            sigmas = [0.0] * count
            sigmas[index] = round(-2 + 0.1 * move + 0.005 * number, 3)
            answer = client.predict([], [], 0, *sigmas, api_name="/steer")
            answers.append((f"{sigmas[index]:+.3g} σ", answer[1], Path(answer[0][1]).stat().st_size))
        client.close()
        return answers

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        found = list(pool.map(visit, range(20)))
    answers = [answer for some in found for answer in some]
    assert len(answers) == 400
    for wanted, caption, size in answers:
        assert f"daylight {wanted}" in caption or wanted == "+0 σ", (wanted, caption)
        assert size > 300


@pytest.mark.browser
def test_mistakes_are_sentences_and_the_server_lives(address, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False)
    (tmp_path / "words.png").write_text("hello")
    (tmp_path / "large.png").write_bytes(png_of(10_000, 10_000))
    (tmp_path / "r.safetensors").write_text("hello")
    for name, inputs, sentence in (
        ("/undo", (), "there is no picture yet"),
        ("/open", ("scenes-glow", handle_file(tmp_path / "words.png")), "not a picture"),
        ("/open", ("scenes-glow", handle_file(tmp_path / "large.png")), "at most 40 million"),
        ("/open", ("scenes-glow", None), "there is no picture yet"),
        ("/load", ("scenes-glow", handle_file(tmp_path / "r.safetensors")), "was cut off"),
    ):
        with pytest.raises(AppError, match=sentence) as error:
            client.predict(*inputs, api_name=name)
        assert "Traceback" not in str(error.value) and "\n" not in str(error.value)
    for path in ("/etc/passwd", str(SHIPPED / "scenes-glow" / "model.safetensors"), str(Path(__file__))):
        assert status(f"{address}/gradio_api/file={path}") in (403, 404)
    assert status(address) == 200


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.parametrize("name", ["scenes-glow", "scenes-lia"])
def test_the_walk_in_a_browser(address, room, tmp_path, name):
    """Upload, certificate, slider, brush, undo, download, and the record again; in headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `dev`")
    if CHROMIUM is None:
        assert not os.environ.get("FLOWS_REQUIRE_ALL"), "chromium is missing: apt install chromium"
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1200})
        page.set_default_timeout(60_000)
        hosts, broken = set(), []
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: broken.append(str(error)))
        walk(page, address, room, tmp_path, name)
        assert hosts == {address.removeprefix("http://")}, "a request left the machine"
        assert broken == []
        browser.close()


def says(page, where, text, yes=True):
    """Wait until an element has a text, or has it no more."""
    page.wait_for_function(
        "([where, text, yes]) => (document.querySelector(where)?.innerText ?? '').includes(text) === yes",
        arg=[where, text, yes],
    )


def after(page):
    """The edited picture on the page, as small as the model draws it."""
    source = page.locator("#now img").nth(1).get_attribute("src")
    with urllib.request.urlopen(source) as answer:
        image = Image.open(io.BytesIO(answer.read())).convert("RGB")
    return pixels.from_pillow(image, 3)[:, 6::12, 6::12]


def choose(page, field, option):
    page.click(f"{field} input")
    page.get_by_role("option", name=option, exact=True).click()


def arrive(page, address, name):
    page.goto(address)
    page.wait_for_selector("#examples img")
    if name != "scenes-glow":
        choose(page, "#model", name)
        says(page, "#status", "sample")


def brush(page):
    """A stroke at the right, applied; again where it came before the canvas was there.

    Without a graphics card the editor takes seconds to lay out its canvas, and forgets what it had.
    """
    for _ in range(4):
        page.wait_for_timeout(1500)
        says(page, "#editor", "processing", False)
        canvas = page.locator("#editor canvas").last.bounding_box()
        x, y = canvas["x"] + canvas["width"] / 2 + 100, canvas["y"] + canvas["height"] / 2 + 20
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 20, y + 40)
        page.mouse.move(x, y + 90)
        page.mouse.up()
        page.wait_for_timeout(1500)
        page.click("#apply")
        page.wait_for_function(
            "() => document.querySelector('#status').innerText.includes('draw plant')"
            " || document.body.innerText.includes('nothing is painted yet')"
        )
        if "draw plant" in page.inner_text("#status"):
            return
    raise AssertionError("no stroke arrived in four attempts")


def walk(page, address, room, folder, name):
    arrive(page, address, name)
    page.set_input_files("#upload input[type=file]", str(room))
    says(page, "#status", "room.png")
    says(page, "#certificate", "Bit-exact" if name == "scenes-glow" else "not exact")
    first = after(page)

    page.click("#search")
    says(page, "#progress", "dB after")
    page.click("#stop")
    page.wait_for_timeout(1500)
    stood = page.inner_text("#progress")
    page.wait_for_timeout(1500)
    assert page.inner_text("#progress") == stood and "done" not in stood

    page.get_by_role("tab", name="Steer").click()
    slider = page.get_by_label("number input for daylight")
    slider.fill("-1.5")
    slider.press("Enter")
    says(page, "#status", "daylight -1.5 σ")
    page.wait_for_timeout(500)
    dark = after(page)
    assert dark.float().mean() < 0.85 * first.float().mean()

    page.get_by_role("tab", name="Paint").click()
    choose(page, "#label", "plant")
    brush(page)
    says(page, "#touched", "units")
    page.wait_for_timeout(500)
    planted = after(page)
    changed = (planted != dark).any(0)
    assert changed[:, 16:].any() and not changed[:, :12].any(), "only under the brush, at the right"

    with page.expect_download() as record:
        page.click("#keep")
    record.value.save_as(folder / "record.safetensors")
    with page.expect_download() as picture:
        page.click("#take")
    picture.value.save_as(folder / "picture.png")
    with Image.open(folder / "picture.png") as opened:
        assert opened.size == (400, 300)

    page.click("#undo")
    says(page, "#status", "plant", False)
    page.wait_for_timeout(500)
    assert torch.equal(after(page), dark), "undo returns the very bytes"
    page.click("#undo")
    says(page, "#status", "no pixel differs")
    page.wait_for_timeout(500)
    assert torch.equal(after(page), first)

    arrive(page, address, name)
    page.set_input_files("#record input[type=file]", str(folder / "record.safetensors"))
    says(page, "#status", "draw plant")
    page.wait_for_timeout(500)
    assert torch.equal(after(page), planted), "a record gives the same bytes again"


# Address ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "99999"], "--port: expected a number in 1 … 65535, got 99999"),
        (["--host", "256.1.1.1"], "--host 256.1.1.1: there is no such address"),
        (["--host", "nosuchhost.invalid"], "--host nosuchhost.invalid: there is no such address"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1: expected an address of this machine"),
        (["--root_path", "flows"], "--root_path: expected a path that begins with /, got 'flows'"),
    ],
)
def test_an_address_that_cannot_be_used_ends_before_a_model_is_opened(options, sentence, monkeypatch, capsys):
    monkeypatch.setattr("flows.opening.with_tools", None)
    start = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main(["studio", *options])
    written = capsys.readouterr().err
    assert ended.value.code == 2 and written.startswith(f"error: {sentence}") and written.count("\n") == 1
    assert time.monotonic() - start < 5


def test_a_port_that_is_taken_is_refused_and_the_next_one_is_found(monkeypatch):
    from flows.errors import UserError
    from flows.studio import address

    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        first.listen()
        taken = first.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {taken} of 127.0.0.1: it is taken"):
            address.choose_port("127.0.0.1", taken)
        monkeypatch.setattr(address, "FIRST_PORT", taken)
        assert taken < address.choose_port("localhost", None) < taken + address.PORTS
        monkeypatch.setattr(address, "PORTS", 1)
        with pytest.raises(UserError, match="--port: all of"):
            address.choose_port("127.0.0.1", None)
    assert address.choose_port("127.0.0.1", taken) == taken


# All models, found codes, failures ----------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Directions of LIA: its own, thirty more, and one of z."""
    from dataclasses import replace

    import flows
    from flows.steering.base import load_directions, save_directions

    model = flows.load(SHIPPED / "scenes-lia")
    known = load_directions(SHIPPED / "scenes-lia/directions.safetensors", model)
    more = [replace(known[0], name=f"pc{i}") for i in range(30)]
    of_z = torch.eye(model.spaces["z"].shape[0])[0]
    more.append(replace(known[0], name="daylight", space="z", vector=of_z, sigma=2.0))
    path = tmp_path_factory.mktemp("many") / "many.safetensors"
    save_directions(path, [*known, *more])
    return path


@pytest.mark.long
@pytest.mark.browser
def test_nothing_that_a_visitor_made_is_lost(room, many, tmp_path):
    """Directions by search, models left and found again, found codes, records of other models, failures."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `dev`")
    if CHROMIUM is None:
        assert not os.environ.get("FLOWS_REQUIRE_ALL"), "chromium is missing: apt install chromium"
        pytest.skip("needs chromium")
    names = [str(SHIPPED / name) for name in ("scenes-lia", "scenes-glow", "scenes-stylegan", "fashion-glow")]
    with (
        serving("--checkpoint", *names, "--directions", str(many), "--exemplars", "100") as (address, _),
        playwright.sync_playwright() as p,
    ):
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(60_000)
        broken = []
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#examples img")
        page.set_input_files("#upload input[type=file]", str(room))
        says(page, "#status", "the middle 300×300 of 400×300, as 32×32")
        wander(page, tmp_path)
        assert broken == []
        browser.close()


def find(page, words):
    field = page.locator("#find textarea, #find input")
    field.fill("")
    field.press_sequentially(words)
    page.wait_for_timeout(1500)  # every letter is answered, and a person looks before moving a slider


def move(page, name, sigmas):
    slider = page.get_by_label(f"number input for {name}", exact=True)
    slider.fill(str(sigmas))
    slider.press("Enter")
    says(page, "#status", f"{name} {sigmas:+.3g} σ")


def wander(page, folder):
    page.get_by_role("tab", name="Steer").click()
    says(page, "#directions", "21 of 43 directions are shown")
    find(page, "pc2")
    page.get_by_label("number input for pc21", exact=True).wait_for()
    move(page, "pc21", 1.5)
    find(page, "daylight")
    says(page, "#directions", "2 of 43")
    move(page, "daylight (z)", 1)
    edited = "pc21 +1.5 σ, daylight (z) +1 σ"
    says(page, "#status", edited)
    moved = after(page)

    choose(page, "#model", "scenes-stylegan")
    says(page, "#status", "sample · not edited")
    choose(page, "#model", "scenes-lia")
    says(page, "#status", edited)
    page.wait_for_timeout(500)
    assert torch.equal(after(page), moved), "the edits are as they were left"
    with page.expect_download() as record:
        page.click("#keep")
    record.value.save_as(folder / "record.safetensors")

    page.get_by_role("tab", name="Invert").click()
    choose(page, "#other_model", "scenes-stylegan")
    page.click("#search")
    says(page, "#progress", "dB after")
    page.click("#stop")
    page.click("#adopt")
    says(page, "#certificate", "Code by optimisation")
    says(page, "#status", "room.png")
    page.get_by_role("tab", name="Steer").click()
    move(page, "daylight", -2)

    choose(page, "#model", "scenes-glow")
    says(page, "#status", "not edited")
    page.set_input_files("#record input[type=file]", str(folder / "record.safetensors"))
    page.wait_for_selector("#switch")
    assert page.inner_text("#switch") == "Open the record with scenes-lia"
    page.click("#switch")
    says(page, "#status", edited)
    assert page.input_value("#model input") == "scenes-lia"

    # A failure covers neither the picture nor the tabs.
    page.get_by_role("tab", name="Look inside").click()
    page.get_by_role("button", name="Ablate").click()
    page.wait_for_selector(".toast-wrap >> text=no unit is chosen")
    toast, tabs = page.locator(".toast-wrap").bounding_box(), page.get_by_role("tab").first.bounding_box()
    assert toast["y"] > tabs["y"] + tabs["height"]
    page.wait_for_timeout(500)
    assert page.locator("#now img").nth(1).is_visible() and torch.equal(after(page), moved)
    assert not any(each.is_visible() for each in page.locator(".wrap > .error").all())

    # What cannot work is hidden, and the way to it is named.
    choose(page, "#model", "fashion-glow")
    page.wait_for_selector("text=need a segmenter")
    page.get_by_role("tab", name="Paint").wait_for(state="hidden")
    tabs = [each.inner_text() for each in page.get_by_role("tab").all() if each.is_visible()]
    assert "Paint" not in tabs and "Look inside" not in tabs and "Steer" in tabs
