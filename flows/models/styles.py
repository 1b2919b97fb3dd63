"""Base class of style-based GANs: spaces z, w and w+, truncation."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.core.numerics import normal_rows
from flows.core.once import once
from flows.errors import Unsupported, UserError
from flows.models.base import Space
from flows.models.gan import GAN
from flows.networks.stylegan import StyledLayer, Synthesis

__all__ = ["StyleModel"]

MEAN_CODES, MEAN_SEED = 10_000, 123
"""Number of codes, and seed, for estimating the mean of w (StyleGAN2's projector)."""


class StyleGenerator(nn.Module):
    """Generator that maps z to w by `mapping` and w, for each layer, to images by `synthesis`.

    Args:
        mapping: Network from z (batch, size) to w (batch, width).
        synthesis: Network from w (batch, layers, width) to images.
    """

    def __init__(self, mapping: nn.Module, synthesis: Synthesis):
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis

    def forward(self, z: Tensor, second: Tensor | None = None, crossover: Tensor | None = None) -> Tensor:
        """Generate images in [−1, 1], with style mixing if `second` and `crossover` are given.

        Args:
            z: (batch, size).
            second: (batch, size), z whose w is used in the layers from `crossover` on.
            crossover: int64 (batch,), first layer of the second w; the number of layers for no mixing.
        """
        w = self.mapping(z)
        if second is None or crossover is None:
            return self.generate(w)
        layers = len(self.synthesis.layers)
        later = torch.arange(layers, device=z.device) >= crossover.unsqueeze(1)
        other = self.mapping(second).unsqueeze(1)
        return self.synthesis(torch.where(later.unsqueeze(2), other, w.unsqueeze(1)))

    def generate(self, w: Tensor) -> Tensor:
        """Generate images in [−1, 1] from w (batch, width), the same for all layers."""
        return self.synthesis(w.unsqueeze(1).expand(-1, len(self.synthesis.layers), -1))


class StyleModel(GAN):
    """GAN with the spaces `z`, `w` (one code for all layers) and `w+` (one per layer)."""

    generator: StyleGenerator
    search_space = "w"

    def assemble_styles(
        self,
        image_shape: Sequence[int],
        bins: int,
        generator: StyleGenerator,
        critic: nn.Module,
        size: int,
        width: int,
    ) -> None:
        """Set the parts, as `GAN.assemble`, and the three spaces; `width` is the dimension of w."""
        self.assemble(image_shape, bins, generator, critic, size)
        layers = len(generator.synthesis.layers)
        self.style_layers, self.width = layers, width
        layer_slices = {f"layer{i}": slice(i * width, (i + 1) * width) for i in range(layers)}
        whole, labelled = {"all": slice(0, width)}, bool(self.num_classes)
        doc = "one style per layer, coarse to fine"
        self.spaces |= {
            "z": replace(self.spaces["z"], conversions=frozenset({"w", "w+"})),
            "w": Space(
                "w",
                (width,),
                None,
                whole,
                "one style for all layers",
                conversions=frozenset({"w+"}),
                labelled=labelled,
            ),
            "w+": Space("w+", (layers * width,), None, layer_slices, doc, labelled=labelled),
        }

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        """Convert z to w to w+; the opposite direction is `convert_back`."""
        for name in (source, target):
            self.check_space(name)
        order = ("z", "w", "w+")
        if order.index(target) < order.index(source):
            return self.convert_back(code, source, target)
        if source == "z" and target != "z":
            code, source = self.generator.mapping(code), "w"
        return code.repeat(1, self.style_layers) if (source, target) == ("w", "w+") else code

    def convert_back(self, code: Tensor, source: str, target: str) -> Tensor:
        """Convert w+ to w or w to z; here there is no such map.

        Raises:
            Unsupported: The mapping has no inverse.
        """
        raise Unsupported(
            f"{type(self).__name__} has no map from space {source!r} to {target!r}: "
            "its mapping has no inverse"
        )

    def synthesise(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        return self._synthesise(code, space, None)

    def _synthesise(self, code: Tensor, space: str, noise: Sequence[Tensor] | None) -> Tensor:
        styles = self.convert(code, space, "w+").unflatten(1, (self.style_layers, self.width))
        image: Tensor = self.generator.synthesis(styles, noise)
        return image

    def style_weights(self) -> dict[str, Tensor]:
        """Return the scaled weight of every layer's style."""
        layers = cast(Iterable[StyledLayer], self.generator.synthesis.layers)
        styles = [layer.convolution.style for layer in layers]
        return {f"layer{i}": style.weight * style.scale for i, style in enumerate(styles)}

    def noise(self) -> list[Tensor]:
        """Return the stored noise inputs, one per layer, each (1, 1, height, width)."""
        return [layer.noise for layer in cast(Iterable[StyledLayer], self.generator.synthesis.layers)]

    def decode_with_noise(self, code: Tensor, noise: Sequence[Tensor], space: str = "z") -> Tensor:
        """Decode with given noise inputs, each (batch or 1, 1, height, width); the stored ones if empty."""
        if not noise:
            return self.decode(code, space)
        self.check_code(code, space)
        return pixels.from_signed(self.enlarged(self._synthesise(code.to(self.dtype), space, noise)))

    def induced_codes(
        self, n: int, space: str, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        """Sample codes of w or w+, truncated: mean + temperature·(code − mean)."""
        code = self.convert(self.prior_codes(n, generator), "z", space)
        if temperature == 1:
            return code
        mean = self.w_mean if space == "w" else self.w_mean.repeat(self.style_layers)
        return mean + temperature * (code - mean)

    @property
    @torch.no_grad()
    def w_mean(self) -> Tensor:
        """Mean of w over 10,000 codes, (width,)."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)

        def mean() -> Tensor:
            z = normal_rows(MEAN_SEED, torch.arange(MEAN_CODES), self.spaces["z"].shape, like)
            return cast(Tensor, self.generator.mapping(z)).mean(0)

        return once(self, like, "mean of w", mean)


def first_size(
    image_shape: Sequence[int], *channels: Sequence[int], start: int = 4, halved: int = 0
) -> tuple[int, int]:
    """Height and width of a network's first map, from which its images arise by doubling both sides.

    The sides of the images are halved as long as both are even and the shorter one is above `start`: images
    of (32, 32) begin with (4, 4), images of (48, 64) with (3, 4).

    Args:
        image_shape: (C, H, W).
        channels: Lists with an entry for each size from the first to the last.
        start: Side of the first map of square images.
        halved: Number of times that the sides of the images are halved for the last size.

    Raises:
        UserError: The sides cannot be halved to a map of about `start`, or a list does not fit the sizes.
    """
    _, height, width = image_shape
    whole, sizes = pixels.size_text(height, width), [(height, width)]
    while min(sizes[0]) > start and sizes[0][0] % 2 == sizes[0][1] % 2 == 0:
        sizes.insert(0, (sizes[0][0] // 2, sizes[0][1] // 2))
    if min(height, width) < SHORTEST or not start < 2 * min(sizes[0]) < 4 * start:
        near = pixels.size_text(*nearest_size(height, width, start))
        raise UserError(
            f"images of {whole} pixels do not arise by doubling from a first map of about {start}×{start}; "
            f"the nearest size that does is {near}"
        )
    for given in channels:
        if len(given) != len(sizes) - halved:
            first, last = (pixels.size_text(*sizes[i]) for i in (0, -1 - halved))
            raise UserError(
                f"channels: images of {whole} need {len(sizes) - halved} entries, for {first} to {last}; "
                f"got {len(given)}: {list(given)}"
            )
    return sizes[0]


SHORTEST = 8
"""Minimum side of the images of a GAN, in pixels."""


def nearest_size(height: int, width: int, start: int) -> tuple[int, int]:
    """Size near (height, width) that `first_size` accepts: multiples of a power of two."""
    shorter = max(SHORTEST, start, min(height, width))
    step = 2 ** math.ceil(math.log2(shorter / start))
    return max(shorter // step, round(height / step)) * step, max(shorter // step, round(width / step)) * step
