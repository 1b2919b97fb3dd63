"""What tools know of a judge: named scores of images, or a mask for every class. Bring your own."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.data.base import Attribute, Batch, Split
from flows.errors import UserError
from flows.stored import StoredModule


@dataclass(frozen=True)
class Score:
    """One number that is said of an image; a category has one for each class, a hue its cosine and sine.

    Attributes:
        name: `daylight`, `category: bedroom`, `wall_hue cos`.
        attribute: name of the attribute it is of.
        group: of the attribute.
        probability: whether it is one, in [0, 1]; otherwise a number from `low` to `high`.
        low, high: its range.
        quality: how well the predictor tells it on images that it was not trained on: accuracy or R²; 1
            where nobody measured that.
    """

    name: str
    attribute: str
    group: str
    probability: bool
    low: float = 0.0
    high: float = 1.0
    quality: float = 1.0


def scores_of(attributes: Sequence[Attribute]) -> tuple[Score, ...]:
    """The scores by which attributes are told, in their order."""
    found = []
    for each in attributes:
        if each.kind == "binary":
            found.append(Score(each.name, each.name, each.group, True))
        elif each.kind == "category":
            names = [f"{each.name}: {name}" for name in each.classes]
            found += [Score(name, each.name, each.group, True) for name in names]
        elif each.kind == "circular":
            names = [f"{each.name} {name}" for name in ("cos", "sin")]
            found += [Score(name, each.name, each.group, False, -1.0, 1.0) for name in names]
        else:
            found.append(Score(each.name, each.name, each.group, False, each.low, each.high))
    return tuple(found)


def column_of(scores: Sequence[Score], name: str) -> int:
    """The column of the score of that name. Raises ValueError naming those that there are."""
    known = [score.name for score in scores]
    if name not in known:
        raise UserError(f"there is no score {name!r}; expected one of {', '.join(known)}")
    return known.index(name)


def true_scores(attributes: Sequence[Attribute], values: Tensor) -> Tensor:
    """The scores of attributes that are known.

    Args:
        attributes: A of them.
        values: (n, A), not a number where it cannot be seen.

    Returns:
        (n, number of scores), not a number likewise.
    """
    columns = []
    for each, value in zip(attributes, values.float().unbind(1), strict=True):
        if each.kind == "category":
            classes = torch.arange(len(each.classes), device=value.device)
            hit = (value[:, None] == classes).float()
            columns.append(torch.where(value.isnan()[:, None], torch.nan, hit))
        elif each.kind == "circular":
            columns.append(torch.stack([(2 * torch.pi * value).cos(), (2 * torch.pi * value).sin()], 1))
        else:
            columns.append(value[:, None])
    return torch.cat(columns, 1)


@runtime_checkable
class Predictor(Protocol):
    """Whatever gives images named scores."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """What it tells, in the order of its columns."""
        ...

    @property
    def name(self) -> str:
        """For tables."""
        ...

    def predict(self, images: Tensor) -> Tensor:
        """Images (batch, C, H, W) in [0, 1] to scores (batch, number of scores).

        Not a number where a score says nothing of that image: the hue of a lamp that is not there.
        """
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Whatever finds classes in images; a pixel may belong to several of them.

    Attributes:
        classes: their names.
    """

    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """For tables."""
        ...

    def probabilities(self, images: Tensor) -> Tensor:
        """Images (batch, C, H, W) in [0, 1] to (batch, classes, H, W) in [0, 1], differentiable."""
        ...

    def segment(self, images: Tensor) -> Tensor:
        """Images (batch, C, H, W) in [0, 1] to bool (batch, classes, H, W)."""
        ...


def column_of_class(segmenter: Segmenter, label: str) -> int:
    """The column of the class of that name. Raises ValueError naming those that there are."""
    if label not in segmenter.classes:
        raise UserError(f"there is no class {label!r}; expected one of {', '.join(segmenter.classes)}")
    return list(segmenter.classes).index(label)


@torch.no_grad()
def predict_images(predictor: Predictor, images: Tensor, device: torch.device, batch: int = 200) -> Tensor:
    """Scores (n, number of scores), on the host, of images (n, C, H, W) in [0, 1], seen on `device`."""
    return torch.cat([predictor.predict(part.to(device)).float().cpu() for part in images.split(batch)])


@torch.no_grad()
def segment_bytes(
    segmenter: Segmenter, images: Tensor, bins: int, device: torch.device, batch: int = 200
) -> Tensor:
    """What a segmenter sees in uint8 images (n, C, H, W): bool (n, classes, H, W) on the host.

    Args:
        segmenter: on `device`.
        images: of a model or data set.
        bins: their grey levels.
        device: where they are seen.
        batch: images at a time.
    """
    parts = [pixels.to_unit(part, bins).to(device) for part in images.split(batch)]
    return torch.cat([segmenter.segment(part).cpu() for part in parts])


class Measurement(NamedTuple):
    """How good a judge is on images whose truth is known.

    Attributes:
        values: by name of attribute or class, and of the figure.
        score: lower is better.
        line: for the terminal.
    """

    values: dict[str, dict[str, float]]
    score: float
    line: str


class SemanticModel(StoredModule):
    """A network of ours that learns to see what is known of a data set; trained by `Supervised`.

    Attributes:
        network: images in [−1, 1] to what `loss` takes; set by `assemble`.
    """

    network: nn.Module

    def assemble(self, image_shape: tuple[int, int, int], bins: int, network: nn.Module) -> None:
        """Set what every judge has."""
        channels, height, width = image_shape
        self.image_shape, self.bins, self.network = (channels, height, width), bins, network
        self.description = {}

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (batch, C, H, W) to what `loss` takes."""
        return self.outputs(pixels.to_unit(images, self.bins))

    def outputs(self, images: Tensor) -> Tensor:
        """The same of images in [0, 1]."""
        outputs: Tensor = self.network(2 * images - 1)
        return outputs

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar, and parts of it to log; `outputs` are those of the batch's images.

        Raises:
            ValueError: the batch says nothing of what this judge learns.
        """

    @abstractmethod
    def calibrate(self, held_out: Split, images: int | None) -> None:
        """Set temperatures so that probabilities and errors are what they say, on held-out images."""

    @abstractmethod
    def measure(self, split: Split, images: int | None) -> Measurement:
        """Compare with the truth."""

    def pictures(self, test: Split) -> dict[str, Tensor]:
        """File name to uint8 (C, height, width): what a person would want to see of it."""
        return {}

    @abstractmethod
    def legend(self) -> list[str]:
        """Lines that say what the figures of `measure` are."""

    def note(self, measured: Measurement) -> None:
        """Keep the figures beside the weights: tools say how far a judge can be trusted."""
        self.description = {**self.description, "validation": measured.values}


def outputs_on(
    judge: SemanticModel, split: Split, images: int | None, batch: int = 500
) -> tuple[Tensor, Batch]:
    """A judge's outputs on the first images of a split, on the host, with the batch of these images."""
    known = split.first(images)
    with torch.no_grad():
        found = [judge(part.to(judge.device)).cpu() for part in known.images.split(batch)]
    return torch.cat(found), known


def json_attributes(attributes: Sequence[Attribute]) -> list[dict[str, Any]]:
    """Attributes as plain JSON values, for the arguments of a model that is stored."""
    return [{**vars(each), "classes": list(each.classes)} for each in attributes]


def read_attributes(stored: Sequence[dict[str, Any]]) -> tuple[Attribute, ...]:
    """The attributes of `json_attributes`."""
    return tuple(Attribute(**{**each, "classes": tuple(each["classes"])}) for each in stored)
