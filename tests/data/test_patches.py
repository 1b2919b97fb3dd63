"""Patches: where each was cut is read back from pixels that encode their coordinates."""

import csv
import itertools
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.config import parse_experiment
from flows.core.numerics import splitmix
from flows.data import patches as module
from flows.data.base import SPLITS, UNLABELLED
from flows.data.folder import Folder
from flows.data.folds import folds_of
from flows.data.patches import Patches, Recent, shrunk
from flows.errors import UserError
from flows.training.loader import loaded_batches

SIZES = [(40, 56), (33, 90), (64, 64), (48, 37)]
"""Heights and widths of pictures, in turn."""
N = 24
SHARES = {"validation": 0.2, "test": 0.2}


def coordinates(number: int, height: int, width: int) -> np.ndarray:
    """Picture whose red is the column, green the row, and blue the number of the picture."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.full_like(rows, number)], -1).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "set"
    for i in range(N):
        place = folder / ("even" if i % 2 == 0 else "odd") / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coordinates(i, *SIZES[i % 4])).save(place)
    return folder


def places_of(images: torch.Tensor) -> list[tuple[int, int, int]]:
    """Number of the picture, row and column of the top left pixel; asserts that each is one patch of one."""
    found = []
    for image in images.int():
        left, top, number = image[:, 0, 0].tolist()
        rows, columns = torch.meshgrid(*map(torch.arange, image.shape[1:]), indexing="ij")
        assert torch.equal(image, torch.stack([columns + left, rows + top, torch.full_like(rows, number)]))
        found.append((number, top, left))
    return found


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("size", [16, (8, 20)])
def test_held_out_patches_are_the_grid_and_training_patches_lie_anywhere(pictures, size, in_memory):
    data = Patches(pictures, size, None, positions=5, in_memory=in_memory, **SHARES)
    height, width = (size, size) if isinstance(size, int) else size
    assert data.image_shape == (3, height, width)
    pictures_of, grid_patches = {}, {}
    for name in SPLITS:
        batch = data.split(name).first(None)
        assert batch.images.dtype == torch.uint8 and batch.keys.tolist() == list(range(len(batch.keys)))
        places = places_of(batch.images)
        numbers = {number for number, _, _ in places}
        assert batch.labels.tolist() == [number % 2 for number, _, _ in places]
        pictures_of[name] = numbers
        grid_patches[name] = sum((SIZES[n % 4][0] // height) * (SIZES[n % 4][1] // width) for n in numbers)
        if name == "train":
            assert len(places) == 5 * grid_patches[name] == data.training_images
            assert any(top % height and left % width for _, top, left in places)
            assert all(
                top + height <= SIZES[n % 4][0] and left + width <= SIZES[n % 4][1] for n, top, left in places
            )
        else:
            assert len(set(places)) == len(places) == grid_patches[name]
            assert all(top % height == 0 and left % width == 0 for _, top, left in places)
            assert places != sorted(places)  # the order is that of a hash of patches, not of pictures
            changes = sum(one[0] != other[0] for one, other in itertools.pairwise(places))
            assert changes > 2 * len(numbers)
    # No picture, and so no pixel, is in two splits; and they are the splits of the whole pictures.
    assert sum(len(numbers) for numbers in pictures_of.values()) == N == len(set.union(*pictures_of.values()))
    whole = Folder(pictures, 8, **SHARES)
    for name in SPLITS:
        assert pictures_of[name] == {int(Path(file).stem) for file in whole.split(name).names}


def test_training_patches_are_uniform_over_pictures_by_area_and_over_places(pictures):
    size, positions = 32, 1500
    data = Patches(pictures, size, None, positions=positions, **SHARES)
    split = data.split("train")
    rows, corners = split.places.of(torch.arange(len(split)))
    areas = torch.tensor([float(h * w) for h, w in split.places.free.tolist()])
    whole = torch.tensor([float(np.prod(SIZES[int(Path(name).stem) % 4])) for name in split.pictures])
    expected = len(split) * whole / whole.sum()
    counts = rows.bincount(minlength=len(whole))
    chi = float(((counts - expected) ** 2 / expected).sum())
    free = len(whole) - 1
    assert abs(chi - free) < 5 * (2 * free) ** 0.5, "pictures in proportion to their areas"
    for row in range(len(whole)):
        height, width = split.places.free[row].tolist()
        own = corners[rows == row]
        cells = (own[:, 0] * width + own[:, 1]).bincount(minlength=height * width).double()
        assert len(cells) == areas[row]
        mean = len(own) / len(cells)
        chi, free = float(((cells - mean) ** 2 / mean).sum()), max(1, len(cells) - 1)
        assert abs(chi - free) < 5 * (2 * free) ** 0.5, split.pictures[row]


def test_splitmix_is_that_of_its_authors():
    """First numbers of the sequence with seed 1234567, as published with the authors' code."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix(np.array(1234567, dtype=np.uint64), np.arange(4, dtype=np.uint64)).tolist() == known


