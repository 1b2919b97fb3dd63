"""Joint training of a GAN and its walks (Jahanian et al. 2020, arXiv 1907.07171)."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.core.bounds import NonNegativeFloat, PositiveFloat, PositiveInt
from flows.core.numerics import combine_seeds, frozen, full_precision, uniform_rows
from flows.data.base import Batch, Split
from flows.errors import Unsupported, UserError
from flows.models.base import LatentModel
from flows.models.gan import GAN
from flows.steering.base import DIRECTIONS_FILE, Direction, load_directions, save_directions
from flows.steering.method import Task
from flows.steering.operators import Operator, operators
from flows.steering.walk import Walk
from flows.storage.stored import StoredModule
from flows.training.diffaugment import AugmentationName, diffaugment
from flows.training.objectives.adversarial import (
    Adversarial,
    LossName,
    ScoreName,
    label_arguments,
    number_from,
)
from flows.training.phase import Evaluation, Phase

AVERAGED = 0.999
"""Decay of the running average of the walks, over about a thousand steps."""
MEASURED = 8
"""Number of batches on which the walks of a finished run are evaluated."""


class SteerableGenerator(nn.Module):
    """Wrapped module that applies generator and walks in one call.

    Attributes:
        walks: (edits, D), displacement of a code for an amount of 1.
        averaged: (edits, D), running average of the walks.
        best: (edits, D), running average at the evaluation with the best score.
        score: Score of that evaluation, a scalar.
    """

    averaged: Tensor
    best: Tensor
    score: Tensor

    def __init__(self, gan: GAN, space: str, edits: int):
        super().__init__()
        self.generator, self.space = gan.generator, space
        nothing = torch.zeros(edits, gan.check_space(space).shape[0], device=gan.device)
        self.walks = nn.Parameter(nothing)
        self.register_buffer("averaged", nothing.clone())
        self.register_buffer("best", nothing.clone())
        self.register_buffer("score", torch.tensor(math.inf, device=gan.device))
        self.convert, self.synthesise = gan.convert, gan.synthesise

    def forward(self, z: Tensor, which: Tensor, amount: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1] of codes, and of the codes moved along one walk each.

        Args:
            z: (batch, D), samples of the prior.
            which: int64 (batch,), index of the edit of each image.
            amount: (batch,), factor of the walk.
            labels: int64 (batch,), for a class-conditional model.
        """
        label = labels[0] if labels else None
        still, moved = (self.synthesise(code, self.space, label) for code in self.codes(z, which, amount))
        return still, moved

    def codes(self, z: Tensor, which: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
        """Codes in `space` before and after the step along a walk; the arguments are those of `forward`."""
        code = self.convert(z, "z", self.space)
        return code, code + amount[:, None] * self.walks[which]


class Steerable(Adversarial):
    """Adversarial objective in which the generator also learns that steps along walks edit its images.

    Generator and walks minimise L(G(c)) + L(G(c + a(α)w)) + weight · E|m·(G(c + a(α)w) − edit(G(c), α))|²
    over edits and strengths α (section 3.4 of the paper), with L the adversarial loss and m the mask of the
    pixels that the edit determines. Half of the generated images that the critic sees are moved along a walk.
    Half of the real images are edited, but only by edits that determine every pixel, because the critic would
    learn the borders of the others. (In the paper all images are moved or edited.) The averaged walks are
    written to the run's folder as directions of the exported model, with the share of each edit that they
    explain.

    Args:
        edits: Names of edits; see `flows.steering.operators`.
        weight: Weight of the squared error of the edits, pixels in [−1, 1].
        space: Space of the codes that are moved; None uses the model's search space, or z if z has no map to
            it.
        loss, r1, r1_every, critic_lr, critic_steps, augment, score: Arguments of `Adversarial`.
    """

    def __init__(
        self,
        edits: tuple[str, ...] = ("zoom", "shift x", "shift y", "brightness"),
        weight: NonNegativeFloat = 10.0,
        space: str | None = None,
        loss: LossName = "non-saturating",
        r1: NonNegativeFloat | None = None,
        r1_every: PositiveInt = 8,
        critic_lr: PositiveFloat | None = None,
        critic_steps: PositiveInt = 1,
        augment: tuple[AugmentationName, ...] = (),
        score: ScoreName = "swd",
    ):
        super().__init__(
            loss=loss,
            r1=r1,
            r1_every=r1_every,
            critic_lr=critic_lr,
            critic_steps=critic_steps,
            augment=augment,
            score=score,
        )
        if not edits:
            raise UserError(
                "objective.edits: expected the names of edits that the generator should learn, got none"
            )
        self.edits: list[Operator] = operators(edits)
        self.weight, self.space = weight, space
        self.steerable: SteerableGenerator | None = None

    def check(self, model: StoredModule, images: int) -> None:
        super().check(model, images)
        self.space_of(cast(GAN, model))

    def space_of(self, gan: LatentModel) -> str:
        """Space of the walks. Raises UserError if the given space does not exist or has no map from z."""
        prior, wanted = gan.prior_space, self.space or gan.search_space
        if gan.check_space(wanted) is prior or wanted in prior.conversions:
            return wanted
        if self.space is not None:
            raise Unsupported(f"{type(gan).__name__} has no map from space {prior.name!r} to {wanted!r}")
        return prior.name

    def parts(self, model: StoredModule) -> list[nn.Module]:
        gan = cast(GAN, model)
        self.steerable = SteerableGenerator(gan, self.space_of(gan), len(self.edits))
        return [self.steerable, *super().parts(model)[1:]]

    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        critic, generator = super().phases(model, parts)
        generator.params = list(parts[0].parameters())
        gan = cast(GAN, model)
        critic.loss = self.critic_loss(gan, parts[1], partial(self.half_moved, gan))
        return [critic, generator]

    # Losses ---------------------------------------------------------------------------------------

    def generator_loss(self, gan: GAN, part: nn.Module) -> Any:
        """Create the generator's loss: adversarial for original and moved images, and error of the edits."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            seed = combine_seeds(number_from(generator), 2)
            z = self.sample_prior(gan, batch, seed)
            which, strength, amount = self.sample_edits(batch, combine_seeds(seed, 8), z)
            generated, moved = part(z, which, amount, *label_arguments(gan, batch))
            with frozen(gan.critic):
                adversarial = torch.stack(
                    [self.adversarial_loss(gan, images, batch, seed) for images in (generated, moved)]
                ).sum()
            error = self.error(generated.detach(), moved, which, strength)
            assert self.steerable is not None
            with torch.no_grad():
                self.steerable.averaged.lerp_(self.steerable.walks, 1 - AVERAGED)
            return adversarial + self.weight * error, {"adversarial": adversarial, "edit": error}

        return loss

    def adversarial_loss(self, gan: GAN, images: Tensor, batch: Batch, seed: int) -> Tensor:
        """Adversarial loss of the generator for these images."""
        seen = diffaugment(images, self.augment, combine_seeds(seed, 1), batch.keys)
        return self.fool(gan.critic(seen, *label_arguments(gan, batch)))

    def error(self, generated: Tensor, moved: Tensor, which: Tensor, strength: Tensor) -> Tensor:
        """Masked squared error: mean over the known pixels of each image, then over images."""
        with full_precision(moved):
            target, known = self.edited(generated.float(), which, strength.float())
            parts = known.flatten(1).sum(1).clamp(min=1) * generated.shape[1]
            return ((known * (moved.float() - target)).square().flatten(1).sum(1) / parts).mean()

    @torch.no_grad()
    def half_moved(self, gan: GAN, batch: Batch, seed: int) -> Tensor:
        """Generated images for the critic, half of them moved along a walk."""
        assert self.steerable is not None
        z = self.sample_prior(gan, batch, seed)
        which, _, amount = self.sample_edits(batch, combine_seeds(seed, 8), z)
        amount = amount * self.every_other(batch, seed, z)
        part, labels = self.steerable, label_arguments(gan, batch)
        _, moved = part.codes(z, which, amount)
        return part.synthesise(moved, part.space, labels[0] if labels else None)

    def real_images(self, gan: GAN, batch: Batch, seed: int) -> Tensor:
        """Real images for the critic; half of those whose edit determines every pixel are edited."""
        real = super().real_images(gan, batch, seed)
        which, strength, _ = self.sample_edits(batch, combine_seeds(seed, 8), real)
        with full_precision(real):
            edited, _ = self.edited(real, which, strength)
        whole = torch.tensor([edit.whole for edit in self.edits], device=real.device)[which]
        changed = whole & (self.every_other(batch, combine_seeds(seed, 9), real) > 0)
        return torch.where(changed[:, None, None, None], edited, real)

    def every_other(self, batch: Batch, seed: int, like: Tensor) -> Tensor:
        """Random 0 or 1, equally probable, for each image, (batch,)."""
        return (uniform_rows(combine_seeds(seed, 10), batch.keys, (1,), like)[:, 0] < 0.5).to(like)

    def sample_edits(self, batch: Batch, seed: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sample for each image the index of an edit, its strength, and the walk's amount, each (batch,)."""
        choice, share = uniform_rows(seed, batch.keys, (2,), like).unbind(1)
        which = (choice * len(self.edits)).long().clamp(max=len(self.edits) - 1)
        strengths = torch.stack([edit.at(share) for edit in self.edits])
        amounts = torch.stack([edit.amount(s) for edit, s in zip(self.edits, strengths, strict=True)])
        return which, strengths.gather(0, which[None])[0], amounts.gather(0, which[None])[0]

    def edited(self, generated: Tensor, which: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1], each with its edit, and the mask of their known pixels, (batch, 1, H, W)."""
        target, known = generated.clone(), torch.ones_like(generated[:, :1])
        for i, edit in enumerate(self.edits):
            chosen = which == i
            if chosen.any():
                moved, mask = edit(pixels.from_signed(generated[chosen]).clamp(0, 1), strength[chosen])
                target[chosen], known[chosen] = pixels.signed(moved), mask
        return target, known

    # Evaluation -----------------------------------------------------------------------------------

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        evaluation = super().evaluate(model, held_out, images, shown)
        if self.steerable is not None and evaluation.score < float(self.steerable.score):
            self.steerable.best.copy_(self.steerable.averaged)
            self.steerable.score.fill_(evaluation.score)
        return evaluation

    def finish(self, model: StoredModule, folder: Path) -> dict[str, Any]:
        """Save the walks as directions of the exported model; returns the share of each edit they explain.

        Walks come from this run, or else from the folder (if a run is exported), or else are found anew.
        """
        gan = cast(LatentModel, model)
        space, names = self.space_of(gan), [edit.name for edit in self.edits]
        if self.steerable is not None:
            walks = list(self.steerable.best)
        elif (folder / DIRECTIONS_FILE).is_file():
            walks = [d.sigma * d.vector for d in load_directions(folder / DIRECTIONS_FILE, gan)]
        else:
            walks = []
        if walks:
            pairs = zip(self.edits, walks, strict=True)
            directions = [walk_direction(gan, space, edit, walk) for edit, walk in pairs]
        else:
            directions = Walk().find(Task(gan, space, names))
        save_directions(folder / DIRECTIONS_FILE, directions)
        explained = {d.name: d.evidence["explained"] for d in directions}
        return {"walks": explained, "walks_in": space, "walks_learned": bool(walks)}


def walk_direction(model: LatentModel, space: str, edit: Operator, walk: Tensor) -> Direction:
    """Convert a trained walk to a direction, evaluated on new codes."""
    random, method = torch.Generator().manual_seed(1), Walk()
    with torch.no_grad():
        losses = [method.loss(model, space, edit, walk.to(model.device), random) for _ in range(MEASURED)]
    moved, still = (float(torch.stack(values).mean()) for values in zip(*losses, strict=True))
    length = float(walk.norm())
    return Direction(
        name=edit.name,
        vector=(walk / max(length, 1e-12)).cpu(),
        bias=0.0,
        space=space,
        sigma=length,
        method="joint walk",
        fingerprint=model.fingerprint(),
        evidence={"explained": 1 - moved / still, "loss": moved},
    )
