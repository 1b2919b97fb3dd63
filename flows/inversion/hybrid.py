"""In-domain inversion: optimisation that starts at the encoder's code and stays in the model's domain."""

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from flows.core.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat
from flows.core.checks import check_choice
from flows.inversion.base import NOTHING_TO_ADD
from flows.inversion.distance import Distance
from flows.inversion.optimise import Optimise, Random, Target
from flows.inversion.search import Search
from flows.models.base import LatentModel

__all__ = ["Hybrid"]

Domain = Literal["encoder", "likelihood", "none"]
STEPS = 100
"""Number of steps in the paper."""
WEIGHTS: dict[Domain, float] = {"encoder": 2.0, "likelihood": 5e-4, "none": 0.0}


class Hybrid(Optimise):
    """In-domain inversion (IDInvert, Zhu et al. 2020, arXiv 2004.00049), initialised with the encoder's code.

    The loss is that of `Optimise` plus `domain_weight` times a domain term: the mean of |w − E(G(w))|², or
    −log p(w) per dimension in nats, which needs no encoder in the loop and is exact if w has an invertible
    map to the prior.

    Args:
        space: Space of the optimisation; None selects the model's `search_space`.
        steps: Number of steps (100 in the paper).
        lr: Learning rate in units of each coordinate's std (0.01 as in the paper; StyleGAN's w has a std of
            about 1). With larger rates the code drifts away from the encoder's.
        domain: Domain term, `encoder` or `likelihood`; `none` for a plain hybrid of encoder and optimisation.
        domain_weight: Weight of the domain term. None selects 2, the paper's, for `encoder`, and 5e-4 for
            `likelihood`, which is 2σ²·D/N for pixel errors of 31 dB, D = 250 and N = 3,072 image values: the
            loss is then proportional to the negative log-posterior.
        seconds: Maximum time for the whole batch; None for no limit.
        distance: Distance to the image (pixels and VGG features in the paper).
        noise: Whether to optimise the noise inputs too, if the model has any.
    """

    name = "hybrid"
    short_names = {"hybrid": (), "in-domain": ("DOMAIN",)}

    def __init__(
        self,
        space: str | None = None,
        steps: NonNegativeInt = STEPS,
        lr: PositiveFloat = 0.01,
        domain: Domain = "encoder",
        domain_weight: NonNegativeFloat | None = None,
        distance: Distance | None = None,
        noise: bool = False,
        seconds: PositiveFloat | None = None,
    ):
        super().__init__(space, steps, lr, distance=distance, noise=noise, exploration=0.0, seconds=seconds)
        self.domain = domain
        self.domain_weight = WEIGHTS[domain] if domain_weight is None else domain_weight
        if domain != "none":
            self.name = f"in-domain, {domain}"

    @classmethod
    def from_short(cls, name: str, words: Mapping[str, str], search: Search) -> "Hybrid":
        domain = "none" if name == "hybrid" else words.get("DOMAIN", "encoder")
        check_choice(f"--inverters {name}", domain, Domain)
        settings = search.settings
        return cls(
            None,
            search.at_most(STEPS),
            domain=cast(Domain, domain),
            distance=search.distance,
            noise=settings.noise,
            seconds=settings.seconds,
        )

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
            return f"{type(model).__name__} has no density for space {space.name!r}"
        return ""

    def begin(self, model: LatentModel, target: Target, start: int, mean: Tensor, random: Random) -> Tensor:
        with torch.no_grad():
            return model.encode(target.images, target.space, target.labels)

    def domain_loss(self, model: LatentModel, target: Target, code: Tensor, image: Tensor) -> Tensor | float:
        if self.domain == "encoder":
            # A non-finite image cannot be encoded; its pixel loss is infinite in any case.
            again = model.encode(image.nan_to_num(0.0).clamp(0, 1), target.space, target.labels)
            return self.domain_weight * (code - again).square().mean(1)
        if self.domain == "likelihood":
            return -self.domain_weight * model.log_prob_code(code, target.space) / code.shape[1]
        return 0.0
