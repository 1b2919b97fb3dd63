"""Attribute predictor with calibrated probabilities and errors."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from flows.core.bounds import Bins, ImageShape, PositiveInt
from flows.core.numerics import to_double
from flows.data.base import Attribute, Batch
from flows.errors import UserError
from flows.networks.residual import Tower
from flows.semantics.base import (
    Measurement,
    Score,
    SemanticModel,
    p_value,
    read_attributes,
    scores_of,
    true_scores,
)

__all__ = ["AttributePredictor"]

BINS = 15
"""Number of bins of the expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""


class AttributePredictor(SemanticModel):
    """Network with one head for every attribute of a data set.

    Binary and categorical heads are logits, divided by one temperature per attribute (Guo et al. 2017). A
    real attribute has a mean and a log-variance, a circular one a vector in the plane and a log-variance.
    Attributes that are not visible in an image (the hue of a lamp that is not there) are excluded from loss
    and figures. A further head predicts whether each attribute is visible; where it is not, predictions are
    NaN.

    Args:
        image_shape: Image shape (C, H, W).
        attributes: Attributes in the format of `json_attributes`; taken from the data set.
        bins: Number of grey levels of the images.
        channels: Channels of the blocks; see `Tower`. None uses [16, 32, 64, 128].
        hidden: Width of the layer before the heads.
    """

    log_temperature: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        attributes: list[dict[str, Any]],
        bins: Bins = 256,
        channels: list[PositiveInt] | None = None,
        hidden: PositiveInt = 192,
    ):
        super().__init__()
        if not attributes:
            raise UserError(
                "attributes: the data set has no attributes or labels, or no files here: nothing to learn; a "
                "folder needs two subfolders or more, or a table with labels or values"
            )
        self.attributes = read_attributes(attributes)
        colours, height, width = image_shape
        self.widths = [_width(attribute) for attribute in self.attributes]
        outputs = sum(self.widths) + len(self.attributes)
        network = Tower(colours, (height, width), channels or [16, 32, 64, 128], hidden, outputs)
        self.assemble(image_shape, bins, network)
        # For a real or circular attribute: half the log of the factor on its variance.
        self.register_buffer("log_temperature", torch.zeros(len(self.attributes)))

    @property
    def scores(self) -> tuple[Score, ...]:
        """Scores, with their quality on validation images if it was measured."""
        known = self.description.get("validation", {})
        quality = {name: figures[quality_name(figures)] for name, figures in known.items()}
        p_value = {name: figures.get("p_value", 0.0) for name, figures in known.items()}
        return tuple(
            replace(
                score,
                quality=quality.get(score.attribute, 1.0),
                p_value=p_value.get(score.attribute, 0.0),
            )
            for score in scores_of(self.attributes)
        )

    @property
    def name(self) -> str:
        """Name for tables."""
        return f"{self.description.get('name', 'untrained')} predictor"

    def heads(self, outputs: Tensor) -> list[Tensor]:
        """Outputs (batch, …) of the head of every attribute."""
        return list(outputs[:, : sum(self.widths)].split(self.widths, 1))

    def seen(self, outputs: Tensor) -> Tensor:
        """Logits (batch, A) of the visibility of every attribute."""
        return outputs[:, sum(self.widths) :]

    def predict(self, images: Tensor) -> Tensor:
        """Predict scores (batch, number of scores) for images (batch, C, H, W) in [0, 1]; see `Predictor`."""
        outputs = self.outputs(images)
        hidden = self.seen(outputs) < 0
        wide = torch.tensor([_columns(attribute) for attribute in self.attributes], device=hidden.device)
        return self.to_scores(outputs).masked_fill(hidden.repeat_interleave(wide, 1), torch.nan)

    def to_scores(self, outputs: Tensor) -> Tensor:
        """Convert outputs to calibrated probabilities, and to means within the range of real attributes."""
        columns = []
        for a, head, log_t in zip(self.attributes, self.heads(outputs), self.log_temperature, strict=True):
            if a.kind == "binary":
                columns.append((head * torch.exp(-log_t)).sigmoid())
            elif a.kind == "category":
                columns.append((head * torch.exp(-log_t)).softmax(1))
            elif a.kind == "circular":
                columns.append(head[:, :2])
            else:
                columns.append(a.low + (a.high - a.low) * head[:, :1].clamp(0, 1))
        return torch.cat(columns, 1)

    # Training -------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        targets = known_attributes(batch, self.attributes)
        by_kind: dict[str, list[Tensor]] = {}
        for a, head, target in zip(self.attributes, self.heads(outputs), targets.unbind(1), strict=True):
            seen = ~target.isnan()
            if seen.any():
                # The mean over the whole batch: an attribute that is rarely visible has less weight.
                part = _head_loss(a, head[seen], target[seen]).sum() / len(target)
                by_kind.setdefault(a.kind, []).append(part)
        there = (~targets.isnan()).to(outputs.dtype)
        seen = binary_cross_entropy_with_logits(self.seen(outputs), there, reduction="none")
        sums = {kind: torch.stack(parts).sum() for kind, parts in by_kind.items()} | {
            "seen": seen.sum(1).mean()
        }
        return torch.stack(list(sums.values())).sum(), sums

    @torch.no_grad()
    def calibrate_on(self, outputs: Tensor, known: Batch) -> None:
        targets = known_attributes(known, self.attributes)
        for i, (attribute, head, target) in enumerate(
            zip(self.attributes, self.heads(outputs), targets.unbind(1), strict=True)
        ):
            seen = ~target.isnan()
            if seen.any():
                self.log_temperature[i] = _log_temperature(attribute, head[seen], target[seen])

    @torch.no_grad()
    def measure_on(self, outputs: Tensor, known: Batch) -> Measurement:
        targets = known_attributes(known, self.attributes)
        scores = self.to_scores(outputs)
        truth = true_scores(self.attributes, targets)
        values: dict[str, dict[str, float]] = {}
        start = 0
        for i, (attribute, head) in enumerate(zip(self.attributes, self.heads(outputs), strict=True)):
            seen = ~targets[:, i].isnan()
            columns = slice(start, start + _columns(attribute))
            start = columns.stop
            if seen.any():
                std = torch.exp(head[seen, -1] / 2 + self.log_temperature[i].cpu())
                values[attribute.name] = {
                    **figures_of(attribute, scores[seen, columns], truth[seen, columns], std),
                    "seen": float(((self.seen(outputs)[:, i] > 0) == seen).double().mean()),
                }
        qualities = [figures[quality_name(figures)] for figures in values.values()]
        by_figure = {
            name: [figures[name] for figures in values.values() if name in figures]
            for name in ("accuracy", "r2")
        }
        names = {"accuracy": "accuracy", "r2": "R²"}
        line = ", ".join(
            f"mean {names[name]} {sum(part) / len(part):.3f}" for name, part in by_figure.items() if part
        )
        return Measurement(values, 1 - sum(qualities) / len(qualities), line)

    @torch.no_grad()
    def significance(self, outputs: Tensor, known: Batch) -> dict[str, float]:
        targets = known_attributes(known, self.attributes)
        scores, truth = self.to_scores(outputs), true_scores(self.attributes, targets)
        found, start = {}, 0
        for i, attribute in enumerate(self.attributes):
            seen, columns = ~targets[:, i].isnan(), slice(start, start + _columns(attribute))
            start = columns.stop
            if seen.any():
                found[attribute.name] = _p_value(scores[seen, columns], truth[seen, columns])
        return found

    def legend(self) -> list[str]:
        return [
            "Numeric attributes: `R²`; `error`, the root mean square error in the unit of the attribute; "
            "`within`, the share of images within one predicted standard deviation (0.68 for a "
            "Gaussian). Categorical attributes, binary ones included: `accuracy`; `calibration`, the "
            "expected calibration error; `share`, the share of the most common class. `images` is the "
            "number of images in which the attribute is visible; the others are left out. `visibility` "
            "is the accuracy of the prediction of whether the attribute is visible."
        ]


