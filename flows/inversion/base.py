"""Interface of inverters, which find codes for images."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.bounds import Checked
from flows.core.hooks import Hook, hooked
from flows.core.numerics import exact_arithmetic
from flows.errors import Unsupported, UserError
from flows.metrics.roundtrip import Precision
from flows.models.base import HasNoise, LatentModel
from flows.models.codes import Codes, LabelsLike

if TYPE_CHECKING:
    from flows.inversion.search import Search

__all__ = ["Inversion", "Inverter", "reconstruct"]

BATCH = 128
"""Number of images per batch when encoding or decoding."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Codes of a batch of images, with their reconstruction and the course of the optimisation.

    Attributes:
        method: Name of the inverter with its settings.
        codes: Codes of the images.
        noise: Noise inputs of the generator that belong to the codes, each (batch, 1, height, width); empty
            if the stored noise is used.
        reconstruction: uint8 (batch, C, H, W).
        seconds: Time in seconds until the whole batch has codes; decoding is included only for the exact
            inverse, which verifies the bytes.
        steps: Number of optimisation steps per image and restart.
        losses: (starts, batch), final loss of each restart; infinite if it failed.
        all_codes: (starts, batch, D), code of each restart.
        trace: (steps, starts, batch), loss at each step; empty without steps.
        activations: Name of a layer to the activations (batch, C, height, width) that replace its output.
        weights: Changed weights of the generator by name, one dict per image; empty if none were changed.
        precision: Precision of each code, "fp32" or "fp64"; empty if all have the model's.
        finite: (batch,) bool, whether the decoded image is finite; empty if the losses determine it.
    """

    method: str
    codes: Codes
    noise: list[Tensor]
    reconstruction: Tensor
    seconds: float
    steps: int = 0
    losses: Tensor = field(default_factory=lambda: torch.empty(0))
    all_codes: Tensor = field(default_factory=lambda: torch.empty(0))
    trace: Tensor = field(default_factory=lambda: torch.empty(0))
    activations: dict[str, Tensor] = field(default_factory=dict)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    precision: list[Precision] = field(default_factory=list)
    finite: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def succeeded(self) -> Tensor:
        """Whether each inversion succeeded, (batch,) bool: code and reconstruction are finite."""
        succeeded = self.codes.values.isfinite().all(1).cpu()
        if len(self.losses):
            succeeded = succeeded & self.losses.isfinite().any(0).cpu()
        return succeeded & self.finite.cpu() if len(self.finite) else succeeded


class Inverter(Checked, ABC):
    """Method that finds codes for images in a latent space of a model.

    To add one: create a file in this folder with a class that has a `name` and whose constructor arguments
    are its settings. `flows compare` then knows it by the name of the class and by config files; a short name
    is optional.

    Attributes:
        name: Name in tables.
        short_names: Short names of `flows compare --inverters`, each with the names of the words that may
            follow after colons: `{"optimise": ("SPACE", "ALGORITHM")}` for `optimise:w:lbfgs`.
    """

    name: str
    short_names: ClassVar[Mapping[str, Sequence[str]]] = {}

    @classmethod
    def from_short(cls, name: str, words: Mapping[str, str], search: "Search") -> "Inverter":
        """Create the inverter of one of its short names.

        Args:
            name: Short name.
            words: Words after it, by the names in `short_names`.
            search: Settings of the searches of a comparison.

        Raises:
            UserError: A word is not known.
        """
        return cls()

    def parts(self) -> dict[str, str]:
        """Return the names of parts of a model that the settings name: `space`, `layer`."""
        return {}

    @abstractmethod
    def why_not(self, model: LatentModel) -> str:
        """Return the reason why the method cannot invert this model; empty if it can."""

    @abstractmethod
    def invert(
        self,
        model: LatentModel,
        images: pixels.ImageLike,
        generator: torch.Generator | None = None,
        labels: LabelsLike | None = None,
    ) -> Inversion:
        """Find codes for a batch of images.

        Args:
            model: Model in eval mode; its weights are not changed.
            images: uint8 (batch, C, H, W), or other images that `flows.images.as_bytes` accepts.
            generator: Source of all random numbers; None takes a new one with seed 0.
            labels: batch integers, classes of the images for a class-conditional model, −1 for unknown ones
                (see `LatentModel.labels_to_encode`).

        Raises:
            Unsupported: The model lacks a capability that the method needs (`why_not`).
            UserError: The images do not fit the model, or their labels are required and unknown.
        """

    @abstractmethod
    def space_of(self, model: LatentModel) -> str:
        """Return the name of the space that this model's images are inverted into."""

    def single(self) -> "Inverter":
        """Return a copy of the method with a single restart, or the method itself if it has only one."""
        return self

    def check(self, model: LatentModel, images: pixels.ImageLike) -> Tensor:
        """Convert the images to uint8 (batch, C, H, W); see `flows.images.as_bytes`.

        Raises:
            Unsupported: The method cannot invert this model.
            UserError: The images do not fit the model.
        """
        reason = self.why_not(model)
        if reason:
            raise Unsupported(f"{self.name} cannot invert {type(model).__name__}: {reason}")
        converted = pixels.as_bytes(images, model.image_shape)
        if not len(converted):
            raise UserError("images: expected at least one, got none")
        return converted


