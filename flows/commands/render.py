"""`flows render`: decode the images of a record again, and paste them into the uncropped pictures."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.commands.common import check_outputs, write_json
from flows.display.drawing import save_picture
from flows.editing.history import edited_upload as paste_into_upload
from flows.editing.records import load_history, read_history_header
from flows.errors import CheckpointError, UserError
from flows.inversion.records import ImageSource, digest_of, load_record
from flows.inversion.records import render_record as decode_record
from flows.opening import open_model, open_picture
from flows.storage.files import file_name, what_is
from flows.storage.places import find_here
from flows.storage.versioned import kind_of, read_metadata

SAME = {
    True: "identical to the recorded bytes",
    False: "NOT identical to the recorded bytes, which another machine or version of torch may have made",
}


def render(
    record: Path,
    checkpoint: str | None = None,
    output: Path = Path("rendered"),
    undo: bool = False,
    pictures: Path | None = None,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Decode the images of a record again and check that their bytes are identical to the original result.

    Args:
        record: Record of an inversion, written by `flows compare`, or of edits, downloaded from
            `flows studio`. It must belong to the model.
        checkpoint: Folder or name of the model; None takes the one that a record of edits names.
            Records of inversions need it.
        output: Output folder for the pictures.
        undo: Whether to paste each image into the picture that it was cropped from, at the picture's size.
        pictures: Folder of these pictures, for a record of an inversion; None looks beside the record and in
            the working folder. A record of edits has its picture.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(output=output, json=json, inputs=[record])
    check_record(record)
    header = read_history_header(record)
    checkpoint = checkpoint or named_checkpoint(record, header.checkpoint if header else "")
    if header is not None:
        render_edits(record, checkpoint, output, undo, json, device)
        return
    model = open_model(checkpoint, device)
    contents = load_record(record, model)
    images = decode_record(model, contents)
    same = digest_of(images) == contents.digest
    places = [
        find_picture(source.name, record, pictures) if undo and source.box else None
        for source in contents.sources
    ]
    # All pictures are made before the first is written: a missing source leaves no incomplete folder.
    whole = [
        pixels.to_pillow(image) if place is None else paste_back(image, source, place, model.image_shape[0])
        for image, source, place in zip(images, contents.sources, places, strict=True)
    ]
    written = write_all(output, whole, [source.name for source in contents.sources])
    print(f"{len(written)} pictures: {output}; {contents.method}; {SAME[same]}")
    if contents.diverged:
        print(f"left out, because the search for their codes diverged: {', '.join(contents.diverged)}")
    result = {"pictures": written, "method": contents.method, "same_bytes": same}
    write_json(json, {**result, "diverged": contents.diverged})


def check_record(record: Path) -> None:
    """Raise UserError or CheckpointError unless a path is that of a record."""
    expected = "expected a record of `flows compare` or `flows studio`"
    if state := what_is(record):
        raise UserError(f"{record} {state}: {expected}")
    metadata = read_metadata(record)
    if not {"history_version", "record_version"} & set(metadata):
        raise CheckpointError(f"{record} {kind_of(metadata)}; {expected}")


def write_all(output: Path, pictures: Sequence[Image.Image], names: Sequence[str]) -> list[str]:
    """Write pictures, numbered, with the names of their sources; returns the paths."""
    written = []
    for i, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        path = output / file_name(f"{i:04d}-{Path(name).stem}", ".png")
        save_picture(picture, path)
        written.append(str(path))
    return written


def named_checkpoint(record: Path, name: str) -> str:
    """Checkpoint that a record names, if it is on this machine; a record never decides what is downloaded.

    Raises:
        UserError: The record names none, or one that is not here.
    """
    if not name:
        raise UserError(f"--checkpoint: {record.name} does not name its model; give the model's checkpoint")
    place = find_here(name)
    if place is None or not place.is_dir():
        raise UserError(
            f"{record.name} names the checkpoint {name}, which is not here; give its place by --checkpoint"
        )
    return name


def render_edits(
    record: Path, checkpoint: str, output: Path, undo: bool, json: Path | None, device: str | None
) -> None:
    """Repeat all edits of a record and write the resulting image; see `render`."""
    model = open_model(checkpoint, device)
    history, same = load_history(record, model)
    picture = paste_into_upload(history) if undo else pixels.to_pillow(history.picture)
    path = output / file_name(record.stem, ".png")
    save_picture(picture, path)
    edits = [edit.label for edit in history.edits]
    print(f"{path}; {'; '.join(edits) or 'not edited'}; {SAME[same]}")
    write_json(json, {"pictures": [str(path)], "edits": edits, "same_bytes": same})


def find_picture(name: str, record: Path, folder: Path | None) -> Path:
    """File of a picture that a record names, in the given folder, else beside the record or where it was.

    Raises:
        UserError: There is no such file.
    """
    own = Path(name).name
    places = [folder / own] if folder is not None else [Path(name), record.parent / own]
    for place in places:
        if place.is_file():
            return place
    raise UserError(f"there is no {places[-1]}: --pictures names the folder with {own}")


def paste_back(image: Tensor, source: ImageSource, path: Path, channels: int) -> Image.Image:
    """Paste a reconstruction into the picture, at a path, that it was cropped from.

    Raises:
        UserError: The picture has another size.
    """
    original = open_picture(path, channels)
    if original.size != source.size:
        raise UserError(f"{path} has {original.size} pixels, the record was made from {source.size}")
    assert source.box is not None
    return pixels.paste_crop(pixels.to_pillow(image), source.box, original)
