"""flows render: the pictures of a record, byte for byte, and back in those they were cropped from."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.commands.common import write_json
from flows.editing.history import edited_upload as in_upload
from flows.editing.records import load_history, read_history_header
from flows.errors import UserError
from flows.files import write_atomically
from flows.inversion.records import ImageSource, digest_of, load_record
from flows.inversion.records import render_record as draw
from flows.opening import open_model, open_picture

SAME = {
    True: "the very bytes that came back",
    False: "NOT the bytes that came back: another machine or torch",
}


def render(
    record: Path,
    checkpoint: str | None = None,
    output: Path = Path("rendered"),
    undo: bool = False,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Draw the pictures of a record again; it must belong to the model.

    Args:
        record: a file that `flows compare` wrote, or one of edits, of `flows studio`.
        checkpoint: folder or hub repository of the model; none takes the one that a record of edits names.
        output: folder for the pictures.
        undo: lay what was cropped back into the picture it came from, at its size.
        json: file for the result.
        device: torch device.
    """
    if (told := read_history_header(record)) is not None:
        render_edits(record, checkpoint or told["checkpoint"], output, undo, json, device)
        return
    if checkpoint is None:
        raise UserError(f"--checkpoint: {record.name} does not say which model it is of; name one")
    model = open_model(checkpoint, device)
    contents = load_record(record, model)
    images = draw(model, contents)
    same = digest_of(images) == contents.digest
    # All are made before the first is written: a picture that is gone leaves no half of a folder.
    pictures = [
        paste_back(image, source, model.image_shape[0]) if undo and source.box else pixels.to_pillow(image)
        for image, source in zip(images, contents.sources, strict=True)
    ]
    written = []
    for i, (picture, source) in enumerate(zip(pictures, contents.sources, strict=True)):
        path = output / f"{i:04d}-{Path(source.name).stem.replace(' ', '-')}.png"
        write_atomically(path, picture.save)
        written.append(str(path))
    print(f"{len(written)} pictures: {output}; {contents.method}; {SAME[same]}")
    write_json(json, {"pictures": written, "method": contents.method, "same_bytes": same})


def render_edits(
    record: Path, checkpoint: str, output: Path, undo: bool, json: Path | None, device: str | None
) -> None:
    """The picture of a record of edits, all of which are done again; see `render`."""
    model = open_model(checkpoint, device)
    history, same = load_history(record, model)
    picture = in_upload(history) if undo else pixels.to_pillow(history.picture)
    path = output / f"{record.stem}.png"
    write_atomically(path, picture.save)
    edits = [edit.label for edit in history.edits]
    print(f"{path}; {'; '.join(edits) or 'not edited'}; {SAME[same]}")
    write_json(json, {"pictures": [str(path)], "edits": edits, "same_bytes": same})


def paste_back(image: Tensor, source: ImageSource, channels: int) -> Image.Image:
    """A reconstruction in the picture that it was cropped from.

    Raises:
        ValueError: the picture is gone or has another size.
    """
    original = open_picture(Path(source.name), channels)
    if original.size != source.size:
        raise UserError(f"{source.name} has {original.size} pixels, the record was made from {source.size}")
    assert source.box is not None
    return pixels.unfit(pixels.to_pillow(image), source.box, original)
