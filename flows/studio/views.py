"""What the studio shows: small pictures enlarged, error maps, crops, gauges, strips."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from flows import images as pixels
from flows.inversion.report import error_map as error_maps
from flows.page import draw_rows

SIDE = 384
"""Of an enlarged picture, pixels at most."""


def enlarged(picture: Tensor, side: int = SIDE) -> Image.Image:
    """uint8 (C, H, W), every pixel a square: small pictures are shown at their own size otherwise."""
    zoom = max(1, side // max(picture.shape[1:]))
    small = pixels.to_pillow(picture)
    return small.resize((small.width * zoom, small.height * zoom), Image.Resampling.NEAREST)


def amplified_error(picture: Tensor, back: Tensor) -> tuple[Image.Image, int]:
    """|difference|, the largest of the channels, black to white, and the largest: what white means.

    Args:
        picture: uint8 (C, H, W).
        back: likewise.
    """
    apart = (picture.int() - back.int()).abs().amax(0)
    most = int(apart.max())
    shown = (255 * apart // max(1, most)).to(torch.uint8)
    return enlarged(shown[None]), most


def cropped_from(upload: Tensor, box: pixels.Box) -> Image.Image:
    """The upload, with what is cut away darkened and a frame around what is kept."""
    whole = pixels.to_pillow(upload).convert("RGB")
    shade = Image.blend(whole, Image.new("RGB", whole.size, "black"), 0.55)
    shade.paste(whole.crop(box), box[:2])
    scale = SIDE / max(shade.size)
    shown = shade.resize((max(1, round(shade.width * scale)), max(1, round(shade.height * scale))))
    frame = [round(edge * scale) for edge in box]
    ImageDraw.Draw(shown).rectangle(
        (frame[0], frame[1], frame[2] - 1, frame[3] - 1), outline="#ff8800", width=2
    )
    return shown


def gauge(value: float, usual: Tensor) -> Image.Image:
    """Where a typicality lies on a line: the band is where 90 % of samples are, the mark where the code is.

    Args:
        value: of the code.
        usual: of samples, (n,).
    """
    low, high = (float(usual.quantile(share)) for share in (0.05, 0.95))
    reach = max(0.1, 1.2 * abs(value), 1.5 * max(abs(low), abs(high)))
    width, height = SIDE, 46

    def at(x: float) -> int:
        return round((x / reach + 1) / 2 * (width - 1))

    shown = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(shown)
    pen.rectangle((at(low), 6, max(at(high), at(low) + 2), 24), fill="#9ecae1")
    pen.line((0, 15, width, 15), fill="#555555")
    for x in (-reach, 0.0, reach):
        pen.line((at(x), 10, at(x), 20), fill="#555555")
        text = f"{x:+.2f}" if x else "0"
        pen.text((min(max(at(x) - 12, 0), width - 30), 30), text, fill="#333333")
    pen.polygon([(at(value), 15), (at(value) - 6, 2), (at(value) + 6, 2)], fill="#d62728")
    return shown


def strip(pictures: Sequence[Tensor], heads: Sequence[str], side: int = 96) -> Image.Image:
    """Pictures uint8 (C, H, W) side by side, each under its word."""
    return draw_rows([("", torch.stack(list(pictures)))], len(heads), side, list(heads))


def compared(picture: Tensor, came: Mapping[str, Tensor], side: int = 128) -> Image.Image:
    """A picture beside what came back of it, by name, each over its error map, four times as bright.

    Args:
        picture: uint8 (C, H, W).
        came: likewise, of the same shape.
        side: of a picture, pixels.
    """
    shown = torch.stack([picture, *came.values()])
    errors = error_maps(picture.expand_as(shown), shown).expand_as(shown)
    return draw_rows([("", shown), ("", errors)], len(shown), side, ["input", *came])


def change_summary(before: Tensor, after: Tensor) -> str:
    """How much of a picture differs, in words."""
    share = float((before != after).any(0).double().mean())
    return "the very same bytes" if share == 0 else f"{100 * share:.1f} % of the pixels differ"
