"""Pictures of the studio's page: enlargements, error maps, crops, gauges and strips."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from flows import images as pixels
from flows.display.drawing import draw_rows, enlarge
from flows.editing.history import Start
from flows.inversion.report import error_map as error_maps

SIDE = 384
"""Maximum side of an enlarged picture, in pixels."""


def enlarged(picture: Tensor, side: int = SIDE) -> Image.Image:
    """Enlarge uint8 (C, H, W) by an integer factor, without interpolation; browsers would show it small."""
    return enlarge(picture, side)


def amplified_error(picture: Tensor, reconstruction: Tensor) -> tuple[Image.Image, int]:
    """Error map, the maximum of |difference| over the channels, scaled so that its largest value is white.

    Args:
        picture: uint8 (C, H, W).
        reconstruction: uint8 (C, H, W).

    Returns:
        Enlarged map, and the error that white stands for, in grey levels of 255.
    """
    error = (picture.int() - reconstruction.int()).abs().amax(0)
    largest = int(error.max())
    scaled = (255 * error // max(1, largest)).to(torch.uint8)
    return enlarged(scaled[None]), largest


def crop_of(start: Start) -> str:
    """Part of the upload that was kept, in brackets; empty if all of it was, at its size."""
    if start.upload is None or start.box is None:
        return ""
    _, height, width = start.upload.shape
    crop = pixels.crop_text((width, height), start.box, *start.picture.shape[1:])
    return f" ({crop})" if crop else ""


def cropped_from(upload: Tensor, box: pixels.Box) -> Image.Image:
    """Upload with a frame around the part that is kept; the rest is darkened."""
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
    """Scale of typicality, with a band that contains 90 % of the samples and a mark at the code.

    Args:
        value: Typicality of the code.
        usual: Typicality of samples, (n,).
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
    """Row of pictures, uint8 (C, H, W), each below its heading."""
    return draw_rows([("", torch.stack(list(pictures)))], len(heads), side, list(heads))


def compared(picture: Tensor, reconstructions: Mapping[str, Tensor], side: int = 128) -> Image.Image:
    """Picture beside its reconstructions, each above its error map, four times as bright.

    Args:
        picture: uint8 (C, H, W).
        reconstructions: Name of each reconstruction to uint8 (C, H, W).
        side: Side of each image, in pixels.
    """
    shown = torch.stack([picture, *reconstructions.values()])
    errors = error_maps(picture.expand_as(shown), shown).expand_as(shown)
    return draw_rows([("", shown), ("", errors)], len(shown), side, ["input", *reconstructions])


def change_summary(before: Tensor, after: Tensor) -> str:
    """Share of the pixels that differ, as text."""
    share = float((before != after).any(0).double().mean())
    return "no pixel differs" if share == 0 else f"{100 * share:.1f} % of the pixels differ"
