"""`flows models`: list the models of the index."""

from dataclasses import asdict
from pathlib import Path

from flows.core.checks import check_name
from flows.errors import UserError
from flows.storage.index import Entry, find_folder, folder_of, own_folder, read_index

KINDS = {
    "flow": "{} (flow, exact inverse)",
    "autoencoder": "{} (generator with an encoder)",
    "generator": "{} (generator)",
    "predictor": "{} (predictor of attributes)",
    "segmenter": "{} (segmenter)",
}


def models(download: str | None = None, json: Path | None = None) -> None:
    """List the models that come with flows: what each is, where it is, and its measured figures.

    `flows.load("fashion-glow")` and every CHECKPOINT of the command line take their names. Those that are not
    in this installation are downloaded once, to `~/.cache/flows` or where the variable FLOWS_CACHE says.

    Args:
        download: Name of a model to download now, for later use without a network.
        json: File for the entries of the index, with the folder of each model that is here.
    """
    known = read_index()
    if download is not None and json is not None:
        raise UserError("--json is for the list, and --download fetches one model: give one of both")
    if json is not None:
        from flows.commands.common import check_outputs  # here, because it imports torch

        check_outputs(json=json)
    if download is not None:
        check_name("--download ", download, known, "flows models")
        print(f"{download}: {folder_of(download)}")
        return
    for name, entry in known.items():
        print(f"{name}\n    {summary(entry)}\n    {place(name, entry)}")
    if json is not None:
        save(known, json)


def summary(entry: Entry) -> str:
    """Class, data and figures of a model in one line."""
    channels, height, width = entry.image_shape
    figures = ", ".join(f"{name} {value:.4g}" for name, value in entry.figures.items())
    what = KINDS[entry.kind].format(entry.model_type)
    return f"{what} of {entry.data}, {width}×{height}×{channels}: {figures}"


def place(name: str, entry: Entry) -> str:
    """Size, licence and place of a model in one line."""
    folder, own = find_folder(name), own_folder(name)
    where = entry.url or "not published yet; in a clone of flows"
    changed = f"; {own} differs from the index" if folder is None and own.is_dir() else ""
    return f"{entry.bytes / 1e6:.1f} MB, {entry.licence}, {folder or where}{changed}"


def save(known: dict[str, Entry], path: Path) -> None:
    """Write the entries as JSON."""
    from flows.commands.common import write_json  # here, because it imports torch

    folders = {name: find_folder(name) for name in known}
    listed = {
        name: {**asdict(entry), "folder": None if folders[name] is None else str(folders[name])}
        for name, entry in known.items()
    }
    write_json(path, {"models": listed})
