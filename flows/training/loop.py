"""Training loop over phases, based on Accelerate and resumable bit for bit."""

import math
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor

from flows.data.base import Batch, ImageData, Split
from flows.errors import NonFinite
from flows.memory import memory_of, set_memory
from flows.models.base import LikelihoodModel
from flows.numerics import combine_seeds
from flows.stored import StoredModule
from flows.training import guard
from flows.training.augment import augment
from flows.training.batches import first_images, training_batches
from flows.training.checkpoint import Progress, save_state, writing_in
from flows.training.ema import WeightAverage
from flows.training.folder import holds_model
from flows.training.interrupt import Interrupt
from flows.training.log import RunLog
from flows.training.optimiser import learning_rate, make_optimiser, set_learning_rate
from flows.training.phase import Evaluation, Objective, Phase
from flows.training.settings import Training
from flows.training.start import duration, set_threads
from flows.training.threads import allowed_cpus


@dataclass
class Outcome:
    """Result of a training session.

    Attributes:
        progress: Progress of the run.
        interrupted: Name of the signal that stopped the session, or None if the run is complete.
        state: Training state that was written on interruption, or None.
    """

    progress: Progress
    interrupted: str | None
    state: Path | None


def make_accelerator(objective: Objective | None = None, model: StoredModule | None = None) -> Accelerator:
    """Create the accelerator of one process, or of all ranks that torchrun or `accelerate launch` started."""
    # Accelerate's mixed_precision is not used: it patches the model's forward, so that evaluation, which is
    # fp32, would run in bf16 as well. bf16 needs no loss scaling; `_step` applies autocast itself.
    # Evaluation runs on the main process while the others wait, longer than the default ten minutes.
    process_group = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    on_cpu = not torch.cuda.is_available()
    # Without the plugin, Accelerate reads the number of micro-batches from the environment.
    whole_steps = GradientAccumulationPlugin(num_steps=1)
    unused = objective is not None and model is not None and objective.leaves_parameters_out(model)
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=unused)
    return Accelerator(
        mixed_precision="no",
        cpu=on_cpu,
        gradient_accumulation_plugin=whole_steps,
        kwargs_handlers=[process_group, wrapping],
    )


