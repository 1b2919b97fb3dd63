"""Protocols of predictors and segmenters, which any object may implement, and their trainable base class."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.core.statistics import ALPHA
from flows.data.base import Attribute, Batch, Split
from flows.errors import UserError
from flows.storage.stored import StoredModule

__all__ = ["Predictor", "Score", "Segmenter", "SemanticModel"]

PERMUTATIONS = 199
"""Number of permutations of the truths by which it is asked whether anything was learnt."""


@dataclass(frozen=True)
class Score:
    """Column of a predictor's output; a category has one per class, a hue has its cosine and its sine.

    Attributes:
        name: Name of the score, such as `daylight`, `category: bedroom` or `wall_hue cos`.
        attribute: Name of the attribute that the score belongs to.
        group: Group of the attribute.
        probability: Whether the score is a probability in [0, 1]; otherwise it is a number from `low` to
            `high`.
        low, high: Range of the score.
        quality: Accuracy or R² of the predictor on images that it was not trained on; 1 if unknown.
        p_value: Share of permutations of the truth with which the predictions agree as well as with the truth
            itself, on such images; 0 if unknown.
    """

    name: str
    attribute: str
    group: str
    probability: bool
    low: float = 0.0
    high: float = 1.0
    quality: float = 1.0
    p_value: float = 0.0

    @property
    def is_learnt(self) -> bool:
        """Whether the predictions are better than what permuted truths would give."""
        return self.p_value <= ALPHA


def scores_of(attributes: Sequence[Attribute]) -> tuple[Score, ...]:
    """Scores of attributes, in the order of the attributes."""
    scores = []
    for a in attributes:
        if a.kind == "binary":
            scores.append(Score(a.name, a.name, a.group, True))
        elif a.kind == "category":
            names = [f"{a.name}: {name}" for name in a.classes]
            scores += [Score(name, a.name, a.group, True) for name in names]
        elif a.kind == "circular":
            names = [f"{a.name} {name}" for name in ("cos", "sin")]
            scores += [Score(name, a.name, a.group, False, -1.0, 1.0) for name in names]
        else:
            scores.append(Score(a.name, a.name, a.group, False, a.low, a.high))
    return tuple(scores)


def column_of(scores: Sequence[Score], name: str) -> int:
    """Column of the score with this name. Raises UserError naming the known scores if there is none."""
    known = [score.name for score in scores]
    if name not in known:
        raise UserError(f"there is no score {name!r}; expected one of {', '.join(known)}")
    return known.index(name)


def true_scores(attributes: Sequence[Attribute], values: Tensor) -> Tensor:
    """Scores of attributes whose values are known.

    Args:
        attributes: Sequence of A attributes.
        values: (n, A), NaN where an attribute is not visible.

    Returns:
        (n, number of scores), NaN where the attribute is not visible.
    """
    columns = []
    for attribute, value in zip(attributes, values.float().unbind(1), strict=True):
        if attribute.kind == "category":
            classes = torch.arange(len(attribute.classes), device=value.device)
            hit = (value[:, None] == classes).float()
            columns.append(torch.where(value.isnan()[:, None], torch.nan, hit))
        elif attribute.kind == "circular":
            columns.append(torch.stack([(2 * torch.pi * value).cos(), (2 * torch.pi * value).sin()], 1))
        else:
            columns.append(value[:, None])
    return torch.cat(columns, 1)


@runtime_checkable
class Predictor(Protocol):
    """Protocol of objects that predict named scores of images."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """Scores, in the order of the columns of `predict`."""
        ...

    @property
    def name(self) -> str:
        """Name for tables."""
        ...

    def predict(self, images: Tensor) -> Tensor:
        """Predict scores (batch, number of scores) for images (batch, C, H, W) in [0, 1].

        A score is NaN where it does not apply to an image, such as the hue of a lamp that is not there.
        """
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Protocol of objects that segment images into classes; a pixel may belong to several classes.

    Attributes:
        classes: Names of the classes.
    """

    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name for tables."""
        ...

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (batch, classes, H, W) of images (batch, C, H, W) in [0, 1], differentiable."""
        ...

    def segment(self, images: Tensor) -> Tensor:
        """Class masks, bool (batch, classes, H, W), of images (batch, C, H, W) in [0, 1]."""
        ...


class StoredPredictor(Predictor, Protocol):
    """Predictor that was loaded from a checkpoint."""

    image_shape: tuple[int, int, int]

    def fingerprint(self) -> str:
        """Identifier of class, arguments and weights; see `StoredModule.fingerprint`."""
        ...


class StoredSegmenter(Segmenter, Protocol):
    """Segmenter that was loaded from a checkpoint."""

    image_shape: tuple[int, int, int]

    def fingerprint(self) -> str:
        """Identifier of class, arguments and weights; see `StoredModule.fingerprint`."""
        ...


def column_of_class(segmenter: Segmenter, label: str) -> int:
    """Column of the class with this name. Raises UserError naming the known classes if there is none."""
    if label not in segmenter.classes:
        raise UserError(f"there is no class {label!r}; expected one of {', '.join(segmenter.classes)}")
    return list(segmenter.classes).index(label)


@torch.no_grad()
def predict_images(predictor: Predictor, images: Tensor, device: torch.device, batch: int = 200) -> Tensor:
    """Scores (n, number of scores), on the host, of images (n, C, H, W) in [0, 1], predicted on `device`."""
    return torch.cat([predictor.predict(part.to(device)).float().cpu() for part in images.split(batch)])


