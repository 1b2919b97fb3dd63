"""Segmenter: a small U-Net that is trained on the class masks of a data set."""

import colorsys
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flows import images as pixels
from flows.core.bounds import Bins, ImageShape, PositiveInt
from flows.core.numerics import to_double
from flows.data.base import UNLABELLED, Batch, Split
from flows.errors import UserError
from flows.networks.residual import UNet
from flows.semantics.base import Measurement, SemanticModel, p_value

__all__ = ["UNetSegmenter"]


class UNetSegmenter(SemanticModel):
    """U-Net that assigns every pixel to one class, with one temperature for all classes.

    Args:
        image_shape: Image shape (C, H, W).
        mask_classes: Names of the classes; taken from the data set.
        bins: Number of grey levels of the images.
        channels: Channels at full side, half, …; see `UNet`. None uses [24, 48, 96].
    """

    log_temperature: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        mask_classes: list[str],
        bins: Bins = 256,
        channels: list[PositiveInt] | None = None,
    ):
        super().__init__()
        if not mask_classes:
            raise UserError(
                "mask_classes: the data set has no class masks: nothing to learn; pictures need a folder "
                "called masks beside them, with the same names"
            )
        self.classes = tuple(mask_classes)
        self.assemble(image_shape, bins, UNet(image_shape, channels or [24, 48, 96], len(mask_classes)))
        self.register_buffer("log_temperature", torch.zeros(()))

    @property
    def name(self) -> str:
        """Name for tables."""
        return f"{self.description.get('name', 'untrained')} segmenter"

    def probabilities(self, images: Tensor) -> Tensor:
        """Calibrated class probabilities (batch, classes, H, W) of images (batch, C, H, W) in [0, 1]."""
        return (self.outputs(images) * torch.exp(-self.log_temperature)).softmax(1)

    def segment(self, images: Tensor) -> Tensor:
        """Masks, bool (batch, classes, H, W), of images (batch, C, H, W) in [0, 1]; one class per pixel."""
        chosen = self.outputs(images).argmax(1)
        return one_hot(chosen, len(self.classes))

    # Training -------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return mask_loss(outputs, known_masks(batch).to(outputs.device)), {}

    @torch.no_grad()
    def calibrate_on(self, outputs: Tensor, known: Batch) -> None:
        masks = known_masks(known)
        grid = torch.linspace(-1.5, 1.5, 31)
        losses = [float(mask_loss(outputs * (-t).exp(), masks)) for t in grid]
        self.log_temperature.fill_(grid[losses.index(min(losses))])

    @torch.no_grad()
    def measure_on(self, outputs: Tensor, known: Batch) -> Measurement:
        masks = known_masks(known)
        chosen, labelled = outputs.argmax(1), masks != UNLABELLED
        values: dict[str, dict[str, float]] = {}
        for i, name in enumerate(self.classes):
            predicted, true = (chosen == i) & labelled, masks == i
            union = int((predicted | true).sum())
            if true.any():
                values[name] = {
                    "iou": int((predicted & true).sum()) / union,
                    "share": int(true.sum()) / int(labelled.sum()),
                }
        if not values:
            raise UserError("none of the images has a mask: nothing to measure")
        mean = sum(figures["iou"] for figures in values.values()) / len(values)
        accuracy = float(to_double((chosen == masks)[labelled]).mean())
        return Measurement(values, 1 - mean, f"mean IoU {mean:.3f}, pixel accuracy {accuracy:.3f}")

    @torch.no_grad()
    def significance(self, outputs: Tensor, known: Batch) -> dict[str, float]:
        masks = known_masks(known)
        masks, outputs = (part[(masks != UNLABELLED).flatten(1).any(1)] for part in (masks, outputs))
        chosen, found = outputs.argmax(1), {}
        for i, name in enumerate(self.classes):
            predicted, true = (to_double(part == i).flatten(1) for part in (chosen, masks))
            if true.any():
                # Where a class always is, no picture has to be looked at: the mean place is taken away.
                agreement = (predicted - predicted.mean(0)) @ (true - true.mean(0)).T
                found[name] = p_value(partial(_paired, agreement), len(masks))
        return found

    def legend(self) -> list[str]:
        return [
            "`IoU`: intersection over union, accumulated over the pixels of all images. `share`: share of "
            "the class in all pixels."
        ]

    @torch.no_grad()
    def pictures(self, test: Split) -> dict[str, Tensor]:
        """Sheet with test images, their true masks and their predicted masks."""
        known = test.first(20)
        predicted = self(known.images.to(self.device)).argmax(1).cpu()
        rows = [
            known.images,
            coloured(known_masks(known), len(self.classes)),
            coloured(predicted, len(self.classes)),
        ]
        columns = 10
        ordered = [image for i in range(0, 20, columns) for row in rows for image in row[i : i + columns]]
        return {
            "segmented.png": pixels.grid(
                torch.stack(ordered), columns, zoom=max(1, 64 // max(ordered[0].shape[1:]))
            )
        }


def _paired(agreement: Tensor, order: Tensor) -> Tensor:
    """Sum of the agreements (n, n) of each prediction with the mask that has its place in `order`."""
    return agreement[torch.arange(len(order)), order].sum()


def coloured(masks: Tensor, classes: int) -> Tensor:
    """Convert class indices (n, H, W) to uint8 (n, 3, H, W): a colour per class, white without a label."""
    table = [
        colorsys.hsv_to_rgb(i * 0.618 % 1, 0.45 + 0.4 * (i % 2), 0.95 - 0.3 * (i % 3 == 2))
        for i in range(classes)
    ]
    colours = torch.ones(UNLABELLED + 1, 3)
    colours[:classes] = torch.tensor(table)
    return (255 * colours[masks]).to(torch.uint8).movedim(-1, 1)


def known_masks(batch: Batch) -> Tensor:
    """Class indices of a batch, int64 (batch, H, W), `UNLABELLED` without a label.

    Raises UserError if the data set has no masks.
    """
    if batch.masks is None:
        raise UserError("the data set has no class masks; choose one that has, such as Scenes")
    return batch.masks.long()


def mask_loss(outputs: Tensor, masks: Tensor) -> Tensor:
    """Mean cross entropy of the labelled pixels, nats; 0 if there are none."""
    losses = cross_entropy(outputs, masks, ignore_index=UNLABELLED, reduction="sum")
    return losses / (masks != UNLABELLED).sum().clamp(min=1)


def one_hot(chosen: Tensor, classes: int) -> Tensor:
    """Convert class indices (batch, H, W) to bool (batch, classes, H, W)."""
    return chosen[:, None] == torch.arange(classes, device=chosen.device)[:, None, None]
