"""Inversion by optimisation that starts from an encoder and stays in the model's domain."""

from typing import Literal

import torch
from torch import Tensor

from flows.inversion.optimise import Optimise, Random
from flows.models.base import LatentModel

Domain = Literal["encoder", "likelihood", "none"]


class Hybrid(Optimise):
    """In-domain inversion (IDInvert, Zhu et al. 2020, arXiv 2004.00049), from the encoder's code on.

    The loss of `Optimise` plus domain_weight times |w − E(G(w))|², a mean, or −log p(w) per dimension in
    nats, which needs no encoder within the loop and is exact where w has an invertible map to the prior.

    Args:
        space: where to search; None takes the model's `search_space`.
        steps: 100 in the paper.
        lr: 0.01 in the paper; more, and it wanders off.
        domain: which term; `none` is a plain hybrid.
        domain_weight: 2 in the paper for `encoder`.
        pixel: weight of the pixels.
        feature: weight of the model's own features.
    """

    name = "hybrid"

    def __init__(
        self,
        space: str | None = None,
        steps: int = 100,
        lr: float = 0.01,
        domain: Domain = "encoder",
        domain_weight: float = 2.0,
        pixel: float = 1.0,
        feature: float = 0.0,
    ):
        super().__init__(space, steps, lr, pixel=pixel, feature=feature, exploration=0.0)
        self.domain, self.domain_weight = domain, domain_weight
        if domain != "none":
            self.name = f"in-domain, {domain}"

    def why_not(self, model: LatentModel) -> str:
        missing = super().why_not(model)
        if missing or model.guarantee[self.space_of(model)] == "none":
            return missing or "it has no encoder"
        if self.domain == "likelihood":
            space = self.space_of(model)
            try:
                model.log_prob_code(torch.zeros(1, *model.spaces[space].shape), space)
            except ValueError as error:
                return str(error)
        return ""

    def begin(
        self,
        model: LatentModel,
        target: Tensor,
        start: int,
        middle: Tensor,
        random: Random,
    ) -> Tensor:
        with torch.no_grad():
            return model.encode(target, self.space_of(model))

    def domain_loss(self, model: LatentModel, code: Tensor, image: Tensor) -> Tensor | float:
        if self.domain == "encoder":
            again = model.encode(image.clamp(0, 1), self.space_of(model))
            return self.domain_weight * (code - again).square().mean(1)
        if self.domain == "likelihood":
            return -self.domain_weight * model.log_prob_code(code, self.space_of(model)) / code.shape[1]
        return 0.0
