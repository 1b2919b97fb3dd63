"""What the GANs share: a generator with latent spaces, and a critic."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from flows import images as pixels
from flows.errors import Unsupported
from flows.models.base import LatentModel, Space, Unit
from flows.models.priors import Normal
from flows.networks.growing import Growing, shrink


class GAN(LatentModel):
    """A generator of images from codes, with the critic that trained it.

    A paper's model is a subclass that builds both and hands them to `assemble`. Within, images are in
    [−1, 1], as the papers have them; `decode` gives [0, 1].

    Attributes:
        generator: codes of the prior space to images in [−1, 1]; see `decode`.
        critic: images in [−1, 1] to one number each, larger for what looks real, and `features`.
        normalises_z: Whether every z is scaled to unit mean square, so that a temperature has no effect in z.
    """

    generator: nn.Module
    critic: nn.Module
    normalises_z: ClassVar[bool] = False

    def assemble(
        self, image_shape: Sequence[int], bins: int, generator: nn.Module, critic: nn.Module, size: int
    ) -> None:
        """Set the parts, and the one space `z`, standard normal of `size` entries."""
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.bins = bins
        # Convolutions answer in the memory format of their weights: a fifth faster on CPUs, same numbers.
        self.generator, self.critic = (
            part.to(memory_format=torch.channels_last) for part in (generator, critic)
        )
        self.spaces = {
            "z": Space(
                "z", (size,), Normal(), {"all": slice(0, size)}, "the generator's input", density=True,
                tempered=not self.normalises_z, labelled=bool(self.num_classes),
            )
        }  # fmt: skip
        self.description: dict[str, Any] = {}

    @abstractmethod
    def render(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        """Images in [−1, 1] from codes of any space."""

    # Growing --------------------------------------------------------------------------------------

    @property
    def _growing(self) -> list[Growing]:
        return [part for part in self.modules() if isinstance(part, Growing)]

    @property
    def sizes(self) -> int:
        """Of images, 4×4, 8×8, …, through which it can grow; 1 where it does not."""
        return next((part.sizes for part in self._growing), 1)

    @property
    def size(self) -> float:
        """How many sizes it has grown to, the last share fading in; see `Growing`."""
        return next((part.size for part in self._growing), 1.0)

    def grow(self, size: float) -> None:
        """Set how many sizes it has grown to; more than all is all."""
        for part in self._growing:
            part.size = min(size, float(part.sizes))

    def shrunk(self, images: Tensor) -> Tensor:
        """Real images of full size as it sees them while it grows."""
        return shrink(images, self.size, self.sizes)

    # Codes and images -----------------------------------------------------------------------------

    def features(self, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = cast(Any, self.critic).features(2 * images - 1)
        return found

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        raise Unsupported(
            f"{type(self).__name__} has no encoder: the guarantee of {space!r} is 'none'; "
            "`flows compare` inverts it by optimisation"
        )

    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        self.check_code(code, space)
        return (self.enlarged(self.render(code.to(self.dtype), space, labels)) + 1) / 2

    def enlarged(self, images: Tensor) -> Tensor:
        """Images of full size, by repetition, where the generator has not grown to it."""
        side = images.shape[-1]
        return images if side == self.image_shape[-1] else interpolate(images, self.image_shape[1:])

    def units(self) -> dict[str, Unit]:
        modules = self.generator.named_modules(prefix="generator")
        return self.units_among((name, module) for name, module in modules if name != "generator")


def to_signed(images: Tensor) -> Tensor:
    """Uint8 images to floats in [−1, 1], byte centres as everywhere."""
    return 2 * pixels.to_unit(images, 256) - 1
