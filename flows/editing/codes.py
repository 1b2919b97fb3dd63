"""Codes of pictures, pictures of codes, and ways from one to another."""

import torch
from torch import Tensor

from flows import images as pixels
from flows.inversion.encoder import Encoder
from flows.inversion.exact import invert_exactly
from flows.metrics.typicality import largest_typical_share
from flows.models.base import LatentModel
from flows.opening import first_test
from flows.steering.survey import seen_in


def encoded(model: LatentModel, images: Tensor, space: str) -> Tensor:
    """Codes of uint8 images, of a double precision where only that brings every byte back."""
    if model.guarantee[space] == "exact":
        return invert_exactly(model, images, model.first_class(len(images))).code.to(model.device)
    return Encoder(space).invert(model, images).code.to(model.device)


def encoded_test(model: LatentModel, n: int, space: str) -> tuple[Tensor, Tensor | None]:
    """Codes of the first n test images, in the model's precision, and their classes if any."""
    return coded(model, first_test(model, n), space)


def coded(model: LatentModel, images: Tensor, space: str) -> tuple[Tensor, Tensor | None]:
    """Codes of uint8 images of any grey levels, in the model's precision, and their classes if any."""
    codes = encoded(model, pixels.reduce(images, model.bins), space)
    return codes.to(model.dtype), model.first_class(len(images))


def draw(model: LatentModel, code: Tensor, space: str) -> Tensor:
    """uint8 images (n, C, H, W) of codes, on the host."""
    labels = model.first_class(len(code))
    return seen_in(model, code, space, labels, lambda images: pixels.to_bytes(images, model.bins))


def cut_short(model: LatentModel, code: Tensor, moved: Tensor, space: str, budget: float) -> Tensor:
    """The codes on the way from `code` to `moved` that are farthest and still within the budget."""
    given, step = code.to(model.dtype), (moved - code).to(model.dtype)
    share = largest_typical_share(model, given, step, space, budget)
    return code + share[:, None].to(code) * (moved - code)


def line(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """(1 − share)·a + share·b: (steps, D) from (1, D), (1, D) and (steps, 1)."""
    return torch.lerp(a, b, share)


def sphere(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Along the great circle from a's direction to b's, with linearly interpolated length.

    Codes of a standard normal prior lie near a sphere of radius √D, which the straight line leaves.
    """
    length_a, length_b = a.norm(), b.norm()
    angle = torch.arccos(((a / length_a) * (b / length_b)).sum().clamp(-1, 1))
    if angle < 1e-6:
        return line(a, b, share)
    direction = torch.sin((1 - share) * angle) * a / length_a + torch.sin(share * angle) * b / length_b
    return direction / torch.sin(angle) * torch.lerp(length_a, length_b, share)
