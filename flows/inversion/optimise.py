"""Inversion by optimisation: find the code whose image is nearest to the target."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from flows import images as pixels
from flows.core.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from flows.core.checks import check_choice
from flows.core.numerics import combine_seeds, frozen, normal_rows, seed_from
from flows.errors import UserError
from flows.inversion.base import Inversion, Inverter, decode_with, now, reconstruct
from flows.inversion.distance import Distance
from flows.inversion.search import Search
from flows.models.base import HasNoise, LatentModel
from flows.models.codes import Codes, LabelsLike, as_labels

__all__ = ["Optimise"]

Algorithm = Literal["adam", "lbfgs"]
Watch = Callable[[float, Codes], bool]
"""Callback with the used share of a restart's budget and the current codes (batch, D); False stops."""
Random = torch.Generator | None
STEPS = 1000
"""Number of steps of StyleGAN2's projector."""
LBFGS_EVALUATIONS = 5
"""Maximum number of loss evaluations per L-BFGS step."""
EXTENT_BATCH = 1000
"""Number of codes per batch when the extent of a space is measured."""


class Optimise(Inverter):
    """StyleGAN2's projector (Karras et al. 2020, arXiv 1912.04958, section 5), for any model and space.

    Adam optimises codes in units of each coordinate's std, so that one learning rate suits every space. The
    rate rises over the first twentieth of the steps and falls over the last quarter. Noise is added to the
    code and fades over the first three quarters; after that the code with the lowest loss is kept. Noise
    inputs can be optimised too. A penalty keeps image content out of them, and they are *returned with the
    code*, which would give a different image without them. Images are optimised independently; the noise on a
    code depends on the seed and the index in the batch.

    Args:
        space: Space of the optimisation; None selects the model's `search_space`.
        steps: Maximum number of steps per restart.
        seconds: Maximum time per restart for the whole batch, whose images are optimised together; learning
            rate and noise follow the budget, steps or time, that is nearer its end. Not for `lbfgs`.
        lr: Largest learning rate, in units of std.
        algorithm: Optimiser, `adam`, or `lbfgs` (with line search, without noise on the code; one image at a
            time).
        starts: Number of restarts: the first from the mean of the space, the others from samples.
        distance: Distance to the image (LPIPS alone in the paper).
        noise: Whether to optimise the noise inputs too, if the model has any.
        noise_weight: Weight of the penalty on the noise inputs.
        exploration: Initial size of the noise on the code, in units of std; it helps to leave poor minima.
            The paper has 0.05 times the root mean square distance of w from its mean, which is 1.1 std in
            512 dimensions and hides the image if every coordinate determines a part of it.
        watch: Callback after every step of `adam`; the optimisation ends when it returns False.

    Raises:
        UserError: `seconds` is not positive, or is given for `lbfgs`.
    """

    name = "optimise"
    short_names = {"optimise": ("SPACE", "ALGORITHM")}

    def __init__(
        self,
        space: str | None = None,
        steps: NonNegativeInt = STEPS,
        lr: PositiveFloat = 0.1,
        algorithm: Algorithm = "adam",
        starts: PositiveInt = 1,
        distance: Distance | None = None,
        noise: bool = False,
        noise_weight: NonNegativeFloat = 1e5,
        exploration: NonNegativeFloat = 0.5,
        seconds: PositiveFloat | None = None,
        watch: Watch | None = None,
    ):
        if seconds is not None and algorithm == "lbfgs":
            raise UserError(f"seconds: expected algorithm 'adam' for a limit, got {algorithm!r}")
        self.seconds = seconds
        self.space, self.steps, self.lr, self.algorithm = space, steps, lr, algorithm
        self.starts, self.distance = starts, distance or Distance()
        self.noise, self.noise_weight, self.exploration = noise, noise_weight, exploration
        self.watch = watch

    @classmethod
    def from_short(cls, name: str, words: Mapping[str, str], search: Search) -> "Optimise":
        algorithm, settings = words.get("ALGORITHM", "adam"), search.settings
        check_choice(f"--inverters {name}", algorithm, Algorithm)
        return cls(
            words.get("SPACE"),
            search.steps(STEPS),
            settings.lr,
            cast(Algorithm, algorithm),
            settings.starts,
            search.distance,
            settings.noise,
            seconds=None if algorithm == "lbfgs" else settings.seconds,
        )

    def parts(self) -> dict[str, str]:
        return {"space": self.space} if self.space else {}

    def space_of(self, model: LatentModel) -> str:
        """Return the space in which this model's codes are optimised."""
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
        images: pixels.ImageLike,
        generator: torch.Generator | None = None,
        labels: LabelsLike | None = None,
    ) -> Inversion:
        images = self.check(model, images)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        space = self.space_of(model)
        classes = model.labels_to_encode(images, None if labels is None else as_labels(labels), space)
        target = Target(pixels.to_unit(images, model.bins, model.dtype).to(model.device), space, classes)
        with frozen(model):
            mean, std = extent(model, space)
            begun = now(model)
            # All starting points are sampled before the first search, so they do not depend on its length.
            starts = [
                (self.begin(model, target, start, mean, generator), int(seed_from(generator)))
                for start in range(self.starts)
            ]
            searches = [self._search(model, target, code, std, seed) for code, seed in starts]
        losses = torch.stack([search.loss for search in searches])
        all_codes = torch.stack([search.code for search in searches])
        best, rows = losses.argmin(0), torch.arange(len(images))
        noise = [torch.stack(each)[best, rows] for each in zip(*(s.noise for s in searches), strict=True)]
        seconds = now(model) - begun
        codes = target.codes(all_codes[best, rows])
        steps = min(len(search.trace) for search in searches)  # a time limit may allow more steps to one
        restarts = f", {self.starts} starts" if self.starts > 1 else ""
        return Inversion(
            method=f"{self.name} ({space}, {self.algorithm}, {steps} steps{restarts})",
            codes=codes,
            noise=noise,
            reconstruction=reconstruct(model, codes, noise),
            seconds=seconds,
            steps=steps,
            losses=losses,
            all_codes=all_codes,
            trace=torch.stack([search.trace[:steps] for search in searches], 1),
        )

    # One restart ----------------------------------------------------------------------------------

    def begin(self, model: LatentModel, target: "Target", start: int, mean: Tensor, random: Random) -> Tensor:
        """Return the initial codes (batch, D) of restart number `start`; `mean` is the mean of the space."""
        if start == 0:
            return mean.expand(len(target), -1).clone()
        return model.sample_codes(len(target), target.space, random)

    def domain_loss(
        self, model: LatentModel, target: "Target", code: Tensor, image: Tensor
    ) -> Tensor | float:
        """Return a loss (batch,) that keeps the code in the model's domain; 0 unless overridden."""
        return 0.0

    def _search(
        self, model: LatentModel, target: "Target", code: Tensor, std: Tensor, seed: int
    ) -> "_Restart":
        stored = model.noise() if self.noise and isinstance(model, HasNoise) else []
        noise = [layer_noise.repeat(len(target), 1, 1, 1) for layer_noise in stored]
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
    ) -> "_Restart":
        offset = torch.zeros_like(start, requires_grad=True)
        adam = torch.optim.Adam(
            [offset, *(layer_noise.requires_grad_() for layer_noise in noise)], self.lr, betas=(0.9, 0.999)
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
            code, fading = start + std * offset, self.exploration * max(0.0, 1 - share / 0.75) ** 2
            if fading:
                around = normal_rows(combine_seeds(seed, step), rows, code.shape[1:], code)
                loss = self._loss(model, target, code + std * (fading * around), noise)
            else:
                loss = self._loss(model, target, code, noise)
                best.offer(loss, [code, *noise])
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            trace.append(loss.detach())
            with torch.no_grad():
                for layer_noise in noise:
                    layer_noise.copy_(standard(layer_noise))
            if self.watch and not self.watch(share, target.codes((start + std * offset).detach())):
                break
        return self._end(model, target, (start + std * offset).detach(), noise, trace, best)

    def _lbfgs(
        self, model: LatentModel, target: "Target", start: Tensor, noise: list[Tensor], std: Tensor
    ) -> "_Restart":
        trace, code = torch.zeros(self.steps, len(target)), start.clone()
        for i in range(len(target)):
            offset = torch.zeros_like(start[i : i + 1])
            own = [
                start_value.clone().requires_grad_()
                for start_value in (offset, *(layer_noise[i : i + 1] for layer_noise in noise))
            ]
            one = target.row(i)
            lbfgs = torch.optim.LBFGS(
                own, max_iter=1, max_eval=LBFGS_EVALUATIONS, history_size=20, line_search_fn="strong_wolfe"
            )

            def evaluate(own: list[Tensor] = own, one: "Target" = one, begun: Tensor = start[i]) -> Tensor:
                own_noise = [standard(value) for value in own[1:]]
                loss = self._loss(model, one, begun + std * own[0], own_noise).sum()
                gradients = torch.autograd.grad(loss, own)
                for variable, gradient in zip(own, gradients, strict=True):
                    variable.grad = gradient
                return loss.detach()

            for step in range(self.steps):
                trace[step, i] = float(lbfgs.step(evaluate))
            code[i] = start[i] + std * own[0].detach()[0]
            for layer_noise, value in zip(noise, own[1:], strict=True):
                layer_noise[i] = standard(value.detach())[0]
        return self._end(model, target, code, noise, list(trace), _Best(len(target)))

    @torch.no_grad()
    def _end(
        self,
        model: LatentModel,
        target: "Target",
        code: Tensor,
        noise: list[Tensor],
        trace: list[Tensor],
        best: "_Best",
    ) -> "_Restart":
        """Return the result of a restart; its loss is infinite if no code had a finite one."""
        loss = self._loss(model, target, code, noise)
        finite = code.isfinite().all(1) & loss.isfinite()
        best.offer(torch.where(finite, loss, math.inf), [code, *noise])
        steps = torch.stack(trace) if trace else torch.empty(0, len(target))
        return _Restart(best.variables[0], best.variables[1:], best.loss, steps)

    def _loss(self, model: LatentModel, target: "Target", code: Tensor, noise: list[Tensor]) -> Tensor:
        """Compute the loss of each image, (batch,)."""
        image = decode_with(model, target.codes(code), noise)
        loss = self.distance(model, image, target.images)
        if noise:
            loss = loss + self.noise_weight * sum(map(correlation, noise))
        return loss + self.domain_loss(model, target, code, image)


@dataclass(frozen=True)
class Target:
    """Images whose codes are optimised.

    Attributes:
        images: (batch, C, H, W) in [0, 1].
        space: Name of the latent space.
        labels: int64 (batch,), classes of the images; None if the space needs no labels.
    """

    images: Tensor
    space: str
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def row(self, i: int) -> "Target":
        """Return image i as a batch of one."""
        labels = None if self.labels is None else self.labels[i : i + 1]
        return Target(self.images[i : i + 1], self.space, labels)

    def codes(self, values: Tensor) -> Codes:
        """Return values (batch, D) as codes with the space and labels of these images."""
        return Codes(values, self.space, self.labels)


class _Best:
    """Variables with the lowest loss so far, for each image.

    Attributes:
        loss: (batch,), lowest loss; infinite until a loss is finite.
        variables: Variables (batch, …) at that loss.
    """

    def __init__(self, images: int):
        self.loss, self.variables = torch.full((images,), math.inf), [torch.empty(0)]

    @torch.no_grad()
    def offer(self, loss: Tensor, variables: list[Tensor]) -> None:
        """Keep the variables of images whose loss is lower; the first variables are kept in any case."""
        loss = torch.where(loss.isfinite(), loss, math.inf)
        if len(self.variables[0]) != len(loss):
            self.loss, self.variables = loss, [variable.clone() for variable in variables]
            return
        less = loss < self.loss
        self.loss = torch.where(less, loss, self.loss)
        for kept, given in zip(self.variables, variables, strict=True):
            kept[less] = given[less]


class _Restart(NamedTuple):
    """Result of one restart: code (batch, D), noise inputs, loss (batch,) and trace (steps, batch)."""

    code: Tensor
    noise: list[Tensor]
    loss: Tensor
    trace: Tensor


def rate(share: float) -> float:
    """Factor on the learning rate after a share of the steps: rises over 5 %, falls over the last 25 %."""
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - share) / 0.25))
    return fall * min(1.0, (share + 1e-3) / 0.05)


