"""flows paint: draw or erase a class in a picture with the units that make it."""

from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.commands.common import first_test, load, load_segmenter, read_pictures, save_picture, write_json
from flows.commands.dissect import default_layers
from flows.commands.steer.apply import encoded
from flows.dissection.brushes import UNITS, find_brush
from flows.dissection.instrument import instrument
from flows.dissection.paint import paint as brush_on


def paint(
    checkpoint: str,
    label: str,
    box: list[int] | None = None,
    mask: Path | None = None,
    image: Path | None = None,
    test: NonNegativeInt = 0,
    stroke: Literal["draw", "erase"] = "draw",
    strength: NonNegativeFloat = 1.0,
    layers: list[str] | None = None,
    units: PositiveInt = UNITS,
    order: Literal["agreement", "learned"] = "agreement",
    segmenter: str = "checkpoints/scenes-segmenter",
    resize: bool = False,
    output: Path = Path("painted.png"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Paint a class into a picture of yours, or erase it.

    The picture is encoded; the units that draw the class are set where the brush is, and what that changes is
    added to the picture under the brush. Elsewhere its bytes stay as they are.

    Args:
        checkpoint: folder or hub repository of the model.
        label: name of the class, as window, plant, lamp.
        box: where the brush is: left, top, right, bottom in the model's pixels, the last two exclusive.
        mask: a picture file instead, bright where the brush is, of the model's size.
        image: picture file; None takes a test image.
        test: number of the test image.
        stroke: draw or erase.
        strength: 1 sets the units, 0 leaves them, above 1 exceeds what is usual.
        layers: among which the units are looked for; None takes those that `flows dissect` does.
        units: how many.
        order: of the units: by agreement with the class, or by how much it needs them, which is learned
            (a minute or so).
        segmenter: checkpoint of a segmenter, by which units are found.
        resize: crop a picture of another size to a square in the middle and resize it.
        output: file for the picture before and after, side by side.
        json: file for the result.
        device: torch device.
    """
    model = load(checkpoint, device)
    judge = load_segmenter(segmenter, model)
    _, height, width = model.image_shape
    where = brushed(box, mask, height, width)
    given = read_pictures([image], model.image_shape, resize) if image else first_test(model, test + 1)[-1:]
    given = pixels.reduce(given, model.bins)
    space = model.search_space
    code = encoded(model, given, space)
    brush = find_brush(model, judge, space, label, layers or default_layers(model, space), units, order)
    with instrument(model, space) as probe:
        painted = brush_on(probe, code, given[0], [(brush, where, stroke)], strength)
    save_picture(pixels.grid(torch.stack([given[0], painted.image]), 2, zoom=max(1, 256 // height)), output)
    share = float(painted.changed.double().mean())
    print(
        f"{stroke} {label}: {len(brush.units)} units of {brush.layer}; {100 * share:.1f} % of the pixels "
        f"changed, none beyond the brush's margin: {output}"
    )
    result = {
        "checkpoint": checkpoint, "label": label, "stroke": stroke, "layer": brush.layer,
        "units": list(brush.units), "changed": share, "outside_before_putting_back": painted.outside,
    }  # fmt: skip
    write_json(json, result)


def brushed(box: list[int] | None, mask: Path | None, height: int, width: int) -> Tensor:
    """bool (height, width) where the brush is. Raises ValueError unless exactly one of both says so."""
    if (box is None) == (mask is None):
        raise ValueError("say where the brush is: --box left top right bottom, or --mask FILE")
    found = torch.zeros(height, width, dtype=torch.bool)
    if box is not None:
        inside = len(box) == 4 and 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
        if not inside:
            raise ValueError(f"--box: expected left top right bottom within {width}×{height}, got {box}")
        found[box[1] : box[3], box[0] : box[2]] = True
        return found
    assert mask is not None
    if not mask.is_file():
        raise ValueError(f"--mask: {mask} does not exist")
    with Image.open(mask) as opened:
        grey = pixels.from_pillow(opened, 1)[0]
    if grey.shape != (height, width):
        raise ValueError(
            f"--mask: expected {width}×{height} pixels, {mask} has {grey.shape[1]}×{grey.shape[0]}"
        )
    return grey > 127
