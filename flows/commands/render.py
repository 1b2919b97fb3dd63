"""flows render: the images of a record, byte for byte, and back in the pictures they were cropped from."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.commands.common import write_json
from flows.files import write_atomically
from flows.inversion.records import Source, digest_of, load_record
from flows.inversion.records import render as draw
from flows.opening import load, open_picture


def render(
    record: Path,
    checkpoint: str,
    output: Path = Path("rendered"),
    undo: bool = False,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Draw the images of a record again; it must belong to the model.

    Args:
        record: a file that `flows compare` wrote.
        checkpoint: folder or hub repository of the model.
        output: folder for the pictures.
        undo: lay what was cropped back into the picture it came from, at its size.
        json: file for the result.
        device: torch device.
    """
    model = load(checkpoint, device)
    contents = load_record(record, model)
    images = draw(model, contents)
    same = digest_of(images) == contents.digest
    # All are made before the first is written: a picture that is gone leaves no half of a folder.
    pictures = [
        laid_back(image, source, model.image_shape[0]) if undo and source.box else pixels.to_pillow(image)
        for image, source in zip(images, contents.sources, strict=True)
    ]
    written = []
    for i, (picture, source) in enumerate(zip(pictures, contents.sources, strict=True)):
        path = output / f"{i:04d}-{Path(source.name).stem.replace(' ', '-')}.png"
        write_atomically(path, picture.save)
        written.append(str(path))
    told = (
        "the very bytes that came back" if same else "NOT the bytes that came back: another machine or torch"
    )
    print(f"{len(written)} pictures: {output}; {contents.method}; {told}")
    write_json(json, {"pictures": written, "method": contents.method, "same_bytes": same})


def laid_back(image: Tensor, source: Source, channels: int) -> Image.Image:
    """A reconstruction in the picture that it was cropped from.

    Raises:
        ValueError: the picture is gone or has another size.
    """
    original = open_picture(Path(source.name), channels)
    if original.size != source.size:
        raise ValueError(f"{source.name} has {original.size} pixels, the record was made from {source.size}")
    assert source.box is not None
    return pixels.unfit(pixels.to_pillow(image), source.box, original)
