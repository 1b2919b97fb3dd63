"""A run, from the command line (`main`) or from Python (`train`): checks, training, and the report."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch
from accelerate import Accelerator

from flows.config import OF_DATA, parse_experiment, resolve
from flows.core.arguments import config_of, path_of
from flows.core.bounds import check_value
from flows.core.building import build_in_memory
from flows.core.checks import did_you_mean
from flows.core.extras import check_extra
from flows.data.base import ImageData
from flows.data.own import as_data
from flows.data.source import absolute_paths, remember
from flows.display.notebook import image_html, tables_html
from flows.errors import Interrupted, UserError, reported
from flows.opening import load_any
from flows.reports.run import write_report
from flows.reports.section import RunReport
from flows.storage.files import StrPath, expand, recording
from flows.storage.stored import StoredModule, check_stored_arguments
from flows.training.batches import fit_batch
from flows.training.checkpoint import find_state
from flows.training.data_record import Record, changes, read_record, record_of, write_record
from flows.training.folder import note_file, prepare_folder
from flows.training.lock import locked
from flows.training.loop import fit, make_accelerator
from flows.training.objectives.natural import natural_objective, natural_settings
from flows.training.phase import Objective
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


@dataclass(frozen=True)
class Experiment:
    """Model, data, objective and settings of a run.

    Attributes:
        model: Model to train.
        data: Data set.
        objective: Objective.
        training: Settings.
        folder: Folder of the run.
        resolved: All settings as plain values, which are written to `config.yaml`.
        resume: Training state to continue from, a path or `latest`; None starts from the beginning.
        init: Checkpoint whose weights training starts from, or a model that has them.
        overwrite: Whether to replace an existing run in the folder.
        extend: Whether a resumed run may have more images than it was started with.
    """

    model: StoredModule
    data: ImageData
    objective: Objective
    training: Training
    folder: Path
    resolved: dict[str, Any]
    resume: str | None = None
    init: str | StoredModule | None = None
    overwrite: bool = False
    extend: bool = False


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
        made = build_in_memory(lambda: parser.instantiate(settings))
        given = {each.name: made[each.name] for each in fields(Experiment) if each.name in made}
        run(Experiment(**given, resolved=resolve(parser, settings)), since)


# Python -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Finished run of `flows.train`; a notebook shows its report.

    Attributes:
        model: Trained model: the export with the best validation score, in eval mode.
        report: Report; None on ranks other than the main process.
        folder: Folder of the run, which `flows.load` and every command read.
    """

    model: StoredModule
    report: RunReport | None
    folder: Path

    def __repr__(self) -> str:
        return "\n".join([f"Run in {self.folder}: {self.model}", *self._sentences()])

    def _sentences(self) -> list[str]:
        return [text.strip() for text in (self.report.summary if self.report else ())]

    def _repr_html_(self) -> str:
        report = self.report or RunReport({})
        samples = self.folder / "samples.png"
        picture = image_html(samples.read_bytes()) if samples.is_file() else ""
        return tables_html(report.tables, report.notes, [repr(self.model), *self._sentences()]) + picture


