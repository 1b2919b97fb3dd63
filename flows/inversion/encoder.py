"""Inversion by the model's encoder in one pass: exact for a flow, learned for LIA."""

from collections.abc import Mapping

import torch

from flows import images as pixels
from flows.core.once import prepared
from flows.inversion.base import BATCH, Inversion, Inverter, now, reconstruct_checked
from flows.inversion.search import Search
from flows.models.base import LatentModel
from flows.models.codes import LabelsLike

__all__ = ["Encoder"]


class Encoder(Inverter):
    """Inversion by `LatentModel.encode_bytes`.

    Args:
        space: Latent space of the codes; None selects the model's `search_space`.
    """

    name = "encoder"
    short_names = {"encoder": ("SPACE",), "exact-z": ()}

    def __init__(self, space: str | None = None):
        self.space = space

    @classmethod
    def from_short(cls, name: str, words: Mapping[str, str], search: Search) -> "Encoder":
        return cls("z" if name == "exact-z" else words.get("SPACE"))

    def parts(self) -> dict[str, str]:
        return {"space": self.space} if self.space else {}

    def space_of(self, model: LatentModel) -> str:
        """Return the space that this model's images are encoded into."""
        return self.space or model.search_space

    def why_not(self, model: LatentModel) -> str:
        name = self.space_of(model)
        if name not in model.spaces:
            return f"it has no space {name!r}"
        return "" if model.spaces[name].encodes else "it has no encoder"

    @torch.no_grad()
    def invert(
        self,
        model: LatentModel,
        images: pixels.ImageLike,
        generator: torch.Generator | None = None,
        labels: LabelsLike | None = None,
    ) -> Inversion:
        images = self.check(model, images)
        start = now(model)
        codes = model.encode_bytes(images, self.space_of(model), labels, BATCH)
        seconds = now(model) - start
        with prepared():
            reconstruction, finite = reconstruct_checked(model, codes)
        name = f"{self.name} ({codes.space})"
        return Inversion(
            method=name, codes=codes, noise=[], reconstruction=reconstruction, seconds=seconds, finite=finite
        )
