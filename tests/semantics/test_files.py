"""Classifiers and segmenters from files of other projects: every form, and everything that can be wrong."""

import warnings

import pytest
import torch
import torchvision
from torch import Tensor, nn

from flows.errors import UserError
from flows.images import IMAGENET_DEVIATION, IMAGENET_MEAN
from flows.semantics.base import Predictor, Segmenter
from flows.semantics.files import load_file

SHAPE = (3, 16, 24)


class Means(nn.Module):
    """Logits from the mean of each colour: one class per colour."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.mean((2, 3))


class Colours(nn.Module):
    """Logits of each pixel: its colours, as a dictionary like torchvision's segmenters."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": 3 * images}


def names(place, count, name="names.txt"):
    (place / name).write_text("".join(f"c{i}\n" for i in range(count)))
    return place / name


def saved(place, network, form, batch=None):
    """File of a network: TorchScript, or exported for batches of any size or of one."""
    images = torch.zeros(batch or 2, *SHAPE)
    if form == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(network.eval(), images, strict=False).save(place / "net.pt")
        return place / "net.pt"
    sizes = None if batch else ({0: torch.export.Dim("batch", min=1, max=64)},)
    torch.export.save(torch.export.export(network.eval(), (images,), dynamic_shapes=sizes), place / "net.pt2")
    return place / "net.pt2"


def normalised(images: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return (images - mean) / deviation


@pytest.mark.parametrize(("form", "batch"), [("script", None), ("export", None), ("export", 4)])
def test_a_classifier_of_any_form_gives_its_own_probabilities(tmp_path, form, batch):
    network = Means()
    path = saved(tmp_path, network, form, batch)
    loaded = load_file(str(path), "predictor", names(tmp_path, 3), SHAPE, "cpu")
    images = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(0))
    expected = network(normalised(images)).softmax(1)
    assert torch.allclose(loaded.predict(images), expected, atol=1e-5)
    assert isinstance(loaded, Predictor) and loaded.image_shape == SHAPE
    assert [score.name for score in loaded.scores] == ["class: c0", "class: c1", "class: c2"]
    inputs = images.clone().requires_grad_()
    loaded.predict(inputs)[:, 0].sum().backward()
    assert inputs.grad.abs().sum() > 0  # what ScoreGradient needs


def test_a_segmenter_gives_its_own_masks(tmp_path):
    path = saved(tmp_path, Colours(), "export")
    loaded = load_file(str(path), "segmenter", names(tmp_path, 3), SHAPE, "cpu")
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    chosen = normalised(images).argmax(1)
    assert torch.equal(loaded.segment(images).int().argmax(1), chosen) and isinstance(loaded, Segmenter)


@pytest.mark.parametrize("name", ["resnet18-mine.pth", "torchvision:resnet18=weights.pth"])
def test_weights_of_torchvision_are_those_of_the_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4).eval()
    torch.save({"state_dict": network.state_dict()}, name.rpartition("=")[2])
    loaded = load_file(name, "predictor", names(tmp_path, 4), (3, 32, 32), "cpu")
    images = torch.rand(2, 3, 32, 32)
    resized = torch.nn.functional.interpolate(images, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.allclose(loaded.predict(images), network(normalised(resized)).softmax(1), atol=1e-5)


def test_classes_beside_the_file_and_their_preparation(tmp_path):
    path = saved(tmp_path, Means(), "export")
    (tmp_path / "net.yaml").write_text(
        "classes: [red, green, blue]\nmean: [0, 0, 0]\ndeviation: [1, 1, 1]\nexclusive: false\n"
    )
    loaded = load_file(str(path), "predictor", None, SHAPE, "cpu")
    images = torch.rand(2, *SHAPE)
    assert torch.allclose(loaded.predict(images), (2 * images.mean((2, 3))).sigmoid(), atol=1e-6)
    other = load_file(str(path), "predictor", names(tmp_path, 3), SHAPE, "cpu")
    assert loaded.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("count", "net.pt2 returns 3 classes, and --classes names 2"),
        ("missing", "mine.pt2 is missing: expected a file"),
        ("names", "expected the names of its classes, one per line, with --classes or in net.txt"),
        ("no names", "absent.txt is missing: expected a file with one class per line"),
        ("twice", "each once, got 'a' twice"),
        ("garbage", "cannot be read as a torch.export file"),
        ("kind", r"expected a segmenter that returns \(batch, classes, height, width\), got \(2, 3\)"),
        ("model", "torchvision has no such predictor. Did you mean 'resnet18'?"),
        ("weights", "its name is that of no model of torchvision; name the model"),
        ("other", "is not of torchvision's resnet18 with 3 classes"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, monkeypatch, fault, said):
    monkeypatch.chdir(tmp_path)
    path, kind, classes = str(saved(tmp_path, Means(), "export")), "predictor", names(tmp_path, 3)
    if fault == "count":
        classes = names(tmp_path, 2)
    elif fault == "missing":
        path = "mine.pt2"
    elif fault == "names":
        classes = None
    elif fault == "no names":
        classes = tmp_path / "absent.txt"
    elif fault == "twice":
        classes.write_text("a\nb\na\n")
    elif fault == "garbage":
        (tmp_path / "net.pt2").write_bytes((tmp_path / "net.pt2").read_bytes()[:-400] + b"x" * 400)
        import zipfile

        with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
            archive.writestr("net/archive_format", "pt2")
    elif fault == "kind":
        kind = "segmenter"
    elif fault == "model":
        path = "torchvision:resnet1=x.pth"
        torch.save({}, "x.pth")
    else:
        path = {"weights": "mine.pth", "other": "resnet18-mine.pth"}[fault]
        torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=said):
        load_file(path, kind, classes, SHAPE, "cpu")
