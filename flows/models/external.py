"""Anybody's generator as a latent model, so that it can be compared with ours."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flows.models.base import LatentModel, Space, Unit
from flows.models.priors import Normal
from flows.numerics import draw_seed


class ExternalGenerator(LatentModel):
    """A generator that was trained elsewhere.

        generator = torch.jit.load("mine.pt").eval()
        model = ExternalGenerator(generator, image_shape=(3, 64, 64), size=512)
        Optimise("z").invert(model, images)

    It lives in memory: saving it is left to whoever made it. The fingerprint is that of its weights.

    Args:
        generator: a module, or any callable, from codes (batch, size), standard normal, to images.
        image_shape: (C, H, W).
        size: of z.
        mapping: z to w, where the generator takes w; then there are the spaces `z` and `w`.
        width: of w.
        interval: the values that the generator gives black and white.
    """

    anchor: Tensor

    def __init__(
        self,
        generator: Callable[[Tensor], Tensor],
        image_shape: Sequence[int],
        size: int,
        mapping: Callable[[Tensor], Tensor] | None = None,
        width: int | None = None,
        interval: tuple[float, float] = (-1.0, 1.0),
    ):
        super().__init__()
        channels, height, width_of_images = image_shape
        self.image_shape = (channels, height, width_of_images)
        self.bins = 256
        self.generator, self.mapping, self.interval = generator, mapping, interval
        self.register_buffer("anchor", torch.zeros(()))  # knows device and precision where it has no weights
        self.spaces = {"z": Space("z", (size,), Normal(), {"all": slice(0, size)}, "the generator's input")}
        self.guarantee = {"z": "none"}
        if mapping is not None:
            if width is None:
                raise ValueError("width: with a mapping, the size of w is needed")
            self.spaces["w"] = Space("w", (width,), None, {"all": slice(0, width)}, "mapped z")
            self.guarantee["w"] = "none"
        self.description: dict[str, Any] = {}

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        raise ValueError(
            "ExternalGenerator has no encoder: its guarantee is 'none'; invert it by optimisation"
        )

    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        expected = self.check_space(space).shape
        if tuple(code.shape[1:]) != expected:
            raise ValueError(
                f"expected codes (batch, {expected[0]}) for space {space!r}, got {tuple(code.shape)}"
            )
        deepest = "w" if self.mapping is not None else "z"
        image = self.generator(self.convert(code, space, deepest))
        if tuple(image.shape[1:]) != self.image_shape:
            raise ValueError(
                f"the generator gives {tuple(image.shape[1:])}, image_shape says {self.image_shape}"
            )
        low, high = self.interval
        return (image - low) / (high - low)

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        if (source, target) == ("z", "w") and self.mapping is not None:
            return self.mapping(code)
        return super().convert(code, source, target)

    def sample_codes(
        self,
        n: int,
        space: str = "z",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        prior, like = self.spaces["z"].prior, torch.empty(0, dtype=self.dtype, device=self.device)
        assert prior is not None
        z = prior.sample(draw_seed(generator), torch.arange(n), self.spaces["z"].shape, like)
        return self.convert(temperature * z, "z", self.check_space(space).name)

    def units(self) -> dict[str, Unit]:
        if not isinstance(self.generator, nn.Module):
            return {}
        found: dict[str, Unit] = {}
        handles = []
        for name, module in self.generator.named_modules(prefix="generator"):

            def record(_: nn.Module, __: object, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor) and output.dim() == 4 and name != "generator":
                    found[name] = Unit(output.shape[1], (output.shape[2], output.shape[3]))

            handles.append(module.register_forward_hook(record))
        try:
            with torch.no_grad():
                self.decode(torch.zeros(1, *self.spaces["z"].shape, dtype=self.dtype, device=self.device))
        finally:
            for handle in handles:
                handle.remove()
        return found

    @property
    def device(self) -> torch.device:
        return next(self.parameters(), self.anchor).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters(), self.anchor).dtype
