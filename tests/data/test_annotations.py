"""Folders with what people have beside their pictures: tables, masks, CelebA's lists, archives, raw files."""

import csv
import io
import json
import math
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.data import formats
from flows.data.base import SPLITS, UNLABELLED
from flows.data.columns import read_column
from flows.data.folder import Folder
from flows.errors import UserError

N = 30


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Thirty pictures of one colour each, 20×16: red is 8 times the number."""
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(N):
        Image.new("RGB", (20, 16), (8 * i, 0, 0)).save(folder / f"{i:02d}.png")
    return folder


def number_of(batch) -> list[int]:
    """Numbers of the pictures of a batch, by their colour."""
    return (batch.images[:, 0, 0, 0] // 8).tolist()


def write_table(path: Path, rows: list[dict], separator: str = ",") -> None:
    with open(path, "w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def everything(data: Folder) -> tuple[list[int], torch.Tensor]:
    """Numbers and attributes of all pictures."""
    batches = [data.split(name).first(None) for name in SPLITS]
    return [n for batch in batches for n in number_of(batch)], torch.cat([b.attributes for b in batches])


ROWS = [
    {
        "file_name": f"{i:02d}.png", "id": 1000 + i, "caption": f"picture number {i}", "weight": i / 2,
        "sex": "fm"[i % 2], "smiling": -1 if i % 3 else 1, "tags": "a;b" if i % 2 else "b",
        "place": "here",
    }
    for i in range(N)
]  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["metadata.csv", "metadata.jsonl", "metadata.tsv", "labels.csv", "paths.csv"]
)
def test_a_table_gives_every_picture_its_own_values(pictures, kind):
    if kind == "metadata.jsonl":
        lines = [json.dumps({**row, "tags": row["tags"].split(";")}) for row in ROWS]
        (pictures / kind).write_text("\n".join(lines))
    elif kind == "paths.csv":  # a semicolon, decimal commas, names without suffix, as spreadsheets write them
        rows = [
            {"image": f"{i:02d}"}
            | {name: value for name, value in row.items() if name != "file_name"}
            | {"weight": f"{i // 2},{5 * (i % 2)}", "tags": row["tags"].replace(";", "|")}
            for i, row in enumerate(ROWS)
        ]  # fmt: skip
        write_table(pictures / kind, rows, ";")
    else:
        write_table(pictures / kind, ROWS, "\t" if kind.endswith("tsv") else ",")
    data = Folder(pictures, size=8, validation=0.2, test=0.2)
    names = [each.name for each in data.attributes]
    assert names == ["weight", "sex", "smiling", "tags: a", "tags: b"][: len(names)] and len(names) == 5
    assert [each.kind for each in data.attributes] == ["real", "category", "binary", "binary", "binary"]
    assert (data.attributes[0].low, data.attributes[0].high) == (0, (N - 1) / 2)
    numbers, values = everything(data)
    assert sorted(numbers) == list(range(N))
    for n, row in zip(numbers, values.tolist(), strict=True):
        # classes are sorted: f is 0, m is 1
        assert row == [n / 2, n % 2, float(n % 3 == 0), float(n % 2), 1.0]
    said = " ".join(data.notes())
    assert f"{kind}: 30 of 30 pictures have a row" in said
    for left in (
        "id (it numbers the rows)",
        "caption (30 different texts",
        "place (it has one value only, here)",
    ):
        assert left in said


def test_missing_values_rows_and_pictures_are_said_and_train_nothing(pictures):
    rows = [
        {**row, "weight": "" if i < 5 else row["weight"], "sex": "NA" if i == 7 else row["sex"]}
        for i, row in enumerate(ROWS)
    ]
    gone = [{**rows[0], "file_name": f"gone-{i}.png"} for i in range(4)]
    write_table(pictures / "metadata.csv", [*rows[:20], *gone])
    data = Folder(pictures, size=8, validation=0.2, test=0.2)
    numbers, values = everything(data)
    weights, sexes = values[:, 0], values[:, 1]
    for n, weight, sex in zip(numbers, weights.tolist(), sexes.tolist(), strict=True):
        assert math.isnan(weight) == (n < 5 or n >= 20) and math.isnan(sex) == (n == 7 or n >= 20)
    said = data.notes()
    missing = "gone-0.png, gone-1.png, gone-2.png and 1 more"
    assert f"pictures that the table names and that are not here: 4 ({missing})" in said
    assert any(
        line.startswith("pictures without a row, whose values are missing: 10 (20.png,") for line in said
    )


def test_a_column_of_splits_and_of_labels_is_followed(pictures):
    rows = [
        {"file_name": f"{i:02d}.png", "split": ["Train", "val", "test"][i % 3], "label": i % 2 + 5}
        for i in range(N)
    ]
    write_table(pictures / "metadata.csv", rows)
    data = Folder(pictures, size=8)
    assert data.sizes() == {"train": 10, "validation": 10, "test": 10}
    assert data.class_names == ("5", "6") and [each.name for each in data.attributes] == ["label"]
    for place, name in enumerate(SPLITS):
        batch = data.split(name).first(None)
        assert all(n % 3 == place for n in number_of(batch))
        assert batch.labels.tolist() == [n % 2 for n in number_of(batch)]


def test_a_table_in_each_split_and_classes_by_folder(tmp_path):
    for split, start in (("train", 0), ("test", 20)):
        for kind in ("cat", "dog"):
            (tmp_path / split / kind).mkdir(parents=True)
        rows = []
        for i in range(start, start + 10):
            name = f"{'cat' if i % 2 else 'dog'}/{i:02d}.png"
            Image.new("RGB", (8, 8), (8 * i, 0, 0)).save(tmp_path / split / name)
            rows.append({"file_name": name, "age": i})
        write_table(tmp_path / split / "metadata.csv", [*rows])
    data = Folder(tmp_path, size=8)
    assert data.class_names == ("cat", "dog") and [each.name for each in data.attributes] == ["class", "age"]
    numbers, values = everything(data)
    assert values.tolist() == [[float(n % 2 == 0), float(n)] for n in numbers]


def test_celebas_lists_are_read(tmp_path):
    (tmp_path / "img").mkdir()
    lines = []
    for i in range(9):
        Image.new("RGB", (8, 8), (8 * i, 0, 0)).save(tmp_path / f"img/{i:06d}.jpg", quality=100)
        lines.append(f"{i:06d}.jpg  {'1' if i % 2 else '-1'}  {'-1' if i % 4 else '1'}")
    (tmp_path / "list_attr_celeba.txt").write_text("9\nSmiling Bald\n" + "\n".join(lines) + "\n")
    parts = "\n".join(f"{i:06d}.jpg {i // 3}" for i in range(9))
    (tmp_path / "list_eval_partition.txt").write_text(parts)
    data = Folder(tmp_path, size=8)
    assert [(each.name, each.kind) for each in data.attributes] == [("Smiling", "binary"), ("Bald", "binary")]
    assert data.sizes() == {"train": 3, "validation": 3, "test": 3}
    batch = data.split("test").first(None)
    numbers = [(n + 1) // 1 for n in number_of(batch)]
    assert len(numbers) == 3 and batch.attributes.shape == (3, 2)
    names = [int(Path(name).stem) for name in data.split("test").names]
    assert batch.attributes.tolist() == [[float(n % 2), float(n % 4 == 0)] for n in names]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*ROWS, ROWS[3]], r"metadata\.csv: pictures with two rows: 1 \(03\.png\); keep one of each"),
        ([{**row, "file_name": f"x{row['file_name']}"} for row in ROWS], "no column names a picture"),
        ([{**row, "weight": "inf" if i < 2 else 1} for i, row in enumerate(ROWS)], "weight: infinite values"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used_are_one_line(pictures, rows, said):
    write_table(
        pictures / "metadata.csv",
        [{k: v for k, v in row.items() if k in ("file_name", "weight")} for row in rows],
    )
    with pytest.raises(UserError, match=said):
        Folder(pictures, size=8).sizes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.csv", b"file_name,a,a\n00.png,1,2\n", "two columns are called 'a'"),
        ("metadata.csv", b"file_name,a\n00.png,1,2\n01.png\n", r"not the 2 cells of the heading: 2 \(2, 3\)"),
        ("metadata.csv", b"file_name,a\n00.png,\xff\xfe\n", "expected text in UTF-8"),
        ("metadata.csv", b"", "expected a heading and rows, got no row"),
        ("metadata.jsonl", b'{"file_name": "00.png"}\n{"file_na', "line 2 is no JSON"),
        ("metadata.jsonl", b"[1]\n", "line 1: expected names and values in braces"),
    ],
)  # fmt: skip
def test_broken_tables_are_one_line(pictures, name, content, said):
    (pictures / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        Folder(pictures, size=8).sizes()


def test_a_table_that_is_not_of_these_pictures_is_left_alone(pictures):
    (pictures / "budget.csv").write_text("month,sum\nMay,3\nJune,4\n")
    data = Folder(pictures, size=8)
    assert data.attributes == () and sum(data.sizes().values()) == N
    assert any(line.startswith("budget.csv is not used: ") for line in data.notes())


def test_the_kind_of_a_column_can_be_given(pictures):
    rows = [{"file_name": f"{i:02d}.png", "stars": 1 + i % 4, "hue": i / N} for i in range(N)]
    write_table(pictures / "metadata.csv", rows)
    kinds = {each.name: each.kind for each in Folder(pictures, size=8).attributes}
    assert kinds == {"stars": "real", "hue": "real"}
    data = Folder(pictures, size=8, columns={"stars": "category", "hue": "circular"})
    assert [(each.name, each.kind, each.classes) for each in data.attributes] == [
        ("stars", "category", ("1", "2", "3", "4")), ("hue", "circular", ()),
    ]  # fmt: skip
    with pytest.raises(
        UserError, match="there is no column 'star'; expected some of stars, hue. Did you mean"
    ):
        Folder(pictures, size=8, columns={"star": "category"}).sizes()


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["yes", "no", "", "yes"] * 5, "binary"), ([0, 1, None, 1] * 5, "binary"),
        ([True, False] * 5, "binary"),
        ([2, 3, 2, 3] * 5, "real"), (["1.5", "nan", "2"] * 5, "real"), (["red", "blue", "?"] * 5, "category"),
        ([["a", "b"], ["a"], []] * 5, "several"), (["a|b", "b", "a"] * 5, "several"),
    ],
)  # fmt: skip
def test_kinds_of_columns_follow_from_their_values(cells, kind):
    column = read_column("x", cells)
    names = [each.kind for each in column.attributes]
    assert names == (["binary", "binary"] if kind == "several" else [kind])
    missing = [cell in ("", None, "nan", "?") or cell == [] for cell in cells]
    assert column.values.isnan().any(1).tolist() == missing


# Masks --------------------------------------------------------------------------------------------


def quarter(value: int) -> np.ndarray:
    """Mask of 16×20 whose upper left quarter has a value, whose lower right one has value 1, else 0."""
    mask = np.zeros((16, 20), dtype=np.uint8)
    mask[:8, :10], mask[8:, 10:] = value, 1
    return mask


def with_masks(folder: Path, mask: np.ndarray, mode: str = "L", folders=("images", "masks")) -> None:
    """Move the pictures of a folder into images/, and write a mask for each in masks/."""
    for name in folders:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.png")):
        path.rename(folder / folders[0] / path.name)
        picture = Image.fromarray(mask)
        if mode == "P":
            picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
        picture.save(folder / folders[1] / path.name)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_masks_are_cropped_like_their_pictures(pictures, mode):
    with_masks(pictures, quarter(2), mode)
    (pictures / "classes.txt").write_text("floor\nlamp\nwindow\n")
    data = Folder(pictures, size=8)
    assert data.mask_classes == ("floor", "lamp", "window") and sum(data.sizes().values()) == N
    masks = data.split("train").first(3).masks
    # the middle 16×16 of 20×16: columns 2 to 17, so that the border at column 10 is in the middle
    expected = torch.zeros(8, 8, dtype=torch.uint8)
    expected[:4, :4], expected[4:, 4:] = 2, 1
    assert all(torch.equal(mask, expected) for mask in masks)
    wide = Folder(pictures, size=(8, 10))
    assert wide.image_shape == (3, 8, 10) and wide.split("train").first(1).masks.shape == (1, 8, 10)


def test_a_switch_and_pixels_without_a_label(pictures):
    with_masks(pictures, 255 * (quarter(0) == 0).astype(np.uint8))
    (pictures / "classes.txt").write_text("ground\nleaf\n")
    assert Folder(pictures, size=8).split("train").first(1).masks.unique().tolist() == [0, 1]
    mask = quarter(2)
    mask[:2] = 255
    Image.fromarray(mask).save(pictures / "masks" / "00.png")
    for i in range(1, N):
        Image.fromarray(quarter(2)).save(pictures / "masks" / f"{i:02d}.png")
    (pictures / "masks" / "29.png").unlink()
    (pictures / "classes.txt").write_text("0 ground\n1 leaf\n2 lamp\n")
    data = Folder(pictures, size=8, validation=0.2, test=0.2)
    of = {
        n: mask
        for name in SPLITS
        for n, mask in zip(
            *[number_of(data.split(name).first(None)), data.split(name).first(None).masks], strict=True
        )
    }
    assert (of[0][0] == UNLABELLED).all() and of[1].unique().tolist() == [0, 1, 2]
    assert (of[29] == UNLABELLED).all()
    assert "pictures without a mask, whose pixels have no label: 1 (images/29.png)" in data.notes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("size", r"masks of another size than their pictures: 2 \(masks/03\.png 10×16, images/03\.png 20×16"),
        ("value", r"masks with values of no class: 1 \(masks/03\.png has 9\); classes\.txt has 0 floor"),
        ("colour", "masks/03.png has Pillow's mode RGB; expected one value per pixel"),
        ("broken", "masks/03.png cannot be decoded: not a picture"),
    ],
)
def test_masks_that_cannot_be_used_are_one_line(pictures, change, said):
    with_masks(pictures, quarter(2))
    (pictures / "classes.txt").write_text("floor\nlamp\nwindow\n")
    place = pictures / "masks" / "03.png"
    if change == "size":
        for name in ("03", "04"):
            Image.fromarray(quarter(2)[:, :10]).save(pictures / "masks" / f"{name}.png")
    elif change == "value":
        Image.fromarray(quarter(9)).save(place)
    elif change == "colour":
        Image.new("RGB", (20, 16)).save(place)
    else:
        place.write_bytes(b"no")
    with pytest.raises(UserError, match=said):
        Folder(pictures, size=8).sizes()


def test_masks_elsewhere_with_names_of_their_own(pictures, tmp_path):
    masks = tmp_path / "elsewhere"
    masks.mkdir()
    for i in range(N):
        Image.fromarray(quarter(2)).save(masks / f"{i:02d}_mask.png")
    data = Folder(pictures, size=8, masks=masks)
    assert data.mask_classes == ("background", "class 1", "class 2")
    assert data.first("test", 1).masks is not None
    with pytest.raises(UserError, match="no file in .* has the name of a picture, such as 00.png"):
        Folder(pictures, size=8, masks=pictures.parent).sizes()


# Archives and formats -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_is_its_folder(pictures, tmp_path, suffix):
    with_masks(pictures, quarter(2))
    (pictures / "classes.txt").write_text("floor\nlamp\nwindow\n")
    write_table(
        pictures / "metadata.csv", [{**row, "file_name": f"images/{row['file_name']}"} for row in ROWS]
    )
    archive = tmp_path / f"set.{suffix}"
    files = [path for path in sorted(pictures.rglob("*")) if path.is_file()]
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as written:
            for path in files:
                written.write(path, path.relative_to(pictures))
    else:
        mode = "w" if suffix == "tar" else f"w:{suffix.partition('.')[2]}"
        with tarfile.open(archive, mode) as written:
            for path in files:
                written.add(path, f"./{path.relative_to(pictures)}")
    folder, packed = Folder(pictures, size=8), Folder(archive, size=8)
    for name in SPLITS:
        one, other = folder.split(name).first(None), packed.split(name).first(None)
        assert torch.equal(one.images, other.images) and torch.equal(one.masks, other.masks)
        assert torch.equal(one.attributes.nan_to_num(nan=-9), other.attributes.nan_to_num(nan=-9))
    lazy = Folder(archive, size=8, in_memory=False).split("train").first(None)
    assert torch.equal(lazy.images, packed.split("train").first(None).images)


def test_a_tar_that_is_cut_off_is_named(pictures, tmp_path):
    archive = tmp_path / "set.tar.gz"
    with tarfile.open(archive, "w:gz") as written:
        written.add(pictures, "set")
    archive.write_bytes(archive.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"set\.tar\.gz"):
        Folder(archive, size=8).sizes()


def test_photographs_of_phones_are_read(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    pytest.importorskip("pillow_jxl")
    heif.register_heif_opener()
    colours = {"a.heic": (200, 30, 30), "b.jxl": (30, 200, 30), "c.avif": (30, 30, 200)}
    for name, colour in colours.items():
        exact = {"lossless": True} if name.endswith("jxl") else {"quality": 100}
        Image.new("RGB", (64, 64), colour).save(tmp_path / name, **exact)
    data = Folder(tmp_path, size=8, validation=0, test=0)
    batch = data.split("train").first(None)
    for name, image in zip(data.split("train").names, batch.images, strict=True):
        assert (image.float().mean((1, 2)) - torch.tensor(colours[name])).abs().max() < 4, name


def dng(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """Smallest DNG that LibRaw opens: a Bayer mosaic (RGGB) of one colour, 16 bits, without compression."""
    mosaic = np.empty((height, width), dtype="<u2")
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = colour[0], colour[2]
    mosaic[0::2, 1::2] = mosaic[1::2, 0::2] = colour[1]
    pixels = mosaic.tobytes()
    one, identity = [(1, 1)], [(n, 1) for n in (1, 0, 0, 0, 1, 0, 0, 0, 1)]
    tags: list[tuple[int, int, object]] = [
        (254, 4, [0]), (256, 4, [width]), (257, 4, [height]), (258, 3, [16]), (259, 3, [1]),
        (262, 3, [32803]), (271, 2, b"Test\0"), (272, 2, b"Test\0"), (273, 4, [8]), (274, 3, [1]),
        (277, 3, [1]), (278, 4, [height]),
        (279, 4, [len(pixels)]), (284, 3, [1]), (33421, 3, [2, 2]), (33422, 1, bytes([0, 1, 1, 2])),
        (50706, 1, bytes([1, 4, 0, 0])), (50707, 1, bytes([1, 1, 0, 0])), (50708, 2, b"Test\0"),
        (50714, 3, [0]), (50717, 4, [65535]), (50721, 10, identity), (50728, 5, one * 3), (50778, 3, [21]),
    ]  # fmt: skip
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 10: 8}
    extra, entries, start = b"", [], 8 + len(pixels)
    after = start + 2 + 12 * len(tags) + 4
    for tag, kind, value in tags:
        if isinstance(value, bytes):
            body, count = value, len(value)
        else:
            assert isinstance(value, list)
            form = {3: "<H", 4: "<I", 5: "<II", 10: "<ii"}[kind]
            body = b"".join(
                struct.pack(form, *(each if isinstance(each, tuple) else (each,))) for each in value
            )
            count = len(body) // sizes[kind]
        if len(body) <= 4:
            field = body.ljust(4, b"\0")
        else:
            field = struct.pack("<I", after + len(extra))
            extra += body + b"\0" * (len(body) % 2)
        entries.append(struct.pack("<HHI", tag, kind, count) + field)
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, start) + pixels + directory + extra


@pytest.mark.parametrize("packed", [False, True])
def test_raw_photographs_are_developed(tmp_path, packed):
    pytest.importorskip("rawpy")
    content = dng(64, 48, (40000, 12000, 4000))  # red in the space of the camera, which is XYZ here
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as written:
            written.writestr("a.dng", content)
        data = Folder(tmp_path / "set.zip", size=8, validation=0, test=0)
    else:
        (tmp_path / "a.dng").write_bytes(content)
        data = Folder(tmp_path, size=8, validation=0, test=0)
    red, green, blue = data.split("train").first(1).images[0].float().mean((1, 2)).tolist()
    assert red > 200 and green < 40 and blue < 100 and data.contents.shapes["a.dng"] == (64, 48)
    with pytest.warns(UserWarning, match=r"1 of 2 image files cannot be read: b\.dng: not a raw photograph"):
        (tmp_path / "b.dng").write_bytes(b"no raw")
        if packed:
            with zipfile.ZipFile(tmp_path / "set.zip", "a") as written:
                written.writestr("b.dng", b"no raw")
        Folder(data.path, size=8, validation=0, test=0).split("train")


def test_what_needs_a_package_is_counted_with_its_name(pictures, monkeypatch):
    monkeypatch.setattr(formats, "is_installed", lambda module: False)
    formats.extensions.cache_clear()
    try:
        (pictures / "a.HEIC").write_bytes(b"x")
        (pictures / "b.cr2").write_bytes(b"x")
        (line,) = Folder(pictures, size=8).notes()
    finally:
        formats.extensions.cache_clear()
    assert "1 .heic (`pip install pillow-heif` reads them)" in line and "`pip install rawpy`" in line


def test_turned_photographs_fit_their_masks(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    Image.new("RGB", (20, 16)).save(tmp_path / "images/a.jpg", exif=exif)
    Image.new("L", (16, 20), 1).save(tmp_path / "masks/a.png")
    buffer = io.BytesIO()
    Image.new("L", (16, 20), 1).save(buffer, "PNG")
    assert Folder(tmp_path, size=8, validation=0, test=0).split("train").first(1).masks.unique().tolist() == [
        0
    ]
