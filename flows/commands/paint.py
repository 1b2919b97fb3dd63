"""flows paint: draw and erase classes in pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from flows import images as pixels
from flows.commands.common import write_json
from flows.commands.dissect import check_layers
from flows.commands.steer.apply import given_images
from flows.dissection.instrument import default_layers, instrument
from flows.dissection.paint import Brush, Painted, Stroke
from flows.dissection.paint import paint as paint_on
from flows.dissection.unit_brush import UNITS, find_units
from flows.editing.editor import EXEMPLARS, exemplars_of
from flows.errors import Unsupported, UserError
from flows.opening import load_segmenter, open_model, open_picture
from flows.page import draw_rows, save_picture
from flows.semantics.base import Segmenter

GRAMMAR = "draw|erase CLASS [LEFT TOP RIGHT BOTTOM | MASK-FILE]"


def paint(
    checkpoint: str,
    strokes: list[str],
    images: list[Path] | None = None,
    test: NonNegativeInt = 0,
    n: PositiveInt = 8,
    brush: Literal["exemplars", "units"] = "exemplars",
    strength: NonNegativeFloat = 1.0,
    layers: list[str] | None = None,
    exemplars: PositiveInt = EXEMPLARS,
    units: PositiveInt = UNITS,
    order: Literal["agreement", "learned"] = "agreement",
    segmenter: str | None = None,
    temperature: PositiveFloat = 1.0,
    seed: NonNegativeInt = 0,
    resize: bool = False,
    output: Path = Path("painted.png"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Paint classes into pictures of yours, test images or samples, and erase them.

    Pictures are encoded; layers are changed where the brush is, and what the model draws then is laid on the
    picture under the brush. Elsewhere its bytes stay as they are.

    A brush of exemplars takes what the layers hold in another picture that has the class at that place, or
    lacks it; of a flow, parts of its code. A brush of units sets those that agree best with the class to what
    they usually are where it is, or to 0.

    Args:
        checkpoint: folder or hub repository of the model.
        strokes: one after the other, as "draw window 10 6 20 14" or "erase banner": what, a class, and where:
            left, top, right, bottom in the model's pixels, the last two exclusive, or a picture file of its
            size that is bright where the brush was; everywhere without.
        images: picture files.
        test: so many images of the model's test set instead.
        n: samples where neither images nor test are given.
        brush: of exemplars or of units.
        strength: 1 changes all, 0 nothing, above 1 exceeds what is usual of units.
        layers: that are changed, one of them; None takes all parts of a flow's code, or any layer.
        exemplars: training images, or samples of a model without an encoder, among which they are looked for.
        units: how many.
        order: of the units: by agreement with the class, or by how much it needs them, which is learned
            (a minute or so).
        segmenter: checkpoint of a segmenter, by which exemplars or units are found; None takes the shipped
            one for its images.
        temperature: of samples.
        seed: of samples.
        resize: crop pictures of another size to a square in the middle and resize them.
        output: file for the pictures, in rows: as they were, and after each stroke.
        json: file for the result.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    judge = load_segmenter(segmenter, model)
    space = model.search_space
    asked = [parse_stroke(stroke, judge, *model.image_shape[1:]) for stroke in strokes]
    check_layers(model, space, layers)
    if (images or test) and not model.check_space(space).encodes:
        raise Unsupported(f"{type(model).__name__} has no encoder for pictures: paint samples of it, --n 8")
    given, known = given_images(model, images, test, resize)
    if given is None:
        codes = model.sample(n, space, seed, temperature)
        given = model.decode_bytes(codes)
    else:
        codes = model.encode_bytes(given, space, known)
    labels = dict.fromkeys(each.label for each in asked)
    brushes: dict[str, Brush]
    if brush == "exemplars":
        pictures = exemplars_of(model, judge, exemplars, space)
        brushes = {label: pictures.brush(model, label, layers) for label in labels}
    else:
        chosen = layers or default_layers(model, space)
        brushes = {label: find_units(model, judge, space, label, chosen, units, order) for label in labels}
    done = [(brushes[each.label], each.where, each.stroke) for each in asked]
    rows, painted = [], list[Painted]()
    with instrument(model, space) as probe:
        for code, picture in zip(codes.split(1), given, strict=True):
            painted.append(paint_on(probe, code, picture, done, strength))
            rows.append(("", torch.stack([picture, *painted[-1].stages])))
    head = ["input", *(f"{each.stroke} {each.label}" for each in asked)]
    save_picture(draw_rows(rows, len(head), 96, head), output)
    told = [as_result(each) for each in painted]
    changed = sum(each["changed"] for each in told) / len(told)
    print(
        f"{len(done)} strokes on {len(given)} pictures: {100 * changed:.1f} % of the pixels changed, none "
        f"beyond a brush's margin: {output}"
    )
    write_json(json, {"checkpoint": checkpoint, "strokes": strokes, "brush": brush, "pictures": told})


def as_result(painted: Painted) -> dict[str, Any]:
    """Plain values of a painted picture."""
    return {
        "layers": painted.layers,
        "changed": float(painted.changed.double().mean()),
        "outside_before_putting_back": painted.outside,
    }


@dataclass(frozen=True)
class Asked:
    """A stroke: draw or erase, a class, and bool (H, W) where the brush was."""

    stroke: Stroke
    label: str
    where: Tensor


def parse_stroke(text: str, judge: Segmenter, height: int, width: int) -> Asked:
    """`draw window 10 6 20 14`, `erase banner`, `draw plant mask.png`; names of classes may have spaces.

    Raises:
        ValueError: it is none, or there is no such class, or the place is not in the picture.
    """
    stroke, _, rest = text.strip().partition(" ")
    if stroke not in get_args(Stroke) or not rest.strip():
        raise UserError(f"--strokes: expected {GRAMMAR}, got {text!r}")
    label = max((name for name in judge.classes if f"{rest} ".startswith(f"{name} ")), key=len, default="")
    if not label:
        known = ", ".join(judge.classes)
        raise UserError(f"--strokes: there is no class in {text!r}; the segmenter has {known}")
    place = rest[len(label) :].strip()
    return Asked(cast(Stroke, stroke), label, brush_mask(place, height, width))


def brush_mask(place: str, height: int, width: int) -> Tensor:
    """bool (height, width), where the brush is: four numbers, a picture file, or everywhere."""
    if not place:
        return torch.ones(height, width, dtype=torch.bool)
    words = place.split()
    if all(word.lstrip("-").isdigit() for word in words):
        box = [int(word) for word in words]
        inside = len(box) == 4 and 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
        if not inside:
            raise UserError(f"--strokes: expected left top right bottom within {width}×{height}, got {place}")
        found = torch.zeros(height, width, dtype=torch.bool)
        found[box[1] : box[3], box[0] : box[2]] = True
        return found
    if not Path(place).is_file():
        raise UserError(f"--strokes: expected {GRAMMAR}; there is no file {place}")
    grey = pixels.from_pillow(open_picture(Path(place), 1), 1)[0]
    if grey.shape != (height, width):
        raise UserError(
            f"--strokes: expected {width}×{height} pixels, {place} has {grey.shape[1]}×{grey.shape[0]}"
        )
    return grey > 127
