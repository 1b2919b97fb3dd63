"""Base class of the GANs: a generator with latent spaces, and a critic."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from flows import images as pixels
from flows.errors import Unsupported
from flows.models.base import LatentModel, LayerShape, Space
from flows.models.priors import Normal
from flows.networks.growing import Growing, shrink

__all__ = ["GAN"]


class GAN(LatentModel):
    """Generative adversarial network: a generator from codes to images, and its critic.

    The model of a paper is a subclass that builds both and passes them to `assemble`. Both use images in
    [−1, 1], as in the papers; `decode` returns [0, 1].

    Attributes:
        generator: Network from codes of the prior space to images in [−1, 1].
        critic: Network from images in [−1, 1] to one score each, larger for realistic images; with a method
            `features`.
        normalises_z: Whether z is scaled to unit mean square, so that a temperature has no effect in z.
    """

    generator: nn.Module
    critic: nn.Module
    normalises_z: ClassVar[bool] = False

    def assemble(
        self, image_shape: Sequence[int], bins: int, generator: nn.Module, critic: nn.Module, size: int
    ) -> None:
        """Set the parts and the space `z`, standard normal of dimension `size`."""
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.bins = bins
        # Convolutions return the memory format of their weights; this one is a fifth faster on CPUs.
        self.generator, self.critic = (
            part.to(memory_format=torch.channels_last) for part in (generator, critic)
        )
        self.spaces = {
            "z": Space(
                "z",
                (size,),
                Normal(),
                {"all": slice(0, size)},
                "the generator's input",
                tempered=not self.normalises_z,
                labelled=bool(self.num_classes),
            )
        }
        self.description: dict[str, Any] = {}

    @abstractmethod
    def synthesise(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        """Generate images in [−1, 1] from codes of any space."""

    # Growing --------------------------------------------------------------------------------------

    @property
    def _growing(self) -> list[Growing]:
        return [part for part in self.modules() if isinstance(part, Growing)]

    @property
    def sizes(self) -> int:
        """Number of image sizes for progressive growing, 4×4, 8×8, …; 1 if the networks do not grow."""
        return next((part.sizes for part in self._growing), 1)

    @property
    def size(self) -> float:
        """Number of sizes in use; a fraction is the share of the newest, which fades in (see `Growing`)."""
        return next((part.size for part in self._growing), 1.0)

    def grow(self, size: float) -> None:
        """Set the number of sizes in use, at most `sizes`."""
        for part in self._growing:
            part.size = min(size, float(part.sizes))

    def shrunk(self, images: Tensor) -> Tensor:
        """Downsample real images to the current size of the growing networks."""
        return shrink(images, self.size, self.sizes)

    # Codes and images -----------------------------------------------------------------------------

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the critic's activations for images (batch, C, H, W) in [0, 1]."""
        activations: list[Tensor] = cast(Any, self.critic).features(pixels.signed(images))
        return activations

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        raise Unsupported(
            f"{type(self).__name__} has no encoder: the guarantee of {space!r} is 'none'; "
            "invert it by optimisation, for example with `flows compare`"
        )

    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        self.check_code(code, space)
        return pixels.from_signed(self.enlarged(self.synthesise(code.to(self.dtype), space, labels)))

    def enlarged(self, images: Tensor) -> Tensor:
        """Upsample images to full size by repetition if the generator has not grown to it."""
        whole = tuple(images.shape[1:]) == self.image_shape
        return images if whole else interpolate(images, self.image_shape[1:])

    def layers(self) -> dict[str, LayerShape]:
        modules = self.generator.named_modules(prefix="generator")
        return self.layers_among((name, module) for name, module in modules if name != "generator")
