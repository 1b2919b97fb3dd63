"""Inversion by optimisation: search the code whose image is nearest."""

import copy
import math
import time
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from flows import images as pixels
from flows.inversion.base import CLASS_UNKNOWN, Inversion, Inverter, bring_back, distance, still
from flows.models.base import LatentModel

Algorithm = Literal["adam", "lbfgs"]
Random = torch.Generator | None
LBFGS_EVALUATIONS = 5
"""Of the loss in one step of L-BFGS, at most."""


class Optimise(Inverter):
    """StyleGAN2's projector (Karras et al. 2020, arXiv 1912.04958, section 5), for any model and space.

    Adam with a rate that rises over the first twentieth and falls over the last quarter; noise on the code
    that fades over the first three quarters; noise inputs optimised too, kept away from carrying the picture
    by a penalty, and *returned with the code*: without them the picture would be another one. The loss is
    pixel·|x̂ − x|² + feature·|F(x̂) − F(x)|², means, pixels in [−1, 1]. Images are searched independently.

    Args:
        space: where to search; None takes the model's `search_space`.
        steps: of every start, at most.
        seconds: of every start, at most; rates and noise follow whichever budget is nearer its end. Images
            are searched at the same time, so it is meant for the whole batch. Not for `lbfgs`.
        lr: largest learning rate.
        algorithm: `adam`, or `lbfgs` (with line search, without exploration; image by image).
        starts: the middle of the space first, then codes from the prior.
        pixel: weight of the pixels.
        feature: weight of the model's own features, for models that have some.
        noise: optimise the noise inputs, for models that have some.
        noise_weight: of their penalty.
        exploration: size of the noise on the code, in the space's width.
    """

    name = "optimise"

    def __init__(
        self,
        space: str | None = None,
        steps: int = 1000,
        lr: float = 0.1,
        algorithm: Algorithm = "adam",
        starts: int = 1,
        pixel: float = 1.0,
        feature: float = 0.0,
        noise: bool = False,
        noise_weight: float = 1e5,
        exploration: float = 0.05,
        seconds: float | None = None,
    ):
        if seconds is not None and (seconds <= 0 or algorithm == "lbfgs"):
            raise ValueError(
                f"seconds: expected a positive number, and algorithm adam; got {seconds}, {algorithm}"
            )
        self.seconds = seconds
        self.space, self.steps, self.lr, self.algorithm = space, steps, lr, algorithm
        self.starts, self.pixel, self.feature = starts, pixel, feature
        self.noise, self.noise_weight, self.exploration = noise, noise_weight, exploration

    def space_of(self, model: LatentModel) -> str:
        """Where this model's codes are searched."""
        return self.space or model.search_space

    def why_not(self, model: LatentModel) -> str:
        space = self.space_of(model)
        if space not in model.spaces:
            return f"it has no space {space!r}"
        if model.num_classes and space == "z":
            return CLASS_UNKNOWN + ("" if model.search_space == "z" else f"; search {model.search_space!r}")
        return "it has no noise inputs" if self.noise and not model.noise() else ""

    def single(self) -> "Optimise":
        one = copy.copy(self)
        one.starts = 1
        return one

    def invert(
        self, model: LatentModel, images: Tensor, generator: torch.Generator | None = None
    ) -> Inversion:
        self.check(model, images)
        begun = time.perf_counter()
        target = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
        space = self.space_of(model)
        with still(model):
            middle, width = extent(model, space)
            found = [
                self._search(
                    model, target, self.begin(model, target, start, middle, generator), width, generator
                )
                for start in range(self.starts)
            ]
        losses = torch.stack([each.loss for each in found])
        best = losses.argmin(0)
        rows = torch.arange(len(images))
        codes = torch.stack([each.code for each in found])
        noise = [
            torch.stack(parts)[best, rows] for parts in zip(*(each.noise for each in found), strict=True)
        ]
        seconds = time.perf_counter() - begun
        code = codes[best, rows]
        steps = min(len(each.trace) for each in found)  # seconds may allow one start more than another
        return Inversion(
            f"{self.name} ({space}, {self.algorithm}, {steps} steps"
            f"{', ' + str(self.starts) + ' starts' if self.starts > 1 else ''})",
            space, code, noise, bring_back(model, code, space, noise), seconds, steps,
            losses, codes, torch.stack([each.trace[:steps] for each in found], 1),
        )  # fmt: skip

    # One start ------------------------------------------------------------------------------------

    def begin(
        self,
        model: LatentModel,
        target: Tensor,
        start: int,
        middle: Tensor,
        random: Random,
    ) -> Tensor:
        """Where start number `start` begins, (batch, D); `middle` is that of the space."""
        if start == 0:
            return middle.expand(len(target), -1).clone()
        return model.sample_codes(len(target), self.space_of(model), random)

    def domain_loss(self, model: LatentModel, code: Tensor, image: Tensor) -> Tensor | float:
        """What keeps the code where the model knows its way, (batch,); nothing here."""
        return 0.0

    def _search(
        self,
        model: LatentModel,
        target: Tensor,
        code: Tensor,
        width: Tensor,
        random: Random,
    ) -> "_Found":
        noise = [each.repeat(len(target), 1, 1, 1) for each in model.noise()] if self.noise else []
        search = self._adam if self.algorithm == "adam" else self._lbfgs
        return search(model, target, code.detach(), noise, width, random)

    def _adam(
        self, model: LatentModel, target: Tensor, code: Tensor, noise: list[Tensor], width: Tensor,
        random: Random,
    ) -> "_Found":  # fmt: skip
        variables = [code.requires_grad_(), *(each.requires_grad_() for each in noise)]
        adam, trace = torch.optim.Adam(variables, self.lr, betas=(0.9, 0.999)), []
        begun = time.perf_counter()
        for step in range(self.steps):
            share = step / self.steps
            if self.seconds is not None:
                share = max(share, (time.perf_counter() - begun) / self.seconds)
                if share >= 1:
                    break
            for group in adam.param_groups:
                group["lr"] = self.lr * rate(share)
            fading = self.exploration * width * max(0.0, 1 - share / 0.75) ** 2
            shaken = code + fading * torch.randn(code.shape, generator=random).to(code)
            loss = self._loss(model, target, shaken, noise)
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            trace.append(loss.detach())
            with torch.no_grad():
                for each in noise:
                    each -= each.mean((2, 3), keepdim=True)
                    each *= each.square().mean((2, 3), keepdim=True).rsqrt()
        return self._end(model, target, code, noise, trace)

    def _lbfgs(
        self, model: LatentModel, target: Tensor, code: Tensor, noise: list[Tensor], width: Tensor,
        random: Random,
    ) -> "_Found":  # fmt: skip
        trace = torch.zeros(self.steps, len(target))
        for i in range(len(target)):
            own = [each[i : i + 1].clone().requires_grad_() for each in (code, *noise)]
            one = target[i : i + 1]
            lbfgs = torch.optim.LBFGS(
                own, max_iter=1, max_eval=LBFGS_EVALUATIONS, history_size=20, line_search_fn="strong_wolfe"
            )

            def evaluate(own: list[Tensor] = own, one: Tensor = one) -> Tensor:
                loss = self._loss(model, one, own[0], own[1:]).sum()
                gradients = torch.autograd.grad(loss, own)
                for variable, gradient in zip(own, gradients, strict=True):
                    variable.grad = gradient
                return loss.detach()

            for step in range(self.steps):
                trace[step, i] = float(lbfgs.step(evaluate))
            for each, value in zip((code, *noise), own, strict=True):
                each[i] = value.detach()[0]
        return self._end(model, target, code, noise, list(trace))

    @torch.no_grad()
    def _end(
        self, model: LatentModel, target: Tensor, code: Tensor, noise: list[Tensor], trace: list[Tensor]
    ) -> "_Found":
        """The result; what is not finite is a failed start, and says so by its loss."""
        loss = self._loss(model, target, code, noise)
        finite = code.isfinite().all(1) & loss.isfinite()
        loss = torch.where(finite, loss, torch.full_like(loss, math.inf))
        steps = torch.stack(trace) if trace else torch.empty(0, len(target))
        return _Found(code.detach(), [each.detach() for each in noise], loss, steps)

    def _loss(self, model: LatentModel, target: Tensor, code: Tensor, noise: list[Tensor]) -> Tensor:
        """Of every image, (batch,)."""
        image = model.decode_with_noise(code, noise, self.space_of(model))
        loss = distance(model, image, target, self.pixel, self.feature)
        if noise:
            loss = loss + self.noise_weight * sum(map(correlation, noise))
        return loss + self.domain_loss(model, code, image)


class _Found(NamedTuple):
    code: Tensor
    noise: list[Tensor]
    loss: Tensor
    trace: Tensor


def rate(share: float) -> float:
    """Of the largest learning rate, after this share of the steps: up over 5 %, down over the last 25 %."""
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - share) / 0.25))
    return fall * min(1.0, (share + 1e-3) / 0.05)


def correlation(noise: Tensor) -> Tensor:
    """How much neighbouring entries of noise (batch, 1, h, w) agree, over all scales from 8 on: (batch,)."""
    total = noise.new_zeros(len(noise))
    while True:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, axis)).mean((1, 2, 3)).square()
        if noise.shape[2] <= 8:
            return total
        noise = avg_pool2d(noise, 2)


@torch.no_grad()
def extent(model: LatentModel, space: str, codes: int = 10_000, seed: int = 123) -> tuple[Tensor, Tensor]:
    """Middle of a space, (D,), and its width: the root mean squared distance from it, a scalar."""
    found = model.sample_codes(codes, space, torch.Generator().manual_seed(seed))
    middle = found.mean(0)
    return middle, (found - middle).square().sum(1).mean().sqrt()
