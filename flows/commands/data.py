"""`flows data`: say and draw what is in a folder of pictures, before anything is trained on it."""

import shlex
from dataclasses import replace
from pathlib import Path

from flows.commands.common import check_outputs, finish
from flows.config import parse_experiment
from flows.core.bounds import ImageSize
from flows.data.columns import ColumnKind
from flows.data.folder import Folder
from flows.display.formats import Formats
from flows.errors import UserError
from flows.reports.data import Proposal, inspect, proposed
from flows.training.estimate import estimate
from flows.training.start import set_threads
from flows.training.threads import Busy, choose_threads


def data(
    folder: Path,
    size: ImageSize = 32,
    table: Path | None = None,
    columns: dict[str, ColumnKind] | None = None,
    masks: Path | None = None,
    measure: bool = True,
    out: Path = Path("data-report"),
    json: Path | None = None,
    formats: Formats = Formats(),
) -> None:
    """Say and draw what is in a folder of pictures: sizes, classes, values, masks, faults, duplicates.

    Names the trainings that fit, with the minutes that they take on this machine, measured by a few steps.

    Args:
        folder: Folder, or zip or tar archive.
        size: Side of the square images in pixels, or height and width, `[48, 64]`.
        table: Table with a row for each picture; None takes those in the folder.
        columns: Kinds of columns whose values are taken for something else: `{stars: category}`.
        masks: Folder or archive of the masks; None takes those in the folder.
        measure: Whether to measure the speed of the trainings, about ten seconds each.
        out: Output folder: index.html, data.json, pictures.png, sizes.png and, with labels or values,
            values.png.
        json: Additional file for the contents of data.json.
        formats: Additional formats of tables and figures.
    """
    check_outputs(out=out, json=json)
    since = Busy.now()
    files = Folder(folder, size, table=table, columns=columns, masks=masks)
    found = inspect(files)
    options = {"path": folder, "size": size, "table": table, "columns": columns, "masks": masks}
    typed = [
        word
        for name, value in options.items()
        if value is not None and (name, value) != ("size", 32)
        for word in (f"--data.{name}", as_option(value))
    ]
    set_threads(choose_threads(None, since)[0])  # as a run does: a busy machine is slower with more
    proposals = [propose(config, typed, files if measure else None) for config in proposed(files)]
    found, title = replace(found, proposals=proposals), f"Pictures in {folder.name}"
    finish(found, out, "data.json", title, {"folder": str(folder)}, json, formats=formats)


def as_option(value: object) -> str:
    """Value as a word of the command line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {each}" for name, each in value.items()) + "}"
    return f"[{value[0]},{value[1]}]" if isinstance(value, tuple) else str(value)


def propose(config: str, typed: list[str], files: Folder | None) -> Proposal:
    """Training by a config, with its duration on this machine.

    Args:
        config: Name of the config.
        typed: Options of the data set.
        files: Data set with these options, on which the speed is measured; None does not measure it.
    """
    parser, settings = parse_experiment(["--config", config, *typed])
    minutes = None
    if files is not None:
        made = parser.instantiate(settings)
        try:
            took = estimate(made.model, files, made.training, made.objective)
            minutes = took.seconds / 60
        except UserError as error:  # too few pictures for this model
            print(f"{config}: {error}")
    return Proposal(
        config=config,
        command=shlex.join(["flows", "train", "--config", config, *typed]),
        images=settings.training.images,
        recipe=settings.recipe,
        minutes=minutes,
    )
