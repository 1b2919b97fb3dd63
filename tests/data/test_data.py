"""Data sets: what comes out is what lies in the files, in splits that share nothing."""

import bz2
import errno
import gzip
import inspect
import io
import itertools
import os
import pickle
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import jsonargparse
import numpy as np
import pytest
import torch
from PIL import Image, features
from torch import Tensor

from flows import images
from flows.data import shards as data_shards
from flows.data.base import ImageData, comes_sorted, fair_order, hashed_split
from flows.data.celeba import CelebA
from flows.data.decode import Budget, decode, decode_resized, resized
from flows.data.digits import Digits
from flows.data.emoji import ATTRIBUTES, FONT, Emoji, attributes_of, family
from flows.data.fashion import DEBIAN, Fashion
from flows.data.folder import Folder
from flows.data.hub import HubData
from flows.data.imagenet_small import ImageNetSmall
from flows.data.lsun import LSUN
from flows.data.ood import ASSETS, ood_images
from flows.data.photos import PHOTOS, Photos
from flows.data.scenes import Scenes
from flows.data.shards import Shards, ShardStream, expand
from flows.data.torchvision_sets import (
    CIFAR10,
    CIFAR100,
    EMNIST,
    KMNIST,
    MNIST,
    STL10,
    SVHN,
    USPS,
    Flowers102,
)  # fmt: skip
from flows.errors import DataMissing
from flows.training.loader import loaded_batches

SPLITS = ("train", "validation", "test")


def needs_debian(package: str, file: Path) -> pytest.MarkDecorator:
    """Skip where a Debian package is not installed, unless FLOWS_REQUIRE_ALL=1 asks for everything."""
    absent = not file.exists() and os.environ.get("FLOWS_REQUIRE_ALL") != "1"
    return pytest.mark.skipif(absent, reason=f"needs Debian's package {package}")


needs_fashion = needs_debian("dataset-fashion-mnist", DEBIAN)
needs_font = needs_debian("fonts-noto-color-emoji", FONT)


def rows(pixels: Tensor) -> list[bytes]:
    """Every image as bytes, for comparisons of sets of images."""
    return [image.numpy().tobytes() for image in pixels]


