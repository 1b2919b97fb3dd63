"""When a growing GAN takes on its next size (PGGAN, Karras et al. 2018, arXiv 1710.10196, section 2)."""

import math


def size_after(images: int, growing: tuple[int, ...], fading: float) -> float:
    """`GAN.size` after so many images, growing[i] of them of side 4·2^i, a share of them fading in.

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
