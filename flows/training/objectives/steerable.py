"""A GAN that learns to be steered: generator and walks together (Jahanian et al. 2020, arXiv 1907.07171)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flows.data.base import Batch, ImageData
from flows.models.base import LatentModel
from flows.models.gan import GAN
from flows.numerics import combine_seeds, uniform_rows
from flows.page import as_text
from flows.steering.base import Direction, save_directions
from flows.steering.method import Task
from flows.steering.operators import Operator, operators
from flows.steering.walk import Walk
from flows.stored import StoredModule
from flows.training.diffaugment import Change, diffaugment
from flows.training.gan_report import Section, write_gan_report
from flows.training.objectives.adversarial import (
    Adversarial,
    LossName,
    ScoreName,
    frozen,
    labels_of,
    number_from,
)
from flows.training.phase import Phase

FILE = "directions.safetensors"
MEASURED = 8
"""Batches on which the walks of a finished run are measured."""


class SteerableGenerator(nn.Module):
    """A generator with its walks, in one call: what is wrapped.

    Attributes:
        walks: (edits, D), what a code moves by for an amount of 1.
    """

    def __init__(self, gan: GAN, space: str, edits: int):
        super().__init__()
        self.generator, self.space = gan.generator, space
        self.walks = nn.Parameter(torch.zeros(edits, gan.check_space(space).shape[0], device=gan.device))
        self.convert, self.render = gan.convert, gan.render

    def forward(self, z: Tensor, which: Tensor, amount: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1] of codes (batch, D), and of these moved along one edit's walk each.

        Args:
            z: of the prior.
            which: int64 (batch,), numbers of edits.
            amount: (batch,), what multiplies the walk.
            labels: of a class-conditional model.
        """
        code = self.convert(z, "z", self.space)
        label = labels[0] if labels else None
        moved = code + amount[:, None] * self.walks[which]
        return self.render(code, self.space, label), self.render(moved, self.space, label)


class Steerable(Adversarial):
    """`Adversarial`, and beside it the generator learns that a step in its space is an edit of its picture.

    Generator and walks minimise, beside what the critic says, weight · E|m·(G(c + a(α)w) − edit(G(c), α))|²
    over edits and strengths α (section 3.4 of the paper), m masking what the edit knows nothing of. The
    walks are written to the run's folder as directions, with the share of each edit that they explain.

    Args:
        edits: names; see `flows.steering.operators`.
        weight: of the edits' squared error, pixels in [−1, 1].
        space: of the codes that are moved; null takes the model's search space.
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
            raise ValueError("objective.edits: name those that the generator should learn")
        self.edits: list[Operator] = operators(edits)
        self.weight, self.space = weight, space
        self.steerable: SteerableGenerator | None = None

    def check(self, model: StoredModule, images: int) -> None:
        super().check(model, images)
        gan = cast(GAN, model)
        gan.check_space(self.space or gan.search_space)
        if gan.sizes > 1:
            raise ValueError(
                f"objective Steerable: {type(model).__name__} grows, and edits of small images are not those "
                "of large ones; take a model that does not"
            )

    def parts(self, model: StoredModule) -> list[nn.Module]:
        gan = cast(GAN, model)
        self.steerable = SteerableGenerator(gan, self.space or gan.search_space, len(self.edits))
        return [self.steerable, *super().parts(model)[1:]]

    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        critic, generator = super().phases(model, parts)
        generator.params = list(parts[0].parameters())
        return [critic, generator]

    def generator_loss(self, gan: GAN, part: nn.Module) -> Any:
        """The critic's opinion of what is drawn, and how far moved pictures are from edited ones."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            seed = combine_seeds(number_from(generator), 2)
            z = self.draw_codes(gan, batch, seed)
            which, strength, amount = self.draw_edits(batch, combine_seeds(seed, 8), z)
            drawn, moved = part(z, which, amount, *labels_of(gan, batch))
            with frozen(gan.critic):
                seen = diffaugment(drawn, self.augment, combine_seeds(seed, 1), batch.keys)
                opinion = self.fool(gan.critic(seen, *labels_of(gan, batch)))
            target, known = self.edited(drawn.detach(), which, strength)
            error = (known * (moved - target)).square().sum() / (known.sum() * drawn.shape[1]).clamp(min=1)
            return opinion + self.weight * error, {"opinion": opinion, "edit": error}

        return loss

    def draw_edits(self, batch: Batch, seed: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each image the number of an edit, its strength and the walk's amount, each (batch,)."""
        choice, share = uniform_rows(seed, batch.keys, (2,), like).unbind(1)
        which = (choice * len(self.edits)).long().clamp(max=len(self.edits) - 1)
        low, high = (like.new_tensor([getattr(each, end) for each in self.edits]) for end in ("low", "high"))
        strength = low[which] + (high - low)[which] * share
        amounts = torch.stack([each.amount(strength) for each in self.edits])
        return which, strength, amounts.gather(0, which[None])[0]

    def edited(self, drawn: Tensor, which: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1], each by its edit, and where these are known, (batch, 1, H, W)."""
        target, known = drawn.clone(), torch.ones_like(drawn[:, :1])
        for i, edit in enumerate(self.edits):
            chosen = which == i
            if chosen.any():
                moved, mask = edit(((drawn[chosen] + 1) / 2).clamp(0, 1), strength[chosen])
                target[chosen], known[chosen] = 2 * moved - 1, mask
        return target, known

    # Report ---------------------------------------------------------------------------------------

    def report(self, folder: Path, data: ImageData, device: str) -> dict[str, Any]:
        return write_gan_report(folder, data, device, lambda model, _: self.walks_section(model, folder))

    def walks_section(self, model: LatentModel, folder: Path) -> Section:
        """The walks as directions of the exported model, and how much of each edit they explain.

        Where the walks are not those of this run, as when a model is exported, they are found anew.
        """
        space = self.space or model.search_space
        names = [edit.name for edit in self.edits]
        if self.steerable is None:
            found = Walk().find(Task(model, space, names))
        else:
            walks = self.steerable.walks.detach()
            pairs = zip(self.edits, walks, strict=True)
            found = [walk_direction(model, space, edit, walk) for edit, walk in pairs]
        save_directions(folder / FILE, found)
        explained = {each.name: each.evidence["explained"] for each in found}
        told = ", ".join(f"{name} {as_text(value)}" for name, value in explained.items())
        lines = ["", f"Share of each edit that its walk in {space} explains ({FILE}): {told}."]
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
