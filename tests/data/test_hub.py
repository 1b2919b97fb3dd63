"""Data sets of the package `datasets` with columns and masks, against `Folder`, which reads files itself."""

import csv
import json
import math
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from flows.data.base import SPLITS, UNLABELLED, ImageData
from flows.data.folder import Folder
from flows.data.hub import HubData
from flows.errors import UserError

N = 30
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of datasets


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


ROWS = [
    {
        "id": 1000 + i, "caption": f"picture number {i}", "weight": i / 2, "age": 20 + i % 7,
        "sex": "fm"[i % 2], "smiling": -1 if i % 3 else 1, "glasses": i % 4 == 0,
        "pose": ["yes", "no"][i % 2], "tags": "a;b" if i % 2 else "b", "place": "here",
    }
    for i in range(N)
]  # fmt: skip
EMPTY = {"weight": range(5), "age": (9, 10, 11), "sex": (7,), "smiling": (6, 7, 8)}
"""Pictures without a value, of whole numbers in every split: `datasets` wants the same types in all."""
MISSING = [
    {name: None if i in EMPTY.get(name, ()) else value for name, value in row.items()}
    for i, row in enumerate(ROWS)
]


def picture(number: int) -> Image.Image:
    """Picture of one colour: red is 8 times its number."""
    return Image.new("RGB", (20, 16), (8 * number, 0, 0))


