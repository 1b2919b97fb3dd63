"""A run: the command line, the checks before the first step, the training, and the report."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jsonargparse import Namespace

from flows.config import parse_experiment, resolve
from flows.core.building import build_in_memory
from flows.core.extras import check_extra
from flows.core.parser import Parser
from flows.data.source import absolute_paths, remember
from flows.errors import interrupted, reported
from flows.opening import load_any
from flows.reports.run import write_report
from flows.storage.files import recording
from flows.training.batches import fit_batch
from flows.training.checkpoint import find_state
from flows.training.data_record import Record, changes, read_record, record_of, write_record
from flows.training.folder import note_file, prepare_folder
from flows.training.lock import locked
from flows.training.loop import fit, make_accelerator
from flows.training.settings import Training
from flows.training.start import (
    check_batch,
    check_classes,
    ignored_environment,
    set_threads,
    start_notes,
    uses_batch_statistics,
)
from flows.training.threads import Busy, choose_threads


def main(arguments: list[str] | None = None, program: str = "train.py") -> None:
    """Parse the command line, by default that of the process, and run the experiment.

    Args:
        arguments: Words of the command line.
        program: Name of the program for its help.
    """
    with reported():
        since = Busy.now()
        check_extra("train", program)
        parser, settings = parse_experiment(arguments, program)
        torch.manual_seed(settings.training.seed)
        run(parser, settings, since)


def run(parser: Parser, settings: Namespace, since: Busy) -> None:
    """Train and report, or resume a run.

    Args:
        parser: Parser of the settings.
        settings: Parsed settings.
        since: Moment from which on the load of other processes is measured.
    """
    experiment = build_in_memory(lambda: parser.instantiate(settings))
    # Before the accelerator, which asks the objective about a model that it must be able to train.
    experiment.objective.check(experiment.model, experiment.training.images)
    ignored = ignored_environment()
    accelerator = make_accelerator(experiment.objective, experiment.model)
    resolved = resolve(parser, settings)
    resolved["data"] = absolute_paths(resolved["data"])
    if not accelerator.is_main_process:
        _run(experiment, resolved, accelerator, [], since)
        return
    with locked(experiment.folder) as taken_over, recording(note_file(experiment.folder)):
        notes = [f"ignored, because a run is what its settings say: {name}" for name in ignored]
        _run(experiment, resolved, accelerator, [*notes, taken_over], since)


def _run(
    experiment: Namespace, resolved: dict[str, Any], accelerator: Accelerator, notes: list[str], since: Busy
) -> None:
    """Train and report on one rank; the main process says what a person should know, `notes` among it."""
    data, model, objective = experiment.data, experiment.model, experiment.objective
    # Once, and also the test split, so that a missing one is noticed before hours of training.
    opened = data.opened()
    sizes = {name: len(split) for name, split in opened.items()}
    check_classes(model, data, opened)
    record = record_of(data, opened) if accelerator.is_main_process else {}
    del opened  # the training opens those that it needs
    model.description = {**asdict(data.description()), "source": resolved["data"]}
    state, passed_over = find_state(experiment.folder, experiment.resume)
    training, smaller = fitted(experiment.training, sizes.get("train"), accelerator.num_processes)
    check_batch(training, data.image_shape, accelerator.num_processes)
    if experiment.init is not None and state is None:
        model.start_from(load_any(experiment.init, "cpu"))
    threads, fewer = choose_threads(training.threads, since)
    set_threads(threads)
    # Only now, because an earlier run in the folder may be cleared.
    if accelerator.is_main_process:
        left = begin(experiment, resolved, state, record)
        said = [*data.notes(), *left, *start_notes(training, data), *notes, smaller, fewer, passed_over]
        print("\n".join([data.summary(sizes), *filter(None, said)]))
    accelerator.wait_for_everyone()
    outcome = fit(
        model, data, training, experiment.folder, objective, accelerator, state, experiment.init is None
    )
    if accelerator.is_main_process and not outcome.interrupted:
        write_report(experiment.folder, data, objective, str(accelerator.device)).show()
    accelerator.end_training()
    if outcome.interrupted:
        saved = f"stopped by {outcome.interrupted}, saved {outcome.state}; --resume latest continues"
        interrupted(saved if accelerator.is_main_process else "")


def begin(experiment: Namespace, resolved: dict[str, Any], state: Path | None, record: Record) -> list[str]:
    """Prepare the folder of a run; returns sentences on what was left in it, and on data that differ."""
    may_change = set() if uses_batch_statistics(experiment.model) else {"training.accumulate"}
    if experiment.extend:
        may_change.add("training.images")
    before = None if state is None else read_record(state.parent)
    left = prepare_folder(
        experiment.folder, resolved, experiment.resume, state, experiment.overwrite, may_change
    )
    write_record(experiment.folder, record)
    remember(resolved["data"])
    return [*left, *([] if before is None else changes(before, record))]


def fitted(training: Training, images: int | None, world: int) -> tuple[Training, str]:
    """Return settings with a batch of at most the training split, and a sentence if it is smaller."""
    fit_settings = fit_batch(training, images, world)
    if fit_settings.batch == training.batch:
        return replace(training), ""
    return fit_settings, (
        f"training.batch: {fit_settings.batch} instead of {training.batch}, because there are no more "
        "training images"
    )
