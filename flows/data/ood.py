"""Out-of-distribution test images for the certificate of the round trip.

An exact round trip on training images proves little; the inverse fails far away from the data. The suite is
the same on every machine: photographs, text, digits, noise, constants and the patterns that are hardest,
one-pixel checkerboards and stripes.
"""

import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from flows import images
from flows.core.extras import optional

__all__ = ["ood_images"]

Shape = tuple[int, int, int]

ASSETS = Path(__file__).parent / "assets"
PHOTOGRAPHS = ("cat", "person", "coffee", "rocket", "galaxies")
SCIKIT_LEARN = {"temple": "china.jpg", "flower": "flower.jpg"}
SENTENCES = (
    "what goes in comes out",
    "exact means exact, or it is not exact",
    "0123456789 +-*/= ()[]{} <> %&?!",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
)


def ood_images(image_shape: Shape, bins: int = 256, samples: Tensor | None = None) -> dict[str, Tensor]:
    """Return the suite at the shape and grey levels of a model, in the order of the tables.

    Args:
        image_shape: (C, H, W) of the model. Photographs and digits are grey unless C is 3.
        bins: Number of grey levels of the model; every byte is the lowest of its bin.
        samples: uint8 (n, C, H, W), test images of the model's data set, which are added upside down and
            inverted.

    Returns:
        Mapping from name to images, uint8 (n, C, H, W); n differs between names.

    Raises:
        UserError: `samples` is not uint8 of that shape.
    """
    suite = photographs(image_shape)
    every_photograph = torch.cat(list(suite.values()))
    suite["upside-down photographs"] = every_photograph.flip(-2)
    suite["inverted photographs"] = 255 - every_photograph
    if samples is not None:
        images.check_bytes(samples, image_shape)
        suite["upside-down test"] = samples.flip(-2)
        suite["inverted test"] = 255 - samples
    suite |= {"text": text(image_shape), "digits": digits(image_shape)}
    suite |= noise(image_shape) | constants(image_shape) | patterns(image_shape)
    return {name: images.reduce(pictures, bins) for name, pictures in suite.items()}


# Photographs, text, digits ------------------------------------------------------------------------


def photographs(image_shape: Shape) -> dict[str, Tensor]:
    """Return seven photographs by name, each whole and in four quarters: uint8 (5, C, H, W)."""
    samples = optional("sklearn.datasets")  # importing takes a second
    opened = {name: read_asset(name) for name in PHOTOGRAPHS}
    for name, file in SCIKIT_LEARN.items():
        opened[name] = Image.fromarray(samples.load_sample_image(file))
    return {name: crops(picture, image_shape) for name, picture in opened.items()}


def read_asset(name: str) -> Image.Image:
    """Read a photograph of the assets, 96×96 pixels."""
    with Image.open(ASSETS / f"{name}.png") as opened:
        return opened.convert("RGB")


def crops(picture: Image.Image, image_shape: Shape) -> Tensor:
    """Return a picture and its four quarters, each cropped to the shape: uint8 (5, C, H, W)."""
    right, bottom = picture.size
    x, y = right // 2, bottom // 2
    corners = [(0, 0, x, y), (x, 0, right, y), (0, y, x, bottom), (x, y, right, bottom)]
    parts = [picture, *(picture.crop(corner) for corner in corners)]
    return torch.stack([fit_to_shape(part, image_shape) for part in parts])


def fit_to_shape(picture: Image.Image, image_shape: Shape) -> Tensor:
    """Centre-crop to the aspect ratio of `image_shape` and resize: uint8 (C, H, W)."""
    channels, height, width = image_shape
    fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return images.from_pillow(fitted, 3 if channels == 3 else 1).expand(image_shape).clone()


def text(image_shape: Shape) -> Tensor:
    """Render four sentences, black on white and white on black: uint8 (8, C, H, W)."""
    black_on_white = torch.stack([write(sentence, image_shape) for sentence in SENTENCES])
    return torch.cat([black_on_white, 255 - black_on_white])


def write(sentence: str, image_shape: Shape) -> Tensor:
    """Render a sentence with line breaks, cut off at the bottom: uint8 (C, H, W)."""
    _, height, width = image_shape
    font = ImageFont.load_default(size=max(8, height // 4))
    columns = max(1, int(width // font.getlength("n")))
    page = Image.new("L", (width, height), "white")
    lines = "\n".join(textwrap.wrap(sentence, columns))
    ImageDraw.Draw(page).multiline_text((0, -1), lines, "black", font, spacing=0)
    return images.from_pillow(page, 1).expand(image_shape).clone()


def digits(image_shape: Shape) -> Tensor:
    """Return one handwritten digit of each class from scikit-learn, resized: uint8 (10, C, H, W)."""
    known = optional("sklearn.datasets").load_digits()  # importing takes a second
    levels = torch.from_numpy(known.images[:10]).to(torch.uint8)
    return torch.stack([fit_to_shape(images.to_pillow(level[None] * 15), image_shape) for level in levels])


# Noise, constants, patterns -----------------------------------------------------------------------


def noise(image_shape: Shape) -> dict[str, Tensor]:
    """Return independent bytes, uniform or only 0 and 255: uint8 (8, C, H, W) each."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(256, (16, *image_shape), generator=generator, dtype=torch.uint8)
    return {"uniform noise": values[:8], "black-or-white noise": (values[8:] > 127).byte() * 255}


def constants(image_shape: Shape) -> dict[str, Tensor]:
    """Return black, white and mid grey: uint8 (1, C, H, W) each."""
    greys = {"black": 0, "white": 255, "mid grey": 128}
    return {k: torch.full((1, *image_shape), v, dtype=torch.uint8) for k, v in greys.items()}


def patterns(image_shape: Shape) -> dict[str, Tensor]:
    """Return checkerboards, stripes, single pixels and gradients: uint8 (n, C, H, W) each."""
    _, height, width = image_shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    suite = {f"checkerboard of {side} px": both_phases((y // side + x // side) % 2) for side in (1, 2, 4, 8)}
    suite["horizontal stripes"] = both_phases(y % 2)
    suite["vertical stripes"] = both_phases(x % 2)
    corner, centre = (y + x == 0), (y == height // 2) & (x == width // 2)
    suite["single white pixel"] = torch.stack([corner, centre]) * 255
    across, down = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1)
    suite["gradients"] = torch.stack([across, down, (across + down) // 2, (across - down).abs()])
    return {k: v.byte()[:, None].expand(-1, *image_shape).clone() for k, v in suite.items()}


def both_phases(pattern: Tensor) -> Tensor:
    """Return a pattern of 0 and 1 and its complement, in black and white: (2, H, W)."""
    return torch.stack([pattern, 1 - pattern]) * 255
