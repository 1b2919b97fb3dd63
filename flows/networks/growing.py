"""Networks that begin with small images and grow (PGGAN, Karras et al. 2018, arXiv 1710.10196, section 2)."""

import math

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate


class Growing(nn.Module):
    """A network for images of 4×4, 8×8, … up to `sizes` of them; it is fully grown unless told otherwise.

    How far it has grown follows from the images shown so far; it is set in training and no part of the state.

    Attributes:
        size: how many sizes it has, from 1 on; a fraction is the share of the newest, which fades in.
    """

    def __init__(self, sizes: int):
        super().__init__()
        self.sizes = sizes
        self.size = float(sizes)

    @property
    def grown(self) -> tuple[int, float]:
        """How many sizes there are, and the share of the newest, in (0, 1]."""
        sizes = math.ceil(self.size)
        return sizes, 1 - (sizes - self.size)


def shrink(images: Tensor, size: float, sizes: int) -> Tensor:
    """Images as a network of that size sees them: means over squares, the newest size fading in."""
    whole = math.ceil(min(size, sizes))
    images = avg_pool2d(images, 2 ** (sizes - whole))
    share = 1 - (whole - min(size, sizes))
    if share == 1:
        return images
    coarse = interpolate(avg_pool2d(images, 2), scale_factor=2)
    return coarse + share * (images - coarse)
