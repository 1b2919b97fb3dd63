"""An attribute predictor: what is there, how large, how bright; with calibrated probabilities and errors."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from flows.checks import check_positive
from flows.data.base import Attribute, Batch, Split
from flows.errors import UserError
from flows.networks.residual import Tower
from flows.semantics.base import (
    Measurement,
    Score,
    SemanticModel,
    outputs_on,
    read_attributes,
    scores_of,
    true_scores,
)

BINS = 15
"""Of the expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""


class AttributePredictor(SemanticModel):
    """One network with a head for every attribute of a data set.

    Binary and categorical heads are logits, divided by a temperature of their own (Guo et al. 2017); a real
    one is a mean and a log-variance, a circular one a vector in the plane and a log-variance. What cannot
    be seen in an image (the hue of a lamp that is not there) is left out of loss and figures; a head of its
    own learns of each attribute whether it can be seen, and where it cannot, predictions are not a number.

    Args:
        image_shape: (C, side, side).
        attributes: as `json_attributes` has them; taken from the data set.
        bins: grey levels of the images.
        channels: of the blocks, see `Tower`.
        hidden: units of the layer before the heads.
    """

    log_temperature: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        attributes: list[dict[str, Any]],
        bins: int = 256,
        channels: list[int] | None = None,
        hidden: int = 192,
    ):
        super().__init__()
        check_positive(hidden=hidden)
        if not attributes:
            raise UserError(
                "attributes: the data set says nothing of its images, or is not there: nothing to learn"
            )
        self.attributes = read_attributes(attributes)
        colours, side, _ = image_shape
        self.widths = [_width(each) for each in self.attributes]
        outputs = sum(self.widths) + len(self.attributes)
        network = Tower(colours, side, channels or [16, 32, 64, 128], hidden, outputs)
        self.assemble(image_shape, bins, network)
        # Of a real or circular attribute, half the log of what its variance has to be multiplied by.
        self.register_buffer("log_temperature", torch.zeros(len(self.attributes)))

    @property
    def scores(self) -> tuple[Score, ...]:
        """What it tells, with its own quality on validation images, where it has been looked at."""
        known = self.description.get("validation", {})
        quality = {name: figures[quality_name(figures)] for name, figures in known.items()}
        return tuple(
            replace(each, quality=quality.get(each.attribute, 1.0)) for each in scores_of(self.attributes)
        )

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.description.get('name', 'untrained')} predictor"

    def heads(self, outputs: Tensor) -> list[Tensor]:
        """The outputs (batch, …) of every attribute."""
        return list(outputs[:, : sum(self.widths)].split(self.widths, 1))

    def seen(self, outputs: Tensor) -> Tensor:
        """Logits (batch, A) of whether each attribute can be seen."""
        return outputs[:, sum(self.widths) :]

    def predict(self, images: Tensor) -> Tensor:
        """Images (batch, C, H, W) in [0, 1] to scores (batch, number of scores): see `Predictor`."""
        outputs = self.outputs(images)
        hidden = self.seen(outputs) < 0
        wide = torch.tensor([_columns(each) for each in self.attributes], device=hidden.device)
        return self.to_scores(outputs).masked_fill(hidden.repeat_interleave(wide, 1), torch.nan)

    def to_scores(self, outputs: Tensor) -> Tensor:
        """Calibrated probabilities, and means of what is real, within its range."""
        columns = []
        for each, head, log_t in zip(self.attributes, self.heads(outputs), self.log_temperature, strict=True):
            if each.kind == "binary":
                columns.append((head * torch.exp(-log_t)).sigmoid())
            elif each.kind == "category":
                columns.append((head * torch.exp(-log_t)).softmax(1))
            elif each.kind == "circular":
                columns.append(head[:, :2])
            else:
                columns.append(each.low + (each.high - each.low) * head[:, :1].clamp(0, 1))
        return torch.cat(columns, 1)

    # Learning -------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        targets = known_attributes(batch, self.attributes)
        by_kind: dict[str, list[Tensor]] = {}
        for each, head, target in zip(self.attributes, self.heads(outputs), targets.unbind(1), strict=True):
            seen = ~target.isnan()
            if seen.any():
                # The mean over the whole batch: an attribute that is seldom seen has less to say.
                told = _head_loss(each, head[seen], target[seen]).sum() / len(target)
                by_kind.setdefault(each.kind, []).append(told)
        there = (~targets.isnan()).to(outputs.dtype)
        seen = binary_cross_entropy_with_logits(self.seen(outputs), there, reduction="none")
        sums = {kind: torch.stack(parts).sum() for kind, parts in by_kind.items()} | {
            "seen": seen.sum(1).mean()
        }
        return torch.stack(list(sums.values())).sum(), sums

    @torch.no_grad()
    def calibrate(self, held_out: Split, images: int | None) -> None:
        outputs, known = outputs_on(self, held_out, images)
        targets = known_attributes(known, self.attributes)
        for i, (each, head, target) in enumerate(
            zip(self.attributes, self.heads(outputs), targets.unbind(1), strict=True)
        ):
            seen = ~target.isnan()
            if seen.any():
                self.log_temperature[i] = _log_temperature(each, head[seen], target[seen])

    @torch.no_grad()
    def measure(self, split: Split, images: int | None) -> Measurement:
        outputs, known = outputs_on(self, split, images)
        targets = known_attributes(known, self.attributes)
        scores = self.to_scores(outputs)
        truth = true_scores(self.attributes, targets)
        values: dict[str, dict[str, float]] = {}
        at = 0
        for i, (each, head) in enumerate(zip(self.attributes, self.heads(outputs), strict=True)):
            seen = ~targets[:, i].isnan()
            columns = slice(at, at + _columns(each))
            at = columns.stop
            if seen.any():
                spread = torch.exp(head[seen, -1] / 2 + self.log_temperature[i].cpu())
                values[each.name] = {
                    **figures_of(each, scores[seen, columns], truth[seen, columns], spread),
                    "seen": float(((self.seen(outputs)[:, i] > 0) == seen).double().mean()),
                }
        good = [figures[quality_name(figures)] for figures in values.values()]
        told = {
            name: [figures[name] for figures in values.values() if name in figures]
            for name in ("accuracy", "r2")
        }
        line = "  ".join(f"{name} {sum(each) / len(each):.3f}" for name, each in told.items() if each)
        return Measurement(values, 1 - sum(good) / len(good), line)

    def legend(self) -> list[str]:
        return [
            "`accuracy` of what is there or not, `share` of the commonest answer; `calibration` is",
            "the expected calibration error; `r2` of numbers, with the root mean square `error` in their own",
            "unit and the share `within` one predicted standard deviation (0.68 for a Gaussian). What cannot",
            "be seen in an image is left out, `images` are left; `seen` is how often it is known which.",
        ]