def save_plain(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (12, 10), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def seen(data: ImageData) -> dict[str, Tensor]:
    return {name: data.split(name).first(None).images for name in SPLITS}


# The contract -------------------------------------------------------------------------------------


def concrete(base: type) -> list[type]:
    """All classes below `base` that can be made."""
    below = [c for child in base.__subclasses__() for c in concrete(child)]
    return ([] if inspect.isabstract(base) else [base]) + below


PUBLIC = [c for c in concrete(ImageData) if not c.__name__.startswith("_")]
DATA_SETS = [c for c in PUBLIC if c.__module__.startswith("flows.data.")]
REQUIRED = {
    "Folder": {"path": "somewhere"},
    "HubData": {"repo": "somewhere"},
    "Patches": {"path": "somewhere"},
    "Shards": {"train": "a.tar", "validation": "b.tar", "test": "c.tar"},
}


@pytest.mark.parametrize("kind", DATA_SETS, ids=lambda kind: kind.__name__)
def test_a_config_makes_every_data_set_without_reading_anything(kind):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    wanted = {"class_path": kind.__name__, "init_args": REQUIRED.get(kind.__name__, {})}
    data = parser.instantiate(parser.parse_object({"data": wanted})).data
    assert type(data) is kind
    assert len(data.image_shape) == 3 and all(n > 0 for n in data.image_shape)
    assert data.name and data.transform


@pytest.mark.parametrize("kind", DATA_SETS, ids=lambda kind: kind.__name__)
def test_every_constructor_argument_is_documented(kind):
    documented = "\n".join(base.__doc__ or "" for base in kind.__mro__ if base is not object)
    for name in inspect.signature(kind).parameters:
        if kind is not Fashion:
            assert f"\n        {name}: " in documented, name


def test_hashed_split_has_the_asked_shares():
    counts = {name: 0 for name in SPLITS}
    for i in range(10_000):
        counts[hashed_split(f"picture {i}", validation=0.2, test=0.1)] += 1
    assert abs(counts["validation"] - 2000) < 150 and abs(counts["test"] - 1000) < 120


# Digits, Fashion-MNIST, photographs -----------------------------------------------------------------


def test_digits_are_scikit_learns_each_in_one_split():
    from sklearn.datasets import load_digits

    splits = seen(Digits())
    assert [len(splits[name]) for name in SPLITS] == [1397, 200, 200]
    everything = images.bin_index(torch.cat(list(splits.values())), bins=17)
    assert sorted(rows(everything)) == sorted(rows(torch.from_numpy(load_digits().images).byte()))


@needs_fashion
def test_fashion_is_debians_with_a_zero_border():
    splits = seen(Fashion())
    assert [len(splits[name]) for name in SPLITS] == [57_000, 3_000, 10_000]
    for pixels in splits.values():
        inside = pixels[:, :, 2:-2, 2:-2]
        assert pixels.sum(dtype=torch.int64) == inside.sum(dtype=torch.int64)
    train = np.frombuffer(gzip.decompress((DEBIAN / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8)
    both = torch.cat([splits["train"], splits["validation"]])[:, 0, 2:-2, 2:-2]
    assert sorted(rows(both)) == sorted(r.tobytes() for r in train[16:].reshape(-1, 28 * 28))
    assert Fashion().split("test").labels.bincount().tolist() == [1000] * 10


def test_photographs_belong_to_one_split_each():
    data = Photos()
    labels = {name: set(data.split(name).labels.tolist()) for name in SPLITS}
    assert {name: {data.class_names[i] for i in labels[name]} for name in SPLITS} == {
        name: set(PHOTOS[name]) for name in SPLITS
    }
    assert sum(len(found) for found in labels.values()) == len(data.class_names)
    assert [len(data.split(name)) for name in SPLITS] == [1921, 260, 342]


def test_patches_put_together_are_the_photograph():
    import skimage.data

    data = Photos()
    test = data.split("test")
    back = torch.tensor(fair_order(range(len(test)))).argsort()
    images, labels = test.images[back], test.labels[back]
    cat = images[labels == data.class_names.index("chelsea")]
    together = cat.view(9, 14, 3, 32, 32).permute(0, 3, 1, 4, 2).reshape(288, 448, 3)
    assert np.array_equal(together.numpy(), skimage.data.chelsea()[:288, :448])


@pytest.mark.parametrize("size", [0, 301])
def test_photos_refuse_a_size_that_gives_no_patches(size):
    with pytest.raises(ValueError, match="expected 1 to 300"):
        Photos(size)


# Emoji --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emoji():
    data = Emoji()
    return data, {name: data.split(name) for name in SPLITS}


@needs_font
def test_emoji_are_many_and_different_and_stay_in_families(emoji):
    data, splits = emoji
    pixels = torch.cat([split.images for split in splits.values()])
    assert pixels.shape[1:] == data.image_shape and len(pixels) > 3_500
    assert len(set(rows(pixels))) == len(pixels)
    families = {name: {family(n) for n in splits[name].names} for name in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not families[one] & families[other]


@needs_font
def test_every_attribute_occurs_in_every_split(emoji):
    data, splits = emoji
    for split in splits.values():
        assert split.attributes.dtype == torch.uint8
        assert split.attributes.shape == (len(split), len(data.attributes))
        assert (split.attributes.sum(0) > 0).all()


@needs_font
def test_the_same_emoji_in_a_darker_tone_is_darker(emoji):
    """The attributes, read from names, against the pixels."""
    data, splits = emoji
    names = [attribute.name for attribute in data.attributes]
    columns = [names.index(tone) for tone in ("light", "dark")]
    pairs = 0
    for split in splits.values():
        row = {name: i for i, name in enumerate(split.names)}
        for name in split.names:
            other = name.replace("light skin tone", "dark skin tone")
            if name.count("tone") == 1 and " light skin tone" in name and other in row:
                light, dark = row[name], row[other]
                difference = split.attributes[light].int() - split.attributes[dark].int()
                assert difference[columns].tolist() == [1, -1] and difference.abs().sum() == 2
                assert split.images[light].float().mean() > split.images[dark].float().mean()
                pairs += 1
    assert pairs > 250


@needs_font
def test_facing_right_is_the_mirror_image(emoji):
    _, splits = emoji
    split = splits["train"]
    left = split.images[split.names.index("woman running")].float()
    right = split.images[split.names.index("woman running facing right")].float()
    assert (left.flip(-1) - right).abs().mean() < 5 < (left - right).abs().mean()


@needs_font
def test_emoji_stand_on_white(emoji):
    _, splits = emoji
    names, pixels = splits["train"].names, splits["train"].images
    assert (pixels[names.index("grinning face")][:, 0, 0] == 255).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("woman running medium-light skin tone", {"woman", "medium-light"}),
        ("woman’s hat", set()),
        ("women holding hands dark skin tone light skin tone", {"woman", "hand", "dark", "light"}),
        ("man in manual wheelchair facing right", {"man", "wheelchair", "facing right"}),
        ("smiling face with hearts", {"face", "heart"}),
    ],
)
def test_attributes_are_whole_words_of_the_name(name, expected):
    found = {a for a, has in zip(ATTRIBUTES, attributes_of(name), strict=True) if has}
    assert found == expected


def test_a_family_is_the_name_without_tone_gender_and_side():
    assert family("woman running facing right medium-dark skin tone") == family("man running") == "running"
    assert family("men holding hands dark skin tone light skin tone") == "holding hands"
    assert family("woman’s hat") == "woman’s hat" != family("man’s shoe")


def test_missing_font_names_the_debian_package(tmp_path):
    with pytest.raises(DataMissing, match="apt install fonts-noto-color-emoji"):
        Emoji(font=tmp_path / "none.ttf").split("train")


# Folder -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Forty plain pictures of different colours in two classes, with what operating systems leave."""
    for i in range(40):
        save_plain(tmp_path / "set" / ("cats" if i % 2 else "dogs") / "deep" / f"{i:02}.png", (6 * i, i, 0))
    (tmp_path / "set" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "set" / "__MACOSX").mkdir()
    (tmp_path / "set" / "__MACOSX" / "._00.png").write_bytes(b"x")
    (tmp_path / "set" / "cats" / "._01.png").write_bytes(b"x")
    (tmp_path / "set" / "readme.txt").write_text("no picture")
    return tmp_path / "set"


def zipped(folder: Path, prefix: str = "") -> Path:
    path = folder.parent / f"{folder.name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("in_memory", [True, False, None])
def test_folder_gives_every_picture_once_with_its_label(folder, in_memory):
    data = Folder(folder, size=8, validation=0.2, test=0.2, in_memory=in_memory)
    assert data.class_names == ("cats", "dogs")
    found = {}
    for name in SPLITS:
        batch = data.split(name).first(None)
        assert batch.keys.tolist() == list(range(len(batch.keys)))
        for pixels, label in zip(batch.images, batch.labels.tolist(), strict=True):
            assert (pixels == pixels[:, :1, :1]).all()
            i = int(pixels[1, 0, 0])
            assert pixels[:, 0, 0].tolist() == [6 * i, i, 0] and i not in found
            found[i] = data.class_names[label]
    assert found == {i: "cats" if i % 2 else "dogs" for i in range(40)}
    assert data.unreadable == ()


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_zip_archive_is_the_same_as_its_folder(folder, in_memory):
    options = {"size": 8, "validation": 0.2, "test": 0.2, "in_memory": in_memory}
    plain, packed = Folder(folder, **options), Folder(zipped(folder), **options)
    for name in SPLITS:
        one, other = plain.split(name).first(None), packed.split(name).first(None)
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_workers_read_an_archive_that_their_parent_has_open(folder, start):
    split = Folder(zipped(folder), size=8, validation=0.2, test=0.2, in_memory=False).split("train")
    batches = [[i, i + 1] for i in range(0, len(split) - 1, 2)]
    options = {"batch_sampler": batches, "collate_fn": as_it_is, "num_workers": 2}
    loader = torch.utils.data.DataLoader(split, multiprocessing_context=start, **options)
    for indices, batch in zip(batches, loader, strict=True):
        assert torch.equal(batch.images, split.__getitems__(indices).images)


def as_it_is(batch):
    """A worker process can import this function, unlike a lambda."""
    return batch


def test_a_folder_that_contains_everything_is_no_class(folder):
    assert Folder(zipped(folder, prefix="downloaded/")).class_names == ("cats", "dogs")


def test_new_pictures_move_no_other(folder):
    options = {"size": 4, "validation": 0.3, "test": 0.3}
    before = {name: set(rows(pixels)) for name, pixels in seen(Folder(folder, **options)).items()}
    for i in range(40):
        save_plain(folder / "birds" / f"{i}.png", (0, i, 200))
    after = {name: set(rows(pixels)) for name, pixels in seen(Folder(folder, **options)).items()}
    assert all(before[name] < after[name] for name in SPLITS)


@pytest.mark.parametrize("validation", ["validation", "val", None])
def test_folders_named_like_splits_are_the_splits(tmp_path, validation):
    for part, red in (("train", 1), ("test", 2), (validation, 3)):
        for i in range(30 if part else 0):
            save_plain(tmp_path / part / "ab"[i % 2] / f"{i}.png", (red, i, 0))
    save_plain(tmp_path / "overview.png", (9, 9, 9))
    data = Folder(tmp_path, size=4, validation=0.2)
    splits = seen(data)
    reds = {name: set(pixels[:, 0].unique().tolist()) for name, pixels in splits.items()}
    assert reds == {"train": {1}, "test": {2}, "validation": {3 if validation else 1}}
    assert data.class_names == ("a", "b")
    assert data.split("test").labels.bincount().tolist() == [15, 15]
    assert not set(rows(splits["train"])) & set(rows(splits["validation"]))


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ("train valid test", {"train": {1}, "validation": {2}, "test": {3}}),
        ("Train Valid Test", {"train": {1}, "validation": {2}, "test": {3}}),
        ("training dev testing", {"train": {1}, "validation": {2}, "test": {3}}),
        ("Train - Test", {"train": {1}, "validation": {1}, "test": {3}}),
        ("train valid -", {"train": {1}, "validation": {2}, "test": {1}}),
        ("TRAINING VALIDATION -", {"train": {1}, "validation": {2}, "test": {1}}),
        ("- valid test", None),
    ],
)
def test_splits_as_people_name_them(tmp_path, names, taken):
    """Pictures of a split's folder are in this split and in no other; its name is no class."""
    for red, part in enumerate(names.split(), 1):
        for i in range(40 if part != "-" else 0):
            save_plain(tmp_path / part / "ab"[i % 2] / f"{i}.png", (red, i, 0))
    data = Folder(tmp_path, size=4, validation=0.2, test=0.2)
    if taken is None:  # without a training folder, they are classes
        assert data.class_names == ("test", "valid")
        return
    assert data.class_names == ("a", "b")
    splits = seen(data)
    assert {name: set(pixels[:, 0].unique().tolist()) for name, pixels in splits.items()} == taken
    everything = [row for pixels in splits.values() for row in rows(pixels)]
    assert len(everything) == len(set(everything)) == 40 * len(names.replace("-", "").split())
    said = " ".join(data.notes())
    for part in names.replace("-", "").split():
        assert f"{part}/ is the " in said


