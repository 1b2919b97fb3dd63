"""`flows paint`: draw or erase classes in images."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.commands.common import Fps, check_outputs, check_unused, write_json
from flows.commands.given import Given, GivenSettings, read_given
from flows.core.bounds import NonNegativeFloat, PositiveInt
from flows.core.options import Options
from flows.data.decode import decode, named
from flows.display.drawing import Drawing, draw_rows
from flows.dissection.paint import Brush, Painted, Stroke
from flows.dissection.paint import paint as paint_on
from flows.dissection.probe import default_layers, instrument
from flows.dissection.study import check_layers
from flows.dissection.unit_brush import UNITS, find_units
from flows.dissection.units import UnitOrder
from flows.editing.editor import EXEMPLARS, exemplars_of
from flows.errors import UserError
from flows.inversion.found import Adaptation, Found, offset
from flows.models.base import LatentModel
from flows.opening import load_segmenter, open_model
from flows.semantics.base import Segmenter

FPS = 1.0
GRAMMAR = "draw|erase CLASS [LEFT TOP RIGHT BOTTOM | MASK-FILE]"


@dataclass(frozen=True, kw_only=True)
class BrushSettings(Options):
    """Settings of the brush.

    Attributes:
        brush: Brush of exemplars or of units.
        strength: Strength of the strokes: 0 changes nothing, 1 changes all; above 1, units exceed their mean
            activation on the class.
        layers: Candidate layers, one of which is changed; None takes, for exemplars of a flow, all parts of
            the code together, otherwise the best layer.
        exemplars: Number of training images, or samples for a model without an encoder, among which
            exemplars are found.
        units: Number of units in the brush `units`.
        order: Order of these units: by IoU with the class, or by their learned effect on it, which takes
            about one minute.
    """

    brush: Literal["exemplars", "units"] = "exemplars"
    strength: NonNegativeFloat = 1.0
    layers: list[str] | None = None
    exemplars: PositiveInt = EXEMPLARS
    units: PositiveInt = UNITS
    order: UnitOrder = "agreement"

    def check(self) -> None:
        """Raise UserError if an option has no effect on the brush."""
        if self.brush == "exemplars" and (self.units, self.order) != (UNITS, "agreement"):
            raise UserError("--units and --order are those of --brush units; leave them out")

    def brushes(
        self, model: LatentModel, segmenter: Segmenter, space: str, labels: Iterable[str]
    ) -> dict[str, Brush]:
        """Brush of each class."""
        check_layers(model, space, self.layers)
        if self.brush == "exemplars":
            pictures = exemplars_of(model, segmenter, self.exemplars, space)
            return {label: pictures.brush(model, label, self.layers) for label in labels}
        layers = self.layers or default_layers(model, space)
        return {
            label: find_units(model, segmenter, space, label, layers, self.units, self.order)
            for label in labels
        }


def paint(
    checkpoint: str,
    strokes: list[str],
    settings: BrushSettings = BrushSettings(),
    given: GivenSettings = GivenSettings(),
    segmenter: str | None = None,
    segmenter_classes: Path | None = None,
    output: Path = Path("painted.png"),
    fps: Fps = FPS,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Draw or erase classes in pictures, test images or samples.

    Images are encoded, layers are changed under the brush, and the decoded result replaces the image there.
    Bytes outside the brush and its margin stay as they are.

    The brush `exemplars` copies activations of another image that has the class at that location, or does
    not have it; for a flow, parts of the code. The brush `units` sets the units with the highest IoU to their
    mean activation on the class, or to 0.

    Args:
        checkpoint: Folder or name of the model.
        strokes: Strokes in their order, such as "draw window 10 6 20 14", "draw plant mask.png" or "erase
            banner": draw or erase, a class, and a region. A region is left, top, right and bottom in the
            model's pixels, the last two exclusive, or a picture file of the model's size that is bright under
            the brush. Without a region, the brush covers the whole image.
        settings: Settings of the brush.
        given: Images or codes to paint on.
        segmenter: Checkpoint of a segmenter, which selects exemplars and units; None takes the included one
            for the model's images.
        segmenter_classes: File with the names of the classes, one per line, if the segmenter is a file of
            another project: TorchScript, torch.export, or weights of torchvision.
        output: Picture file with one row per image: the input, and the image after each stroke; a .gif,
            .webp or .mp4 file for an animation with one frame per stroke; or a folder (no suffix) for one PNG
            per painted image at the model's size.
        fps: Frames per second of an animation.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(drawing=output, json=json, animated=True, inputs=[*given.files, *mask_files(strokes)])
    check_unused(output, fps=fps != FPS)
    settings.check()
    model = open_model(checkpoint, device)
    loaded = load_segmenter(segmenter, model, segmenter_classes)
    requests = [parse_stroke(stroke, loaded, *model.image_shape[1:]) for stroke in strokes]
    read = read_given(model, model.search_space, given)
    labels = dict.fromkeys(each.label for each in requests)
    brushes = settings.brushes(model, loaded, read.found.codes.space, labels)
    done = [(brushes[each.label], each.where, each.stroke) for each in requests]
    painted = [
        paint_one(model, read.found[i], image, done, settings.strength) for i, image in enumerate(read.images)
    ]
    head = ["input", *(f"{each.stroke} {each.label}" for each in requests)]
    written = drawing_of(read, painted, head).save(output, fps)
    results = [
        {"name": name, **painted_dict(each)} for name, each in zip(read.found.names, painted, strict=True)
    ]
    changed = sum(each["changed"] for each in results) / len(results)
    print(
        f"{len(done)} strokes on {len(painted)} images: {100 * changed:.1f} % of the pixels changed, none "
        f"outside the brushes and their margin: {written}"
    )
    inputs = {"checkpoint": checkpoint, "strokes": strokes, "brush": settings.brush}
    write_json(json, {**inputs, "pictures": results})


def paint_one(
    model: LatentModel,
    found: Found,
    image: Tensor,
    strokes: list[tuple[Brush, Tensor, Stroke]],
    strength: float,
) -> Painted:
    """Paint on one image, uint8 (C, H, W), with what belongs to its code besides it."""
    own, adaptation = found.model_for(model, 0), found.adaptation(0) or Adaptation()
    with offset(own, adaptation), instrument(own, found.codes.space) as probe:
        return paint_on(probe, found.codes.to(own), image, strokes, strength)


def drawing_of(given: Given, painted: Sequence[Painted], head: Sequence[str]) -> Drawing:
    """Painted images as a sheet, as an animation, or each at its size; `head` names the stages."""
    stages = [torch.stack([image, *each.stages]) for image, each in zip(given.images, painted, strict=True)]

    def frame(i: int) -> Image.Image:
        return draw_rows([("", torch.stack([strip[i] for strip in stages]))], len(stages), 96, [head[i]])

    return Drawing(
        images=lambda: (given.found.names, [each.image for each in painted]),
        frames=lambda: [frame(i) for i in range(len(head))],
        sheet=lambda: draw_rows([("", strip) for strip in stages], len(head), 96, head),
    )


def painted_dict(painted: Painted) -> dict[str, Any]:
    """Plain values of a painted image."""
    return {
        "layers": painted.layers,
        "changed": float(painted.changed.double().mean()),
        "outside_before_putting_back": painted.outside,
    }


@dataclass(frozen=True)
class ParsedStroke:
    """Stroke of the command line.

    Attributes:
        stroke: Draw or erase.
        label: Name of the class.
        where: bool (H, W), brush.
    """

    stroke: Stroke
    label: str
    where: Tensor


def mask_files(strokes: Sequence[str]) -> list[Path]:
    """Files that strokes name as their masks."""
    ends = [" ".join(words[i:]) for each in strokes for words in [each.split()] for i in range(2, len(words))]
    return [Path(end) for end in ends if Path(end).is_file()]


def parse_stroke(text: str, segmenter: Segmenter, height: int, width: int) -> ParsedStroke:
    """Parse a stroke such as `draw window 10 6 20 14` or `erase banner`; class names may contain spaces.

    Raises:
        UserError: The text is no stroke, there is no such class, or the region is not within the image.
    """
    stroke, _, rest = text.strip().partition(" ")
    if stroke not in get_args(Stroke) or not rest.strip():
        raise UserError(f"--strokes: expected {GRAMMAR}, got {text!r}")
    label = max(
        (name for name in segmenter.classes if f"{rest} ".startswith(f"{name} ")), key=len, default=""
    )
    if not label:
        known = ", ".join(segmenter.classes)
        raise UserError(f"--strokes: there is no class in {text!r}; the segmenter has {known}")
    place = rest[len(label) :].strip()
    return ParsedStroke(cast(Stroke, stroke), label, brush_mask(place, height, width))


def brush_mask(place: str, height: int, width: int) -> Tensor:
    """Brush as bool (height, width), from four numbers or a picture file; everywhere if `place` is empty."""
    if not place:
        return torch.ones(height, width, dtype=torch.bool)
    words = place.split()
    if all(re.fullmatch(r"-?[0-9]+", word) for word in words):
        box = [int(word) for word in words]
        inside = len(box) == 4 and 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
        if not inside:
            raise UserError(f"--strokes: expected left top right bottom within {width}×{height}, got {place}")
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        return mask
    if not Path(place).is_file():
        raise UserError(f"--strokes: expected {GRAMMAR}; there is no file {place}")
    bright, kind = mask_values(Path(place))
    if bright.shape != (height, width):
        raise UserError(
            f"--strokes: expected {width}×{height} pixels, {place} has {bright.shape[1]}×{bright.shape[0]}"
        )
    if not (bright > 127).any():
        raise UserError(
            f"--strokes: the brush is nowhere: expected {kind} above 127 in {place}, got at most "
            f"{int(bright.max())}"
        )
    return bright > 127


def mask_values(path: Path) -> tuple[Tensor, str]:
    """Values of a mask, uint8 (height, width), and their kind: alpha if a part is transparent, or brightness.

    A mask drawn on a transparent layer has its strokes in alpha; their colour may be any.
    """
    with named(path):
        picture = decode(path)
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    if alpha is not None and (values := pixels.from_pillow(alpha, 1)[0]).min() < 255:
        return values, "alpha"
    return pixels.from_pillow(pixels.flatten(picture, 1), 1)[0], "brightness"
