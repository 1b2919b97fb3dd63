"""Training loop over phases, based on Accelerate and resumable bit for bit."""

from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import GradientAccumulationPlugin

from flows.data.base import ImageData
from flows.storage.stored import StoredModule
from flows.training.checkpoint import Progress, writing_in
from flows.training.interrupt import Interrupt
from flows.training.phase import Objective
from flows.training.session import Session
from flows.training.settings import Training


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
    # fp32, would run in bf16 as well. bf16 needs no loss scaling; `step.train_step` applies autocast itself.
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
    session = Session(model, data, training, folder, objective, accelerator, resume, initialise)
    progress, log = session.progress, session.log
    stopped, state = None, None
    with writing_in(folder), Interrupt() as interrupt, closing(log), closing(session.stream):
        if progress.looked < progress.images and session.due(training.validate_every):
            session.look()  # its state was saved, and the evaluation after it was not completed
        while not session.ends:
            micro_batches = session.step()
            if session.due(training.log_every) or accelerator.num_processes == 1:
                stopped = "a signal" if interrupt.anywhere(accelerator) else None
            session.check_and_log(stopped is not None)
            session.watch(micro_batches[0])
            # Saving comes first: no evaluation can cost the work.
            if session.due(training.save_every) or stopped:
                state = session.save()
            if stopped and not session.is_complete:
                break
            if session.due(training.validate_every):
                session.look()
        else:
            stopped = None
            if not session.is_complete:
                session.say(f"ends: no better score since {progress.best_at:,} images (training.patience)")
            # Once more, with the last evaluation: where the run is extended, it may not be due any more.
            session.save()
        session.export_without_score()
    if stopped is None:
        objective.conclude(folder, data, training, accelerator)
    return Outcome(progress, (interrupt.received or stopped) if stopped else None, state if stopped else None)
