"""What the GANs share: a generator with latent spaces, and a critic."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.models.base import Guarantee, LatentModel, Space, Unit
from flows.models.priors import Normal
from flows.numerics import draw_seed


class GAN(LatentModel):
    """A generator of images from codes, with the critic that trained it.

    A paper's model is a subclass that builds both and hands them to `assemble`. Within, images are in
    [−1, 1], as the papers have them; `decode` gives [0, 1].

    Attributes:
        generator: codes of the prior space to images in [−1, 1]; see `decode`.
        critic: images in [−1, 1] to one number each, larger for what looks real, and `features`.
    """

    generator: nn.Module
    critic: nn.Module

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
        self.spaces = {"z": Space("z", (size,), Normal(), {"all": slice(0, size)}, "the generator's input")}
        self.guarantee: dict[str, Guarantee] = {"z": "none"}
        self.description: dict[str, Any] = {}

    def forward(self, code: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [−1, 1] from codes of the prior space, with a graph."""
        return self.generator(code)

    @abstractmethod
    def render(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        """Images in [−1, 1] from codes of any space."""

    def features(self, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = cast(Any, self.critic).features(2 * images - 1)
        return found

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        raise ValueError(
            f"{type(self).__name__} has no encoder: its guarantee for {space!r} is 'none'; "
            "`flows compare` inverts it by optimisation"
        )

    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        expected = self.check_space(space).shape
        if tuple(code.shape[1:]) != expected:
            shape = ", ".join(map(str, expected))
            raise ValueError(
                f"expected codes of shape (batch, {shape}) for space {space!r}, got {tuple(code.shape)}"
            )
        return (self.render(code.to(self.dtype), space, labels) + 1) / 2

    def sample_codes(
        self,
        n: int,
        space: str = "z",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        self.check_space(space)
        shape = self.spaces["z"].shape
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        prior = self.spaces["z"].prior
        assert prior is not None
        code = prior.sample(draw_seed(generator), torch.arange(n), shape, like)
        if space == "z":
            return temperature * code
        return self.truncated(self.convert(code, "z", space), space, temperature)

    def truncated(self, code: Tensor, space: str, temperature: float) -> Tensor:
        """Codes of an induced space drawn towards its middle: mean + temperature·(code − mean)."""
        raise ValueError(f"{type(self).__name__} has no induced space {space!r}")

    def units(self) -> dict[str, Unit]:
        found: dict[str, Unit] = {}
        handles = []
        for name, module in self.generator.named_modules(prefix="generator"):
            if name != "generator":

                def record(_: nn.Module, __: object, output: Any, name: str = name) -> None:
                    if isinstance(output, Tensor) and output.dim() == 4:
                        found[name] = Unit(output.shape[1], (output.shape[2], output.shape[3]))

                handles.append(module.register_forward_hook(record))
        try:
            with torch.no_grad():
                labels = torch.zeros(1, dtype=torch.long, device=self.device) if self.num_classes else None
                code = torch.zeros(1, *self.spaces["z"].shape, dtype=self.dtype, device=self.device)
                self.decode(code, labels=labels)
        finally:
            for handle in handles:
                handle.remove()
        return found


def to_signed(images: Tensor) -> Tensor:
    """Uint8 images to floats in [−1, 1], byte centres as everywhere."""
    return 2 * pixels.to_unit(images, 256) - 1
