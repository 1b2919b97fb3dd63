"""One optimiser step of a phase, and the means of the values of several steps."""

import math
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from flows.core.numerics import combine_seeds
from flows.data.base import Batch
from flows.errors import NonFinite
from flows.training.augment import augment
from flows.training.phase import Phase
from flows.training.settings import Training


class StepInputs(NamedTuple):
    """Inputs of a phase's step: its batches, its seed, and the number of previous steps."""

    micro_batches: list[Batch]
    seed: int
    steps: int


def train_step(
    accelerator: Accelerator,
    phase: Phase,
    optimiser: torch.optim.Optimizer,
    inputs: StepInputs,
    training: Training,
) -> dict[str, Tensor]:
    """Run one optimiser step of a phase over its micro-batches; returns mean losses and the gradient norm.

    Micro-batches form the inner loop, so that several phases cannot count each other's.
    """
    micro_batches, seed, steps = inputs
    optimiser.zero_grad()
    sums: dict[str, Tensor] = {}
    for i, batch in enumerate(micro_batches):
        batch = batch.to(accelerator.device)
        keys = batch.keys.tolist()
        seen = augment(batch.images, training.augment, combine_seeds(seed, 1), keys, batch.masks)
        generator = torch.Generator().manual_seed(seed)
        half = torch.autocast(accelerator.device.type, torch.bfloat16, training.precision == "bf16")
        last = i + 1 == len(micro_batches)
        with nullcontext() if last else accelerator.no_sync(phase.part):
            with half:
                loss, logs = phase.loss(
                    batch._replace(images=seen.images, masks=seen.masks), generator, steps
                )
            accelerator.backward(loss / len(micro_batches))
        for name, value in {"loss": loss, **logs}.items():
            part = value.detach() / len(micro_batches)
            sums[name] = sums[name] + part if name in sums else part
    limit = math.inf if training.clip is None else training.clip
    norm = accelerator.clip_grad_norm_(list(phase.params), limit)
    optimiser.step()
    return {**sums, "gradient_norm": norm}


class Meter:
    """Means of the values of several steps, with a check for the first value that is not finite."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.unchecked: list[tuple[int, str, str, Tensor]] = []

    def add(self, phase: str, values: dict[str, Tensor], step: int) -> None:
        """Add the values of one step without reading them."""
        for name, value in values.items():
            key = f"{phase}/{name}"
            before = self.sums.get(key)
            self.sums[key] = value if before is None else before.to(value.device) + value
            self.counts[key] = self.counts.get(key, 0) + 1
            self.unchecked.append((step, phase, name, value))

    def check(self) -> None:
        """Raise NonFinite for the first value since the last check that is not finite."""
        values = torch.stack([value.float() for *_, value in self.unchecked])
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            step, phase, quantity, value = self.unchecked[int(bad[0])]
            raise NonFinite(
                f"phase {phase!r}: {quantity} became {float(value)} in step {step}; nothing was saved "
                "after that. A lower training.lr, a longer training.warmup or training.clip usually helps"
            )
        self.unchecked.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last line of the log, so that a resumed run continues the same line."""
        return {"sums": {k: v.cpu() for k, v in self.sums.items()}, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums of `state_dict`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means since the last call, over all ranks, and reset the sums."""
        names = list(self.sums)
        values = torch.stack([self.sums[name].float() / self.counts[name] for name in names])
        values = accelerator.reduce(values, "mean")
        self.sums.clear()
        self.counts.clear()
        return dict(zip(names, values.tolist(), strict=True))
