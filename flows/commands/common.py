"""Helpers of the verbs: labels from the command line, tables, JSON results and picture files."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from jsonargparse.typing import restricted_number_type
from torch import Tensor

from flows.core.checks import did_you_mean
from flows.display.drawing import ANIMATIONS, STILLS, check_picture, is_animation, is_folder
from flows.display.formats import Format, Formats
from flows.display.table import Table
from flows.errors import UserError
from flows.inversion.arrays import SUFFIXES
from flows.models.base import LatentModel
from flows.storage.files import SPECIAL, file_in_place_of, is_special, to_json, write_text
from flows.storage.index import CONFIG_FILE
from flows.storage.stored import WEIGHTS_FILE

Zoom = restricted_number_type("Zoom", int, [(">=", 1), ("<=", 64)])
"""Factor by which a sheet enlarges every pixel."""
Fps = restricted_number_type("Fps", float, [(">=", 0.1), ("<=", 50)])
"""Frames per second of an animation."""


Label = int | str
"""Class in an option: its number, or its name in the data set that the model was trained on."""


def option_labels(model: LatentModel, label: Label | None, n: int) -> Tensor | None:
    """Labels (n,), all equal to the option --label; None without it, so that the model's default applies.

    Args:
        model: Class-conditional model.
        label: Number or name of a class. A name that looks like a number, as in Digits, is a name first.
        n: Number of labels.

    Raises:
        UserError: There is no such class, or the model is not class-conditional.
    """
    if label is None:
        return None
    if not model.num_classes:
        raise UserError("--label: this model is not class-conditional")
    names = model.class_names
    number = names.index(str(label)) if str(label) in names else label
    if not isinstance(number, int) or not 0 <= number < model.num_classes:
        known = f" or one of {', '.join(names)}" if names else ""
        raise UserError(
            f"--label: expected a class in 0 … {model.num_classes - 1}{known}, got {label}."
            f"{did_you_mean(str(label), names)}"
        )
    return torch.full((n,), number, device=model.device)


def at_least(value: float) -> str:
    """Minimum of several PSNR values as text."""
    return "exact" if value == math.inf else f"at least {value:.1f} dB"


TOO_FEW_DEFINED = "the score is defined in too few images"
UNKNOWN = {
    **dict.fromkeys(("signed", "clipped", "effect", "leakage", "responses", "levels"), TOO_FEW_DEFINED),
    **dict.fromkeys(("low", "high"), "too few images have it for an interval"),
    "standard_error": "one image has none",
    "reach": "the range of the score in the data is not known here",
    "relative": "the data have none of it",
    "sigma": "the codes do not vary along it",
}
"""Reasons why figures of steering and dissection can be unknown."""


def write_json(
    path: Path | None, result: Mapping[str, Any], unknown: Mapping[str, str] | None = None
) -> None:
    """Write the result of a verb as JSON if there is a path; see `files.to_json`.

    Args:
        path: File to write, or None.
        result: Result.
        unknown: Name of a figure to the reason why it can be unknown, besides those of `UNKNOWN`.
    """
    if path is not None:
        text = to_json(result, {**UNKNOWN, **(unknown or {})})
        write_text(path, text)


class Result(Protocol):
    """Result of a study, which draws and saves itself."""

    @property
    def notes(self) -> Sequence[str]: ...
    def save(self, out: Path, title: str, formats: Sequence[Format]) -> list[str]: ...
    def tables(self) -> list[Table]: ...
    def as_dict(self) -> dict[str, Any]: ...


def finish(
    result: Result,
    out: Path,
    name: str,
    title: str,
    inputs: Mapping[str, Any],
    json: Path | None = None,
    unknown: Mapping[str, str] | None = None,
    formats: Formats = Formats(),
) -> None:
    """Save the result of a study, with a JSON file of its figures, and print its tables.

    Args:
        result: Result.
        out: Output folder.
        name: Name of the JSON file in it.
        title: Title of the page.
        inputs: Names of the study's inputs, stored with the figures.
        json: Additional file for the figures.
        unknown: Reasons why figures can be unknown; see `write_json`.
        formats: Additional formats of tables and figures.
    """
    written = result.save(out, title, formats.chosen)
    for path in (out / name, json):
        write_json(path, {**inputs, **result.as_dict()}, unknown)
    for table in result.tables():
        table.print()
    for note in result.notes:
        print(note)
    print(f"written to {out}: {', '.join(written)}, {name}")


def check_outputs(
    *,
    out: Path | None = None,
    output: Path | None = None,
    file: Path | None = None,
    picture: Path | None = None,
    drawing: Path | None = None,
    json: Path | None = None,
    option: str = "--output",
    animated: bool = False,
    suffixes: Sequence[str] = (".safetensors",),
    inputs: Sequence[Path] = (),
) -> None:
    """Check before the work that the results of a verb can be written.

    Args:
        out: Output folder of `--out`.
        output: Output folder of `option`.
        file: Output file of `option`, a .safetensors file unless `suffixes` are given.
        picture: Output picture of `option`, in a format that its suffix names.
        drawing: Output of `option`: a picture, or a folder for one file per image.
        json: File of `--json`.
        option: Name of the option of `output`, `file` and `picture`.
        animated: Whether the drawing may be an animation.
        suffixes: Suffixes that `file` may have.
        inputs: Files that the verb reads.

    Raises:
        UserError: There is a file where a folder is expected, or a folder where a file is expected, or a
            device or pipe, or the suffix of a picture is unknown, or two paths are the same.
    """
    given = {option: output or file or picture or drawing, "--out": out, "--json": json}
    named = {name: path for name, path in given.items() if path is not None}
    for name, path in named.items():
        check_path(name, path, name == "--json" or (name == option and output is None))
    check_distinct(named, inputs)
    if json is not None and json.suffix.lower() in NOT_JSON:
        raise UserError(f"--json {json}: expected a file of JSON, got suffix {json.suffix}")
    if file is not None and file.suffix.lower() not in suffixes:
        found = f"suffix {file.suffix}" if file.suffix else "no suffix"
        raise UserError(f"{option} {file}: expected a file ({', '.join(suffixes)}), got {found}")
    if drawing is not None:
        output, picture = (drawing, None) if is_folder(drawing) else (None, drawing)
    if picture is not None:
        check_picture(picture, option, animated)
    check_places({"--out": out, option: output}, [(option, file), (option, picture), ("--json", json)])


def check_distinct(named: Mapping[str, Path], inputs: Sequence[Path]) -> None:
    """Raise UserError if two paths are the same, or one is in a place where another is a file.

    Args:
        named: Outputs by the names of their options.
        inputs: Files that the verb reads.
    """
    taken = [*named.items(), *(("an input", _without_number(each)) for each in inputs)]
    for name, path in named.items():
        for other, place in taken:
            if other == name:
                continue
            if place.resolve() == path.resolve():
                raise UserError(f"{name} {path}: {other} is the same path; choose another one")
            # A folder of results may hold the file of --json; a file holds nothing.
            if place.resolve() in path.resolve().parents and place.suffix and not place.exists():
                raise UserError(f"{name} {path}: {other} {place} is a file; choose another place")


def check_places(folders: Mapping[str, Path | None], files: Sequence[tuple[str, Path | None]]) -> None:
    """Raise UserError unless folders and files, with the names of their options, can be written."""
    for name, folder in folders.items():
        if folder is not None:
            check_folder(folder, name)
    for name, target in files:
        if target is not None:
            if target.is_dir():
                raise UserError(f"{name} {target}: expected a file, found a folder")
            check_folder(target.parent, name)


NOT_JSON = {*STILLS, *ANIMATIONS, *SUFFIXES}
"""Suffixes of other outputs, which --json would replace."""


def check_path(option: str, path: Path, named: bool) -> None:
    """Raise UserError if a path cannot be that of an output, or is a file that must not be replaced.

    Args:
        option: Name of the option.
        path: Path of the output.
        named: Whether the output needs a name of its own, unlike a folder of several files.
    """
    if "\0" in str(path):
        raise UserError(f"{option}: expected a path, got one with a null character")
    if named and not path.name:
        raise UserError(f"{option}: expected a name, got {str(path)!r}, as of an empty variable")
    if path.name.lower() in NOT_JSON:
        raise UserError(f"{option} {path}: expected a name before the suffix")
    if is_special(path):
        raise UserError(f"{option} {path}: {SPECIAL}")
    if path.name in (CONFIG_FILE, WEIGHTS_FILE) and path.is_file():
        raise UserError(f"{option} {path}: it is a part of a checkpoint; choose another name")


def _without_number(path: Path) -> Path:
    """Path of a file of codes without the number of a code, as in FILE#2."""
    return path if path.exists() else path.with_name(path.name.rpartition("#")[0] or path.name)


def check_unused(output: Path, fps: bool = False, zoom: bool = False) -> None:
    """Raise UserError if an option was given that has no effect on the kind of output.

    Args:
        output: Output of the verb.
        fps: Whether frames per second were given, which only an animation has.
        zoom: Whether a zoom was given, which a folder does not have.
    """
    if fps and not is_animation(output):
        raise UserError(f"--fps is that of an animation ({', '.join(ANIMATIONS)}), and {output} is none")
    if zoom and is_folder(output):
        raise UserError(f"--zoom is that of a sheet, and the folder {output} gets each image at its size")


def check_folder(folder: Path, option: str = "--out") -> None:
    """Raise UserError unless `folder` is a folder that can be written to, or can be created."""
    if file := file_in_place_of(folder):
        where = "" if file == folder else f" at {file}"
        raise UserError(f"{option} {folder}: expected a folder, found a file{where}")
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:  # also of file systems that grant the right and cannot be written to
        raise UserError(f"{option} {folder}: nothing can be written in {there} ({error.strerror})") from error
