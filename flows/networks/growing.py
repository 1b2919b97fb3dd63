"""Networks that start with small images and grow (PGGAN, Karras et al. 2018, arXiv 1710.10196, section 2)."""

import math

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate


class Growing(nn.Module):
    """Network for images of `sizes` sizes, 4×4, 8×8, … if they are square; fully grown by default.

    Training sets the current size from the number of images seen; it is not part of the state dict.

    Attributes:
        size: Number of sizes in use, at least 1; a fraction is the share of the newest, which fades in.
    """

    def __init__(self, sizes: int):
        super().__init__()
        self.sizes = sizes
        self.size = float(sizes)

    @property
    def grown(self) -> tuple[int, float]:
        """Number of sizes in use and share of the newest, in (0, 1]."""
        sizes = math.ceil(self.size)
        return sizes, 1 - (sizes - self.size)


def shrink(images: Tensor, size: float, sizes: int) -> Tensor:
    """Downsample images to the current size of a network by average pooling; the newest size fades in."""
    whole = math.ceil(min(size, sizes))
    images = avg_pool2d(images, 2 ** (sizes - whole))
    share = 1 - (whole - min(size, sizes))
    if share == 1:
        return images
    coarse = interpolate(avg_pool2d(images, 2), scale_factor=2)
    return coarse + share * (images - coarse)