def fit(
    model: StoredModule,
    data: ImageData,
    training: Training,
    folder: Path,
    objective: Objective,
    accelerator: Accelerator,
    resume: Path | None = None,
    initialise: bool = True,
) -> Outcome:
    """Train `model` in `folder` until `training.images` images were shown or a signal arrives.

    The model with the best score on the validation split is exported to `folder`, with averaged weights if
    `training.ema` is set; the test split is not used. Without any score, the last model is exported. The same
    call with the state of an interrupted run as `resume` continues it, with losses that are equal to the last
    bit. With `initialise` False, data-dependent layers keep their values, as needed for weights from a
    checkpoint.

    Raises:
        NonFinite: A loss or gradient is not finite. No step is skipped and nothing is saved.
        UserError: The batch does not divide over the ranks, or exceeds the split.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    held_out = data.split("validation")
    progress = Progress()

    # Initialise data-dependent layers of the bare model, before wrapping, from the images of all ranks.
    model.to(accelerator.device).train()
    count = objective.initialisation_images(model)
    if resume is None and count and initialise:
        first = first_images(data, count, training.seed, rank, world).to(accelerator.device)
        objective.initialise(model, first, training.seed)

    set_memory(model, training.memory, training.anchor_every)

    # Wrap. Losses call the wrapped model, because its forward synchronises gradients.
    average = WeightAverage(model, training.ema) if training.ema else None
    parts = [accelerator.prepare(part) for part in objective.parts(model)]
    phases = objective.phases(model, parts)
    optimisers = [
        accelerator.prepare(make_optimiser(phase.params, training, phase.betas)) for phase in phases
    ]
    meter = _Meter()
    accelerator.register_for_checkpointing(progress, meter)
    if average is not None:
        accelerator.register_for_checkpointing(average)
    if resume is not None:
        accelerator.load_state(str(resume))
    if progress.fallback == "checkpoint":
        set_memory(model, "checkpoint")
    if training.threads is None and 0 < progress.threads <= allowed_cpus():
        set_threads(progress.threads)  # the number changes rounding
    progress.threads = torch.get_num_threads()
    if not _everywhere(holds_model(folder), accelerator):  # it is in another folder, or was removed
        progress.best, progress.looked = math.inf, 0
    evaluated = model if average is None else average.model

    # Batches continue where the run stopped.
    stream = training_batches(data, training, progress.steps, rank, world)
    log = RunLog(folder, training.images, progress.images, progress.lines, accelerator.is_main_process)
    log.say(_summary(model, training, accelerator, resume))
    session = time.monotonic() - progress.seconds
    stopped, rate, pace = None, training.lr, _Pace(training.images)

    def due(interval: int) -> bool:
        """Whether this step crossed a multiple of `interval` images, or was the last."""
        before = progress.images - training.batch
        return progress.images // interval > before // interval or progress.images >= training.images

    def look() -> None:
        """Evaluate held-out figures and samples, and keep the model if it is the best."""
        if accelerator.is_main_process:
            evaluated.eval()
            objective.advance(evaluated, progress.images)
            evaluation = _evaluated(objective, evaluated, held_out, training, progress.images)
            _keep(evaluation, evaluated, progress, log, folder)
        # Ranks must agree on when patience ends.
        known = progress.best_at if accelerator.is_main_process else 0
        progress.best_at = int(accelerator.reduce(torch.tensor(known, device=accelerator.device), "sum"))
        progress.looked = progress.images
        model.train()

    def ends() -> bool:
        """Whether all images were shown, or patience has ended."""
        waited = progress.images - progress.best_at
        patient = training.patience is None or progress.best_at == 0 or waited < training.patience
        return progress.images >= training.images or not patient

    with writing_in(folder), Interrupt() as interrupt, closing(log), closing(stream):
        if progress.looked < progress.images and due(training.validate_every):
            look()  # its state was saved, and the evaluation after it was not completed
        while not ends():
            # One step of every phase that is due.
            objective.advance(model, progress.images)
            micro_batches = [next(stream) for _ in range(training.accumulate)]
            for number, (phase, optimiser) in enumerate(zip(phases, optimisers, strict=True)):
                if not phase.is_due(progress.images, progress.steps):
                    continue
                if phase.begin is not None and progress.images - phase.start < training.batch:
                    phase.begin(evaluated)
                rate = learning_rate(training, progress.images, phase.span)
                set_learning_rate(optimiser, rate * (phase.lr or training.lr) / training.lr)
                seed = combine_seeds(training.seed, progress.steps, number)
                inputs = _StepInputs(micro_batches, seed, progress.steps)
                values = _step(accelerator, phase, optimiser, inputs, training)
                meter.add(phase.name, values, progress.steps + 1)
            if average is not None:
                average.update_parameters(model)
            progress.steps += 1
            progress.images += training.batch
            progress.seconds = time.monotonic() - session

            pace.tell(progress, log)

            # Check and log. On an accelerator, reading a value synchronises: only when due.
            if due(training.log_every) or world == 1:
                stopped = "a signal" if interrupt.anywhere(accelerator) else None
            intervals = (training.log_every, training.validate_every, training.save_every)
            if accelerator.device.type == "cpu" or any(map(due, intervals)) or stopped:
                meter.check()
            if due(training.log_every):
                shown = meter.means(accelerator)
                per_second = progress.images / progress.seconds
                shown |= {"lr": rate, "images_per_second": per_second, "seconds": progress.seconds}
                log.scalars(progress.images, shown)
                log.advance(training.batch, loss=f"{next(iter(shown.values())):.3f}")
            else:
                log.advance(training.batch)

            # If activations are rebuilt, check that they still equal the original ones.
            watched = isinstance(model, LikelihoodModel) and guard.is_watched(memory_of(model))
            if watched and due(training.guard_every):
                reading = guard.measure(cast(LikelihoodModel, model), micro_batches[0], accelerator)
                log.scalars(progress.images, reading.scalars())
                if not reading.is_sound:
                    log.say(f"{progress.images:>9,} images  {reading}: switching to memory 'checkpoint'")
                    set_memory(model, "checkpoint")
                    progress.fallback = "checkpoint"

            # Save a training state when due, or stop. Saving comes first: no evaluation can cost the work.
            if due(training.save_every) or stopped:
                progress.lines = log.lines
                state = save_state(accelerator, folder, progress.images, training.keep_states)
            if stopped and progress.images < training.images:
                break
            if due(training.validate_every):
                look()
        else:
            stopped = None
            if progress.images < training.images:
                log.say(f"{progress.images:>9,} images  ends: no better score in training.patience images")
            # Once more, with the last evaluation: where the run is extended, it may not be due any more.
            progress.lines = log.lines
            save_state(accelerator, folder, progress.images, training.keep_states)
        if accelerator.is_main_process and (math.isinf(progress.best) or not holds_model(folder)):
            objective.advance(evaluated, progress.images)
            if objective.is_complete(evaluated):
                evaluated.save_pretrained(folder)
                how = "no evaluation has given a score yet: exported as it is"
            else:
                how = "not exported: the model has not grown to its final size yet"
            log.say(f"{progress.images:>9,} images  {how}")
    return Outcome(progress, (interrupt.received or stopped) if stopped else None, state if stopped else None)


def _summary(model: StoredModule, training: Training, accelerator: Accelerator, resume: Path | None) -> str:
    """Summarise model and hardware in a line; a launcher may silently start a wrong number of processes."""
    world = accelerator.num_processes
    count = sum(parameter.numel() for parameter in model.parameters())
    share = training.batch // (world * training.accumulate)
    ranks = "process" if world == 1 else "processes"
    start = "" if resume is None else f", from {resume.name}"
    return (
        f"{type(model).__name__}, {count:,} parameters, {world} {ranks} on {accelerator.device.type}, batch "
        f"{training.batch} = {world} × {training.accumulate} × {share}, {training.precision}{start}"
    )


def _everywhere(value: bool, accelerator: Accelerator) -> bool:
    """Truth value of the main process, on every rank."""
    known = float(value and accelerator.is_main_process)
    return bool(accelerator.reduce(torch.tensor(known, device=accelerator.device), "sum") > 0)


class _StepInputs(NamedTuple):
    """Inputs of a phase's step: its batches, its seed, and the number of previous steps."""

    micro_batches: list[Batch]
    seed: int
    steps: int