def test_a_run_says_what_was_read_and_what_was_not(folder):
    (folder / "cats" / "a.PSD").write_bytes(b"x")
    (folder / "cats" / "b.psd").write_bytes(b"x")
    data = Folder(folder, size=8, validation=0.2, test=0.2)
    assert data.notes() == ["not read, because they are no pictures: 2 .psd, 1 .txt"]
    numbers = [len(data.split(name)) for name in SPLITS]
    assert data.summary(data.sizes()) == (
        f"folder: {numbers[0]} train, {numbers[1]} validation, {numbers[2]} test images, 2 classes"
    )


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "avif", "jp2", "tga", "JPG", "webp", "qoi"])
def test_pictures_of_phones_and_browsers_are_read(tmp_path, suffix):
    save_plain(tmp_path / "a.png", (200, 30, 30))
    form = {"jfif": "JPEG", "jpe": "JPEG", "JPG": "JPEG", "jp2": "JPEG2000"}.get(suffix, suffix.upper())
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {form}")
    with Image.open(tmp_path / "a.png") as opened:
        opened.save(tmp_path / f"b.{suffix}", form)
    images = Folder(tmp_path, size=4, validation=0, test=0).split("train").first(None).images.int()
    assert len(images) == 2 and (images[0] - images[1]).abs().max() < 8


def test_a_class_called_train_is_a_class(tmp_path):
    for i in range(30):
        save_plain(tmp_path / ("plane", "train")[i % 2] / f"{i}.png", (0, i, 0))
    data = Folder(tmp_path, size=4, validation=0.2, test=0.2)
    assert data.class_names == ("plane", "train")
    batch = data.split("train").first(None)
    assert torch.equal(batch.images[:, 1, 0, 0] % 2, batch.labels)


@pytest.mark.parametrize("in_memory", [True, False])
def test_unreadable_files_are_counted_and_named(folder, in_memory):
    (folder / "cats" / "broken.png").write_bytes(b"this is no picture")
    Image.new("I;16", (9, 9)).save(folder / "cats" / "deep.png")
    data = Folder(folder, size=4, in_memory=in_memory)
    with pytest.warns(UserWarning, match="2 of 42 image files cannot be read: cats/broken.png"):
        data.split("train")
    assert data.unreadable[0] == "cats/broken.png: not a picture"
    assert "cats/deep.png: expected 8-bit pixels" in data.unreadable[1]


