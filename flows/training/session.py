"""State of a training session: wrapped model, optimisers, batches and log, and what happens at every step."""

import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.optim import Optimizer

from flows.core.numerics import combine_seeds
from flows.data.base import Batch, ImageData, Split, StreamedData
from flows.errors import NonFinite
from flows.memory import set_memory
from flows.storage.stored import StoredModule
from flows.training.batches import first_images, training_batches
from flows.training.checkpoint import Progress, save_state
from flows.training.ema import WeightAverage
from flows.training.folder import holds_model
from flows.training.log import RunLog
from flows.training.optimiser import learning_rate, make_optimiser, set_learning_rate
from flows.training.phase import Evaluation, Objective, Phase
from flows.training.settings import Training
from flows.training.start import duration, set_threads
from flows.training.step import Meter, StepInputs, train_step
from flows.training.threads import allowed_cpus


class Session:
    """One session of a run, from its start or a saved state; `loop.fit` calls its methods in order.

    Args:
        model: Model to train; its data-dependent layers are initialised here.
        data: Data set.
        training: Settings.
        folder: Folder of the run.
        objective: Objective.
        accelerator: Accelerator of all ranks.
        resume: Training state to continue from, or None.
        initialise: Whether data-dependent layers are initialised from the first images.

    Attributes:
        progress: Progress of the run.
        log: Log of the run.
        stream: Batches of this rank, from where the run stopped.
        phases: Phases of the objective, whose losses call the wrapped model.
        optimisers: One optimiser per phase.
        average: Running average of the weights, or None.
        evaluated: Model that is evaluated and exported: the averaged one, if there is one.
        held_out: Validation split.
        rate: Learning rate of the last step.
    """

    def __init__(
        self,
        model: StoredModule,
        data: ImageData,
        training: Training,
        folder: Path,
        objective: Objective,
        accelerator: Accelerator,
        resume: Path | None = None,
        initialise: bool = True,
    ):
        self.model, self.training, self.folder = model, training, folder
        self.objective, self.accelerator = objective, accelerator
        self.held_out: Split = data.split("validation")
        self.patience = Patience(
            training, None if isinstance(data, StreamedData) else len(data.split("train"))
        )
        self.progress, self.meter, self.rate = Progress(), Meter(), training.lr
        model.to(accelerator.device).train()
        if resume is None and initialise:
            self._initialise(data)
        set_memory(model, training.memory, training.anchor_every)
        self.average = WeightAverage(model, training.ema) if training.ema else None
        self.phases, self.optimisers = self._wrapped()
        self._restore(resume)
        self.evaluated = model if self.average is None else self.average.model
        # Batches continue where the run stopped.
        rank, world = accelerator.process_index, accelerator.num_processes
        self.stream = training_batches(data, training, self.progress.steps, rank, world)
        counts = training.images, self.progress.images, self.progress.lines
        self.log = RunLog(folder, *counts, accelerator.is_main_process)
        self.log.say(summary(model, training, accelerator, resume))
        self.began = time.monotonic() - self.progress.seconds
        self.pace = Pace(training.images)

    # Start ----------------------------------------------------------------------------------------

    def _initialise(self, data: ImageData) -> None:
        """Initialise data-dependent layers of the bare model, before wrapping, from images of all ranks."""
        count = self.objective.initialisation_images(self.model)
        if count:
            ranks = self.accelerator.process_index, self.accelerator.num_processes
            first = first_images(data, count, self.training.seed, *ranks).to(self.accelerator.device)
            self.objective.initialise(self.model, first, self.training.seed)

    def _wrapped(self) -> tuple[list[Phase], list[Optimizer]]:
        """Phases and optimisers; losses call the wrapped model, whose forward synchronises gradients."""
        prepare, training = self.accelerator.prepare, self.training
        parts = [prepare(part) for part in self.objective.parts(self.model)]
        phases = self.objective.phases(self.model, parts)
        return phases, [prepare(make_optimiser(phase.params, training, phase.betas)) for phase in phases]

    def _restore(self, resume: Path | None) -> None:
        """Load a training state, if there is one, and what it says of memory, threads and scores."""
        accelerator, progress = self.accelerator, self.progress
        accelerator.register_for_checkpointing(progress, self.meter)
        if self.average is not None:
            accelerator.register_for_checkpointing(self.average)
        if resume is not None:
            accelerator.load_state(str(resume))
        if progress.fallback == "checkpoint":
            set_memory(self.model, "checkpoint")
        if self.training.threads is None and 0 < progress.threads <= allowed_cpus():
            set_threads(progress.threads)  # the number changes rounding
        progress.threads = torch.get_num_threads()
        if not everywhere(holds_model(self.folder), accelerator):  # it is in another folder, or was removed
            progress.best, progress.looked = math.inf, 0

    # Questions ------------------------------------------------------------------------------------

    def due(self, interval: int) -> bool:
        """Whether this step crossed a multiple of `interval` images, or was the last."""
        before = self.progress.images - self.training.batch
        return self.progress.images // interval > before // interval or self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether all images were shown."""
        return self.progress.images >= self.training.images

    @property
    def ends(self) -> bool:
        """Whether all images were shown, or patience has ended."""
        return self.is_complete or self.patience.ends(self.progress.images, self.progress.best_at)

    # One step -------------------------------------------------------------------------------------

    def step(self) -> list[Batch]:
        """Run one step of every phase that is due; returns its micro-batches."""
        progress, training = self.progress, self.training
        self.objective.advance(self.model, progress.images)
        micro_batches = [next(self.stream) for _ in range(training.accumulate)]
        for number, (phase, optimiser) in enumerate(zip(self.phases, self.optimisers, strict=True)):
            if not phase.is_due(progress.images, progress.steps):
                continue
            if phase.begin is not None and progress.images - phase.start < training.batch:
                phase.begin(self.evaluated)
            self.rate = learning_rate(training, progress.images, phase.span)
            set_learning_rate(optimiser, self.rate * (phase.lr or training.lr) / training.lr)
            seed = combine_seeds(training.seed, progress.steps, number)
            inputs = StepInputs(micro_batches, seed, progress.steps)
            values = train_step(self.accelerator, phase, optimiser, inputs, training)
            self.meter.add(phase.name, values, progress.steps + 1)
        if self.average is not None:
            self.average.update_parameters(self.model)
        progress.steps += 1
        progress.images += training.batch
        progress.seconds = time.monotonic() - self.began
        self.pace.tell(progress, self.log)
        return micro_batches

    def check_and_log(self, stopped: bool) -> None:
        """Check values and log them. On an accelerator, reading a value synchronises: only when due."""
        training, progress = self.training, self.progress
        intervals = (training.log_every, training.validate_every, training.save_every)
        if self.accelerator.device.type == "cpu" or any(map(self.due, intervals)) or stopped:
            self.meter.check()
        if not self.due(training.log_every):
            self.log.advance(training.batch)
            return
        shown = self.meter.means(self.accelerator)
        per_second = progress.images / progress.seconds
        shown |= {"lr": self.rate, "images_per_second": per_second, "seconds": progress.seconds}
        self.log.scalars(progress.images, shown)
        self.log.advance(training.batch, loss=f"{next(iter(shown.values())):.3f}")

    def watch(self, batch: Batch) -> None:
        """If it is due, let the objective check the training; an unsound memory mode is given up."""
        if not self.due(self.training.guard_every):
            return
        reading = self.objective.watch(self.model, batch, self.accelerator)
        if reading is None:
            return
        self.log.scalars(self.progress.images, reading.scalars())
        if not reading.is_sound:
            self.say(f"{reading}: switching to memory 'checkpoint'")
            set_memory(self.model, "checkpoint")
            self.progress.fallback = "checkpoint"

    def save(self) -> Path:
        """Write a training state."""
        self.progress.lines = self.log.lines
        keep = self.training.keep_states
        return save_state(self.accelerator, self.folder, self.progress.images, keep)

    def say(self, text: str) -> None:
        """Write a line that begins with the number of images shown."""
        self.log.say(f"{self.progress.images:>9,} images  {text}")

    # Evaluation -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Evaluate held-out figures and samples, and keep the model if it is the best."""
        accelerator, progress = self.accelerator, self.progress
        if accelerator.is_main_process:
            self.evaluated.eval()
            self.objective.advance(self.evaluated, progress.images)
            self._keep(self._evaluation())
        # Ranks must agree on when patience ends.
        known = progress.best_at if accelerator.is_main_process else 0
        progress.best_at = int(accelerator.reduce(torch.tensor(known, device=accelerator.device), "sum"))
        progress.looked = progress.images
        self.model.train()

    def _evaluation(self) -> Evaluation:
        """Evaluation of the model; one that is not finite has the reason and no score."""
        images, shown = self.training.validation_images, self.progress.images
        try:
            return self.objective.evaluate(self.evaluated, self.held_out, images, shown)
        except NonFinite as error:
            score, line = "validation/score", f"validation is unknown: {error}"
            return Evaluation({score: math.nan}, math.nan, line, {}, {score: str(error)})

    def _keep(self, evaluation: Evaluation) -> None:
        """Log an evaluation, and export the model if it is the best so far."""
        progress = self.progress
        self.log.scalars(progress.images, evaluation.values, evaluation.unknown)
        for name, picture in evaluation.pictures.items():
            self.log.picture(progress.images, name, picture)
        self.say(evaluation.line)
        if evaluation.score < progress.best:
            progress.best, progress.best_at = evaluation.score, progress.images
            self.evaluated.save_pretrained(self.folder)

    def export_without_score(self) -> None:
        """Export the model as it is if no evaluation has given a score."""
        has_model = not math.isinf(self.progress.best) and holds_model(self.folder)
        if not self.accelerator.is_main_process or has_model:
            return
        self.objective.advance(self.evaluated, self.progress.images)
        if self.objective.is_complete(self.evaluated):
            self.evaluated.save_pretrained(self.folder)
            self.say("no evaluation has given a score yet: exported as it is")
        else:
            self.say("not exported: the model has not grown to its final size yet")