def standard(noise: Tensor) -> Tensor:
    """Normalise noise (batch, 1, h, w) to mean 0 and mean square 1 in every map."""
    centred = noise - noise.mean((2, 3), keepdim=True)
    return centred * centred.square().mean((2, 3), keepdim=True).rsqrt()


def correlation(noise: Tensor) -> Tensor:
    """Squared correlation of neighbouring entries of noise (batch, 1, h, w), summed over scales: (batch,).

    Each scale has half the sides of the previous one, until one is at most 8.
    """
    total = noise.new_zeros(len(noise))
    while True:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, axis)).mean((1, 2, 3)).square()
        if min(noise.shape[2:]) <= 8:
            return total
        noise = avg_pool2d(noise, 2)


@torch.no_grad()
def extent(model: LatentModel, space: str, codes: int = 10_000, seed: int = 123) -> tuple[Tensor, Tensor]:
    """Mean of a space and std of each coordinate, (D,) each.

    They are known for a space with a prior, and otherwise estimated from `codes` samples. The std is at least
    a thousandth of the largest one.
    """
    prior, shape = model.check_space(space).prior, model.check_space(space).shape
    if prior is not None:
        mean = torch.zeros(shape, dtype=model.dtype, device=model.device)
        return mean, torch.full_like(mean, prior.deviation)
    # The key contains the object, because different callables of a user may have the same fingerprint.
    key = id(model), model.fingerprint(), space, codes, seed
    if key not in _measured:
        _measured[key] = _measure_extent(model, space, codes, seed)
    mean, std = _measured[key]
    return mean.to(model.device, model.dtype), std.to(model.device, model.dtype)


_measured: dict[tuple[int, str, str, int, int], tuple[Tensor, Tensor]] = {}
"""Cache of measured extents; a search needs them for every group of images."""


def _measure_extent(model: LatentModel, space: str, codes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Estimate mean and std from samples; fp64, on the host."""
    shape = model.check_space(space).shape
    random = torch.Generator().manual_seed(seed)
    parts = [min(EXTENT_BATCH, codes - begun) for begun in range(0, codes, EXTENT_BATCH)]
    total, squares = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for part in parts:
        sampled = model.sample_codes(part, space, random).double().cpu()
        total, squares = total + sampled.sum(0), squares + sampled.square().sum(0)
    mean = total / codes
    std = ((squares - codes * mean.square()) / (codes - 1)).clamp(min=0).sqrt()
    return mean, std.clamp(min=1e-3 * float(std.max()))