def _width(attribute: Attribute) -> int:
    return {"binary": 1, "category": len(attribute.classes), "real": 2, "circular": 3}[attribute.kind]


def _columns(attribute: Attribute) -> int:
    return {"binary": 1, "category": len(attribute.classes), "real": 1, "circular": 2}[attribute.kind]


def known_attributes(batch: Batch, attributes: tuple[Attribute, ...]) -> Tensor:
    """The attributes of a batch, (batch, A); the labels where it has no others.

    Raises:
        ValueError: the data set has others than those.
    """
    known = batch.labels[:, None].float() if batch.attributes is None else batch.attributes
    if known.shape[1] != len(attributes):
        raise UserError(f"the data set tells {known.shape[1]} attributes, the predictor {len(attributes)}")
    return known.where(known != -1, torch.nan) if batch.attributes is None else known


def _head_loss(attribute: Attribute, head: Tensor, target: Tensor) -> Tensor:
    """Of every image: cross entropy, or a Gaussian's −log density up to a constant; nats, (n,).

    A Gaussian's gradient is multiplied by its standard deviation, lest what is hard be given up (β-NLL with
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


def _log_temperature(attribute: Attribute, head: Tensor, target: Tensor) -> float:
    """What minimises the loss on held-out images, of a grid of temperatures from 1/8 to 8.

    For real numbers half the log of the ratio of squared error and variance, in the mean.
    """
    if attribute.kind in ("real", "circular"):
        error, log_variance = _residual(attribute, head, target)
        return 0.5 * math.log(float((error * torch.exp(-log_variance)).mean()) + 1e-12)
    grid = torch.linspace(-math.log(8), math.log(8), 121)
    losses = [float(_head_loss(attribute, head * math.exp(-t), target).mean()) for t in grid.tolist()]
    return float(grid[losses.index(min(losses))])


# Figures ------------------------------------------------------------------------------------------


def quality_name(figures: dict[str, float]) -> str:
    """Which of an attribute's figures says how good its prediction is: 1 is perfect."""
    return "accuracy" if "accuracy" in figures else "r2"


def figures_of(attribute: Attribute, scores: Tensor, truth: Tensor, spread: Tensor) -> dict[str, float]:
    """An attribute's own error on images in which it can be seen.

    Args:
        attribute: which.
        scores: (n, columns of the attribute).
        truth: (n, columns of the attribute).
        spread: (n,), the predicted standard deviation, of real ones as a share of the range.

    Returns:
        of what is there or not: `accuracy`, `calibration` (expected calibration error), `share` (of the
        largest class); of real numbers: `r2`, `error` (root mean square, in the attribute's unit), `within`
        (share inside one predicted standard deviation; 0.68 for a Gaussian).
    """
    if attribute.kind in ("binary", "category"):
        if attribute.kind == "binary":
            scores, truth = torch.cat([1 - scores, scores], 1), torch.cat([1 - truth, truth], 1)
        confidence, chosen = scores.max(1)
        right = chosen == truth.argmax(1)
        return {
            "accuracy": float(right.double().mean()), "calibration": calibration_error(confidence, right),
            "share": float(truth.mean(0).max()), "images": len(truth),
        }  # fmt: skip
    error = (scores - truth).square().sum(1)
    around = (truth - truth.mean(0)).square().sum(1).mean()
    unit = 1.0 if attribute.kind == "circular" else attribute.high - attribute.low
    within = ((scores - truth)[:, 0].abs() / unit <= spread).double().mean()
    return {
        "r2": float(1 - error.mean() / around.clamp(min=1e-12)),
        "error": float((error.mean() / scores.shape[1]).sqrt()), "within": float(within),
        "images": len(truth),
    }  # fmt: skip


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error: mean over bins of |accuracy − confidence|, weighted by their images."""
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    total = 0.0
    for i in range(BINS):
        inside = bins == i
        if inside.any():
            gap = float(right[inside].double().mean() - confidence[inside].double().mean())
            total += abs(gap) * float(inside.double().mean())
    return total