class Patience:
    """Rule by which a run ends before all its images were shown; see `Training.patience`.

    Args:
        training: Settings of the run.
        available: Number of training images; None for a stream.
    """

    REPEATS = 100
    """Number of times that a run would see each image, above which `auto` applies."""
    FEWEST = 10
    """Number of times that a run sees each image at least, with `auto`."""

    def __init__(self, training: Training, available: int | None):
        self.limit = training.patience
        self.fewest = 0
        if self.limit == "auto":
            repeats = available is not None and training.images > self.REPEATS * available
            self.limit = "auto" if repeats else None
            self.fewest = self.FEWEST * (available or 0)

    def ends(self, images: int, best_at: int) -> bool:
        """Whether the run ends.

        Args:
            images: Number of images shown.
            best_at: Number of images that were shown at the best score; 0 if there is none.
        """
        if self.limit is None or best_at == 0:
            return False
        if self.limit == "auto":
            return images >= max(2 * best_at, self.fewest)
        return images - best_at >= self.limit


class Pace:
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


def summary(model: StoredModule, training: Training, accelerator: Accelerator, resume: Path | None) -> str:
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


def everywhere(value: bool, accelerator: Accelerator) -> bool:
    """Truth value of the main process, on every rank."""
    known = float(value and accelerator.is_main_process)
    return bool(accelerator.reduce(torch.tensor(known, device=accelerator.device), "sum") > 0)