def cut(path):
    """Write a JPEG that ends in the middle."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_off_is_left_out_when_it_is_met(folder, workers):
    cut(folder / "cats/cut.jpg")
    split = Folder(folder, size=4, validation=0, test=0, in_memory=False).split("train")
    index = split.names.index("cats/cut.jpg")
    order = [[index, index + 1], [index - 1, index]]
    with pytest.warns(UserWarning, match=r"cut\.jpg cannot be decoded \(.*truncated.*\(1 so far\)") as met:
        first, second = loaded_batches(split, order, workers)
    assert len(met) == 1, "it is named once"
    assert first.keys.tolist() == [index + 1, index + 1] and torch.equal(first.images[0], first.images[1])
    assert torch.equal(second.images[1], first.images[0]) and second.keys.tolist() == [index - 1, index + 1]
    assert list(split.broken) == [index]


def test_a_disk_that_fails_is_no_fault_of_the_picture(folder, monkeypatch):
    split = Folder(folder, size=4, validation=0, test=0, in_memory=False).split("train")

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("flows.data.decode.Image.open", fail)
    with pytest.raises(ValueError, match=r"\.png cannot be read: .*Input/output error"):
        split.first(1)
    assert not split.broken


def test_a_split_without_any_sound_picture_ends(tmp_path):
    cut(tmp_path / "cut.jpg")
    split = Folder(tmp_path, size=8, validation=0, test=0, in_memory=False).split("train")
    with pytest.raises(ValueError, match=r"none of the 1 pictures can be decoded, e\.g\. cut\.jpg"):
        with pytest.warns(UserWarning, match="left out"):
            split.first(1)


def test_a_folder_with_loops_and_pipes_is_read_once(folder, monkeypatch):
    pictures = len(Folder(folder, size=4, in_memory=False).contents.readable)
    (folder / "cats/up").symlink_to(folder)
    (folder / "cats/self").symlink_to(folder / "cats/self")
    (folder / "again").symlink_to(folder / "cats")
    os.mkfifo(folder / "cats/pipe.png")
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    data = Folder(folder, size=4)
    with pytest.warns(UserWarning, match=r"1 of .*nowhere\.png"):
        data.split("train")
    assert len(data.contents.readable) == pictures
    assert "not read: cats/pipe.png (a device, pipe or socket)" in data.notes()
    assert not any(name.startswith("again/") for name in data.contents.readable) or all(
        not name.startswith("cats/") for name in data.contents.readable
    ), "a linked folder is entered once"


def test_a_folder_that_cannot_be_opened_is_named(folder, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "cats":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("flows.data.archive.os.scandir", refuse)
    assert "not read: cats/ (Permission denied)" in Folder(folder, size=4).notes()


@pytest.mark.parametrize("fault", ["encrypted", "deflate64", "huge"])
def test_odd_entries_of_an_archive_are_named_and_counted(folder, fault, tmp_path, monkeypatch):
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as written:
        for file in sorted(folder.rglob("*.png")):
            written.write(file, file.relative_to(folder))
    content = bytearray(archive.read_bytes())
    place = content.rindex(b"PK\x01\x02")  # of the last entry, in the directory at the end
    header = int.from_bytes(content[place + 42 : place + 46], "little")
    at = {"encrypted": (8, 6), "deflate64": (10, 8), "huge": (24, 22)}[fault]
    value = {"encrypted": b"\x01\x00", "deflate64": b"\x09\x00", "huge": (3 * 2**30).to_bytes(4, "little")}
    for start, offset in zip((place, header), at, strict=True):
        content[start + offset : start + offset + len(value[fault])] = value[fault]
    archive.write_bytes(content)
    data = Folder(archive, size=4)
    with pytest.warns(UserWarning, match="1 of 40 image files cannot be read"):
        data.split("train")
    reason = {"encrypted": "encrypted", "deflate64": "compression", "huge": "3.0 GiB, expected at most 0.5"}
    assert reason[fault] in data.unreadable[0]


@pytest.mark.parametrize("in_memory", [True, False])
def test_pictures_that_are_enlarged_are_counted(folder, in_memory):
    Image.new("RGB", (40, 12)).save(folder / "cats/wide.png")
    data = Folder(folder, size=20, in_memory=in_memory)
    assert "41 of 41 pictures are smaller than 20×20 and were enlarged" in data.notes()
    assert not [note for note in Folder(folder, size=4, in_memory=in_memory).notes() if "smaller" in note]


def test_a_large_jpeg_is_reduced_while_it_is_decoded(tmp_path):
    x = np.linspace(0, 12, 1600)
    waves = 127 + 80 * np.sin(x)[:, None] * np.cos(1.7 * x)[None]
    picture = Image.fromarray(np.stack([waves, waves.T, waves[::-1]], 2).astype("uint8"))
    picture.save(tmp_path / "a.jpg", quality=92, exif=exif_turned())
    for size in (32, 64):
        reduced, shape = decode_resized(tmp_path / "a.jpg", size, 3)
        whole = resized(decode(tmp_path / "a.jpg"), size, 3)
        assert shape == (1600, 1600) and 10 * np.log10(255**2 / mse(reduced, whole)) > 45


def exif_turned():
    exif = Image.Exif()
    exif[274] = 6
    return exif


def mse(a, b):
    return max(1e-9, float((a.double() - b.double()).square().mean()))


def test_threads_share_the_memory_for_decoding():
    budget, running, most = Budget(100), [], []

    def work(needed):
        with budget.take(needed):
            running.append(needed)
            most.append(sum(min(each, 100) for each in running))
            time.sleep(0.01)
            running.remove(needed)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [40, 30, 500, 20, 60, 70, 10, 40, 90] * 3))
    assert max(most) <= 100 and budget.taken == 0


def test_folder_says_what_is_wrong(tmp_path):
    with pytest.raises(DataMissing, match="no folder, zip or tar archive at .*nowhere"):
        Folder(tmp_path / "nowhere").split("train")
    with pytest.raises(ValueError, match=r"no image files \(.*\.png.*\) under"):
        Folder(tmp_path).split("train")
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"1 of 1 image files cannot be read: a\.png: not a picture"):
        Folder(tmp_path).split("train")
    with pytest.raises(ValueError, match=r"expected a folder, a zip or a tar archive, got .*a\.png"):
        Folder(tmp_path / "a.png").split("train")
    with pytest.raises(ValueError, match="shares ≥ 0 that add up to less than 1"):
        Folder(tmp_path, validation=0.5, test=0.5)


def test_an_empty_split_is_an_error(tmp_path):
    save_plain(tmp_path / "only.png", (1, 2, 3))
    with pytest.raises(ValueError, match="none of its 1 pictures is in the test split"):
        Folder(tmp_path, validation=0, test=0).split("test")


def only(path: Path, **options) -> Tensor:
    """The one picture below a folder."""
    return Folder(path, validation=0, test=0, **options).split("train").first(None).images[0]


def test_orientation_is_respected(tmp_path):
    picture = Image.new("RGB", (8, 8), "blue")
    picture.paste("red", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(tmp_path / "upside-down.png", exif=exif)
    pixels = only(tmp_path, size=8)
    assert pixels[:, 0, 0].tolist() == [0, 0, 255] and pixels[:, -1, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_grey_and_transparent_pictures(tmp_path, mode, colour, expected):
    Image.new(mode, (9, 9), colour).save(tmp_path / "a.png")
    pixels = only(tmp_path, size=4)
    assert (pixels == torch.tensor(expected, dtype=torch.uint8)[:, None, None]).all()


def test_palettes_are_resized_as_colours(tmp_path):
    board = np.indices((16, 16)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).convert("P").save(tmp_path / "a.png")
    assert (only(tmp_path, size=4, channels=1).int() - 127).abs().max() < 60


def test_formats_and_centre_crop(tmp_path):
    picture = Image.new("RGB", (30, 10), (200, 0, 0))
    picture.paste((0, 200, 0), (10, 0, 20, 10))
    for extension in ("jpg", "webp", "bmp", "tiff"):
        path = tmp_path / extension
        path.mkdir()
        picture.save(path / f"a.{extension.upper()}", format=None if extension != "jpg" else "JPEG")
        green = only(path, size=10)[:, 5, 5].int()
        assert (green - torch.tensor([0, 200, 0])).abs().max() < 8, extension


def test_grey_folder_has_one_channel(folder):
    data = Folder(folder, size=4, channels=1)
    assert data.split("train").first(2).images.shape == (2, *data.image_shape) == (2, 1, 4, 4)


# torchvision's sets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [MNIST, KMNIST, EMNIST, USPS, CIFAR10, CIFAR100, SVHN, STL10, Flowers102, CelebA]
)
@pytest.mark.parametrize("name", SPLITS)
def test_missing_sets_say_where_they_were_looked_for(kind, name, tmp_path):
    with pytest.raises(DataMissing) as caught:
        kind(root=tmp_path).split(name)
    message = str(caught.value)
    assert str(tmp_path) in message and "data.download" in message and "data.root" in message


def test_celeba_names_the_files_it_needs(tmp_path):
    with pytest.raises(DataMissing, match=r"celeba/ with the folder img_align_celeba/.*list_attr_celeba"):
        CelebA(tmp_path).split("train")


@pytest.fixture
def no_checksums(monkeypatch):
    """Let torchvision read small files in the published formats, which have other checksums."""
    for module in ("celeba", "cifar", "flowers102", "stl10", "svhn"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).exists()
        )


def write_idx(path: Path, array: np.ndarray) -> None:
    """A file in the format of MNIST: type 8 (bytes), number of axes, their lengths, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def draw_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize(
    ("kind", "stem", "transposed"),
    [(MNIST, "MNIST/raw/", 0), (KMNIST, "KMNIST/raw/", 0), (EMNIST, "EMNIST/raw/emnist-balanced-", 1)],
)
def test_mnist_and_its_relatives(kind, stem, transposed, size, tmp_path):
    pixels, labels = draw_bytes(60, 28, 28), np.arange(60) % 10
    emnist = kind is EMNIST
    parts = ("train", "test") if emnist else ("train", "t10k")
    for part, n in zip(parts, (40, 20), strict=True):
        write_idx(tmp_path / f"{stem}{part}-images-idx3-ubyte", pixels[:n])
        write_idx(tmp_path / f"{stem}{part}-labels-idx1-ubyte", labels[:n])
    data = kind(tmp_path, size=size)
    test = data.split("test").first(None)
    border = (size - 28) // 2
    inside = test.images[:, 0, border : border + 28, border : border + 28].numpy()
    assert np.array_equal(inside.swapaxes(1, 2) if transposed else inside, pixels[:20])
    assert test.images.sum(dtype=torch.int64) == inside.sum(dtype=np.int64)
    assert test.images.shape[1:] == data.image_shape == (1, size, size)
    assert test.labels.tolist() == labels[:20].tolist()
    assert [len(data.split(name)) for name in SPLITS] == [38, 2, 20]


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_cifar(kind, tmp_path, no_checksums):
    fine = kind is CIFAR100
    key, folder = ("fine_labels", "cifar-100-python") if fine else ("labels", "cifar-10-batches-py")
    parts = ["train", "test"] if fine else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    names_key = "fine_label_names" if fine else "label_names"
    (tmp_path / folder).mkdir()
    pixels = draw_bytes(len(parts), 8, 3 * 32 * 32)
    for part, block in zip(parts, pixels, strict=True):
        content = {"data": block, key: list(range(8))}
        (tmp_path / folder / part).write_bytes(pickle.dumps(content))
    meta = pickle.dumps({names_key: list(kind.class_names)})
    (tmp_path / folder / ("meta" if fine else "batches.meta")).write_bytes(meta)
    data = kind(tmp_path)
    test = data.split("test").first(None)
    assert np.array_equal(test.images.numpy(), pixels[-1].reshape(8, 3, 32, 32))
    assert test.labels.tolist() == list(range(8))
    train = torch.cat([data.split(name).first(None).images for name in ("train", "validation")])
    assert sorted(rows(train)) == sorted(r.tobytes() for r in pixels[:-1].reshape(-1, 3072))
    assert len(set(data.class_names)) == len(data.class_names) == (100 if fine else 10)