NOTHING_TO_ADD = "its inverse is exact, so there is nothing to refine"
"""Reason why methods that refine a reconstruction do not run on a model with an exact inverse."""


def now(model: LatentModel) -> float:
    """Return the time in seconds, after all pending work of the model's device has finished."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def final_losses(trace: Tensor, fine: Tensor | bool = True) -> Tensor:
    """Return the last losses of a trace (steps, batch) as (1, batch); infinite for images not `fine`."""
    last = trace[-1:] if len(trace) else trace.new_zeros(1, trace.shape[1])
    return torch.where(last.isfinite() & fine, last, math.inf)


def reconstruct(
    model: LatentModel,
    codes: Codes,
    noise: Sequence[Tensor] = (),
    activations: Mapping[str, Tensor] | None = None,
    batch: int = BATCH,
) -> Tensor:
    """Decode codes with their noise and activations: uint8 (n, C, H, W) on the host."""
    return reconstruct_checked(model, codes, noise, activations, batch)[0]


@torch.no_grad()
def reconstruct_checked(
    model: LatentModel,
    codes: Codes,
    noise: Sequence[Tensor] = (),
    activations: Mapping[str, Tensor] | None = None,
    batch: int = BATCH,
) -> tuple[Tensor, Tensor]:
    """Return the images of `reconstruct` and whether each is finite, (n,) bool, on the host."""
    images, finite = [], []
    with exact_arithmetic(model.device):
        for start in range(0, len(codes), batch):
            rows = slice(start, start + batch)
            replacements = {name: value[rows] for name, value in (activations or {}).items()}
            with replaced(model, replacements):
                image = decode_with(model, codes[rows], [layer_noise[rows] for layer_noise in noise])
            images.append(pixels.to_bytes(image, model.bins).cpu())
            finite.append(image.flatten(1).isfinite().all(1).cpu())
    return torch.cat(images), torch.cat(finite)


def decode_with(model: LatentModel, codes: Codes, noise: Sequence[Tensor]) -> Tensor:
    """Decode codes, differentiably, with noise inputs (batch, 1, height, width); empty for stored noise."""
    if not noise:
        return model.decode_codes(codes)
    if not isinstance(model, HasNoise):
        raise Unsupported(f"{type(model).__name__} has no noise inputs: expected none, got {len(noise)}")
    if model.spaces[codes.space].labelled:
        raise Unsupported(f"{type(model).__name__} decodes with noise inputs only without labels")
    return model.decode_with_noise(codes.values.to(model.device, model.dtype), noise, codes.space)


def replaced(model: LatentModel, activations: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    """Context in which the named layers return the given activations for every input."""

    def constant(value: Tensor) -> Hook:
        return lambda _: value

    return hooked(model, {name: constant(value) for name, value in activations.items()})
