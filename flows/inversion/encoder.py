"""Inversion by the model's own encoder, in one pass: exact for a flow, learned for LIA."""

import torch
from torch import Tensor

from flows.inversion.base import CLASS_UNKNOWN, Inversion, Inverter, draw, now
from flows.models.base import LatentModel
from flows.numerics import exact_arithmetic
from flows.once import prepared

BATCH = 128


class Encoder(Inverter):
    """`model.encode`.

    Args:
        space: of the codes; None takes the model's `search_space`.
    """

    name = "encoder"

    def __init__(self, space: str | None = None):
        self.space = space

    def space_of(self, model: LatentModel) -> str:
        """Where this model's images are encoded to."""
        return self.space or model.search_space

    def why_not(self, model: LatentModel) -> str:
        space = self.space_of(model)
        if space not in model.spaces:
            return f"it has no space {space!r}"
        if model.num_classes and model.guarantee[space] != "none":
            return CLASS_UNKNOWN
        return "" if model.guarantee[space] != "none" else "it has no encoder"

    @torch.no_grad()
    def invert(
        self, model: LatentModel, images: Tensor, generator: torch.Generator | None = None
    ) -> Inversion:
        self.check(model, images)
        start = now(model)
        with prepared(), exact_arithmetic(model.device):
            space = self.space_of(model)
            code = model.encode_bytes(images, space, BATCH)
            seconds = now(model) - start
            back, finite = draw(model, code, space)
        return Inversion(f"{self.name} ({space})", space, code, [], back, seconds, finite=finite)
