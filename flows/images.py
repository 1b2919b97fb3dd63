"""Conversion of images between bytes, bins, the unit interval and [−1, 1].

Data sets contain bytes; models take floats in [0, 1]. The unit interval is divided into `bins` bins of equal
width: 256 for ordinary 8-bit images, 32 for Glow's 5-bit faces, 17 for scikit-learn's digits. A byte is in
bin `byte · bins // 256`, and the centre of bin k is (k + ½) / bins. Floats are converted back by a floor, so
a reconstruction with an error below half a bin gives the same byte.
"""

import io
import math
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from flows.errors import UserError


def check_bytes(images: Tensor, image_shape: tuple[int, int, int] | None = None) -> None:
    """Raise UserError unless `images` is uint8 of shape (batch, *image_shape)."""
    if images.dtype != torch.uint8:
        raise UserError(
            f"expected uint8 images in [0, 255], got {images.dtype}; "
            "flows.images.to_bytes converts floats in [0, 1]"
        )
    check_shape(images, image_shape)


def check_unit(images: Tensor, image_shape: tuple[int, int, int] | None = None) -> None:
    """Raise UserError unless `images` is floating point, of shape (batch, *image_shape), within [0, 1]."""
    if not images.is_floating_point():
        raise UserError(
            f"expected float images in [0, 1], got {images.dtype}; flows.images.to_unit converts bytes"
        )
    check_shape(images, image_shape)
    if torch.compiler.is_compiling():
        return  # a graph cannot branch on values
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        low, high = float(images.min()), float(images.max())
        raise UserError(f"expected images within [0, 1], got values from {low:.4g} to {high:.4g}")


def check_shape(images: Tensor, image_shape: tuple[int, int, int] | None) -> None:
    """Raise UserError unless the shape of `images` is (batch, *image_shape)."""
    if images.dim() != 4 or (image_shape and tuple(images.shape[1:]) != tuple(image_shape)):
        expected = ", ".join(map(str, image_shape or ("C", "H", "W")))
        raise UserError(f"expected images of shape (batch, {expected}), got {tuple(images.shape)}")