def train(
    model: StoredModule,
    data: Any,
    folder: StrPath,
    *,
    validation: Any = 0.05,
    test: Any = 0.05,
    objective: Objective | None = None,
    resume: StrPath | None = None,
    init: StrPath | StoredModule | None = None,
    overwrite: bool = False,
    extend: bool = False,
    **settings: Any,
) -> Run:
    """Train a model on your data, as `train.py` does: with checks, log, training states, report and card.

        model = flows.models.Glow((1, 28, 28), levels=2, depth=4, width=64)
        run = flows.train(model, images, "runs/mine", images=60_000, batch=64)  # uint8 (n, 28, 28)
        run.model.generate(8)

    The model is trained in place, and ends with the weights that scored best on the validation images. A
    signal, as of the stop button of a notebook, ends the run after its step and saves its state;
    `resume="latest"` continues it bit for bit.

    Args:
        model: Model, of flows or of a class of your own, whose weights are trained further.
        data: Data set of `flows.data`, array, torch `Dataset` or list, as `flows.data.as_data` takes them.
        folder: Folder of the run.
        validation: Share of `data` that is held out for validation, or other data.
        test: Share of `data` that is held out for test, or other data.
        objective: Objective; None takes that of the kind of model: the likelihood of a flow, `Adversarial`
            for a GAN, `LIATraining`, `Supervised` for predictors and segmenters.
        resume: Training state to continue from: "latest" or a path.
        init: Checkpoint or model whose weights training starts from.
        overwrite: Whether to replace a run that is in the folder.
        extend: Whether a resumed run may have more images than it was started with.
        **settings: Fields of `flows.training.settings.Training`, such as `images`, `batch`, `lr`, `ema`.

    Returns:
        Trained model, report and folder.

    Raises:
        UserError: A setting is unknown or out of its bounds, the data do not fit the model, the folder holds
            another run or is being trained in; or the run diverged (`NonFinite`).
        Interrupted: A signal stopped the run; the message says where its state is. It is a
            `KeyboardInterrupt`.
    """
    since = Busy.now()
    with in_python():
        check_extra("train", "flows.train")
        if not isinstance(model, StoredModule):
            raise UserError(f"model: expected a model of flows or a subclass, got {type(model).__name__}")
        training = training_of(model, settings)
        chosen = objective or natural_objective(model, training)
        if not isinstance(chosen, Objective):
            raise UserError(f"objective: expected an Objective, got {type(chosen).__name__}")
        made = as_data(data, model.image_shape, model.bins, validation, test)
        check_fits(model, made)
        place, state = expand(folder), None if resume is None else str(resume)
        start = init if init is None or isinstance(init, StoredModule) else str(init)
        experiment = Experiment(model, made, chosen, training, place, {}, state, start, overwrite, extend)
        with as_before(training.seed):
            report = run(replace(experiment, resolved=resolved_of(experiment)), since)
            return Run(best_of(model, place), report, place)


def training_of(model: StoredModule, settings: dict[str, Any]) -> Training:
    """Make settings of keywords. Raises UserError for an unknown name, with the nearest, or a wrong value."""
    kinds = get_type_hints(Training)
    for name, value in settings.items():
        if name not in kinds:
            known = [*kinds, *(each for each in get_type_hints(train) if each not in ("settings", "return"))]
            raise UserError(f"there is no setting {name!r}.{did_you_mean(name, known)}")
        check_value(name, value, kinds[name])
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return Training(**{**natural_settings(model), **tuples})


def check_fits(model: StoredModule, data: ImageData) -> None:
    """Raise UserError unless images of the data set have the shape and the grey levels of the model's."""
    if tuple(data.image_shape) != tuple(model.image_shape) or data.bins != model.bins:
        raise UserError(
            f"data: {type(data).__name__} has images {tuple(data.image_shape)} with {data.bins} grey levels, "
            f"the model expects {tuple(model.image_shape)} with {model.bins}"
        )