@pytest.mark.long
def test_a_patch_is_the_same_in_another_process_and_in_any_batch(pictures):
    code = (
        "import sys, torch; from flows.data.patches import Patches\n"
        "split = Patches(sys.argv[1], 16, None, in_memory=False).split('train')\n"
        "batch = split[77]; print(split.digest(), split.name_of(77), batch.images.flatten().tolist())"
    )
    command = [sys.executable, "-c", code, str(pictures)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    split = Patches(pictures, 16, None, in_memory=False).split("train")
    batch = split.__getitems__([3, 77, 200])
    assert printed == f"{split.digest()} {split.name_of(77)} {batch.images[1].flatten().tolist()}"
    (number, top, left), *_ = places_of(batch.images[1:2])
    assert split.name_of(77) == f"{'odd' if number % 2 else 'even'}/{number:02d}.png at {left},{top}"
    again = Patches(pictures, 16, None, in_memory=True).split("train")
    assert torch.equal(again.__getitems__([77]).images, batch.images[1:2])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_loader_processes_cut_the_same_patches(pictures):
    split = Patches(pictures, 16, None, in_memory=False).split("train")
    batches = [[i, 5 * i, 7 * i] for i in range(4)]
    loaded = loaded_batches(split, batches, 1)  # type: ignore[arg-type]
    for indices, batch in zip(batches, loaded, strict=True):
        assert torch.equal(batch.images, split.__getitems__(indices).images)


def test_the_place_of_a_patch_depends_on_its_number_and_picture_alone(pictures):
    def places() -> dict[tuple[str, int], tuple[int, int]]:
        split = Patches(pictures, 32, None, positions=500).split("train")
        rows, corners = split.places.of(torch.arange(10_000))
        names = [split.pictures[row] for row in rows.tolist()]
        return {
            (name, key): tuple(corner)
            for key, (name, corner) in enumerate(zip(names, corners.tolist(), strict=True))
        }

    before = places()
    Image.fromarray(coordinates(99, 40, 40)).save(pictures / "odd" / "new picture.png")
    after = places()
    same = before.keys() & after.keys()
    assert len(same) > 100 and all(before[each] == after[each] for each in same)
    of: dict[str, list[tuple[int, int]]] = {}
    for (name, _), corner in before.items():
        of.setdefault(name, []).append(corner)
    assert len({tuple(corners[:9]) for corners in of.values()}) == len(of), "each has places of its own"


# Pictures -----------------------------------------------------------------------------------------


def test_large_pictures_are_shrunk_and_small_ones_left_out(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (90, 121, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide[:20]).save(tmp_path / "flat.png")
    data = Patches(tmp_path, 30, short_side=60, validation=0, test=0)
    split = data.split("train")
    assert split.pictures == ["wide.png"] and len(split) == 16 * 2 * 2
    expected = np.asarray(Image.fromarray(wide).resize((81, 60), Image.Resampling.LANCZOS))
    for image, (top, left) in zip(
        split.first(50).images, split.places.of(torch.arange(50))[1].tolist(), strict=True
    ):
        assert np.array_equal(image.permute(1, 2, 0), expected[top : top + 30, left : left + 30])
    assert "pictures smaller than a patch of 30×30, left out: 1 (flat.png)" in data.notes()
    assert data.transform == (
        "patches of 30×30 from pictures shrunk to at most 60 pixels on the short side (Lanczos), "
        "for training at random places"
    )
    assert shrunk(60, 81, 60) == (60, 81) == shrunk(60, 81, 512) == shrunk(60, 81, None)
    with pytest.raises(
        UserError, match=r"no picture is as large as a patch of 200×100; smaller ones: 2 \(flat"
    ):
        Patches(tmp_path, (100, 200)).split("train")
    with pytest.raises(UserError, match="short_side: expected at least 64 pixels.*got 60"):
        Patches(tmp_path, 64, 60)


def test_pictures_are_upright_and_over_white(tmp_path):
    stored = coordinates(0, 40, 60)
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter, so that it is 40 wide and 60 high
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    clear = np.concatenate([stored, np.zeros((40, 60, 1), np.uint8)], -1)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    data = Patches(tmp_path, (60, 40), None, validation=0, test=0)
    split = data.split("train")
    assert split.pictures == ["turned.png"]
    assert np.array_equal(split.first(1).images[0].permute(1, 2, 0), np.rot90(stored, -1))
    white = Patches(tmp_path, 40, None, validation=0, test=0).split("train")
    rows, _ = white.places.of(torch.arange(len(white)))
    assert (white.first(None).images[rows == white.pictures.index("clear.png")] == 255).all()


def test_grey_and_attributes_belong_to_every_patch(pictures):
    with open(pictures / "metadata.csv", "w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["file_name", "age"])
        writer.writerows([f"{'odd' if i % 2 else 'even'}/{i:02d}.png", i / 2] for i in range(N))
    data = Patches(pictures, 16, None, **SHARES)
    assert [each.name for each in data.attributes] == ["class", "age"]
    for name in SPLITS:
        split = data.split(name)
        batch = split.first(None)
        numbers = [number for number, _, _ in places_of(batch.images)]
        assert batch.attributes.tolist() == [[number % 2, number / 2] for number in numbers]
        assert torch.equal(split.labels, batch.labels) and torch.equal(split.attributes, batch.attributes)
        assert batch.masks is None and split.masks is None
    grey = Patches(pictures, 16, None, channels=1).split("test").first(2).images
    assert grey.shape == (2, 1, 16, 16)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("short_side", [None, 30])
def test_masks_are_cut_like_their_pictures(tmp_path, in_memory, short_side):
    """The class of a pixel is that of its coordinates: column div 8; picture 5 has no mask."""
    for i in range(8):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        pixels = coordinates(i, 60, 84)
        Image.fromarray(pixels).save(tmp_path / f"images/{i}.png")
        if i != 5:
            Image.fromarray(pixels[:, :, 0] // 12).save(tmp_path / f"masks/{i}.png")
    data = Patches(tmp_path, (12, 20), short_side, in_memory=in_memory, **SHARES)
    assert data.mask_classes == ("background", *(f"class {i}" for i in range(1, 7)))
    seen = 0
    for name in SPLITS:
        batch = data.split(name).first(64)
        numbers = batch.images[:, 2].flatten(1).float().mean(1).round().int()
        assert batch.masks.shape == (len(numbers), 12, 20) and batch.masks.dtype == torch.uint8
        assert (batch.masks[numbers == 5] == UNLABELLED).all()
        columns, classes = batch.images[numbers != 5][:, 0].float(), batch.masks[numbers != 5].float()
        # Shrinking by two is smooth for pixels and the nearest one for masks: next to borders both differ.
        inside = (columns % 12 > 2) & (columns % 12 < 10)
        assert torch.equal(classes[inside], (columns[inside] / 12).floor())
        seen += int(inside.sum())
    assert seen > 1000


def test_broken_pictures_are_left_out_at_once_or_when_they_are_met(pictures):
    for i in (3, 4):
        file = pictures / ("odd" if i % 2 else "even") / f"{i:02d}.png"
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file.with_suffix(".jpg"))
        file.unlink()
        file.with_suffix(".jpg").write_bytes(file.with_suffix(".jpg").read_bytes()[:1500])
    with pytest.warns(UserWarning, match="2 of 24 image files cannot be read: even/04.jpg: .*truncated"):
        data = Patches(pictures, 16, None, in_memory=True, **SHARES)
        batches = [data.split(name).first(None) for name in SPLITS]
    assert {number for batch in batches for number, _, _ in places_of(batch.images)} == {*range(N)} - {3, 4}
    lazy = Patches(pictures, 16, None, in_memory=False, validation=0, test=0).split("train")
    with pytest.warns(
        UserWarning, match=r"0[34]\.jpg cannot be decoded .*: left out, another stands in"
    ) as said:
        batch = lazy.first(None)
    assert len(said) == 2 and len(batch.images) == len(lazy)
    assert {number for number, _, _ in places_of(batch.images)} == {*range(N)} - {3, 4}


def test_only_pictures_read_last_are_kept_in_memory(pictures, monkeypatch):
    read = Counter()
    split = Patches(pictures, 16, None, in_memory=False).split("train")
    picture = split.read(0)
    monkeypatch.setattr(module, "RECENT_BYTES", 3 * module.bytes_of(picture))

    def count(row: int) -> module.Picture:
        read[row] += 1
        return picture

    recent = Recent(count)
    for row in [0, 1, 2, 0, 1, 2, 3, 3, 1, 0]:
        recent(row)
    assert read == {0: 2, 1: 1, 2: 1, 3: 1} and len(recent.kept) == 3
    assert len(pickle.dumps(split)) > 0


def test_folds_and_commands(pictures, tmp_path):
    data = Patches(pictures, 16, None)
    assert folds_of(data, 2, 10**6) == [], "patches of one picture would be trained on and held out"
    words = [
        "--config",
        "folder/glow",
        "--data",
        "Patches",
        "--data.path",
        str(pictures),
        "--data.size",
        "[16,24]",
    ]
    more = ["--data.short_side", "null", "--data.positions", "3", "--folder", str(tmp_path / "run")]
    parser, settings = parse_experiment([*words, *more])
    made = parser.instantiate(settings).data
    assert type(made) is Patches and (made.size, made.short_side, made.positions) == ((16, 24), None, 3)
    assert made.sizes()["train"] == made.training_images
