"""Colour patches of ten photographs that ship with scikit-image and scikit-learn. No download."""

from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from flows import images
from flows.core.extras import optional
from flows.data.base import ArraySplit, ImageData, SplitName, fair_order
from flows.data.patches import patches, shrunk
from flows.errors import UserError, missing_extra

__all__ = ["Photos"]

# Patches of one photograph resemble each other, so that each photograph belongs to one split only.
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

    Splits are by photograph. With patches of 32×32: 1,921 for training, 260 for validation (a flower), 342
    for test (a cat and a cup of coffee). The label of a patch is its photograph; the
    order is that of a hash.

    Args:
        size: Side of the square patches in pixels.

    Raises:
        UserError: `size` is not in 1 to 300, the short side of the smallest photograph.
    """

    name = "photos"
    independent = False
    class_names = tuple(photo for photos in PHOTOS.values() for photo in photos)

    def __init__(self, size: int = 32):
        if not 1 <= size <= 300:
            raise UserError(f"size: expected 1 to 300 pixels, got {size}")
        self.size = size
        self.image_shape = (3, size, size)
        # Without the limit, the two large ones, retina and galaxies, would give two thirds of all patches.
        self.transform = (
            f"patches of {size}×{size} without overlap from photographs of at most {SHORT_SIDE} "
            "pixels on the short side"
        )

    @cached_property
    def _patches(self) -> dict[str, Tensor]:
        return {name: patches_of(read_photo(name), self.size) for name in self.class_names}

    def split(self, name: SplitName) -> ArraySplit:
        chosen = [self._patches[photo] for photo in PHOTOS[name]]
        labels = [
            torch.full((len(pixels),), self.class_names.index(photo))
            for photo, pixels in zip(PHOTOS[name], chosen, strict=True)
        ]
        patches_of_split, numbers = torch.cat(chosen), torch.cat(labels)
        order = fair_order(range(len(numbers)))
        return ArraySplit(patches_of_split[order], numbers[order])


def read_photo(name: str) -> Image.Image:
    """Load a photograph of scikit-learn or scikit-image by name."""
    if name in ("china", "flower"):
        samples = optional("sklearn.datasets")  # importing takes a second
        return Image.fromarray(samples.load_sample_image(f"{name}.jpg"))
    try:
        import skimage.data

        # Only one view of the stereo pair: the other shows the same scene.
        pixels = (
            skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
        )
    except ImportError as error:
        raise missing_extra("the photographs need the package scikit-image", "data", error) from error
    return Image.fromarray(pixels)


def patches_of(photo: Image.Image, size: int) -> Tensor:
    """Square patches without overlap of a photograph, shrunk if it is large: uint8 (n, 3, size, size)."""
    height, width = shrunk(photo.height, photo.width, SHORT_SIDE)
    if (width, height) != photo.size:
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    return patches(images.from_pillow(photo, 3), (size, size))
