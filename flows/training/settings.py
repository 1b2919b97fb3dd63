"""What a training run may be told. Durations are in images, so that a change of batch moves no schedule."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

from flows.memory import MemoryMode

Augmentation = Literal["flip", "shift"]

if TYPE_CHECKING:
    ShareBelowOne = float
else:
    ShareBelowOne = restricted_number_type("ShareBelowOne", float, [(">=", 0), ("<", 1)])


@dataclass
class Training:
    """How to train.

    Attributes:
        images: length of the run, in images shown.
        batch: images per optimiser step, over all ranks together.
        accumulate: micro-batches per step; divides each rank's share of `batch`.
        optimiser: algorithm.
        lr: learning rate after warm-up.
        betas: of Adam, Adamax, AdamW; of RMSprop, (momentum, averaging).
        epsilon: of the optimiser's denominator.
        weight_decay: of the optimiser.
        warmup: images over which the rate grows linearly from 0.
        decay: course of the rate after warm-up.
        final_lr: where `cosine` and `exponential` end.
        clip: largest norm of the gradient; larger ones are scaled down. None leaves them.
        ema: decay of the running average of the weights, per step; 0 switches it off. The average is what
            is validated, sampled, tested and exported.
        precision: of the conditioner networks; everything on the invertible path is fp32 always.
        memory: what the backward pass keeps; see `flows.memory`. `reversible` and `anchored` rebuild
            activations by inversion, watched by a guard that goes over to `checkpoint` where they are off.
        anchor_every: steps between two kept activations of mode `anchored`.
        guard_every: images between two looks of the guard.
        augment: random horizontal flips, shifts by up to a tenth of the side.
        seed: of weights, order of images and noise.
        workers: loader processes; 0 loads in the main process, which is best for sets held in memory.
        log_every: images between two lines of metrics.jsonl.
        validate_every: images between validations, each with samples and a round trip.
        validation_images: how many of the validation split; None takes all.
        save_every: images between training states for --resume.
        keep_states: how many of those to keep.
    """

    images: PositiveInt = 100_000
    batch: PositiveInt = 64
    accumulate: PositiveInt = 1
    optimiser: Literal["adam", "adamax", "adamw", "rmsprop"] = "adam"
    lr: PositiveFloat = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    warmup: NonNegativeInt = 0
    decay: Literal["constant", "cosine", "exponential"] = "constant"
    final_lr: PositiveFloat = 1e-6
    clip: PositiveFloat | None = None
    ema: ShareBelowOne = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"
    memory: MemoryMode = "plain"
    anchor_every: PositiveInt = 4
    guard_every: PositiveInt = 32_000
    augment: tuple[Augmentation, ...] = ()
    seed: NonNegativeInt = 0
    workers: NonNegativeInt = 0
    log_every: PositiveInt = 3_200
    validate_every: PositiveInt = 32_000
    validation_images: PositiveInt | None = 1_000
    save_every: PositiveInt = 64_000
    keep_states: PositiveInt = 2