def _step(
    accelerator: Accelerator,
    phase: Phase,
    optimiser: torch.optim.Optimizer,
    inputs: _StepInputs,
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
        # Masks are augmented like their images: the random numbers depend only on seed and key.
        images = augment(batch.images, training.augment, combine_seeds(seed, 1), keys)
        masks = batch.masks
        if masks is not None:
            masks = augment(masks[:, None], training.augment, combine_seeds(seed, 1), keys)[:, 0]
        generator = torch.Generator().manual_seed(seed)
        half = torch.autocast(accelerator.device.type, torch.bfloat16, training.precision == "bf16")
        last = i + 1 == len(micro_batches)
        with nullcontext() if last else accelerator.no_sync(phase.part):
            with half:
                loss, logs = phase.loss(batch._replace(images=images, masks=masks), generator, steps)
            accelerator.backward(loss / len(micro_batches))
        for name, value in {"loss": loss, **logs}.items():
            part = value.detach() / len(micro_batches)
            sums[name] = sums[name] + part if name in sums else part
    limit = math.inf if training.clip is None else training.clip
    norm = accelerator.clip_grad_norm_(list(phase.params), limit)
    optimiser.step()
    return {**sums, "gradient_norm": norm}


class _Meter:
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


class _Pace:
    """Announcement of how long the run takes, once, from its first steps but the very first.

    Attributes:
        SECONDS: Time from which on the speed is known well enough.
    """

    SECONDS = 5.0

    def __init__(self, total: int):
        self.total, self.said = total, False
        self.start: tuple[int, float] | None = None

    def tell(self, progress: Progress, log: RunLog) -> None:
        """Say it, if it has not been said and enough steps were made."""
        if self.start is None:
            self.start = (progress.images, time.monotonic())
            return
        images, seconds = progress.images - self.start[0], time.monotonic() - self.start[1]
        if not self.said and seconds >= self.SECONDS:
            self.said = True
            log.say(duration(self.total - progress.images, images / seconds))


def _evaluated(
    objective: Objective, model: StoredModule, held_out: Split, training: Training, shown: int
) -> Evaluation:
    """Evaluation of a model; one that is not finite has the reason and no score."""
    try:
        return objective.evaluate(model, held_out, training.validation_images, shown)
    except NonFinite as error:
        score = "validation/score"
        return Evaluation(
            {score: math.nan}, math.nan, f"validation is unknown: {error}", {}, {score: str(error)}
        )


def _keep(evaluation: Evaluation, model: StoredModule, progress: Progress, log: RunLog, folder: Path) -> None:
    """Log an evaluation, and export the model if it is the best so far."""
    log.scalars(progress.images, evaluation.values, evaluation.unknown)
    for name, picture in evaluation.pictures.items():
        log.picture(progress.images, name, picture)
    log.say(f"{progress.images:>9,} images  {evaluation.line}")
    if evaluation.score < progress.best:
        progress.best, progress.best_at = evaluation.score, progress.images
        model.save_pretrained(folder)
