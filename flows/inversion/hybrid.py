"""Inversion by optimisation that starts from an encoder and stays in the model's domain."""

from typing import Literal

import torch
from torch import Tensor

from flows.inversion.base import NOTHING_TO_ADD
from flows.inversion.distance import Distance
from flows.inversion.optimise import Optimise, Random, Target
from flows.models.base import LatentModel

Domain = Literal["encoder", "likelihood", "none"]
WEIGHTS: dict[Domain, float] = {"encoder": 2.0, "likelihood": 5e-4, "none": 0.0}


class Hybrid(Optimise):
    """In-domain inversion (IDInvert, Zhu et al. 2020, arXiv 2004.00049), from the encoder's code on.

    The loss of `Optimise` plus domain_weight times |w − E(G(w))|², a mean, or −log p(w) per dimension in
    nats, which needs no encoder within the loop and is exact where w has an invertible map to the prior.

    Args:
        space: where to search; None takes the model's `search_space`.
        steps: 100 in the paper.
        lr: 0.01, in spreads, which StyleGAN's w has about 1 of as in the paper; more, and it wanders off.
        domain: which term; `none` is a plain hybrid.
        domain_weight: None takes 2, the paper's, for `encoder`, and 5e-4 for `likelihood`: with it the sum is
            the posterior's logarithm for pixels off by 31 dB, 2σ²·D/N for codes of 250 and images of 3,072.
        seconds: as in `Optimise`.
        distance: to the image (pixels and VGG's features in the paper).
        noise: as in `Optimise`.
    """

    name = "hybrid"

    def __init__(
        self,
        space: str | None = None,
        steps: int = 100,
        lr: float = 0.01,
        domain: Domain = "encoder",
        domain_weight: float | None = None,
        distance: Distance | None = None,
        noise: bool = False,
        seconds: float | None = None,
    ):
        super().__init__(space, steps, lr, distance=distance, noise=noise, exploration=0.0, seconds=seconds)
        self.domain = domain
        self.domain_weight = WEIGHTS[domain] if domain_weight is None else domain_weight
        if domain != "none":
            self.name = f"in-domain, {domain}"

    def why_not(self, model: LatentModel) -> str:
        if model.is_exact:
            return NOTHING_TO_ADD
        missing = super().why_not(model)
        if missing:
            return missing
        space = model.spaces[self.space_of(model)]
        if not space.encodes:
            return "it has no encoder"
        if self.domain == "likelihood" and not space.density:
            return f"{type(model).__name__} knows no density of space {space.name!r}"
        return ""

    def begin(self, model: LatentModel, target: Target, start: int, mean: Tensor, random: Random) -> Tensor:
        with torch.no_grad():
            return model.encode(target.images, target.space, target.labels)

    def domain_loss(self, model: LatentModel, target: Target, code: Tensor, image: Tensor) -> Tensor | float:
        if self.domain == "encoder":
            # An image that is not finite has no code, and an infinite loss by its pixels.
            again = model.encode(image.nan_to_num(0.0).clamp(0, 1), target.space, target.labels)
            return self.domain_weight * (code - again).square().mean(1)
        if self.domain == "likelihood":
            return -self.domain_weight * model.log_prob_code(code, target.space) / code.shape[1]
        return 0.0
