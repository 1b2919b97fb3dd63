"""Arrays, torch data sets and lists as data: the same bytes, in splits that share nothing."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import flows
from flows.data import Digits, as_data
from flows.data.base import SPLITS, ImageData
from flows.data.source import class_of, instantiate_data
from flows.errors import UserError

N = 60
RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (N, 8, 6, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (N, 8, 6), dtype=np.uint8)
LABELS = RANDOM.integers(0, 4, N)


class Pairs(Dataset):
    """Items as a person writes them: Pillow images, with a label."""

    classes = ["one", "two", "three", "four"]

    def __init__(self, images=COLOUR, change=Image.fromarray):
        self.images, self.change = images, change

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.change(self.images[index]), int(LABELS[index])


def unit(image):
    """Floats in [0, 1], as torchvision's ToTensor returns them."""
    return torch.from_numpy(image).movedim(-1, 0).float() / 255


KINDS = {
    "array, channels last": COLOUR,
    "array, channels first": np.moveaxis(COLOUR, -1, 1),
    "read-only array": np.broadcast_to(COLOUR, COLOUR.shape),
    "tensor, channels last": torch.from_numpy(COLOUR),
    "tensor, channels first": torch.from_numpy(COLOUR).movedim(-1, 1),
    "floats that are bytes / 255": COLOUR.astype(np.float32) / 255,
    "double floats": torch.from_numpy(COLOUR).double() / 255,
    "images": flows.Images(torch.from_numpy(COLOUR).movedim(-1, 1)),
    "pillow list": [Image.fromarray(each) for each in COLOUR],
    "array list": list(COLOUR),
    "dataset": Pairs(),
    "dataset of ToTensor": Pairs(change=unit),
    "subset": Subset(Pairs(), range(N)),
    "mappings": [{"image": Image.fromarray(each), "label": 1} for each in COLOUR],
    "TensorDataset": TensorDataset(torch.from_numpy(COLOUR)),
    "pair": (COLOUR, LABELS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_same_bytes_and_splits_that_share_nothing(kind):
    data = as_data(KINDS[kind], (3, 8, 6), validation=0.1, test=0.2)
    found = {name: data.split(name).first(None) for name in SPLITS}
    assert [len(found[name].images) for name in SPLITS] == [42, 6, 12]
    whole = torch.cat([found[name].images for name in SPLITS])
    expected = {row.tobytes() for row in np.moveaxis(COLOUR, -1, 1).copy()}
    assert whole.dtype == torch.uint8 and {row.numpy().tobytes() for row in whole} == expected
    place = {row.tobytes(): i for i, row in enumerate(np.moveaxis(COLOUR, -1, 1).copy())}
    for batch in found.values():
        assert batch.keys.tolist() == list(range(len(batch.keys)))
        if kind in ("dataset", "subset", "pair", "dataset of ToTensor"):
            rows = [place[image.numpy().tobytes()] for image in batch.images]
            assert batch.labels.tolist() == LABELS[rows].tolist()
    again = as_data(KINDS[kind], (3, 8, 6), validation=0.1, test=0.2)
    assert torch.equal(again.split("test").first(3).images, found["test"].images[:3])
    assert again.split("train").digest() == data.split("train").digest()
    assert again.split("train").digest() != data.split("test").digest()


@pytest.mark.parametrize("grey", [GREY, GREY[..., None], GREY[:, None], torch.from_numpy(GREY)])
def test_grey_images_need_no_channels(grey):
    data = as_data(grey, (1, 8, 6))
    assert data.split("train").first(1).images.shape == (1, 1, 8, 6)


def test_names_are_those_of_the_data():
    assert as_data(Subset(Pairs(), range(9)), (3, 8, 6)).class_names == ("one", "two", "three", "four")
    assert as_data((COLOUR, LABELS), (3, 8, 6)).class_names == ("0", "1", "2", "3")
    assert as_data(COLOUR, (3, 8, 6)).class_names == ()
    assert as_data(Pairs(), (3, 8, 6)).name == "pairs"
    assert as_data(Pairs(), (3, 8, 6), name="mine").name == "mine"


def test_splits_may_be_given():
    other, third = COLOUR[:5], Pairs(COLOUR[:4])
    data = as_data(COLOUR, (3, 8, 6), validation=(other, [0, 1, 2, 3, 0]), test=third)
    assert data.sizes() == {"train": N, "validation": 5, "test": 4} and data.notes() == []
    assert torch.equal(data.split("validation").first(None).images, torch.from_numpy(other).movedim(-1, 1))
    part = as_data(COLOUR, (3, 8, 6), test=third)
    assert part.sizes() == {"train": 57, "validation": 3, "test": 4}
    assert part.notes() == ["held out by a fixed permutation: 3 validation images"]


def test_a_split_of_flows_keeps_what_it_knows():
    digits = Digits().split("train")
    data = as_data(digits, (1, 8, 8), bins=17)
    batch = data.split("validation").first(None)
    assert batch.labels.min() >= 0 and len(batch.labels) == round(0.05 * len(digits))
    assert as_data(Digits(), (1, 8, 8)).name == "digits"


def test_random_transforms_keep_their_effect():
    torch.manual_seed(0)
    dataset = Pairs(change=lambda image: torch.randint(256, (3, 8, 6), dtype=torch.uint8))
    split = as_data(dataset, (3, 8, 6)).split("train")
    assert not torch.equal(split.first(4).images, split.first(4).images)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(COLOUR)


WRONG = {
    "scaled floats": (
        COLOUR / 127.5 - 1,
        "float64 from -1 to 1, which are not bytes .*PILToTensor",
    ),
    "bin centres": ((COLOUR + 0.5) / 256, "which are not bytes divided by 255"),
    "wide integers": (COLOUR.astype(np.int64), "expected uint8 images, got an array of int64"),
    "another size": (COLOUR[:, :7], r"expected images of shape \(batch, 3, 8, 6\), got \(60, 7, 6, 3\)"),
    "a picture of another size": ([Image.new("RGB", (9, 8))] * 9, "item 0 of data: expected pictures of 6×8"),
    "nothing": (COLOUR[:0], "expected images, got none"),
    "too few": (COLOUR[:2], "2 images leave none for training beside 2 held out"),
    "a path": ("~/pictures", r"flows.data.Folder\('~/pictures', size=6, channels=3\)"),
    "a stream": (Stream(), "flows.data.StreamedData"),
    "a loader": (DataLoader(Pairs()), "DataLoader; give its .dataset"),
    "a number": (3, "got int"),
    "labels of another number": ((COLOUR, LABELS[:3]), "one label per image, 60, got 3"),
    "labels that are no numbers": ((COLOUR, ["a"] * N), "labels: expected integers"),
    "items of three": ([(COLOUR[0], 1, 2)] * 9, r"a pair \(image, label\), got 3 values"),
    "mappings without an image": ([{"picture": 1}] * 9, "expected a key image or img, got picture"),
    "a label between": ([(COLOUR[0], 0.5)] * 9, "label: expected a whole number, got 0.5"),
    "texts": (["a.png"] * 9, "expected a Pillow image, an array or a tensor, got str"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_other_data_are_refused_with_a_way_out(kind):
    given, sentence = WRONG[kind]
    with pytest.raises(UserError, match=sentence) as refused:
        as_data(given, (3, 8, 6))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("share", [0, 1, -0.1, True, 1.5])
def test_shares_are_between_none_and_all(share):
    with pytest.raises(UserError, match="validation: expected a share"):
        as_data(COLOUR, (3, 8, 6), validation=share)


def test_a_data_set_has_splits_of_its_own():
    with pytest.raises(UserError, match="test: Digits has splits of its own"):
        as_data(Digits(), (1, 8, 8), test=GREY)


class Mine(ImageData):
    """Data set that no package has."""

    name, image_shape = "mine", (1, 8, 8)

    def __init__(self, level: int = 3, path: str = "here"):
        self.level, self.path = level, path

    def split(self, name):
        raise NotImplementedError


def test_a_class_of_ones_own_is_built_if_it_is_passed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    source = {"class_path": f"{__name__}.Mine", "init_args": {"level": 5}}
    with pytest.raises(UserError, match=r"nor a class that is passed \(classes=\[…\]\)"):
        instantiate_data(source)
    assert instantiate_data(source, classes=[Mine]).level == 5
    with pytest.raises(UserError, match="path elsewhere, on which you have not trained here"):
        instantiate_data({**source, "init_args": {"path": "elsewhere"}}, classes=[Mine])
    with pytest.raises(UserError, match="has no argument other"):
        instantiate_data({**source, "init_args": {"other": 1}}, classes=[Mine])
    assert class_of({"class_path": "flows.data.own._Own"}) is None
