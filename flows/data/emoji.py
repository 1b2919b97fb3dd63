"""Emoji: about 3,800 colour images whose names state their differences. No download.

Debian's font NotoColorEmoji has one bitmap of 136×128 pixels per emoji; the PyPI package `emoji` has their
names. A runner exists as woman and as man, in five skin tones, facing left and right: pairs of images that
differ in one attribute are ground truth for steering.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageDraw, ImageFont, features
from torch import Tensor

from flows import images
from flows.data.base import ArraySplit, Attribute, ImageData, SplitName, hashed_split
from flows.errors import DataMissing, missing_extra
from flows.storage.files import StrPath, expand

__all__ = ["Emoji"]

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")

# The only size at which the font has bitmaps, and the side of a canvas that fits them undistorted.
FONT_SIZE = 109
CANVAS = 136

# An image has an attribute if its name contains one of these phrases as whole words: "cat with wry
# smile" has none, "woman's hat" is not a woman, "medium-light skin tone" is not "light skin tone".
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "light":        ("light skin tone",),
    "medium-light": ("medium-light skin tone",),
    "medium":       ("medium skin tone",),
    "medium-dark":  ("medium-dark skin tone",),
    "dark":         ("dark skin tone",),
    "woman":        ("woman", "women"),
    "man":          ("man", "men"),
    "person":       ("person", "people"),
    "child":        ("boy", "girl", "child", "baby"),
    "face":         ("face",),
    "hair":         ("hair",),
    "hand":         ("hand", "hands"),
    "heart":        ("heart", "hearts"),
    "wheelchair":   ("wheelchair",),
    "facing right": ("facing right",),
}  # fmt: skip

# Prefix of a family's name in the hash that selects its split. With this value every attribute occurs
# in all three splits, although only six families face right.
SALT = "526"

# Tone, gender and side, which distinguish the members of a family.
VARIANT = re.compile(
    r"\b((medium-)?light|(medium-)?dark|medium) skin tone\b|\bfacing right\b"
    r"|\b(wom[ae]n|m[ae]n|person|people|boy|girl|child)\b(?!’)"
)


class EmojiSplit(ArraySplit):
    """Split with the names of its images, in their order."""

    def __init__(self, pixels: Tensor, attributes: Tensor, names: tuple[str, ...]):
        super().__init__(pixels, attributes=attributes)
        self.names = names


class Emoji(ImageData):
    """Emoji over white, with attributes derived from their names.

    Splits: about 80 % for training and 10 % each for validation and test, by family, so that the tones and
    genders of one image stay together; 3,005, 354 and 412 with the font of Debian 12. The split of a family
    depends on its name alone, not on what a newer font adds.

    Args:
        size: Side of the square images in pixels.
        font: Path of a bitmap colour font like Debian's NotoColorEmoji.
    """

    name = "emoji"
    attributes = tuple(Attribute(attribute, "binary") for attribute in ATTRIBUTES)

    path_arguments = ("font",)

    def __init__(self, size: Literal[32, 64] = 32, font: StrPath = FONT):
        self.size = size
        self.font = expand(font)
        self.image_shape = (3, size, size)
        self.transform = f"136×128 over white, padded to a square and resized to {size}×{size}"

    @cached_property
    def _rendered(self) -> tuple[tuple[str, ...], Tensor]:
        """Names and images, uint8 (n, 3, size, size), with the first name of every distinct image."""
        distinct: dict[bytes, tuple[str, Tensor]] = {}
        font = open_font(self.font)
        for characters, name in characters_by_name():
            if has_picture(font, characters):
                pixels = render_emoji(font, characters, self.size)
                distinct.setdefault(pixels.numpy().tobytes(), (name, pixels))
        names, pictures = zip(*distinct.values(), strict=True)
        return names, torch.stack(pictures)

    def split(self, name: SplitName) -> EmojiSplit:
        names, pixels = self._rendered
        rows = [i for i, n in enumerate(names) if split_of(n) == name]
        chosen = tuple(names[i] for i in rows)
        attributes = torch.tensor([attributes_of(n) for n in chosen], dtype=torch.uint8)
        return EmojiSplit(pixels[rows], attributes, chosen)


# Names --------------------------------------------------------------------------------------------


def characters_by_name() -> list[tuple[str, str]]:
    """Return pairs (characters, English name) of all emoji, sorted by name."""
    try:
        from emoji import EMOJI_DATA, STATUS
    except ImportError as error:
        raise missing_extra("emoji need the package `emoji` for their names", "data", error) from error
    full = STATUS["fully_qualified"]
    pairs = [(c, e["en"]) for c, e in EMOJI_DATA.items() if e["status"] == full]
    return sorted(((c, n.strip(":").replace("_", " ")) for c, n in pairs), key=lambda pair: pair[1])


def attributes_of(name: str) -> list[int]:
    """Return 1 for every attribute that the name has, else 0, in the order of ATTRIBUTES."""
    return [int(any(f" {p} " in f" {name} " for p in phrases)) for phrases in ATTRIBUTES.values()]


def family(name: str) -> str:
    """Return the name without tone, gender and side: "woman running dark skin tone" becomes "running"."""
    return " ".join(VARIANT.sub("", name).split())


def split_of(name: str) -> SplitName:
    """Return the split of the emoji with this name."""
    return hashed_split(f"{SALT} {family(name)}", validation=0.1, test=0.1)


# Pictures -----------------------------------------------------------------------------------------


def open_font(path: Path) -> ImageFont.FreeTypeFont:
    """Open the font at FONT_SIZE with the layout engine that joins characters into one glyph."""
    if not features.check("raqm"):
        raise DataMissing(
            "emoji of several characters need Pillow's layout engine raqm, which is not available; "
            "run `apt install libfribidi0`, which Pillow's wheels need for it"
        )
    try:
        return ImageFont.truetype(path, FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise DataMissing(
            f"no colour font with bitmaps of size {FONT_SIZE} at {path} ({error}); "
            "run `apt install fonts-noto-color-emoji`, or set data.font"
        ) from error


def has_picture(font: ImageFont.FreeTypeFont, characters: str) -> bool:
    """Whether the font renders these characters as exactly one glyph."""
    return font.getbbox(characters) == font.getbbox("😀")


def render_emoji(font: ImageFont.FreeTypeFont, characters: str, size: int) -> Tensor:
    """Render one emoji over white: uint8 (3, size, size)."""
    canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
    left, top, right, bottom = font.getbbox(characters)
    corner = (CANVAS - right - left) // 2, (CANVAS - bottom - top) // 2
    ImageDraw.Draw(canvas).text(corner, characters, font=font, embedded_color=True)
    return images.from_pillow(images.centre_square(canvas, size), 3)
