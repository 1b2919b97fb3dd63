"""Networks that begin with small images and grow (PGGAN, Karras et al. 2018, arXiv 1710.10196, section 2)."""

import math

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate


class Growing(nn.Module):
    """A network for images of 4×4, 8×8, … up to `sizes` of them; it is fully grown unless told otherwise.

    How far it has grown follows from the images shown so far; it is set in training and is no part of the
    state.

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


def grow(module: nn.Module, size: float) -> None:
    """Set how far every growing network in `module` has grown; more than all sizes is all."""
    for part in module.modules():
        if isinstance(part, Growing):
            part.size = min(size, float(part.sizes))


def size_after(images: int, growing: tuple[int, ...], fading: float) -> float:
    """`Growing.size` after so many images, growing[i] of them of side 4·2^i, a share of them fading in.

    Sizes with 0 images at the beginning are left out, and the first that is shown does not fade in.
    """
    begun = False
    for i, share in enumerate(growing):
        if images < share:
            return i + 1 if not begun else i + min(1.0, (images + 1) / max(1.0, fading * share))
        images -= share
        begun = begun or share > 0
    if not begun:
        return math.inf
    return len(growing) + min(1.0, (images + 1) / max(1.0, fading * growing[-1]))


def shrink(images: Tensor, size: float, sizes: int) -> Tensor:
    """Images as a network of that size sees them: means over squares, the newest size fading in."""
    whole = math.ceil(min(size, sizes))
    images = avg_pool2d(images, 2 ** (sizes - whole))
    share = 1 - (whole - min(size, sizes))
    if share == 1:
        return images
    coarse = interpolate(avg_pool2d(images, 2), scale_factor=2)
    return coarse + share * (images - coarse)
