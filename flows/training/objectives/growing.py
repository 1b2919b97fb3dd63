"""Schedule of the sizes of a growing GAN (PGGAN, Karras et al. 2018, arXiv 1710.10196, section 2)."""

import math


def size_after(images: int, growing: tuple[int, ...], fading: float) -> float:
    """Value of `GAN.size` after `images` images.

    The size 2^i times the first, 4×4 for square images, lasts growing[i] images, and fades in during the
    share `fading` of them. Sizes with 0 images at the beginning are skipped, and the first size that is shown
    does not fade in.
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