def resolved_of(experiment: Experiment) -> dict[str, Any]:
    """Settings of an experiment as `config.yaml` has them, those that `train.py` would write."""
    model, data, init = experiment.model, experiment.data, experiment.init
    own = {name: each for name, each in model.arguments().items() if name not in (*OF_DATA, "model_type")}
    settings = {
        "folder": str(experiment.folder),
        "init": f"{type(init).__name__} {init.fingerprint()}" if isinstance(init, StoredModule) else init,
        "variant": None,
        "variants": {},
        "recipe": None,
        "recipes": {},
        "data": config_of(data) if is_named(data) else {"given": data.name},
        "model": {"class_path": path_of(type(model)), "init_args": own},
        "objective": config_of(experiment.objective) or {"class_path": path_of(type(experiment.objective))},
        "training": asdict(experiment.training),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # lists for tuples, as files have them
    return plain


def is_named(data: ImageData) -> bool:
    """Whether a config can name a data set: its class is public, and its arguments are plain values."""
    return not type(data).__name__.startswith("_") and config_of(data) is not None


def best_of(model: StoredModule, folder: Path) -> StoredModule:
    """Give a model the weights and the description of the export of its run, in eval mode."""
    best = type(model).from_pretrained(folder, map_location=str(model.device))
    model.load_state_dict(best.state_dict())
    model.description = best.description
    return model.eval()


@contextmanager
def as_before(seed: int) -> Iterator[None]:
    """Context of a run in a process that goes on: torch's generator and number of threads are restored."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


OPTIONS = (
    (r"--resume latest", 'resume="latest"'),
    (r"--(overwrite|extend) true", r"\1=True"),
    (r"--(folder|resume|init)\b", r"\1="),
    (rf"\btraining\.({'|'.join(each.name for each in fields(Training))})\b", r"\1"),
)
"""Options of `train.py` in messages, and what they are called in Python."""


@contextmanager
def in_python() -> Iterator[None]:
    """Context in which messages name the arguments of `train` in place of options."""
    try:
        yield
    except (UserError, Interrupted) as error:
        text = str(error)
        for option, argument in OPTIONS:
            text = re.sub(option, argument, text)
        error.args = (text,)
        raise


# Run ----------------------------------------------------------------------------------------------


def run(experiment: Experiment, since: Busy) -> RunReport | None:
    """Train and report, or resume a run; returns the report on the main process, else None.

    Args:
        experiment: Model, data, objective and settings.
        since: Moment from which on the load of other processes is measured.

    Raises:
        Interrupted: A signal stopped the run.
    """
    model = experiment.model
    # Before the accelerator, which asks the objective about a model that it must be able to train.
    experiment.objective.check(model, experiment.training.images)
    check_stored_arguments(model)
    ignored = ignored_environment()
    accelerator = make_accelerator(experiment.objective, model)
    experiment.resolved["data"] = absolute_paths(experiment.resolved["data"])
    if not accelerator.is_main_process:
        return _run(experiment, accelerator, [], since)
    with locked(experiment.folder) as taken_over, recording(note_file(experiment.folder)):
        notes = [f"ignored, because a run is what its settings say: {name}" for name in ignored]
        return _run(experiment, accelerator, [*notes, taken_over], since)


def _run(experiment: Experiment, accelerator: Accelerator, notes: list[str], since: Busy) -> RunReport | None:
    """Train and report on one rank; the main process says what a person should know, `notes` among it."""
    data, model, objective = experiment.data, experiment.model, experiment.objective
    # Once, and also the test split, so that a missing one is noticed before hours of training.
    opened = data.opened()
    sizes = {name: len(split) for name, split in opened.items()}
    check_classes(model, data, opened)
    record = record_of(data, opened) if accelerator.is_main_process else {}
    del opened  # the training opens those that it needs
    source = experiment.resolved["data"]
    named = {"source": source} if "class_path" in source else {}
    model.description = {**asdict(data.description()), **named}
    state, passed_over = find_state(experiment.folder, experiment.resume)
    training, smaller = fitted(experiment.training, sizes.get("train"), accelerator.num_processes)
    check_batch(training, data.image_shape, accelerator.num_processes)
    if experiment.init is not None and state is None:
        model.start_from(start_of(experiment))
    threads, fewer = choose_threads(training.threads, since)
    set_threads(threads)
    # Only now, because an earlier run in the folder may be cleared.
    if accelerator.is_main_process:
        left = begin(experiment, state, record)
        recipe = experiment.resolved.get("recipe")
        chosen = "" if recipe is None else f"recipe of the config for {recipe:,} pictures or more (--recipe)"
        of_data = [*data.notes(), *left, *start_notes(training, data), chosen]
        said = [*of_data, *notes, smaller, fewer, passed_over]
        print("\n".join([data.summary(sizes), *filter(None, said)]))
    accelerator.wait_for_everyone()
    outcome = fit(
        model, data, training, experiment.folder, objective, accelerator, state, experiment.init is None
    )
    report = None
    if accelerator.is_main_process and not outcome.interrupted:
        place = str(accelerator.device)
        report = write_report(experiment.folder, data, objective, place, [type(model)])
        report.show()
    accelerator.end_training()
    if outcome.interrupted:
        saved = f"stopped by {outcome.interrupted}, saved {outcome.state}; --resume latest continues"
        raise Interrupted(saved if accelerator.is_main_process else "")
    return report


def start_of(experiment: Experiment) -> StoredModule:
    """Model whose weights training starts from."""
    if isinstance(experiment.init, StoredModule):
        return experiment.init
    return load_any(str(experiment.init), "cpu", [type(experiment.model)])


def begin(experiment: Experiment, state: Path | None, record: Record) -> list[str]:
    """Prepare the folder of a run; returns sentences on what was left in it, and on data that differ."""
    may_change = set() if uses_batch_statistics(experiment.model) else {"training.accumulate"}
    if experiment.extend:
        may_change.add("training.images")
    before = None if state is None else read_record(state.parent)
    folder, resolved = experiment.folder, experiment.resolved
    left = prepare_folder(folder, resolved, experiment.resume, state, experiment.overwrite, may_change)
    write_record(folder, record)
    remember(resolved["data"], [type(experiment.data)])
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
