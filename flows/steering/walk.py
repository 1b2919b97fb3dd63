"""Walks that imitate an edit of images, learned by gradient descent (Jahanian et al. 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.bounds import PositiveFloat, PositiveInt
from flows.display.progress import progress
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.steering.base import Direction
from flows.steering.method import Method, Task
from flows.steering.operators import Operator, operators

__all__ = ["Walk"]


@dataclass
class Walk(Method):
    """Walk w* = argmin over w of E |m·(G(z + a(α)·w) − edit(G(z), α))|² / Σm, for each edit.

    a(α) is the edit's `amount`, for a zoom its logarithm, so that in and out are opposites; m masks pixels
    for which the edit is not known (arXiv 1907.07171).

    Args:
        steps: Number of steps of gradient descent with momentum; the paper uses Adam.
        batch: Number of codes per step.
        lr: Learning rate of the first step, in units of the space per coordinate; it falls linearly to 0.
    """

    steps: PositiveInt = 200
    batch: PositiveInt = 16
    lr: PositiveFloat = 0.02

    def find(self, task: Task) -> list[Direction]:
        """Learn one direction for each edit in `--scores`: zoom, shift x, brightness, …; see `OPERATORS`.

        Raises:
            UserError: There is no such edit, or none is named.
        """
        if not task.names:
            raise UserError("--scores: expected names of the edits that walks should imitate")
        return [self.of_operator(task, each) for each in operators(task.names)]

    def of_operator(self, task: Task, operator: Operator) -> Direction:
        """Learn the walk of one edit."""
        model = task.model
        size = model.check_space(task.space).shape[0]
        random = torch.Generator().manual_seed(task.seed)
        walk = torch.zeros(size, device=model.device, dtype=model.dtype, requires_grad=True)
        velocity, square = torch.zeros_like(walk), torch.zeros((), device=model.device)
        first: list[float] = []
        last: list[float] = []
        for step in progress(range(self.steps), operator.name):
            loss, still = self.loss(model, task.space, operator, walk, random)
            (gradient,) = torch.autograd.grad(loss, [walk])
            # One scale for all coordinates, so that the walk, which starts at 0, stays in the span of the
            # gradients. With Adam's scale per coordinate, what changes no pixel would move like all else.
            velocity = 0.9 * velocity + 0.1 * gradient
            square = 0.99 * square + 0.01 * gradient.square().mean()
            scale = (square / (1 - 0.99 ** (step + 1))).sqrt() + 1e-12
            with torch.no_grad():
                walk -= self.lr * (1 - step / self.steps) * velocity / scale
            if step >= self.steps - max(1, self.steps // 10):
                last.append(float(loss.detach()))
                first.append(float(still))
        learned = walk.detach().cpu()
        length = float(learned.norm())
        explained = 1 - sum(last) / sum(first)
        return Direction(
            name=operator.name,
            vector=learned / length,
            bias=0.0,
            space=task.space,
            sigma=length,
            method="walk",
            fingerprint=model.fingerprint(),
            evidence={"explained": explained, "loss": sum(last) / len(last)},
        )

    def loss(
        self, model: LatentModel, space: str, operator: Operator, walk: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Masked squared error of a random batch, and the error without a move."""
        with torch.no_grad():
            codes = model.sample(self.batch, space, random)
            before = model.decode_codes(codes)
            strength = operator.sample(len(codes), random).to(before)
            target, known = operator(before.clamp(0, 1), strength)
        step = operator.amount(strength)[:, None] * walk
        moved = model.decode_codes(codes.with_values(codes.values + step))
        parts = known.sum() * target.shape[1]
        return (known * (moved - target)).square().sum() / parts, (
            known * (before - target)
        ).square().sum() / parts
