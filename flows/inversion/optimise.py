"""Inversion by optimisation: search the code whose image is nearest."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from flows import images as pixels
from flows.errors import UserError
from flows.inversion.base import Inversion, Inverter, decode_with, now, reconstruct
from flows.inversion.distance import Distance
from flows.models.base import HasNoise, LatentModel
from flows.models.codes import Codes
from flows.numerics import combine_seeds, draw_seed, frozen, normal_rows

Algorithm = Literal["adam", "lbfgs"]
Watch = Callable[[float, Codes], bool]
"""Told the share of a start's budget that is used and the codes (batch, D) so far; False ends the search."""
Random = torch.Generator | None
LBFGS_EVALUATIONS = 5
"""Of the loss in one step of L-BFGS, at most."""
EXTENT_BATCH = 1000
"""Codes that are drawn at a time to measure a space."""


class Optimise(Inverter):
    """StyleGAN2's projector (Karras et al. 2020, arXiv 1912.04958, section 5), for any model and space.

    Adam with a rate that rises over the first twentieth and falls over the last quarter, on codes in units of
    each coordinate's std, so that one rate serves every space; noise on the code that fades over the first
    three quarters, after which the best code on the way is kept; noise inputs optimised too, kept away from
    carrying the picture by a penalty, and *returned with the code*: without them the picture would be another
    one. Images are searched independently; the
    noise on a code depends on the seed and its place in the batch.

    Args:
        space: where to search; None takes the model's `search_space`.
        steps: of every start, at most.
        seconds: of every start, at most; rates and noise follow whichever budget is nearer its end. Images
            are searched at the same time, so it is meant for the whole batch. Not for `lbfgs`.
        lr: largest learning rate, in spreads.
        algorithm: `adam`, or `lbfgs` (with line search, without exploration; image by image).
        starts: the mean of the space first, then codes from the prior.
        distance: to the image (LPIPS alone in the paper).
        noise: optimise the noise inputs too, of models that have some.
        noise_weight: of their penalty.
        exploration: size of the noise on the code, in spreads; it leads out of poor minima. The paper's 0.05
            times the space's width is 1.1 for its w of 512, which hides the picture where every coordinate
            draws a part of it.
        watch: looks on, after every step of `adam`; once it says no, the best so far is the result.
    """

    name = "optimise"

    def __init__(
        self,
        space: str | None = None,
        steps: int = 1000,
        lr: float = 0.1,
        algorithm: Algorithm = "adam",
        starts: int = 1,
        distance: Distance | None = None,
        noise: bool = False,
        noise_weight: float = 1e5,
        exploration: float = 0.5,
        seconds: float | None = None,
        watch: Watch | None = None,
    ):
        if seconds is not None and (seconds <= 0 or algorithm == "lbfgs"):
            raise UserError(
                f"seconds: expected a positive number, and algorithm adam; got {seconds}, {algorithm}"
            )
        self.seconds = seconds
        self.space, self.steps, self.lr, self.algorithm = space, steps, lr, algorithm
        self.starts, self.distance = starts, distance or Distance()
        self.noise, self.noise_weight, self.exploration = noise, noise_weight, exploration
        self.watch = watch

    def space_of(self, model: LatentModel) -> str:
        """Where this model's codes are searched."""
        return self.space or model.search_space

    def why_not(self, model: LatentModel) -> str:
        space = self.space_of(model)
        if space not in model.spaces:
            return f"it has no space {space!r}"
        return ""

    def single(self) -> "Optimise":
        one = copy.copy(self)
        one.starts = 1
        return one

    def invert(
        self,
        model: LatentModel,
        images: Tensor,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Inversion:
        self.check(model, images)
        space = self.space_of(model)
        labels = model.labels_of(images, labels, space)
        target = Target(pixels.to_unit(images, model.bins, model.dtype).to(model.device), space, labels)
        with frozen(model):
            mean, std = extent(model, space)
            begun = now(model)
            # All starts are sampled before the first search: they do not depend on its length.
            starts = [
                (self.begin(model, target, start, mean, generator), int(draw_seed(generator)))
                for start in range(self.starts)
            ]
            searches = [self._search(model, target, code, std, seed) for code, seed in starts]
        losses = torch.stack([each.loss for each in searches])
        best = losses.argmin(0)
        rows = torch.arange(len(images))
        all_codes = torch.stack([each.code for each in searches])
        noise = [
            torch.stack(parts)[best, rows] for parts in zip(*(each.noise for each in searches), strict=True)
        ]
        seconds = now(model) - begun
        codes = target.codes(all_codes[best, rows])
        steps = min(len(each.trace) for each in searches)  # seconds may allow one start more than another
        return Inversion(
            f"{self.name} ({space}, {self.algorithm}, {steps} steps"
            f"{', ' + str(self.starts) + ' starts' if self.starts > 1 else ''})",
            codes, noise, reconstruct(model, codes, noise), seconds, steps,
            losses, all_codes, torch.stack([each.trace[:steps] for each in searches], 1),
        )  # fmt: skip

    # One start ------------------------------------------------------------------------------------

    def begin(self, model: LatentModel, target: "Target", start: int, mean: Tensor, random: Random) -> Tensor:
        """Initial codes (batch, D) of start number `start`; `mean` is that of the space."""
        if start == 0:
            return mean.expand(len(target), -1).clone()
        return model.sample_codes(len(target), target.space, random)

    def domain_loss(
        self, model: LatentModel, target: "Target", code: Tensor, image: Tensor
    ) -> Tensor | float:
        """Loss (batch,) that keeps the code inside the model's domain; 0 here."""
        return 0.0

    def _search(self, model: LatentModel, target: "Target", code: Tensor, std: Tensor, seed: int) -> "_Found":
        stored = model.noise() if self.noise and isinstance(model, HasNoise) else []
        noise = [each.repeat(len(target), 1, 1, 1) for each in stored]
        if self.algorithm == "lbfgs":
            return self._lbfgs(model, target, code.detach(), noise, std)
        return self._adam(model, target, code.detach(), noise, std, seed)

    def _adam(
        self,
        model: LatentModel,
        target: "Target",
        start: Tensor,
        noise: list[Tensor],
        std: Tensor,
        seed: int,
    ) -> "_Found":
        moved = torch.zeros_like(start, requires_grad=True)
        adam = torch.optim.Adam(
            [moved, *(each.requires_grad_() for each in noise)], self.lr, betas=(0.9, 0.999)
        )
        best, trace = _Best(len(target)), []
        begun, rows = now(model), torch.arange(len(target))
        for step in range(self.steps):
            share = step / self.steps
            if self.seconds is not None:
                share = max(share, (now(model) - begun) / self.seconds)
                if share >= 1:
                    break
            for group in adam.param_groups:
                group["lr"] = self.lr * rate(share)
            code, fading = start + std * moved, self.exploration * max(0.0, 1 - share / 0.75) ** 2
            if fading:
                shaken = fading * normal_rows(combine_seeds(seed, step), rows, code.shape[1:], code)
                loss = self._loss(model, target, code + std * shaken, noise)
            else:
                loss = self._loss(model, target, code, noise)
                best.offer(loss, [code, *noise])
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            trace.append(loss.detach())
            with torch.no_grad():
                for each in noise:
                    each.copy_(standard(each))
            if self.watch is not None and not self.watch(share, target.codes((start + std * moved).detach())):
                break
        return self._end(model, target, (start + std * moved).detach(), noise, trace, best)

    def _lbfgs(
        self, model: LatentModel, target: "Target", start: Tensor, noise: list[Tensor], std: Tensor
    ) -> "_Found":
        trace, code = torch.zeros(self.steps, len(target)), start.clone()
        for i in range(len(target)):
            moved = torch.zeros_like(start[i : i + 1])
            own = [each.clone().requires_grad_() for each in (moved, *(each[i : i + 1] for each in noise))]
            one = target.row(i)
            lbfgs = torch.optim.LBFGS(
                own, max_iter=1, max_eval=LBFGS_EVALUATIONS, history_size=20, line_search_fn="strong_wolfe"
            )

            def evaluate(own: list[Tensor] = own, one: "Target" = one, begun: Tensor = start[i]) -> Tensor:
                free = [standard(each) for each in own[1:]]
                loss = self._loss(model, one, begun + std * own[0], free).sum()
                gradients = torch.autograd.grad(loss, own)
                for variable, gradient in zip(own, gradients, strict=True):
                    variable.grad = gradient
                return loss.detach()

            for step in range(self.steps):
                trace[step, i] = float(lbfgs.step(evaluate))
            code[i] = start[i] + std * own[0].detach()[0]
            for each, value in zip(noise, own[1:], strict=True):
                each[i] = standard(value.detach())[0]
        return self._end(model, target, code, noise, list(trace), _Best(len(target)))

    @torch.no_grad()
    def _end(
        self, model: LatentModel, target: "Target", code: Tensor, noise: list[Tensor], trace: list[Tensor],
        best: "_Best",
    ) -> "_Found":  # fmt: skip
        """The result; what is not finite is a failed start, and says so by its loss."""
        loss = self._loss(model, target, code, noise)
        finite = code.isfinite().all(1) & loss.isfinite()
        best.offer(torch.where(finite, loss, math.inf), [code, *noise])
        steps = torch.stack(trace) if trace else torch.empty(0, len(target))
        return _Found(best.variables[0], best.variables[1:], best.loss, steps)

    def _loss(self, model: LatentModel, target: "Target", code: Tensor, noise: list[Tensor]) -> Tensor:
        """Of every image, (batch,)."""
        image = decode_with(model, target.codes(code), noise)
        loss = self.distance(model, image, target.images)
        if noise:
            loss = loss + self.noise_weight * sum(map(correlation, noise))
        return loss + self.domain_loss(model, target, code, image)


@dataclass(frozen=True)
class Target:
    """Images that codes are searched for.

    Attributes:
        images: (batch, C, H, W) in [0, 1].
        space: Name of the latent space.
        labels: int64 (batch,), classes of the images where the space needs them; else None.
    """

    images: Tensor
    space: str
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def row(self, i: int) -> "Target":
        """One of the images."""
        labels = None if self.labels is None else self.labels[i : i + 1]
        return Target(self.images[i : i + 1], self.space, labels)

    def codes(self, values: Tensor) -> Codes:
        """Values (batch, D) as codes of these images."""
        return Codes(values, self.space, self.labels)


class _Best:
    """For every image the variables of the least loss that was offered.

    Attributes:
        loss: (batch,), infinite until one is finite.
        variables: (batch, …) each.
    """

    def __init__(self, images: int):
        self.loss, self.variables = torch.full((images,), math.inf), [torch.empty(0)]

    @torch.no_grad()
    def offer(self, loss: Tensor, variables: list[Tensor]) -> None:
        """Take those of the images whose loss is less; the first are taken whatever they are."""
        loss = torch.where(loss.isfinite(), loss, math.inf)
        if len(self.variables[0]) != len(loss):
            self.loss, self.variables = loss, [each.clone() for each in variables]
            return
        less = loss < self.loss
        self.loss = torch.where(less, loss, self.loss)
        for kept, given in zip(self.variables, variables, strict=True):
            kept[less] = given[less]


class _Found(NamedTuple):
    code: Tensor
    noise: list[Tensor]
    loss: Tensor
    trace: Tensor


def rate(share: float) -> float:
    """Of the largest learning rate, after this share of the steps: up over 5 %, down over the last 25 %."""
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - share) / 0.25))
    return fall * min(1.0, (share + 1e-3) / 0.05)