def test_usps(tmp_path):
    pixels = draw_bytes(20, 256)
    for file in ("usps.bz2", "usps.t.bz2"):
        lines = [
            f"{i % 10 + 1} " + " ".join(f"{j + 1}:{value / 127.5 - 1:.6f}" for j, value in enumerate(row))
            for i, row in enumerate(pixels)
        ]
        (tmp_path / file).write_bytes(bz2.compress("\n".join(lines).encode()))
    test = USPS(tmp_path).split("test").first(None)
    assert (test.images.flatten(1).int() - torch.from_numpy(pixels).int()).abs().max() <= 1
    assert test.labels.tolist() == [i % 10 for i in range(20)]


def test_svhn(tmp_path, no_checksums):
    from scipy.io import savemat

    pixels = draw_bytes(20, 3, 32, 32)
    for part in ("train", "test"):
        content = {"X": pixels.transpose(2, 3, 1, 0), "y": np.arange(20)[:, None] % 10 + 1}
        savemat(tmp_path / f"{part}_32x32.mat", content)
    test = SVHN(tmp_path).split("test").first(None)
    assert np.array_equal(test.images.numpy(), pixels)
    assert test.labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


@pytest.mark.parametrize("size", [96, 48])
def test_stl10(size, tmp_path, no_checksums):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    pixels = draw_bytes(20, 3, 96, 96)
    (folder / "class_names.txt").write_text("\n".join(STL10.class_names))
    (folder / "fold_indices.txt").write_text("0 1\n" * 10)
    for part in ("train", "test", "unlabeled"):
        pixels.swapaxes(2, 3).tofile(folder / f"{part}_X.bin")
        (np.arange(20, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    test = STL10(tmp_path, size=size).split("test").first(None)
    assert test.images.shape == (20, 3, size, size)
    assert test.labels.tolist() == [i % 10 for i in range(20)]
    if size == 96:
        assert np.array_equal(test.images.numpy(), pixels)
    unlabelled = STL10(tmp_path, size=size, unlabelled=True).split("train")
    assert (unlabelled.labels == -1).all()


def test_flowers(tmp_path, no_checksums):
    from scipy.io import savemat

    for i in range(1, 7):
        save_plain(tmp_path / "flowers-102" / "jpg" / f"image_{i:05}.jpg", (40 * i, 0, 0), (30, 20))
    savemat(tmp_path / "flowers-102" / "imagelabels.mat", {"labels": np.arange(1, 7)})
    ids = {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]}
    savemat(tmp_path / "flowers-102" / "setid.mat", ids)
    for name, first in zip(SPLITS, (1, 3, 5), strict=True):
        batch = Flowers102(tmp_path, size=16).split(name).first(None)
        assert batch.labels.tolist() == [first - 1, first]
        reds = batch.images[:, 0].float().mean((1, 2))
        assert (reds - 40 * torch.tensor([first, first + 1])).abs().max() < 4


@pytest.fixture
def celeba(tmp_path, no_checksums):
    """Six faces whose red and green are column and row, two in each split."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    y, x = np.indices((218, 178))
    picture = Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))
    names = [f"{i:06}.jpg" for i in range(1, 7)]
    for name in names:
        picture.save(folder / "img_align_celeba" / name, format="PNG")
    attributes = np.where(np.random.default_rng(0).random((6, 40)) < 0.5, -1, 1)
    lines = [f"{n} {' '.join(map(str, row))}" for n, row in zip(names, attributes, strict=True)]
    header = f"6\n{' '.join(attribute.name for attribute in CelebA.attributes)}\n"
    (folder / "list_attr_celeba.txt").write_text(header + "\n".join(lines))
    for file, head, value in (
        ("list_eval_partition.txt", "", None),
        ("identity_CelebA.txt", "", 1),
        ("list_bbox_celeba.txt", "6\nimage_id x\n", 1),
        ("list_landmarks_align_celeba.txt", "6\nx y\n", 1),
    ):
        body = [f"{n} {i // 2 if value is None else value}" for i, n in enumerate(names)]
        (folder / file).write_text(head + "\n".join(body))
    return tmp_path, attributes


def test_celeba_crop_and_attributes(celeba):
    root, attributes = celeba
    data = CelebA(root, size=148)
    for i, name in enumerate(SPLITS):
        split = data.split(name)
        assert np.array_equal(split.attributes.numpy(), attributes[2 * i : 2 * i + 2] > 0)
        red, green, _ = split.first(1).images[0]
        assert red[0].tolist() == list(range(15, 163)) and green[:, 0].tolist() == list(range(40, 188))
    assert CelebA(root).split("test").first(None).images.shape == (2, 3, 64, 64)
    assert len(data.attributes) == len(set(data.attributes)) == 40


def test_a_bug_behind_a_reader_is_no_fault_of_the_file(celeba, imagenet, tmp_path, monkeypatch):
    """Data sets whose files are read lazily; `tests/core/test_errors.py` has folders, shards and pictures."""
    scenes = Scenes(test=2, cache=tmp_path / "scenes")
    scenes.split("test")
    lsun = LSUN(write_lsun(tmp_path, draw_bytes(9, 96, 128, 3)), category="tower")
    calls = {
        "flows.data.celeba.resized": lambda: CelebA(celeba[0]).split("test").first(1),
        "flows.data.lsun.central": lambda: lsun.split("test").first(1),
        "flows.data.scenes.dataset.ScenesSplit": lambda: scenes.split("test"),
        "flows.data.imagenet_small.PartedSplit": lambda: ImageNetSmall(imagenet[0]).split("test"),
    }
    for where, call in calls.items():
        call()
        for bug in (ValueError("zip() argument 2 is longer"), RuntimeError("shapes"), OSError("no file")):
            with monkeypatch.context() as patch:
                patch.setattr(where, Mock(side_effect=bug))
                with pytest.raises(type(bug)) as left:
                    call()
                assert left.value is bug


# LSUN, ImageNet, hub ------------------------------------------------------------------------------


def write_lsun(folder, pixels):
    """Write a category `tower` of nine pictures; returns the folder."""
    import lmdb

    for part, chosen in (("train", pixels[:6]), ("val", pixels[6:])):
        with lmdb.open(str(folder / f"tower_{part}_lmdb"), map_size=2**24) as opened:
            with opened.begin(write=True) as transaction:
                for i, picture in enumerate(chosen):
                    content = io.BytesIO()
                    Image.fromarray(picture).save(content, format="PNG")
                    transaction.put(f"{i}".encode(), content.getvalue())
    return folder


def test_lsun(tmp_path):
    pixels = draw_bytes(9, 96, 128, 3)
    splits = seen(LSUN(write_lsun(tmp_path, pixels), category="tower"))
    # The short side is 96 already, so that nothing is resized.
    centre = torch.from_numpy(pixels[:, 16:80, 32:96].transpose(0, 3, 1, 2).copy())
    assert torch.equal(splits["test"], centre[6:])
    assert (len(splits["train"]), len(splits["validation"])) == (5, 1)
    assert set(rows(torch.cat([splits["train"], splits["validation"]]))) == set(rows(centre[:6]))


def test_missing_lsun_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataMissing, match=r"no LSUN at .*bedroom_train_lmdb.*data\.root"):
        LSUN(tmp_path).split("train")


@pytest.fixture(params=[np.savez, np.savez_compressed])
def imagenet(request, tmp_path):
    pixels, labels = draw_bytes(33, 3 * 32 * 32), np.arange(1, 34)
    mean = pixels.mean(0)
    for i in range(10):
        part = slice(3 * i, 3 * i + 3)
        request.param(
            tmp_path / f"train_data_batch_{i + 1}.npz", data=pixels[part], labels=labels[part], mean=mean
        )
    request.param(tmp_path / "val_data.npz", data=pixels[30:], labels=labels[30:], mean=mean)
    return tmp_path, torch.from_numpy(pixels.reshape(-1, 3, 32, 32))


def test_imagenet_small(imagenet):
    path, pixels = imagenet
    data = ImageNetSmall(path)
    test = data.split("test").first(None)
    assert torch.equal(test.images, pixels[30:]) and test.labels.tolist() == [30, 31, 32]
    found = [data.split(name).first(None) for name in ("train", "validation")]
    order = torch.cat([batch.labels for batch in found])
    assert sorted(order.tolist()) == list(range(30)) and len(found[1].labels) == 1
    assert torch.equal(torch.cat([batch.images for batch in found]), pixels[order])
    assert data.split("train").first(9).keys.tolist() == list(range(9))


def test_imagenet_generations_differ(imagenet):
    path, _ = imagenet
    old, new = ImageNetSmall(path, generation="2016-png"), ImageNetSmall(path)
    assert old.description() != new.description()


def test_imagenet_of_another_size_or_absent(imagenet, tmp_path):
    path, _ = imagenet
    with pytest.raises(ValueError, match="expected rows of 12288 bytes for size 64, got 3072"):
        ImageNetSmall(path, size=64).split("test")
    with pytest.raises(DataMissing, match=r"no val_data\.npz in"):
        ImageNetSmall(tmp_path / "none").split("test")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local image folder with splits train and test, and a cache of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    for part, red in (("train", 1), ("test", 2)):
        for i in range(40):
            save_plain(tmp_path / "set" / part / "ab"[i % 2] / f"{i:02}.png", (red, i, 0))
    return tmp_path / "set"


def test_hub_data_from_a_folder(hub):
    data = HubData(str(hub), size=4)
    splits = {name: data.split(name).first(None) for name in SPLITS}
    assert data.class_names == ("a", "b")
    assert [len(splits[name].labels) for name in SPLITS] == [38, 2, 40]
    for name, red in zip(SPLITS, (1, 1, 2), strict=True):
        assert (splits[name].images[:, 0] == red).all()
        assert torch.equal(splits[name].images[:, 1, 0, 0] % 2, splits[name].labels)
    greens = torch.cat([splits[name].images[:, 1, 0, 0] for name in ("train", "validation")])
    assert sorted(greens.tolist()) == list(range(40))


def test_hub_data_from_parquet_with_other_names(hub, tmp_path):
    import datasets

    whole = datasets.load_dataset(str(hub))["train"].rename_column("image", "picture")
    (tmp_path / "parquet").mkdir()
    whole.to_parquet(tmp_path / "parquet" / "train.parquet")
    data = HubData(str(tmp_path / "parquet"), image_column="picture", label_column=None, size=4)
    splits = {name: data.split(name).first(None) for name in SPLITS}
    assert [len(splits[name].labels) for name in SPLITS] == [36, 2, 2]
    greens = torch.cat([batch.images[:, 1, 0, 0] for batch in splits.values()])
    assert sorted(greens.tolist()) == list(range(40))
    assert all((batch.labels == -1).all() for batch in splits.values())


def test_hub_data_says_what_is_wrong(hub, tmp_path):
    with pytest.raises(DataMissing, match="nowhere cannot be loaded"):
        HubData(str(tmp_path / "nowhere")).split("train")
    with pytest.raises(ValueError, match="has the columns image, label, not img"):
        HubData(str(hub), image_column="img").split("train")
    with pytest.raises(ValueError, match="has the splits train, test, not all"):
        HubData(str(hub), train="all").split("train")


# Shards -------------------------------------------------------------------------------------------

SIZES = (4, 5, 3)


@pytest.fixture
def shards(tmp_path):
    """Twelve plain pictures in three tar files; red is the number of the picture, the label too."""
    number = itertools.count()
    for shard, n in enumerate(SIZES):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as archive:
            for i in itertools.islice(number, n):
                content = io.BytesIO()
                Image.new("RGB", (10, 12), (i, shard, 0)).save(content, format="PNG")
                for extension, data in (("png", content.getvalue()), ("cls", f"{i}".encode())):
                    member = tarfile.TarInfo(f"{i:04}.{extension}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return str(tmp_path / "train-{0..2}.tar")


def stream_of(pattern: str, n: int, seed: int = 0, **options) -> list[tuple[int, int, int]]:
    """(key, label, red) of the first n images of a stream."""
    split = ShardStream(expand(pattern), size=4, channels=3, seed=seed)
    batches = list(itertools.islice(split.stream(**options), n))
    assert all(batch.images.shape == (1, 3, 4, 4) for batch in batches)
    return [(int(b.keys), int(b.labels), int(b.images[0, 0, 0, 0])) for b in batches]


def test_a_stream_repeats_itself_and_shows_everything_once_an_epoch(shards):
    stream = stream_of(shards, 36)
    assert stream == stream_of(shards, 36)
    assert [key for key, _, _ in stream] == list(range(36))
    assert all(label == red for _, label, red in stream)
    epochs = [[label for _, label, _ in stream[i : i + 12]] for i in (0, 12, 24)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert len({tuple(stream_of(shards, 12, seed=seed)) for seed in range(8)}) > 3


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_share_the_stream_out(shards, world):
    whole = stream_of(shards, 30)
    parts = [stream_of(shards, 30 // world, rank=rank, world=world) for rank in range(world)]
    assert sorted(itertools.chain(*parts)) == whole
    assert all(key % world == rank for rank, part in enumerate(parts) for key, _, _ in part)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_resumed_stream_is_the_tail_of_the_uninterrupted_one(shards, world):
    for rank in range(world):
        whole = stream_of(shards, 45, rank=rank, world=world)
        for start in range(31):
            tail = [image for image in whole if image[0] >= start][:8]
            assert stream_of(shards, 8, start=start, rank=rank, world=world) == tail


def test_resuming_opens_no_shard_that_lies_before_it(shards, monkeypatch):
    split = ShardStream(expand(shards), size=4, channels=3)
    assert split.sizes == SIZES
    opened = []
    original = sys.modules["flows.data.shards"].read_shard
    monkeypatch.setattr("flows.data.shards.read_shard", lambda url: opened.append(url) or original(url))
    start = 12 + SIZES[split.order(1)[0]]
    assert int(next(split.stream(start=start)).keys) == start
    assert opened == [split.shards[split.order(1)[1]]]


def test_validation_shards_are_held_in_memory(shards):
    data = Shards(shards, shards, shards, size=4, limit=7)
    batch = data.split("validation").first(None)
    assert batch.labels.tolist() == batch.images[:, 0, 0, 0].tolist() == list(range(7))
    assert len(Shards(shards, shards, shards, size=4).split("test")) == 12
    assert next(data.stream()).images.dtype == torch.uint8 and next(iter(data.stream())).keys.tolist() == [0]
    with pytest.raises(ValueError, match=r"are a stream; use Shards\.stream"):
        data.split("train")


def test_shards_say_what_is_wrong(tmp_path):
    nowhere = str(tmp_path / "none.tar")
    with pytest.raises(DataMissing, match=r"no shard at .*none\.tar"):
        Shards(nowhere, nowhere, nowhere).split("test")
    for name, content in (("a.png", b"no picture"), ("a.txt", b"text")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    broken, textual = str(tmp_path / "a.png.tar"), str(tmp_path / "a.txt.tar")
    with pytest.raises(ValueError, match=r"no images in the test shards .*a\.png\.tar"):
        with pytest.warns(UserWarning, match=r"a\.png\.tar: a cannot be decoded \(not a picture\): left out"):
            Shards(broken, broken, broken).split("test")
    with pytest.raises(ValueError, match=r"a\.txt\.tar: a has txt, but no picture"):
        Shards(textual, textual, textual).split("test")
    empty = str(tmp_path / "empty.tar")
    tarfile.open(empty, "w").close()
    for start in (0, 3):
        with pytest.raises(ValueError, match=r"no samples in .*empty\.tar"):
            next(ShardStream((empty,), 4, 3).stream(start=start))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 7, 15])
def test_a_broken_picture_in_a_shard_is_left_out(shards, start, world, monkeypatch):
    """The next sound picture stands in its place, whatever the ranks and wherever a resumed stream begins."""
    urls, spoiled, read = expand(shards), {2, 5, 6}, data_shards.read_shard
    order = [int(batch.labels) for batch in itertools.islice(ShardStream(urls, 4, 3).stream(), 60)]

    def damaged(url):
        for sample in read(url):
            broken = int(sample["cls"]) in spoiled
            yield {**sample, "png": sample["png"][:40]} if broken else sample

    monkeypatch.setattr(data_shards, "read_shard", damaged)
    n = 24 // world
    with pytest.warns(UserWarning, match=r"left out, another stands in its place"):
        parts = [
            list(itertools.islice(ShardStream(urls, 4, 3).stream(start, rank, world), n))
            for rank in range(world)
        ]
    met = {int(batch.keys): batch for part in parts for batch in part}
    assert sorted(met) == list(range(start, start + n * world))
    for key, batch in met.items():
        expected = next(number for number in order[key:] if number not in spoiled)
        assert int(batch.labels) == expected == int(batch.images[0, 0, 0, 0])


@pytest.mark.parametrize("kept", ["within a member", "between two members", "nothing"])
def test_a_shard_that_was_cut_off_is_named_at_the_start(shards, kept):
    first, second = expand(shards)[:2]
    assert Shards(first, first, second, size=4).sizes() == {"validation": 4, "test": 5}
    path = Path(second)
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        place = archive.getmembers()[2].offset
    ends = {"within a member": place + 600, "between two members": place, "nothing": 0}
    path.write_bytes(content[: ends[kept]])
    with pytest.raises(ValueError, match=rf"{path.name} is cut off: it has no end mark"):
        Shards(second, first, first, size=4).sizes()
    path.unlink()
    with pytest.raises(DataMissing, match=rf"no shard at .*{path.name}"):
        Shards(first, first, second, size=4).sizes()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of datasets
def test_a_broken_picture_of_a_hub_is_left_out(hub):
    victim = hub / "test/a/06.png"
    victim.write_bytes(victim.read_bytes()[:45])
    split = HubData(str(hub), size=4).split("test")
    with pytest.warns(UserWarning, match=r"image \d+ of the test split cannot be decoded"):
        assert len(split.first(None).images) == 40


# Optional packages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("skimage.data", lambda path: Photos().split("train")),
        ("datasets", lambda path: HubData(str(path)).split("train")),
        ("webdataset.shardlists", lambda path: Shards("a", "a", "a").split("test")),
        ("webdataset.gopen", lambda path: Shards("a", "a", "a").split("test")),
        ("lmdb", lambda path: LSUN(path).split("train")),
        pytest.param("emoji", lambda path: Emoji().split("train"), marks=needs_font),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_brings_it(module, use, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataMissing, match=r'pip install -e "\.\[data\]"'):
        use(tmp_path)


def test_importing_the_data_sets_imports_no_optional_package():
    """Resolving a class name at start-up must work without them, and fast with them."""
    import subprocess

    modules = ", ".join(sorted({kind.__module__ for kind in DATA_SETS}))
    optional = "{'skimage', 'emoji', 'datasets', 'webdataset', 'lmdb'}"
    code = f"import sys, {modules}; print(sorted({optional} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# OOD images ---------------------------------------------------------------------------------------

SHAPES = [((1, 8, 8), 17), ((1, 32, 32), 256), ((3, 32, 32), 256), ((3, 64, 64), 32), ((1, 28, 20), 256)]


@pytest.mark.parametrize(("shape", "bins"), SHAPES)
def test_ood_images_fit_the_model_and_are_the_same_every_time(shape, bins):
    samples = torch.from_numpy(draw_bytes(3, *shape))
    suite, again = (ood_images(shape, bins, samples) for _ in range(2))
    assert list(suite) == list(again)
    for name, pixels in suite.items():
        images.check_bytes(pixels, shape)
        assert len(pixels) and torch.equal(pixels, again[name]), name
        assert torch.equal(images.reduce(pixels, bins), pixels), name
        assert pixels.is_contiguous(), name


@pytest.mark.parametrize(("shape", "bins"), SHAPES)
def test_samples_come_upside_down_and_inverted(shape, bins):
    samples = torch.from_numpy(draw_bytes(3, *shape))
    suite = ood_images(shape, bins, samples)
    assert torch.equal(suite["upside-down test"], images.reduce(samples.flip(2), bins))
    assert torch.equal(suite["inverted test"], images.reduce(255 - samples, bins))
    assert set(suite) - set(ood_images(shape, bins)) == {"upside-down test", "inverted test"}


def test_patterns_are_what_their_names_say():
    suite = ood_images((3, 32, 32))
    y, x = np.indices((32, 32))
    for side in (1, 2, 4, 8):
        board = ((y // side + x // side) % 2 * 255).astype(np.uint8)
        for pixels, expected in zip(suite[f"checkerboard of {side} px"], (board, 255 - board), strict=True):
            assert all(np.array_equal(channel, expected) for channel in pixels.numpy())
    assert set(suite["black-or-white noise"].unique().tolist()) == {0, 255}
    assert (suite["single white pixel"].float().sum((1, 2, 3)) == 3 * 255).all()
    assert suite["mid grey"].unique().tolist() == [128]
    assert suite["uniform noise"].float().std() > 70
    for name in ("horizontal stripes", "vertical stripes"):
        along, across = (2, 3) if name[0] == "v" else (3, 2)
        assert (suite[name].float().std(along) == 0).all()
        assert (suite[name].int().diff(dim=across).abs() == 255).all()


def test_photographs_in_the_suite_are_different_pictures():
    suite = ood_images((3, 32, 32))
    pictures = torch.cat([suite[name] for name in ("cat", "person", "coffee", "rocket", "temple", "flower")])
    assert len(set(rows(pictures))) == 30
    assert pictures.float().std((1, 2, 3)).median() > 20
    assert torch.equal(suite["upside-down photographs"][:5], suite["cat"].flip(2))
    assert torch.equal(suite["inverted photographs"][:5], 255 - suite["cat"])


def test_ood_images_refuse_samples_of_another_shape():
    with pytest.raises(ValueError, match=r"expected images of shape \(batch, 1, 8, 8\)"):
        ood_images((1, 8, 8), samples=torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_shipped_photographs_are_small_and_their_licences_stated():
    files = sorted(ASSETS.glob("*.png"))
    stated = (ASSETS / "LICENSES.md").read_text()
    assert files and all(f"`{file.name}`" in stated for file in files)
    assert sum(file.stat().st_size for file in files) < 150_000


# The first images are a fair sample ---------------------------------------------------------------


def fair(labels, n):
    """Whether each class's count in the first n lies within 4 binomial standard deviations of its share."""
    counts = labels[:n].bincount(minlength=int(labels.max()) + 1).double()
    share = labels.bincount().double() / len(labels)
    # Without replacement, the variance of a hypergeometric count is smaller than the binomial one.
    return bool(((counts - n * share).abs() <= 4 * (n * share * (1 - share)).sqrt() + 1e-9).all())


@pytest.fixture
def by_class(tmp_path):
    """A folder of four classes of unequal sizes, whose pictures come class by class."""
    for name, n in {"day": 200, "flower": 150, "leaf": 100, "night": 50}.items():
        for i in range(n):
            save_plain(tmp_path / "classes" / name / f"{i:03}.png", (n, i, 0))
    return Folder(tmp_path / "classes", size=4, validation=0.2, test=0.3)


def test_the_first_of_a_folder_are_a_fair_sample(by_class):
    for name in SPLITS:
        labels = by_class.split(name).labels
        for n in (60, 100, 150):
            assert n > len(labels) or fair(labels, n), name


def test_new_pictures_change_the_order_of_no_others(folder):
    before = [tuple(row) for row in Folder(folder, size=4).split("train").images[:, :, 0, 0].tolist()]
    for i in range(40):
        save_plain(folder / "birds" / f"{i}.png", (0, i, 200))
    after = [tuple(row) for row in Folder(folder, size=4).split("train").images[:, :, 0, 0].tolist()]
    assert [row for row in after if row in before] == before


@pytest.mark.parametrize(
    "make", [Digits, Fashion, lambda: Photos(16), lambda: Scenes(cache=None, images=400)]
)
def test_the_first_of_a_data_set_are_a_fair_sample(make):
    data = make()
    try:
        split = data.split("train")
    except DataMissing as error:
        assert not os.environ.get("FLOWS_REQUIRE_ALL"), error
        pytest.skip(str(error))
    assert all(fair(split.labels, n) for n in (100, 200, min(1000, len(split))))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 60])