def write(folder: Path, names: list[str], rows: list[dict], kind: str = "csv") -> None:
    """Write pictures called `names`, and tables of their rows in the folders of the splits."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / name)
    tops = {
        name.split("/")[0] if name.startswith(("train/", "test/", "validation/")) else "" for name in names
    }
    for top in tops:
        own = [
            {"file_name": name.removeprefix(f"{top}/"), **row}
            for name, row in zip(names, rows, strict=True)
            if name.startswith(top)
        ]
        with open(folder / top / f"metadata.{kind}", "w", newline="") as opened:
            if kind == "jsonl":
                opened.writelines(json.dumps(row) + "\n" for row in own)
            else:
                writer = csv.DictWriter(opened, list(own[0]))
                writer.writeheader()
                writer.writerows(own)


def by_number(data: ImageData) -> dict[int, tuple]:
    """Number of a picture, by its colour, to its label and its values; NaN, which equals nothing, as None."""
    found = {}
    for name in SPLITS:
        batch = data.split(name).first(None)
        values = batch.attributes if batch.attributes is not None else torch.empty(len(batch.keys), 0)
        for image, label, row in zip(batch.images, batch.labels.tolist(), values.tolist(), strict=True):
            number = int(image[0, 0, 0]) // 8
            assert number not in found
            found[number] = (label, [None if math.isnan(value) else value for value in row])
    return found


def same_as_folder(path: Path, **options) -> tuple[HubData, Folder]:
    """Assert that both data sets have the same attributes, classes, labels and values."""
    hub, folder = HubData(str(path), size=8, **options), Folder(path, size=8, **options)
    assert hub.attributes == folder.attributes and hub.class_names == folder.class_names
    values = by_number(hub)
    assert values == by_number(folder) and sorted(values) == list(range(N))
    return hub, folder


FLAT = [f"{i:02d}.png" for i in range(N)]
BY_CLASS = [f"{'cat' if i % 3 else 'dog'}/{i:02d}.png" for i in range(N)]
BY_SPLIT = [f"{['train', 'validation', 'test'][i % 3]}/{i:02d}.png" for i in range(N)]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("rows", [ROWS, MISSING], ids=["all", "missing"])
@pytest.mark.parametrize("names", [FLAT, BY_CLASS, BY_SPLIT], ids=["flat", "classes", "splits"])
def test_a_folder_read_through_datasets_is_that_folder(tmp_path, kind, rows, names):
    if kind == "jsonl":
        rows = [{**row, "tags": row["tags"].split(";"), "box": {"x": 1}} for row in rows]
    write(tmp_path / "set", names, rows, kind)
    hub, folder = same_as_folder(tmp_path / "set")
    own = ["weight", "age", "sex", "smiling", "glasses", "pose", "tags: a", "tags: b"]
    assert [each.name for each in hub.attributes] == [*(["class"] if names is BY_CLASS else []), *own]
    assert hub.class_names == (("cat", "dog") if names is BY_CLASS else ())
    if names is BY_SPLIT:
        assert hub.sizes() == folder.sizes() == {"train": 10, "validation": 10, "test": 10}
        assert hub.training_images == folder.training_images == 10
    said = " ".join(hub.notes())
    for left in (
        "id (it numbers the rows)",
        "caption (30 different texts",
        "place (it has one value only, here)",
    ):
        assert left in said
    assert ("box (its values have parts of their own)" in said) == (kind == "jsonl")


def test_class_subfolders_without_a_table(tmp_path):
    write(tmp_path / "set", BY_CLASS, ROWS)
    (tmp_path / "set" / "metadata.csv").unlink()
    hub, _ = same_as_folder(tmp_path / "set")
    assert hub.attributes == () and hub.class_names == ("cat", "dog") and hub.notes() == []


@pytest.mark.parametrize("column", ["label", "class", "Category"])
@pytest.mark.parametrize("values", [[5, 7], ["x", "y"], [0, 1], ["no", "yes"]], ids=str)
def test_a_column_of_labels_is_followed_under_each_of_its_names(tmp_path, column, values):
    write(tmp_path / "set", FLAT, [{column: values[i % 2], "age": i} for i in range(N)])
    hub, _ = same_as_folder(tmp_path / "set")
    assert [label for label, _ in by_number(hub).values()] == [n % 2 for n in by_number(hub)]
    assert hub.class_names == tuple(map(str, values if values != [0, 1] else ["no", "yes"]))


def test_a_column_of_splits_is_followed(tmp_path):
    rows = [{"split": ["Train", "val", "test"][i % 3], "age": i} for i in range(N)]
    write(tmp_path / "set", FLAT, rows)
    hub, folder = same_as_folder(tmp_path / "set")
    assert hub.sizes() == folder.sizes() == {"train": 10, "validation": 10, "test": 10}
    for place, name in enumerate(SPLITS):
        assert (hub.split(name).first(None).images[:, 0, 0, 0] // 8 % 3 == place).all()
    assert "splits are those of the column split" in hub.notes()


def test_kinds_can_be_given(tmp_path):
    write(tmp_path / "set", FLAT, [{"stars": 1 + i % 4, "hue": i / N, "note": "ab"[i % 2]} for i in range(N)])
    kinds = {"stars": "category", "hue": "circular", "note": "ignore"}
    hub, _ = same_as_folder(tmp_path / "set", columns=kinds)
    assert [(each.name, each.kind) for each in hub.attributes] == [("stars", "category"), ("hue", "circular")]
    with pytest.raises(
        UserError, match="there is no column 'star'; expected some of stars, hue, note. Did you"
    ):
        HubData(str(tmp_path / "set"), columns={"star": "real"}).sizes()


# Parquet ------------------------------------------------------------------------------------------


def parquet(folder: Path, columns: dict[str, list], features: dict, parts: dict[str, range]) -> Path:
    """Write the rows of `parts` of a data set with pictures as one parquet file for each split."""
    folder.mkdir()
    columns = {"image": [picture(i) for i in range(N)], **columns}
    made = datasets.Features({"image": datasets.Image(), **features})
    for name, rows in parts.items():
        own = {key: [cells[i] for i in rows] for key, cells in columns.items()}
        datasets.Dataset.from_dict(own, features=made).to_parquet(folder / f"{name}.parquet")
    return folder


PARTS = {"train": range(20), "validation": range(20, 25), "test": range(25, N)}


def test_types_of_columns_and_classes_over_all_splits(tmp_path):
    """The kind `dog` is in the test split alone, and the training split has whole numbers alone."""
    kinds = datasets.ClassLabel(names=["zebra", "cat", "dog"])
    columns = {
        "label": [i % 2 if i != 3 else -1 for i in range(N)],
        "kind": [2 if i >= 25 else {4: None, 6: -1}.get(i, i % 2) for i in range(N)],
        "several": [[i % 3, 2] if i != 5 else None for i in range(N)],
        "words": [["p"] if i % 2 else ["p", "q"] for i in range(N)],
        "height": [float(i) if i < 20 else i + 0.5 for i in range(N)],
        "flag": [i % 2 == 0 for i in range(N)],
        "when": [i for i in range(N)],
        "nested": [{"x": i} for i in range(N)],
        "other": [picture(0) for _ in range(N)],
    }
    features = {
        "label": datasets.ClassLabel(names=["b", "a"]), "kind": kinds, "several": datasets.Sequence(kinds),
        "words": datasets.Sequence(datasets.Value("string")), "height": datasets.Value("float32"),
        "flag": datasets.Value("bool"), "when": datasets.Value("timestamp[s]"),
        "nested": {"x": datasets.Value("int64")}, "other": datasets.Image(),
    }  # fmt: skip
    data = HubData(str(parquet(tmp_path / "set", columns, features, PARTS)), size=8)
    assert data.class_names == ("b", "a") and data.sizes() == {"train": 20, "validation": 5, "test": 5}
    assert [(each.name, each.kind, each.classes) for each in data.attributes] == [
        ("label", "category", ("b", "a")),
        ("kind", "category", ("cat", "dog", "zebra")),
        *((f"several: {name}", "binary", ()) for name in ("cat", "dog", "zebra")),
        *((f"words: {name}", "binary", ()) for name in "pq"),
        ("height", "real", ()),
        ("flag", "binary", ()),
    ]
    assert (data.attributes[7].low, data.attributes[7].high) == (0, 29.5)
    order = ["cat", "dog", "zebra"]
    for number, (label, values) in by_number(data).items():
        assert label == (number % 2 if number != 3 else -1) and values[0] == (label if label >= 0 else None)
        kind = columns["kind"][number]
        assert values[1] == (None if kind in (None, -1) else order.index(kinds.names[kind]))
        several = columns["several"][number]
        named = None if several is None else {kinds.names[i] for i in several}
        assert values[2:5] == [None if named is None else float(name in named) for name in order]
        assert values[5:] == [1, float(number % 2 == 0), columns["height"][number], float(number % 2 == 0)]
    said = " ".join(data.notes())
    for left in (
        "when (its values are of type timestamp[ms])",
        "nested (its values have parts",
        "of type Image",
    ):
        assert left in said
    without = HubData(data.repo, label_column=None, size=8)
    assert without.class_names == () and without.attributes[0].classes == ("a", "b")
    assert set(without.split("test").labels.tolist()) == {-1}


def test_a_label_column_that_is_named_has_classes(tmp_path):
    columns = {"breed": [i % 2 for i in range(N)], "mass": [i / 3 for i in range(N)]}
    features = {"breed": datasets.Value("int64"), "mass": datasets.Value("float64")}
    path = str(parquet(tmp_path / "set", columns, features, PARTS))
    data = HubData(path, label_column="breed", size=8)
    assert data.class_names == ("0", "1") and [each.name for each in data.attributes] == ["breed", "mass"]
    assert all(label == n % 2 for n, (label, _) in by_number(data).items())
    with pytest.raises(UserError, match="expected class labels in mass; set it to null for none"):
        HubData(path, label_column="mass").split("train")
    with pytest.raises(UserError, match="has the columns image, breed, mass, not kind"):
        HubData(path, label_column="kind").split("train")


# Masks --------------------------------------------------------------------------------------------


def quarter(value: int) -> np.ndarray:
    """Mask of 16×20 whose upper left quarter has a value, whose lower right one has value 1, else 0."""
    mask = np.zeros((16, 20), dtype=np.uint8)
    mask[:8, :10], mask[8:, 10:] = value, 1
    return mask


def masks_of(data: ImageData) -> dict[int, torch.Tensor]:
    """Number of a picture, by its colour, to its mask."""
    batches = [data.split(name).first(None) for name in SPLITS]
    parts = [(batch.images[:, 0, 0, 0] // 8, batch.masks) for batch in batches]
    return {int(n): mask for numbers, masks in parts for n, mask in zip(numbers, masks, strict=True)}


def with_masks(path: Path, change: dict[int, Image.Image | None] | None = None) -> str:
    masks = [Image.fromarray(quarter(2 if i < 25 else 3)) for i in range(N)]
    columns = {"seg": [(change or {}).get(i, mask) for i, mask in enumerate(masks)]}
    return str(parquet(path, columns, {"seg": datasets.Image()}, PARTS))


def test_masks_of_a_column_are_those_of_a_folder(tmp_path):
    """Value 3 is in the test split alone; picture 4 has no mask, that of picture 5 has a palette."""
    coloured = Image.fromarray(quarter(2))
    coloured.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    names = ["floor", "lamp", "window", "door"]
    data = HubData(
        with_masks(tmp_path / "set", {4: None, 5: coloured}), size=8, mask_column="seg", mask_names=names
    )
    assert data.mask_classes == tuple(names) and data.attributes == ()
    assert "29 of 30 pictures have a mask" in data.notes()

    for folder in ("images", "masks"):
        (tmp_path / "files" / folder).mkdir(parents=True)
    for i in range(N):
        picture(i).save(tmp_path / f"files/images/{i:02d}.png")
        if i != 4:
            Image.fromarray(quarter(2 if i < 25 else 3)).save(tmp_path / f"files/masks/{i:02d}.png")
    (tmp_path / "files/classes.txt").write_text("\n".join(names))
    files = Folder(tmp_path / "files", size=8)
    assert files.mask_classes == data.mask_classes

    one, other = masks_of(data), masks_of(files)
    assert one.keys() == other.keys() == set(range(N))
    assert all(torch.equal(one[i], other[i]) for i in range(N)) and (one[4] == UNLABELLED).all()
    assert one[27].unique().tolist() == [0, 1, 3]
    unnamed = HubData(data.repo, size=8, mask_column="seg")
    assert unnamed.mask_classes == ("background", "class 1", "class 2", "class 3")


def test_masks_that_a_table_names(tmp_path):
    rows = [{"mask_file_name": f"masks/{i:02d}.png", "age": i} for i in range(N)]
    (tmp_path / "set/masks").mkdir(parents=True)
    for i in range(N):
        Image.fromarray(quarter(i % 3)).save(tmp_path / f"set/masks/{i:02d}.png")
    write(tmp_path / "set", [f"images/{name}" for name in FLAT], rows)
    data = HubData(str(tmp_path / "set"), size=8, mask_column="mask")
    files = Folder(tmp_path / "set", size=8)
    assert data.mask_classes == files.mask_classes == ("background", "class 1", "class 2")
    assert data.attributes == files.attributes and by_number(data) == by_number(files)
    assert all(torch.equal(masks_of(data)[i], masks_of(files)[i]) for i in range(N))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (
            Image.fromarray(quarter(2)[:, :10]),
            r"masks of another size .*: 1 \(seg of row 4 10×16, row 4 20×16",
        ),
        (
            Image.fromarray(quarter(9)),
            r"no class: 1 \(seg of row 4 has 9\); data\.mask_names has 0 floor, 1 lamp",
        ),
        (Image.new("RGB", (20, 16)), "seg of row 4 has Pillow's mode RGB; expected one value per pixel"),
    ],
    ids=["size", "value", "colour"],
)
def test_masks_that_cannot_be_used_are_one_line(tmp_path, mask, said):
    path = with_masks(tmp_path / "set", {3: mask})
    with pytest.raises(UserError, match=said):
        HubData(path, size=8, mask_column="seg", mask_names=["floor", "lamp", "window", "door"]).split("test")


def test_options_of_masks_that_cannot_be_are_refused(tmp_path):
    path = with_masks(tmp_path / "set")
    with pytest.raises(UserError, match="has the columns image, seg, not mask"):
        HubData(path, mask_column="mask").split("test")
    with pytest.raises(UserError, match="mask_names: expected null without mask_column"):
        HubData(path, mask_names=["a"])
    columns = {"number": list(range(N))}
    other = parquet(tmp_path / "other", columns, {"number": datasets.Value("int64")}, PARTS)
    with pytest.raises(UserError, match=r"data\.mask_column: expected a column of pictures, got number"):
        HubData(str(other), mask_column="number").split("test")
