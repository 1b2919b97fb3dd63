"""flows paint: draw or erase a class in a picture."""

from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.commands.common import (
    data_of,
    first_test,
    load,
    load_segmenter,
    read_pictures,
    save_picture,
    write_json,
)
from flows.commands.dissect import check_layers, default_layers
from flows.commands.steer.apply import encoded
from flows.dissection.dissect import Source, samples
from flows.dissection.exemplars import look_at
from flows.dissection.instrument import instrument
from flows.dissection.paint import Brush, Stroke
from flows.dissection.paint import paint as brush_on
from flows.dissection.unit_brush import UNITS, find_units
from flows.models.base import LatentModel

EXEMPLARS = 2000


def paint(
    checkpoint: str,
    label: str,
    box: list[int] | None = None,
    mask: Path | None = None,
    image: Path | None = None,
    test: NonNegativeInt = 0,
    sample: NonNegativeInt | None = None,
    stroke: Stroke = "draw",
    brush: Literal["exemplars", "units"] = "exemplars",
    strength: NonNegativeFloat = 1.0,
    layers: list[str] | None = None,
    exemplars: PositiveInt = EXEMPLARS,
    units: PositiveInt = UNITS,
    order: Literal["agreement", "learned"] = "agreement",
    segmenter: str = "checkpoints/scenes-segmenter",
    resize: bool = False,
    output: Path = Path("painted.png"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Paint a class into a picture of yours, or erase it.

    The picture is encoded; layers are changed where the brush is, and what the model draws then is laid on
    the picture under the brush. Elsewhere its bytes stay as they are.

    A brush of exemplars takes what the layers hold in another picture that has the class at that place, or
    lacks it; of a flow, parts of its code. A brush of units sets those that agree best with the class to what
    they usually are where it is, or to 0.

    Args:
        checkpoint: folder or hub repository of the model.
        label: name of the class, as window, plant, lamp.
        box: where the brush is: left, top, right, bottom in the model's pixels, the last two exclusive.
        mask: a picture file instead, bright where the brush is, of the model's size.
        image: picture file; None takes a test image.
        test: number of the test image.
        sample: number of a sample of the model instead, for a model without an encoder.
        stroke: draw or erase.
        brush: of exemplars or of units.
        strength: 1 changes all, 0 nothing, above 1 exceeds what is usual of units.
        layers: that are changed, one of them; None takes all parts of a flow's code, or any layer.
        exemplars: training images, or samples of a model without an encoder, among which they are looked for.
        units: how many.
        order: of the units: by agreement with the class, or by how much it needs them, which is learned
            (a minute or so).
        segmenter: checkpoint of a segmenter, by which exemplars or units are found.
        resize: crop a picture of another size to a square in the middle and resize it.
        output: file for the picture before and after, side by side.
        json: file for the result.
        device: torch device.
    """
    model = load(checkpoint, device)
    judge = load_segmenter(segmenter, model)
    _, height, width = model.image_shape
    where = brushed(box, mask, height, width)
    space = model.search_space
    code, given = canvas(model, space, image, test, sample, resize)
    if brush == "exemplars":
        check_layers(model, space, layers)
        found: Brush = look_at(model, judge, bank(model, exemplars, space)).brush(model, label, layers)
    else:
        found = find_units(model, judge, space, label, layers or default_layers(model, space), units, order)
    with instrument(model, space) as probe:
        painted = brush_on(probe, code, given, [(found, where, stroke)], strength)
    save_picture(pixels.grid(torch.stack([given, painted.image]), 2, zoom=max(1, 256 // height)), output)
    share = float(painted.changed.double().mean())
    changed = " and ".join(f"{n} units of {layer}" for layer, n in painted.layers.items())
    print(
        f"{stroke} {label}: {changed}; {100 * share:.1f} % of the pixels changed, none beyond the brush's "
        f"margin: {output}"
    )
    result = {
        "checkpoint": checkpoint, "label": label, "stroke": stroke, "brush": brush, "layers": painted.layers,
        "changed": share, "outside_before_putting_back": painted.outside,
    }  # fmt: skip
    write_json(json, result)


def canvas(
    model: LatentModel, space: str, image: Path | None, test: int, sample: int | None, resize: bool
) -> tuple[Tensor, Tensor]:
    """Code (1, D) and bytes (C, H, W) of what is painted on: a picture, a test image or a sample."""
    if sample is not None:
        if image is not None:
            raise ValueError("--image and --sample: say one of them")
        code = model.sample_codes(sample + 1, space, torch.Generator().manual_seed(0))[-1:]
        with torch.no_grad():
            drawn = model.decode(code, space, model.first_class(1))
        return code, pixels.to_bytes(drawn.float().cpu(), model.bins)[0]
    if model.guarantee[space] == "none":
        raise ValueError(f"{type(model).__name__} has no encoder for a picture: paint a --sample 0 of it")
    given = read_pictures([image], model.image_shape, resize) if image else first_test(model, test + 1)[-1:]
    given = pixels.reduce(given, model.bins)
    return encoded(model, given, space), given[0]


def bank(model: LatentModel, n: int, space: str) -> Source:
    """Codes of n training images, or of samples where the model has no encoder or no data."""
    if model.guarantee[space] == "none" or model.description.get("source") is None:
        return samples(model, n, space)
    images = pixels.reduce(data_of(model, None).split("train").first(n).images, model.bins)
    return Source(encoded(model, images, space).to(model.dtype), space, model.first_class(len(images)))


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