def _width(attribute: Attribute) -> int:
    return {"binary": 1, "category": len(attribute.classes), "real": 2, "circular": 3}[attribute.kind]


def _columns(attribute: Attribute) -> int:
    return {"binary": 1, "category": len(attribute.classes), "real": 1, "circular": 2}[attribute.kind]


def known_attributes(batch: Batch, attributes: tuple[Attribute, ...]) -> Tensor:
    """Attributes of a batch, (batch, A), or its labels if it has no attributes.

    Raises:
        UserError: The number of attributes is not the expected one.
    """
    known = batch.labels[:, None].float() if batch.attributes is None else batch.attributes
    if known.shape[1] != len(attributes):
        raise UserError(
            f"expected a data set with the predictor's {len(attributes)} attributes, got {known.shape[1]}"
        )
    return known.where(known != -1, torch.nan) if batch.attributes is None else known


def _head_loss(attribute: Attribute, head: Tensor, target: Tensor) -> Tensor:
    """Loss of each image, (n,), nats: cross entropy, or a Gaussian's −log density up to a constant.

    A Gaussian's gradient is multiplied by its std, so that difficult targets are learned, too (β-NLL with
    β = ½, Seitzer et al. 2022, arXiv 2203.09168).
    """
    if attribute.kind == "binary":
        return binary_cross_entropy_with_logits(head[:, 0], target, reduction="none")
    if attribute.kind == "category":
        return cross_entropy(head, target.long(), reduction="none")
    error, log_variance = _residual(attribute, head, target)
    gaussian = 0.5 * (error * torch.exp(-log_variance) + log_variance)
    return gaussian * torch.exp(0.5 * log_variance).detach()


