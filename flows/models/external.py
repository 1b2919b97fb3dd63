"""Adapter that makes any generator a latent model."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.core.bounds import ImageShape, PositiveInt
from flows.errors import Unsupported, UserError
from flows.models.base import LatentModel, LayerShape, Space
from flows.models.priors import Normal

__all__ = ["ExternalGenerator"]


class ExternalGenerator(LatentModel):
    """Latent model of a generator that was trained elsewhere.

        generator = torch.jit.load("mine.pt").eval()
        model = ExternalGenerator(generator, image_shape=(3, 64, 64), size=512)
        Optimise("z").invert(model, images)

    The model exists in memory only; save the generator itself. The fingerprint is computed from the weights
    and, if the generator or mapping is not a module, from the images of four fixed codes.

    Args:
        generator: Module or callable from codes (batch, size), standard normal, to images; from w (batch,
            width) with a mapping.
        image_shape: Image shape (C, H, W).
        size: Dimension of z.
        mapping: Module or callable from z to w, if the generator takes w. The model then has the spaces `z`
            and `w`.
        width: Dimension of w.
        interval: Output values of the generator for black and white.

    Raises:
        UserError: `mapping` is given without `width`.
    """

    anchor: Tensor

    def __init__(
        self,
        generator: Callable[[Tensor], Tensor],
        image_shape: ImageShape,
        size: PositiveInt,
        mapping: Callable[[Tensor], Tensor] | None = None,
        width: PositiveInt | None = None,
        interval: tuple[float, float] = (-1.0, 1.0),
    ):
        super().__init__()
        if not interval[0] < interval[1]:
            raise UserError(f"interval: expected (low, high) of the generator's output, got {interval}")
        channels, height, width_of_images = image_shape
        self.image_shape = (channels, height, width_of_images)
        self.bins = 256
        self.generator, self.mapping, self.interval = generator, mapping, interval
        # The buffer defines device and precision if the generator has no weights.
        self.register_buffer("anchor", torch.zeros(()))
        conversions = frozenset[str]() if mapping is None else frozenset({"w"})
        self.spaces = {
            "z": Space(
                "z",
                (size,),
                Normal(),
                {"all": slice(0, size)},
                "the generator's input",
                conversions=conversions,
            )
        }
        if mapping is not None:
            if width is None:
                raise UserError("width: a mapping needs the dimension of w, got None")
            self.spaces["w"] = Space("w", (width,), None, {"all": slice(0, width)}, "mapped z")
            self.search_space = "w"
        self.description: dict[str, Any] = {}

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        raise Unsupported(
            "ExternalGenerator has no encoder: its guarantee is 'none'; use inversion by optimisation"
        )

    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        self.check_code(code, space)
        deepest = "w" if self.mapping is not None else "z"
        image = self.generator(self.convert(code, space, deepest))
        if tuple(image.shape[1:]) != self.image_shape:
            raise UserError(
                f"expected images of image_shape {self.image_shape}, the generator returned "
                f"{tuple(image.shape[1:])}"
            )
        low, high = self.interval
        return (image - low) / (high - low)

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        if (source, target) == ("z", "w") and self.mapping is not None:
            return self.mapping(code)
        return super().convert(code, source, target)

    def fingerprint(self) -> str:
        of_weights = super().fingerprint()
        parts = [self.generator] if self.mapping is None else [self.generator, self.mapping]
        if all(isinstance(part, nn.Module) for part in parts):
            return of_weights
        with torch.no_grad():
            images = self.decode(self.sample_codes(4, "z", torch.Generator().manual_seed(0)))
        outputs = pixels.to_bytes(images, self.bins).cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(of_weights.encode() + outputs).hexdigest()[:16]

    def layers(self) -> dict[str, LayerShape]:
        if not isinstance(self.generator, nn.Module):
            return {}
        modules = self.generator.named_modules(prefix="generator")
        return self.layers_among((name, module) for name, module in modules if name != "generator")

    @property
    def device(self) -> torch.device:
        return next(self.parameters(), self.anchor).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters(), self.anchor).dtype
