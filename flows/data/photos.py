"""Colour patches of ten photographs that ship with scikit-image and scikit-learn. No download."""

from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from flows import images
from flows.data.base import ArraySplit, ImageData, SplitName
from flows.errors import DataMissing, UserError

# Patches of one photograph resemble one another, so that a photograph belongs to one split only.
PHOTOS: dict[SplitName, tuple[str, ...]] = {
    "train": (
        "astronaut", "china", "hubble_deep_field", "immunohistochemistry", "motorcycle", "retina",
        "rocket",
    ),
    "validation": ("flower",),
    "test": ("chelsea", "coffee"),
}  # fmt: skip
SHORT_SIDE = 512


class Photos(ImageData):
    """Patches of photographs: a face, a cat, coffee, galaxies, a motorcycle, a temple, and others.

    Splits are by photograph. With patches of 32×32: 1,921 for training, 260 for validation (a
    flower), 342 for the test (a cat and a cup of coffee). The label of a patch is its photograph.

    Args:
        size: side of the square patches in pixels.

    Raises:
        ValueError: if `size` is not within 1 to 300, the short side of the smallest photograph.
    """

    name = "photos"
    class_names = tuple(photo for photos in PHOTOS.values() for photo in photos)

    def __init__(self, size: int = 32):
        if not 1 <= size <= 300:
            raise UserError(f"size: expected 1 to 300 pixels, got {size}")
        self.size = size
        self.image_shape = (3, size, size)
        # The two large ones, retina and galaxies, would otherwise be two thirds of all patches.
        self.transform = (
            f"patches of {size}×{size} without overlap from photographs of at most {SHORT_SIDE} "
            "pixels on the short side"
        )

    @cached_property
    def _patches(self) -> dict[str, Tensor]:
        return {name: patches(shrink_photo(read_photo(name)), self.size) for name in self.class_names}

    def split(self, name: SplitName) -> ArraySplit:
        chosen = [self._patches[photo] for photo in PHOTOS[name]]
        labels = [
            torch.full((len(pixels),), self.class_names.index(photo))
            for photo, pixels in zip(PHOTOS[name], chosen, strict=True)
        ]
        return ArraySplit(torch.cat(chosen), torch.cat(labels))


def read_photo(name: str) -> Image.Image:
    """A photograph of scikit-learn or scikit-image by name."""
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image  # takes a second

        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    try:
        import skimage.data

        # Of the stereo pair one view only: the other shows the same scene.
        found = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    except ImportError as error:
        raise DataMissing(
            f'the photographs need scikit-image ({error}); `pip install -e ".[data]"` brings it'
        ) from error
    return Image.fromarray(found)


def shrink_photo(photo: Image.Image) -> Image.Image:
    """The photograph with at most SHORT_SIDE pixels on its short side, never enlarged."""
    scale = SHORT_SIDE / min(photo.size)
    if scale >= 1:
        return photo
    size = round(photo.width * scale), round(photo.height * scale)
    return photo.resize(size, Image.Resampling.LANCZOS)


def patches(photo: Image.Image, size: int) -> Tensor:
    """Square patches from left to right, row by row, without overlap: uint8 (n, 3, size, size)."""
    tiled = images.from_pillow(photo, 3).unfold(1, size, size).unfold(2, size, size)
    return tiled.permute(1, 2, 0, 3, 4).reshape(-1, 3, size, size)