def test_few_pictures_have_three_splits(tmp_path, n):
    """No picture is held out and trained on, too, unless there are too few; a borrowed one is said."""
    for i in range(n):
        save_plain(tmp_path / f"{i:02}.png", (i, 2, 3))
    data = Folder(tmp_path, size=4)
    splits = {name: data.split(name).images[:, 0, 0, 0].tolist() for name in SPLITS}
    assert all(splits.values()) and set().union(*splits.values()) == set(range(n))
    train, held_out = set(splits["train"]), {*splits["validation"], *splits["test"]}
    assert n < 3 or not train & held_out
    said = " ".join(data.notes())
    own = {hashed_split(f"{i:02}.png", 0.05, 0.05) for i in range(n)}
    assert said.count("is taken for it") == len({"train", "validation", "test"} - own)
    assert ("both held out and trained on" in said) == (n < 3)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_one_picture_is_shared_by_all_splits(tmp_path, split):
    number = next(i for i in range(10_000) if hashed_split(f"{i}.png", 0.05, 0.05) == split)
    save_plain(tmp_path / f"{number}.png", (7, 2, 3))
    data = Folder(tmp_path, size=4)
    assert [data.split(name).images[:, 0, 0, 0].tolist() for name in SPLITS] == [[7], [7], [7]]


def test_a_borrowed_picture_stays_until_one_of_the_splits_own_arrives(tmp_path):
    for i in range(4):
        save_plain(tmp_path / f"{i:02}.png", (i, 2, 3))
    before = Folder(tmp_path, size=4, validation=0.02, test=0.02)
    lent = before.split("validation").images[0, 0, 0, 0].item()
    number = 4
    while hashed_split(f"{number:02}.png", 0.02, 0.02) != "validation":
        number += 1
    save_plain(tmp_path / f"{number:02}.png", (number, 2, 3))
    after = Folder(tmp_path, size=4, validation=0.02, test=0.02)
    assert after.split("validation").images[:, 0, 0, 0].tolist() == [number]
    assert lent in [*after.split("train").images[:, 0, 0, 0].tolist(), after.split("test").images[0, 0, 0, 0]]


def test_what_comes_sorted_is_recognised():
    sorted_labels = torch.tensor([0, 0, 1, 1, 2])
    assert comes_sorted(sorted_labels) and comes_sorted(sorted_labels.flip(0))
    assert not comes_sorted(torch.tensor([0, 1, 0, 1])) and not comes_sorted(torch.full((5,), -1))
    assert sorted(fair_order(["a", "b", "c"])) == [0, 1, 2]
