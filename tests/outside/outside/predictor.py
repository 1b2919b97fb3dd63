"""Finder: where the dot is."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from flows.data.base import Batch
from flows.semantics.base import Measurement, SemanticModel, read_attributes, scores_of


class Finder(SemanticModel):
    """Predictor of the attributes of a data set by a linear map of the pixels.

    Args:
        image_shape: (C, H, W).
        bins: Number of grey levels.
        attributes: Attributes of the data set, as plain values.
    """

    def __init__(
        self, image_shape: Sequence[int], bins: int = 256, attributes: Sequence[dict[str, Any]] = ()
    ):
        super().__init__()
        channels, height, width = image_shape
        self.scores = scores_of(read_attributes(attributes))
        network = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, len(self.scores)))
        self.assemble(image_shape, bins, network)

    @property
    def name(self) -> str:
        return "finder"

    def predict(self, images: Tensor) -> Tensor:
        return self.outputs(images)

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return mse_loss(outputs, batch.attributes.to(outputs)), {}

    def measure_on(self, outputs: Tensor, known: Batch) -> Measurement:
        r2 = 1 - (outputs - known.attributes).var(0) / known.attributes.var(0)
        values = {score.name: {"r2": float(each)} for score, each in zip(self.scores, r2, strict=True)}
        return Measurement(values, 1 - float(r2.mean()), f"R² {float(r2.mean()):.3f}")

    def legend(self) -> list[str]:
        return ["R² of the position of the dot."]
