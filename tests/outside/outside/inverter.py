"""Nearest: the best of some samples."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flows import images as pixels
from flows.inversion import Inversion, Inverter, reconstruct
from flows.inversion.search import Search
from flows.models.base import LatentModel
from flows.models.codes import LabelsLike


class Nearest(Inverter):
    """Inversion by the nearest of n samples, for any model that can sample.

    Args:
        n: Number of samples.
    """

    name = "nearest"
    short_names = {"nearest": ("N",)}

    def __init__(self, n: int = 100):
        self.n = n

    @classmethod
    def from_short(cls, name: str, words: Mapping[str, str], search: Search) -> "Nearest":
        return cls(int(words.get("N", 100)))

    def space_of(self, model: LatentModel) -> str:
        return model.sampling_space

    def why_not(self, model: LatentModel) -> str:
        return ""

    def invert(
        self,
        model: LatentModel,
        images: pixels.ImageLike,
        generator: torch.Generator | None = None,
        labels: LabelsLike | None = None,
    ) -> Inversion:
        target = self.check(model, images)
        codes = model.sample(self.n, self.space_of(model), seed=generator or 0)
        found = codes[torch.cdist(flat(target), flat(model.decode_bytes(codes))).argmin(1)]
        return Inversion(
            method=f"{self.name} of {self.n}",
            codes=found,
            noise=[],
            reconstruction=reconstruct(model, found),
            seconds=0.0,
        )


def flat(images: Tensor) -> Tensor:
    """Images as vectors (n, C·H·W) of floats."""
    return images.flatten(1).float()