@torch.no_grad()
def segment_bytes(
    segmenter: Segmenter, images: Tensor, bins: int, device: torch.device, batch: int = 200
) -> Tensor:
    """Segment uint8 images in batches.

    Args:
        segmenter: Segmenter on `device`.
        images: uint8 (n, C, H, W), images of a model or data set.
        bins: Number of grey levels of the images.
        device: Device of the segmenter.
        batch: Images per batch.

    Returns:
        Class masks, bool (n, classes, H, W), on the host.
    """
    parts = [pixels.to_unit(part, bins).to(device) for part in images.split(batch)]
    return torch.cat([segmenter.segment(part).cpu() for part in parts])


class Measurement(NamedTuple):
    """Quality of a semantic model on images with known attributes or masks.

    Attributes:
        values: Name of an attribute or class to name of a figure to value.
        score: Score of the model; lower is better.
        line: Summary for the terminal.
    """

    values: dict[str, dict[str, float]]
    score: float
    line: str


class SemanticModel(StoredModule):
    """Predictor or segmenter that is trained on the attributes or masks of a data set by `Supervised`.

    Attributes:
        network: Network from images in [−1, 1] to the outputs that `loss` takes; set by `assemble`.
    """

    network: nn.Module

    def assemble(self, image_shape: Sequence[int], bins: int, network: nn.Module) -> None:
        """Set the attributes of every semantic model."""
        channels, height, width = image_shape
        self.image_shape, self.bins, self.network = (channels, height, width), bins, network
        self.description = {}

    def forward(self, images: Tensor) -> Tensor:
        """Outputs of the network, as `loss` takes them, for uint8 images (batch, C, H, W)."""
        return self.outputs(pixels.to_unit(images, self.bins))

    def outputs(self, images: Tensor) -> Tensor:
        """Outputs of the network, as `loss` takes them, for images (batch, C, H, W) in [0, 1]."""
        outputs: Tensor = self.network(pixels.signed(images))
        return outputs

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, and its parts for the log; `outputs` are those of the batch's images.

        Raises:
            UserError: The batch lacks the attributes or masks that this model learns.
        """

    def calibrate_on(self, outputs: Tensor, known: Batch) -> None:
        """Set temperatures that calibrate probabilities and predicted errors; the default sets none.

        Args:
            outputs: Outputs of the network for images that it was not trained on, on the host.
            known: Batch of these images.
        """
        return

    @abstractmethod
    def measure_on(self, outputs: Tensor, known: Batch) -> Measurement:
        """Compare predictions with the known attributes or masks; see `calibrate_on` for the arguments."""

    def significance(self, outputs: Tensor, known: Batch) -> dict[str, float]:
        """P-value of each attribute or class against predictions that know nothing; the default has none.

        It is the share of permutations of the images' truths, the given one among them, for which the
        predictions agree as well. See `calibrate_on` for the arguments.
        """
        return {}

    def calibrate(self, held_out: Split, images: int | None) -> None:
        """Calibrate on the first `images` held-out images, all if it is None; see `calibrate_on`."""
        self.calibrate_on(*outputs_on(self, held_out, images))

    def measure(self, split: Split, images: int | None) -> Measurement:
        """Measure on the first `images` images of a split, all if it is None; see `measure_on`."""
        return self.measure_on(*outputs_on(self, split, images))

    def pictures(self, test: Split) -> dict[str, Tensor]:
        """Pictures for the report: file name to uint8 (C, height, width)."""
        return {}

    @abstractmethod
    def legend(self) -> list[str]:
        """Lines that explain the figures of `measure`."""

    def note(
        self, measured: Measurement, folds: int = 0, significance: Mapping[str, float] | None = None
    ) -> None:
        """Store figures beside the weights, so that tools know the quality of each prediction.

        Args:
            measured: Figures on images that the model was not trained on.
            folds: Number of parts of a cross-validation that gave the figures; 0 for held-out images.
            significance: P-value of each attribute or class; None if it is not known.
        """
        known = significance or {}
        values = {
            name: {**figures, **({"p_value": known[name]} if name in known else {})}
            for name, figures in measured.values.items()
        }
        self.description = {**self.description, "validation": values, "folds": folds}

    def not_learnt(self) -> list[str]:
        """Names of the attributes or classes for which permuted truths would agree as well."""
        known = self.description.get("validation", {})
        return [name for name, figures in known.items() if figures.get("p_value", 0.0) > ALPHA]


def outputs_on(
    model: SemanticModel, split: Split, images: int | None, batch: int = 500
) -> tuple[Tensor, Batch]:
    """Outputs for the first `images` images of a split, on the host, and the batch of these images."""
    known = split.first(images)
    with torch.no_grad():
        outputs = [model(part.to(model.device)).cpu() for part in known.images.split(batch)]
    return torch.cat(outputs), known


def p_value(agreement: Callable[[Tensor], Tensor], n: int) -> float:
    """P-value of an agreement of n predictions with n truths, by permutations of the truths.

    Args:
        agreement: Function from the order of the truths, int64 (n,), to the agreement, higher is better.
        n: Number of images.
    """
    random = torch.Generator().manual_seed(0)
    reached = agreement(torch.arange(n))
    orders = (torch.randperm(n, generator=random) for _ in range(PERMUTATIONS))
    as_good = sum(bool(agreement(order) >= reached) for order in orders)
    return (1 + as_good) / (1 + PERMUTATIONS)


def json_attributes(attributes: Sequence[Attribute]) -> list[dict[str, Any]]:
    """Convert attributes to plain JSON values, for the arguments of a stored model."""
    return [{**vars(each), "classes": list(each.classes)} for each in attributes]


def read_attributes(stored: Sequence[dict[str, Any]]) -> tuple[Attribute, ...]:
    """Convert the result of `json_attributes` back to attributes; UserError if these are not attributes."""
    try:
        return tuple(Attribute(**{**each, "classes": tuple(each.get("classes", ()))}) for each in stored)
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"attributes: expected entries of name, kind, group, classes, low, high ({error})"
        ) from error