def _residual(attribute: Attribute, head: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error, as a share of the range, and its log-variance; (n,) each."""
    log_variance = head[:, -1].clamp(-12, 4)
    if attribute.kind == "circular":
        angle = 2 * math.pi * target
        true = torch.stack([angle.cos(), angle.sin()], 1)
        return (head[:, :2] - true).square().mean(1), log_variance
    share = (target - attribute.low) / (attribute.high - attribute.low)
    return (head[:, 0] - share).square(), log_variance


def _p_value(scores: Tensor, truth: Tensor) -> float:
    """P-value of the covariance of scores and truth, (n, columns) each, every column in units of its std."""
    centred = [(part - part.mean(0)) / part.std(0).clamp(min=1e-12) for part in (scores, truth)]
    return p_value(lambda order: (centred[0] * centred[1][order]).sum(), len(truth))


def _log_temperature(attribute: Attribute, head: Tensor, target: Tensor) -> float:
    """Log-temperature that minimises the loss on held-out images, from a grid of temperatures 1/8 to 8.

    For real and circular attributes: half the log of the mean ratio of squared error and variance.
    """
    if attribute.kind in ("real", "circular"):
        error, log_variance = _residual(attribute, head, target)
        return 0.5 * math.log(float((error * torch.exp(-log_variance)).mean()) + 1e-12)
    grid = torch.linspace(-math.log(8), math.log(8), 121)
    losses = [float(_head_loss(attribute, head * math.exp(-t), target).mean()) for t in grid.tolist()]
    return float(grid[losses.index(min(losses))])


# Figures ------------------------------------------------------------------------------------------


def quality_name(figures: dict[str, float]) -> str:
    """Name of the figure that measures the quality of an attribute's prediction; 1 is perfect."""
    return "accuracy" if "accuracy" in figures else "r2"


def figures_of(attribute: Attribute, scores: Tensor, truth: Tensor, std: Tensor) -> dict[str, float]:
    """Figures of an attribute on images in which it is visible.

    Args:
        attribute: Attribute to evaluate.
        scores: (n, columns of the attribute), predicted.
        truth: (n, columns of the attribute), true.
        std: (n,), predicted std, for real attributes as a share of the range.

    Returns:
        Number of `images`, and for binary and categorical attributes `accuracy`, `calibration` (expected
        calibration error) and `share` (of the largest class); for real and circular ones `r2`, `error` (root
        mean square, in the attribute's unit) and `within` (share inside one predicted std; 0.68 for a
        Gaussian).
    """
    if attribute.kind in ("binary", "category"):
        if attribute.kind == "binary":
            scores, truth = torch.cat([1 - scores, scores], 1), torch.cat([1 - truth, truth], 1)
        confidence, chosen = scores.max(1)
        right = chosen == truth.argmax(1)
        return {
            "accuracy": float(to_double(right).mean()),
            "calibration": calibration_error(confidence, right),
            "share": float(truth.mean(0).max()),
            "images": len(truth),
        }
    error = (scores - truth).square().sum(1)
    around = (truth - truth.mean(0)).square().sum(1).mean()
    scale = 1.0 if attribute.kind == "circular" else attribute.high - attribute.low
    within = ((scores - truth)[:, 0].abs() / scale <= std).double().mean()
    return {
        "r2": float(1 - error.mean() / around.clamp(min=1e-12)),
        "error": float((error.mean() / scores.shape[1]).sqrt()),
        "within": float(within),
        "images": len(truth),
    }


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error: mean over bins of |accuracy − confidence|, weighted by number of images."""
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    total = 0.0
    for i in range(BINS):
        inside = bins == i
        if inside.any():
            gap = float(right[inside].double().mean() - confidence[inside].double().mean())
            total += abs(gap) * float(inside.double().mean())
    return total
