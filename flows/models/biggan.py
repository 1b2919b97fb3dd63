"""BigGAN at a size for one machine (Brock, Donahue and Simonyan 2019, arXiv 1809.11096)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flows.core.bounds import Bins, ImageShape, NonNegativeInt, PositiveInt
from flows.core.numerics import seed_from, uniform_rows
from flows.errors import UserError
from flows.models.base import Space
from flows.models.codes import Codes, check_codes
from flows.models.gan import GAN
from flows.models.styles import first_size
from flows.networks.biggan import BigGANCritic, BigGANGenerator

__all__ = ["BigGAN"]


class BigGAN(GAN):
    """Class-conditional GAN of residual networks with spectral norm; each block has its own part of z.

    Train it with the objective `Adversarial` and loss `hinge`. In space `z` a code needs a label; in `z+c` it
    includes its class vector, so that an optimisation can move between classes.

    Args:
        image_shape: Image shape (C, H, W). Halving both sides must give a first map of about 4×4: (4, 4) from
            (32, 32), (3, 4) from (48, 64).
        bins: Number of grey levels of the images.
        num_classes: Number of classes.
        size: Dimension of z, a multiple of the number of sizes from the first map to the images.
        width: Dimension of a class vector (128 in the paper).
        channels: Number of channels of the first map, of that with twice its sides, …, up to the images.
        critic_channels: Number of channels of the critic's maps; None uses `channels`.
        attention: Height of the maps with self-attention; 0 for none.
        deviation: Whether the critic sees the minibatch std (PGGAN). The paper does not use it, but has
            batches of 2,048 images; training with small batches collapses without it.
    """

    search_space = "z+c"

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: PositiveInt,
        bins: Bins = 256,
        size: PositiveInt = 96,
        width: PositiveInt = 32,
        channels: Sequence[PositiveInt] = (96, 64, 48, 24),
        critic_channels: Sequence[PositiveInt] | None = None,
        attention: NonNegativeInt = 16,
        deviation: bool = False,
    ):
        super().__init__()
        first = first_size(image_shape, channels, critic_channels or channels)
        heights = [2 * first[0] * 2**i for i in range(len(channels) - 1)]
        if attention and attention not in heights:
            raise UserError(
                f"attention: expected 0 or a height of the maps, one of {heights}; got {attention}"
            )
        if size % len(channels):
            raise UserError(f"size: expected a multiple of {len(channels)}, one part per block; got {size}")
        colours, height, _ = image_shape
        generator = BigGANGenerator(size, width, num_classes, channels, colours, attention, first)
        critic = BigGANCritic(num_classes, critic_channels or channels, colours, attention, deviation, height)
        self.num_classes = num_classes
        self.assemble(image_shape, bins, generator, critic, size)
        levels = {"z": slice(0, size), "class": slice(size, size + width)}
        doc = "z and a class vector, concatenated"
        self.spaces["z+c"] = Space("z+c", (size + width,), None, levels, doc)

    def synthesise(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        generator = self.generator
        assert isinstance(generator, BigGANGenerator)
        if space == "z+c":
            return generator.generate(code)
        image: Tensor = generator(code, self.check_labels(labels, len(code)))
        return image

    def can_convert(self, codes: Codes, target: str) -> bool:
        """Whether `convert_codes` maps these codes to the target space; from z to z+c it needs labels."""
        with_class = (codes.space, target) == ("z", "z+c") and codes.labels is not None
        return with_class or super().can_convert(codes, target)

    def convert_codes(self, codes: Codes, target: str) -> Codes:
        check_codes(codes)
        if (codes.space, target) == ("z", "z+c") and codes.labels is not None:
            here = codes.to(self)
            assert here.labels is not None
            return Codes(self.with_classes(here.values, here.labels), target)
        return super().convert_codes(codes, target)

    def values_in(self, codes: Codes, target: str) -> Tensor | None:
        """Map values as `LatentModel.values_in` does; those of z+c to z by dropping the class vector."""
        if (codes.space, target) == ("z+c", "z"):
            return self.convert(codes.to(self).values, "z+c", "z")
        return super().values_in(codes, target)

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        """Take z out of z+c; the opposite direction needs classes and is `with_classes`."""
        if (source, target) == ("z+c", "z"):
            return code[:, : self.spaces["z"].shape[0]]
        return super().convert(code, source, target)

    def with_classes(self, code: Tensor, labels: Tensor) -> Tensor:
        """Append class vectors to codes of `z`, which gives codes of `z+c`."""
        self.check_labels(labels, len(code))
        generator = self.generator
        assert isinstance(generator, BigGANGenerator)
        return torch.cat([code, generator.classes(labels)], 1)

    def induced_codes(
        self, n: int, space: str, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        """Sample codes of z+c: scaled z, and the vectors of uniformly sampled classes."""
        code = self.prior_codes(n, generator, temperature)
        share = uniform_rows(seed_from(generator), torch.arange(n), (1,), code).squeeze(1)
        return self.with_classes(code, (share * self.num_classes).long())