def bin_index(images: Tensor, bins: int = 256) -> Tensor:
    """Bin of every byte: uint8 in [0, 255] to uint8 in [0, bins)."""
    return images if bins == 256 else (images.int() * bins // 256).to(torch.uint8)


def bin_byte(index: Tensor, bins: int = 256) -> Tensor:
    """Lowest byte of every bin; `bin_index(bin_byte(k)) == k`."""
    return index if bins == 256 else ((index.int() * 256 + bins - 1) // bins).to(torch.uint8)


def reduce(images: Tensor, bins: int = 256) -> Tensor:
    """Quantise images to `bins` bins: every byte is replaced by the lowest byte of its bin."""
    return bin_byte(bin_index(images, bins), bins)


def to_unit(images: Tensor, bins: int = 256, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert uint8 images to the centres of their bins, floats in (0, 1)."""
    check_bytes(images)
    return (bin_index(images, bins).to(dtype) + 0.5) / bins


def to_bytes(images: Tensor, bins: int = 256) -> Tensor:
    """Convert floats to uint8 by a floor; values outside [0, 1] are clamped, NaN becomes 0."""
    index = torch.nan_to_num(images * bins, nan=0.0).floor().clamp(0, bins - 1)
    return bin_byte(index.to(torch.uint8), bins)


def to_signed(images: Tensor, bins: int = 256, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert uint8 images to the centres of their bins, floats in (−1, 1), as GANs take them."""
    return signed(to_unit(images, bins, dtype))


def signed(images: Tensor) -> Tensor:
    """Map images in [0, 1] to [−1, 1]."""
    return 2 * images - 1


def from_signed(images: Tensor) -> Tensor:
    """Map images in [−1, 1] to [0, 1]."""
    return (images + 1) / 2


def clamp_through(images: Tensor) -> Tensor:
    """Clamp to [0, 1] with a straight-through gradient.

    An optimisation can then recover from out-of-range pixels.
    """
    return images + (images.clamp(0, 1) - images).detach()


# Inputs of pretrained networks --------------------------------------------------------------------

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and std of the colours of ImageNet, for values in [0, 1]."""


def to_square_rgb(images: Tensor, side: int) -> Tensor:
    """Resize floats (batch, 1 or 3, H, W) to (batch, 3, side, side); see `to_rgb`.

    Images that are not square are stretched, as networks of square images with published figures do it.
    """
    return to_rgb(images, side, side)


def to_rgb(images: Tensor, height: int, width: int) -> Tensor:
    """Resize floats (batch, 1 or 3, H, W) to (batch, 3, height, width), bilinear with antialiasing."""
    colour = images.expand(-1, 3, -1, -1)
    return interpolate(colour, (height, width), mode="bilinear", align_corners=False, antialias=True)


def normalise(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, deviation: Sequence[float] = IMAGENET_DEVIATION
) -> Tensor:
    """Normalise colours (batch, 3, H, W): subtract the mean and divide by the std."""
    shift, scale = (images.new_tensor(values)[:, None, None] for values in (mean, deviation))
    return (images - shift) / scale


# Images from elsewhere ----------------------------------------------------------------------------

ImageLike = Union[Tensor, np.ndarray, Image.Image, Sequence[Image.Image | np.ndarray | Tensor], "Images"]
"""Images that the public functions accept; see `as_bytes`."""


def as_bytes(images: ImageLike, image_shape: tuple[int, int, int]) -> Tensor:
    """Convert images of any common form to uint8 (batch, C, H, W).

    Args:
        images: uint8 tensor or array (batch, C, H, W) or (C, H, W), or with the channels last, or grey
            without channels; a Pillow image of the model's size; a list of single images; or `Images`.
        image_shape: (C, H, W) of the model.

    Raises:
        UserError: The images are of another kind, the values are not bytes, or the shape does not fit.
    """
    if isinstance(images, Images):
        images = images.pixels
    if isinstance(images, Image.Image):
        images = _from_picture(images, image_shape)
    if isinstance(images, np.ndarray):
        images = _from_array(images)
    if isinstance(images, Tensor):
        images = _channels_first(images, image_shape)
    if isinstance(images, Sequence) and not isinstance(images, str) and len(images):
        return torch.cat([as_bytes(each, image_shape) for each in images])
    if not isinstance(images, Tensor):
        got = "an empty list" if images == [] else type(images).__name__
        raise UserError(f"images: expected a uint8 tensor or array, or pictures of Pillow, got {got}")
    images = images[None] if images.dim() == 3 else images
    check_bytes(images, image_shape)
    return images


def _from_picture(picture: Image.Image, image_shape: tuple[int, int, int]) -> Tensor:
    """A Pillow image as a tensor (C, H, W); raises UserError if its size is not that of the model."""
    channels, height, width = image_shape
    if picture.mode.startswith(("I", "F")):
        raise UserError(f"expected 8-bit pixels, got Pillow's mode {picture.mode}")
    if picture.size != (width, height):
        raise UserError(
            f"expected pictures of {width}×{height} pixels, got {picture.width}×{picture.height}; "
            "flows.images.crop_and_resize crops and resizes one"
        )
    return from_pillow(picture, channels)


def _from_array(array: np.ndarray) -> Tensor:
    """A uint8 array as a tensor; raises UserError for other types."""
    if array.dtype != np.uint8:
        raise UserError(f"expected uint8 images, got an array of {array.dtype}")
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # a copy if it is read-only


def _channels_first(tensor: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Move channels that are last, or left out because there is one, to their axis in (..., C, H, W)."""
    channels, height, width = image_shape
    if tuple(tensor.shape[-3:]) == tuple(image_shape):
        return tensor
    if tuple(tensor.shape[-3:]) == (height, width, channels):
        return tensor.movedim(-1, -3).contiguous()
    if channels == 1 and tuple(tensor.shape[-2:]) == (height, width):
        return tensor.unsqueeze(-3)
    return tensor  # the check of the shape says what was expected


class Images:
    """Images that a notebook shows as a picture: the last line of a cell, or `display(images)`.

        images = model.generate(8)
        images.pixels  # uint8 (8, C, H, W)
        flows.Images(model.decode_bytes(codes))

    Methods that take images take `Images`, too. Two objects are equal if their pixels are.

    Args:
        pixels: uint8 (n, C, H, W) with one or three channels.

    Attributes:
        pixels: uint8 (n, C, H, W), on the host.

    Raises:
        UserError: The pixels are of another type or shape.
    """

    SHOWN, SIDE = 64, 96
    """Number of images in a notebook's picture, and side in pixels to which smaller ones are enlarged."""

    def __init__(self, pixels: Tensor):
        check_bytes(pixels)
        if pixels.shape[1] not in (1, 3):
            raise UserError(f"expected images with one or three channels, got {tuple(pixels.shape)}")
        self.pixels = pixels.cpu()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> "Images":
        """Select images by a number, a slice, indices or a mask; the result is always a batch."""
        chosen = self.pixels[rows]
        return Images(chosen[None] if chosen.dim() == 3 else chosen)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Images) and torch.equal(self.pixels, other.pixels)

    def __hash__(self) -> int:
        return hash(tuple(self.pixels.shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.pixels.numpy(), dtype=dtype)

    def __repr__(self) -> str:
        return f"Images({' × '.join(map(str, self.pixels.shape))})"

    def picture(self, columns: int | None = None) -> Image.Image:
        """All images in rows, as a Pillow image, which has `save` and `show`.

        Args:
            columns: Number of images in a row; None makes a square, and one row of up to eight images.
        """
        if columns is None and len(self) <= 8:
            columns = max(1, len(self))
        return to_pillow(sheet(self.pixels, columns, self.SIDE))

    def _repr_png_(self) -> bytes | None:
        """PNG of the first images, for notebooks."""
        content = io.BytesIO()
        if not len(self):
            return None
        self[: self.SHOWN].picture().save(content, "PNG")
        return content.getvalue()


# Files and pictures -------------------------------------------------------------------------------


def from_pillow(image: Image.Image, channels: int) -> Tensor:
    """Convert a Pillow image to uint8 (channels, height, width): grey for one channel, RGB for three."""
    converted = flatten(image, channels)
    flat = torch.frombuffer(bytearray(converted.tobytes()), dtype=torch.uint8)
    return rearrange(flat, "(h w c) -> c h w", h=converted.height, c=channels).contiguous()


def flatten(image: Image.Image, channels: int) -> Image.Image:
    """Composite a Pillow image over white and convert it to grey for one channel, else to RGB."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("L" if channels == 1 else "RGB")


def to_pillow(image: Tensor) -> Image.Image:
    """Convert uint8 (channels, height, width) with one or three channels to a Pillow image."""
    array = image.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Centre-crop to a square and resize it to `size` pixels with antialiasing (Lanczos)."""
    return crop_and_resize(image, size, size)


Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are exclusive."""


def centre_box(image: Image.Image, height: int, width: int) -> Box:
    """Largest centred box of an image with the aspect ratio of height × width."""
    scale = min(image.height / height, image.width / width)
    crop_height, crop_width = round(height * scale), round(width * scale)
    left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def size_text(height: int, width: int) -> str:
    """Format a size in the order of picture files, such as `64×48` for a height of 48 and a width of 64."""
    return f"{width}×{height}"


def crop_text(size: tuple[int, int], box: Box, height: int, width: int) -> str:
    """Describe a crop and its new size, such as `the middle 683×683 of 1024×683, as 32×32`.

    Args:
        size: (width, height) of the whole picture.
        box: Part that was kept.
        height: Height after resizing.
        width: Width after resizing.

    Returns:
        Description; empty if the picture was kept as it is.
    """
    left, top, right, bottom = box
    kept = right - left, bottom - top
    if kept == (width, height) == size:
        return ""
    if kept == size:
        return f"all {size[0]}×{size[1]}, as {width}×{height}"
    middle = abs(left + right - size[0]) <= 1 and abs(top + bottom - size[1]) <= 1
    where = "the middle" if middle else "the part"
    return f"{where} {kept[0]}×{kept[1]} of {size[0]}×{size[1]}, as {width}×{height}"


def crop_and_resize(image: Image.Image, height: int, width: int, box: Box | None = None) -> Image.Image:
    """Crop to a box, by default the centre box, and resize to height × width with antialiasing (Lanczos)."""
    box = box or centre_box(image, height, width)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def paste_crop(image: Image.Image, box: Box, onto: Image.Image, where: Tensor | None = None) -> Image.Image:
    """Paste an image that `crop_and_resize` cropped from a picture back into the picture.

    Args:
        image: Image to paste, any size.
        box: Box of the image in the picture.
        onto: Picture; it is not modified.
        where: bool (H, W), pixels of `image` to paste; None pastes all of it.
    """
    left, top, right, bottom = box
    size, mask, whole = (right - left, bottom - top), None, onto.convert(image.mode)
    if where is not None:
        mask = to_pillow(255 * where[None].byte()).resize(size, Image.Resampling.BILINEAR)
    whole.paste(image.resize(size, Image.Resampling.BICUBIC), (left, top), mask)
    return whole


def grid(images: Tensor, columns: int | None = None, gap: int = 2, zoom: int = 1) -> Tensor:
    """Arrange uint8 images (batch, C, H, W) row by row on white: uint8 (C, height, width).

    `zoom` enlarges every pixel to a square, for small images.
    """
    check_bytes(images)
    images = images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    shape = (channels, rows * (height + gap) + gap, columns * (width + gap) + gap)
    sheet = images.new_full(shape, 255)
    for i, image in enumerate(images):
        top = gap + (i // columns) * (height + gap)
        left = gap + (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def sheet(images: Tensor, columns: int | None = None, side: int = 64) -> Tensor:
    """Arrange uint8 images (n, C, H, W) as `grid` does, the longer side enlarged to about `side` pixels."""
    return grid(images, columns, zoom=max(1, round(side / max(images.shape[2:]))))
