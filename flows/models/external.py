"""Anybody's generator as a latent model, so that it can be compared with ours."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.errors import Unsupported, UserError
from flows.models.base import LatentModel, Space, Unit
from flows.models.priors import Normal


class ExternalGenerator(LatentModel):
    """A generator that was trained elsewhere.

        generator = torch.jit.load("mine.pt").eval()
        model = ExternalGenerator(generator, image_shape=(3, 64, 64), size=512)
        Optimise("z").invert(model, images)

    It lives in memory: saving it is left to whoever made it. The fingerprint is that of its weights, and
    where a callable hides them, of what it draws from four fixed codes.

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
        conversions = frozenset[str]() if mapping is None else frozenset({"w"})
        self.spaces = {
            "z": Space(
                "z", (size,), Normal(), {"all": slice(0, size)}, "the generator's input", density=True,
                conversions=conversions,
            )
        }  # fmt: skip
        if mapping is not None:
            if width is None:
                raise UserError("width: with a mapping, the size of w is needed")
            self.spaces["w"] = Space("w", (width,), None, {"all": slice(0, width)}, "mapped z")
            self.search_space = "w"
        self.description: dict[str, Any] = {}

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        raise Unsupported(
            "ExternalGenerator has no encoder: its guarantee is 'none'; invert it by optimisation"
        )

    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        self.check_code(code, space)
        deepest = "w" if self.mapping is not None else "z"
        image = self.generator(self.convert(code, space, deepest))
        if tuple(image.shape[1:]) != self.image_shape:
            raise UserError(
                f"the generator gives {tuple(image.shape[1:])}, image_shape says {self.image_shape}"
            )
        low, high = self.interval
        return (image - low) / (high - low)

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        if (source, target) == ("z", "w") and self.mapping is not None:
            return self.mapping(code)
        return super().convert(code, source, target)

    def fingerprint(self) -> str:
        known = super().fingerprint()
        parts = [self.generator] if self.mapping is None else [self.generator, self.mapping]
        if all(isinstance(part, nn.Module) for part in parts):
            return known
        with torch.no_grad():
            drawn = self.decode(self.sample_codes(4, "z", torch.Generator().manual_seed(0)))
        seen = pixels.to_bytes(drawn, self.bins).cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(known.encode() + seen).hexdigest()[:16]

    def units(self) -> dict[str, Unit]:
        if not isinstance(self.generator, nn.Module):
            return {}
        modules = self.generator.named_modules(prefix="generator")
        return self.units_among((name, module) for name, module in modules if name != "generator")

    @property
    def device(self) -> torch.device:
        return next(self.parameters(), self.anchor).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters(), self.anchor).dtype
