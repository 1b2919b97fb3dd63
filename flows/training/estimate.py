"""Duration of a training, from a few of its steps on this machine."""

import math
import time
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from flows.data.base import ImageData
from flows.storage.stored import StoredModule
from flows.training.batches import fit_batch
from flows.training.loop import make_accelerator
from flows.training.phase import Objective
from flows.training.session import Session
from flows.training.settings import Training

WARM = 2
"""Steps that are not measured: the first ones compile and allocate."""
SECONDS = 4.0
"""Time for which steps are measured, at least one."""


class Duration(NamedTuple):
    """Duration of a training.

    Attributes:
        images_per_second: Speed of the steps.
        evaluation: Seconds of one evaluation.
        seconds: Seconds of the whole run.
    """

    images_per_second: float
    evaluation: float
    seconds: float


def estimate(model: StoredModule, data: ImageData, training: Training, objective: Objective) -> Duration:
    """Train for a few steps in a temporary folder, evaluate once, and return how long all of it takes.

    Args:
        model: Model, whose weights change.
        data: Data set.
        training: Settings of the run.
        objective: Objective of the run.
    """
    training = fit_batch(training, len(data.split("train")), 1)
    # Nothing but steps: what is written or evaluated in between is measured by itself.
    never = 2**30
    quiet = replace(training, log_every=never, validate_every=never, save_every=never, guard_every=never)
    accelerator = make_accelerator(objective, model)
    with TemporaryDirectory() as place, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        session = Session(model, data, quiet, Path(place), objective, accelerator)
        with closing(session.log), closing(session.stream):
            for _ in range(WARM):
                session.step()
            began, steps = time.monotonic(), 0
            while steps == 0 or time.monotonic() - began < SECONDS:
                session.step()
                steps += 1
            per_step = (time.monotonic() - began) / steps
            began = time.monotonic()
            session.look()
            look = time.monotonic() - began
    total, looks = training.images / training.batch, math.ceil(training.images / training.validate_every)
    runs = objective.trainings(data)
    return Duration(training.batch / per_step, look, runs * total * per_step + (looks + runs) * look)
