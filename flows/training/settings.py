"""Training settings. Durations are counted in images, so that schedules do not depend on the batch size."""

from dataclasses import dataclass
from typing import Literal

from flows.core.bounds import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    ShareBelowOne,
)
from flows.memory import MemoryMode

Augmentation = Literal["flip", "shift", "zoom", "brightness"]


@dataclass
class Training:
    """Settings of a training run.

    Attributes:
        images: Length of the run, in images shown.
        batch: Images per optimiser step, over all ranks together.
        accumulate: Micro-batches per step; must divide each rank's share of `batch`.
        optimiser: Optimisation algorithm.
        lr: Learning rate after warm-up.
        betas: Betas of Adam, Adamax and AdamW; (momentum, alpha) of RMSprop.
        epsilon: Term added to the optimiser's denominator.
        weight_decay: Weight decay of the optimiser.
        warmup: Images over which the learning rate grows linearly from 0.
        decay: Schedule of the learning rate after warm-up.
        final_lr: Learning rate at the end of the schedules `cosine` and `exponential`.
        clip: Maximum norm of the gradient; larger gradients are scaled down. None disables clipping.
        ema: Decay of the moving average of the weights, per step; 0 disables it. The averaged model is
            validated, sampled, tested and exported.
        precision: Precision of the conditioner networks; the invertible path is always fp32.
        memory: Memory mode of the backward pass; see `flows.memory`. `reversible` and `anchored` rebuild
            activations by inversion; a guard switches to `checkpoint` if they become inaccurate.
        anchor_every: Steps between two kept activations in mode `anchored`.
        guard_every: Images between two measurements of the guard.
        augment: Random changes of the training images: horizontal flips; shifts by up to a tenth of the side;
            zooms, crops of 80 to 100 % of the side that are resized back; brightness, by up to a fifth.
            Evaluations are always of the images as they are.
        seed: Seed of weights, order of images, and noise.
        workers: Number of loader processes; 0 loads in the main process, best for data sets held in memory.
        threads: Number of threads of torch's operations. None uses the CPUs that the process may use and that
            others leave free at the start; a resumed run keeps the number.
        log_every: Images between two lines of metrics.jsonl.
        validate_every: Images between two evaluations, each with samples and, for flows, a round trip.
        validation_images: Number of images of the validation split to use; None uses all.
        patience: Images without a better score after which the run ends; None trains to the end. With
            `auto`, a run that would see each training image more than a hundred times ends when twice as many
            images were shown as at the best score, and each ten times at least; other runs train to the end.
            With a schedule that decays, a run that ends early has not reached its low learning rates.
        save_every: Images between two training states for `--resume`.
        keep_states: Number of training states to keep.
    """

    images: PositiveInt = 100_000
    batch: PositiveInt = 64
    accumulate: PositiveInt = 1
    optimiser: Literal["adam", "adamax", "adamw", "rmsprop"] = "adam"
    lr: PositiveFloat = 1e-3
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
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
    seed: Seed = 0
    workers: NonNegativeInt = 0
    threads: PositiveInt | None = None
    log_every: PositiveInt = 3_200
    validate_every: PositiveInt = 32_000
    validation_images: PositiveInt | None = 1_000
    patience: PositiveInt | Literal["auto"] | None = None
    save_every: PositiveInt = 64_000
    keep_states: PositiveInt = 2