def standard(noise: Tensor) -> Tensor:
    """Noise (batch, 1, h, w) with mean 0 and mean square 1 in every map."""
    centred = noise - noise.mean((2, 3), keepdim=True)
    return centred * centred.square().mean((2, 3), keepdim=True).rsqrt()


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
    """Middle of a space and its std, the standard deviation of every coordinate: (D,) each.

    Known for a space with a prior, otherwise measured on so many codes. A coordinate that hardly varies
    counts as a thousandth of the widest.
    """
    prior, shape = model.check_space(space).prior, model.check_space(space).shape
    if prior is not None:
        mean = torch.zeros(shape, dtype=model.dtype, device=model.device)
        return mean, torch.full_like(mean, prior.deviation)
    # Of the very object, too: callables of a user's may be different functions with one fingerprint.
    key = id(model), model.fingerprint(), space, codes, seed
    if key not in _measured:
        _measured[key] = _measure_extent(model, space, codes, seed)
    mean, std = _measured[key]
    return mean.to(model.device, model.dtype), std.to(model.device, model.dtype)


_measured: dict[tuple[int, str, str, int, int], tuple[Tensor, Tensor]] = {}
"""Extents that were measured: a search asks for them again for every group of images."""


def _measure_extent(model: LatentModel, space: str, codes: int, seed: int) -> tuple[Tensor, Tensor]:
    """See `extent`; fp64, on the host."""
    shape = model.check_space(space).shape
    random = torch.Generator().manual_seed(seed)
    parts = [min(EXTENT_BATCH, codes - begun) for begun in range(0, codes, EXTENT_BATCH)]
    total, squares = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for part in parts:
        found = model.sample_codes(part, space, random).double().cpu()
        total, squares = total + found.sum(0), squares + found.square().sum(0)
    mean = total / codes
    std = ((squares - codes * mean.square()) / (codes - 1)).clamp(min=0).sqrt()
    return mean, std.clamp(min=1e-3 * float(std.max()))
