"""A GAN that learns to be steered: generator and walks together (Jahanian et al. 2020, arXiv 1907.07171)."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flows.data.base import Batch, ImageData, Split
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.gan import GAN
from flows.numerics import combine_seeds, frozen, full_precision, uniform_rows
from flows.page import as_text
from flows.steering.base import Direction, load_directions, save_directions
from flows.steering.method import Task
from flows.steering.operators import Operator, operators
from flows.steering.walk import Walk
from flows.stored import StoredModule
from flows.training.diffaugment import Change, diffaugment
from flows.training.folder import DIRECTIONS_FILE
from flows.training.gan_report import Section, write_gan_report
from flows.training.objectives.adversarial import (
    Adversarial,
    LossName,
    ScoreName,
    labels_of,
    number_from,
)
from flows.training.phase import Evaluation, Phase

AVERAGED = 0.999
"""Decay of the walks' running average, over a thousand steps or so."""
MEASURED = 8
"""Batches on which the walks of a finished run are measured."""


class SteerableGenerator(nn.Module):
    """A generator with its walks, in one call: what is wrapped.

    Attributes:
        walks: (edits, D), what a code moves by for an amount of 1.
        averaged: their running average.
        best, score: that average when a look was the best so far, and how good it was.
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
        self.convert, self.render = gan.convert, gan.render

    def forward(self, z: Tensor, which: Tensor, amount: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1] of codes (batch, D), and of these moved along one edit's walk each.

        Args:
            z: of the prior.
            which: int64 (batch,), numbers of edits.
            amount: (batch,), what multiplies the walk.
            labels: of a class-conditional model.
        """
        label = labels[0] if labels else None
        still, moved = (self.render(code, self.space, label) for code in self.codes(z, which, amount))
        return still, moved

    def codes(self, z: Tensor, which: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of `space`, and these moved; see `forward`."""
        code = self.convert(z, "z", self.space)
        return code, code + amount[:, None] * self.walks[which]


class Steerable(Adversarial):
    """`Adversarial`, and beside it the generator learns that a step in its space is an edit of its picture.

    Generator and walks minimise L(G(c)) + L(G(c + a(α)w)) + weight · E|m·(G(c + a(α)w) − edit(G(c), α))|²
    over edits and strengths α (section 3.4 of the paper), L what the critic says, m masking what the edit
    knows nothing of. The critic sees moved pictures, too, for half of what is drawn; half of the real ones
    are edited likewise, but only by edits that know every pixel: others would teach it their borders. (In the
    paper all are.) The average of the walks is written to the run's folder as directions of the exported
    model, with the share of each edit that they explain.

    Args:
        edits: names; see `flows.steering.operators`.
        weight: of the edits' squared error, pixels in [−1, 1].
        space: of the codes that are moved; null takes the model's search space, or z where z has no map to
            it.
        loss, r1, r1_every, critic_lr, critic_steps, augment, score: as in `Adversarial`.
    """

    def __init__(
        self,
        edits: tuple[str, ...] = ("zoom", "shift x", "shift y", "brightness"),
        weight: float = 10.0,
        space: str | None = None,
        loss: LossName = "non-saturating",
        r1: float | None = None,
        r1_every: int = 8,
        critic_lr: float | None = None,
        critic_steps: int = 1,
        augment: tuple[Change, ...] = (),
        score: ScoreName = "swd",
    ):
        super().__init__(
            loss=loss, r1=r1, r1_every=r1_every, critic_lr=critic_lr, critic_steps=critic_steps,
            augment=augment, score=score,
        )  # fmt: skip
        if not edits:
            raise UserError("objective.edits: name those that the generator should learn")
        self.edits: list[Operator] = operators(edits)
        self.weight, self.space = weight, space
        self.steerable: SteerableGenerator | None = None

    def check(self, model: StoredModule, images: int) -> None:
        super().check(model, images)
        self.space_of(cast(GAN, model))

    @torch.no_grad()
    def space_of(self, gan: LatentModel) -> str:
        """The space of the walks. Raises ValueError where z has no map to it."""
        wanted = self.space or gan.search_space
        try:
            gan.convert(gan.sample_codes(1, "z", torch.Generator().manual_seed(0)), "z", wanted)
        except ValueError:
            if self.space is not None:
                raise
            return "z"
        return wanted

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
        """The critic's opinion of both, and how far what is moved is from what is edited."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            seed = combine_seeds(number_from(generator), 2)
            z = self.draw_codes(gan, batch, seed)
            which, strength, amount = self.draw_edits(batch, combine_seeds(seed, 8), z)
            drawn, moved = part(z, which, amount, *labels_of(gan, batch))
            with frozen(gan.critic):
                opinion = torch.stack([self.opinion(gan, each, batch, seed) for each in (drawn, moved)]).sum()
            error = self.error(drawn.detach(), moved, which, strength)
            assert self.steerable is not None
            with torch.no_grad():
                self.steerable.averaged.lerp_(self.steerable.walks, 1 - AVERAGED)
            return opinion + self.weight * error, {"opinion": opinion, "edit": error}

        return loss

    def opinion(self, gan: GAN, images: Tensor, batch: Batch, seed: int) -> Tensor:
        """What the generator minimises of what the critic says."""
        seen = diffaugment(images, self.augment, combine_seeds(seed, 1), batch.keys)
        return self.fool(gan.critic(seen, *labels_of(gan, batch)))

    def error(self, drawn: Tensor, moved: Tensor, which: Tensor, strength: Tensor) -> Tensor:
        """Masked squared error, a mean over known pixels of each image, then over images."""
        with full_precision(moved):
            target, known = self.edited(drawn.float(), which, strength.float())
            parts = known.flatten(1).sum(1).clamp(min=1) * drawn.shape[1]
            return ((known * (moved.float() - target)).square().flatten(1).sum(1) / parts).mean()

    @torch.no_grad()
    def half_moved(self, gan: GAN, batch: Batch, seed: int) -> Tensor:
        """What the critic sees as drawn: half of it moved."""
        assert self.steerable is not None
        z = self.draw_codes(gan, batch, seed)
        which, _, amount = self.draw_edits(batch, combine_seeds(seed, 8), z)
        amount = amount * self.every_other(batch, seed, z)
        part, labels = self.steerable, labels_of(gan, batch)
        _, moved = part.codes(z, which, amount)
        return part.render(moved, part.space, labels[0] if labels else None)

    def real_images(self, gan: GAN, batch: Batch, seed: int) -> Tensor:
        """What it sees as real: half of it edited, by edits that know every pixel."""
        real = super().real_images(gan, batch, seed)
        which, strength, _ = self.draw_edits(batch, combine_seeds(seed, 8), real)
        with full_precision(real):
            edited, _ = self.edited(real, which, strength)
        whole = torch.tensor([each.whole for each in self.edits], device=real.device)[which]
        changed = whole & (self.every_other(batch, combine_seeds(seed, 9), real) > 0)
        return torch.where(changed[:, None, None, None], edited, real)

    def every_other(self, batch: Batch, seed: int, like: Tensor) -> Tensor:
        """0 or 1 for each image, (batch,)."""
        return (uniform_rows(combine_seeds(seed, 10), batch.keys, (1,), like)[:, 0] < 0.5).to(like)

    def draw_edits(self, batch: Batch, seed: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each image the number of an edit, its strength and the walk's amount, each (batch,)."""
        choice, share = uniform_rows(seed, batch.keys, (2,), like).unbind(1)
        which = (choice * len(self.edits)).long().clamp(max=len(self.edits) - 1)
        strengths = torch.stack([each.at(share) for each in self.edits])
        amounts = torch.stack([edit.amount(each) for edit, each in zip(self.edits, strengths, strict=True)])
        return which, strengths.gather(0, which[None])[0], amounts.gather(0, which[None])[0]

    def edited(self, drawn: Tensor, which: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1], each by its edit, and where these are known, (batch, 1, H, W)."""
        target, known = drawn.clone(), torch.ones_like(drawn[:, :1])
        for i, edit in enumerate(self.edits):
            chosen = which == i
            if chosen.any():
                moved, mask = edit(((drawn[chosen] + 1) / 2).clamp(0, 1), strength[chosen])
                target[chosen], known[chosen] = 2 * moved - 1, mask
        return target, known

    # Looking --------------------------------------------------------------------------------------

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        seen = super().evaluate(model, held_out, images, shown)
        if self.steerable is not None and seen.score < float(self.steerable.score):
            self.steerable.best.copy_(self.steerable.averaged)
            self.steerable.score.fill_(seen.score)
        return seen

    def report(self, folder: Path, data: ImageData, device: str) -> dict[str, Any]:
        return write_gan_report(folder, data, device, lambda model, _: self.walks_section(model, folder))

    def walks_section(self, model: LatentModel, folder: Path) -> Section:
        """The walks as directions of the exported model, and how much of each edit they explain.

        Those of this run, or else those of the folder, as where a run is exported; or else found anew.
        """
        space, names = self.space_of(model), [edit.name for edit in self.edits]
        if self.steerable is not None:
            walks = list(self.steerable.best)
        elif (folder / DIRECTIONS_FILE).is_file():
            walks = [each.sigma * each.vector for each in load_directions(folder / DIRECTIONS_FILE, model)]
        else:
            walks = []
        if walks:
            pairs = zip(self.edits, walks, strict=True)
            found = [walk_direction(model, space, edit, walk) for edit, walk in pairs]
        else:
            found = Walk().find(Task(model, space, names))
        save_directions(folder / DIRECTIONS_FILE, found)
        explained = {each.name: each.evidence["explained"] for each in found}
        told = ", ".join(f"{name} {as_text(value)}" for name, value in explained.items())
        learned = "walk, learned with the generator," if walks else "walk, found afterwards,"
        lines = [
            f"Share of each edit that its {learned} in {space} explains ({DIRECTIONS_FILE}): {told}.",
            "",
        ]
        return Section({"walks": explained}, lines, {})


def walk_direction(model: LatentModel, space: str, edit: Operator, walk: Tensor) -> Direction:
    """A trained walk as a direction, measured on new codes."""
    random, method = torch.Generator().manual_seed(1), Walk()
    with torch.no_grad():
        losses = [method.loss(model, space, edit, walk.to(model.device), random) for _ in range(MEASURED)]
    moved, still = (float(torch.stack(each).mean()) for each in zip(*losses, strict=True))
    length = float(walk.norm())
    return Direction(
        edit.name, (walk / max(length, 1e-12)).cpu(), 0.0, space, length, "joint walk",
        fingerprint=model.fingerprint(), evidence={"explained": 1 - moved / still, "loss": moved},
    )  # fmt: skip
