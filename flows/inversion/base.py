"""What every inverter does: images to codes, with all that is needed to draw them again."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flows import images as pixels
from flows.errors import Unsupported
from flows.hooks import Hook, hooked
from flows.models.base import HasNoise, LatentModel
from flows.models.codes import Codes
from flows.numerics import exact_arithmetic

BATCH = 128
"""Number of images that are encoded or decoded at a time."""


@dataclass(frozen=True)
class Inversion:
    """Codes of a batch of images, and how they were found.

    Attributes:
        method: name of the inverter, with what it was told.
        codes: Codes of the images.
        noise: inputs of the generator that belong to the codes, (batch, 1, height, width) each; empty where
            the stored ones do.
        reconstruction: uint8 (batch, C, H, W), what the codes bring back.
        seconds: until the whole batch has its codes; drawing them again is not counted, but where the exact
            inverse makes sure of its bytes.
        steps: of optimisation, per image and start.
        losses: (starts, batch), final loss of every start, infinite where one failed.
        all_codes: (starts, batch, D), the code of every start.
        trace: (steps, starts, batch), the loss on the way; empty without steps.
        activations: what stands at a layer of the generator instead of what the code gives, name to
            (batch, C, height, width).
        weights: of the generator, for each image those that were changed for it; empty where none were.
        precision: of each code where they differ, "fp32" or "fp64"; empty where all have the model's.
        finite: (batch,), whether what the code draws is finite; empty where the losses say it.
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
    precision: list[str] = field(default_factory=list)
    finite: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def drawn(self) -> Tensor:
        """(batch,), whether a picture came back: what is not finite is drawn black, and is none."""
        fine = self.codes.values.isfinite().all(1).cpu()
        if len(self.losses):
            fine = fine & self.losses.isfinite().any(0).cpu()
        return fine & self.finite.cpu() if len(self.finite) else fine


class Inverter(ABC):
    """Images to codes of one model's latent space.

    To add one: a file in this folder, a class with a `name`, whose constructor's arguments are its settings.

    Attributes:
        name: for tables.
    """

    name: str

    @abstractmethod
    def why_not(self, model: LatentModel) -> str:
        """Why it cannot invert this model, in words; empty where it can."""

    @abstractmethod
    def invert(
        self,
        model: LatentModel,
        images: Tensor,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Inversion:
        """Invert uint8 images (batch, C, H, W).

        Args:
            model: Model in eval mode; its weights are not changed.
            images: uint8 images of the model's shape.
            generator: Source of all random numbers.
            labels: int64 (batch,), classes of the images for a class-conditional model; see
                `LatentModel.labels_of`.

        Raises:
            Unsupported: The model lacks what the method needs (`why_not`).
            UserError: The images do not fit the model, or their classes are needed and not known.
        """

    @abstractmethod
    def space_of(self, model: LatentModel) -> str:
        """Name of the space that this model's images are inverted into."""

    def single(self) -> "Inverter":
        """The same with one start."""
        return self

    def check(self, model: LatentModel, images: Tensor) -> None:
        """Raise ValueError where it cannot invert these images with this model."""
        reason = self.why_not(model)
        if reason:
            raise Unsupported(f"{self.name} cannot invert {type(model).__name__}: {reason}")
        pixels.check_bytes(images, model.image_shape)


NOTHING_TO_ADD = "its inverse is exact, there is nothing to add"
"""Why methods that refine a reconstruction do not run on a model with an exact inverse."""


def now(model: LatentModel) -> float:
    """Seconds on a clock, after everything that the model's device was given is done."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def final_losses(trace: Tensor, fine: Tensor | bool = True) -> Tensor:
    """(1, batch): the last of a trace (steps, batch), infinite for images that are not `fine`, (batch,)."""
    last = trace[-1:] if len(trace) else trace.new_zeros(1, trace.shape[1])
    return torch.where(last.isfinite() & fine, last, math.inf)


def reconstruct(
    model: LatentModel,
    codes: Codes,
    noise: Sequence[Tensor] = (),
    activations: Mapping[str, Tensor] | None = None,
    batch: int = BATCH,
) -> Tensor:
    """Decode codes with the noise and activations that belong to them: uint8 on the host."""
    return reconstruct_checked(model, codes, noise, activations, batch)[0]


@torch.no_grad()
def reconstruct_checked(
    model: LatentModel,
    codes: Codes,
    noise: Sequence[Tensor] = (),
    activations: Mapping[str, Tensor] | None = None,
    batch: int = BATCH,
) -> tuple[Tensor, Tensor]:
    """Reconstructions, and whether each is finite: (batch,) on the host; see `reconstruct`."""
    images, finite = [], []
    with exact_arithmetic(model.device):
        for start in range(0, len(codes), batch):
            rows = slice(start, start + batch)
            put = {name: value[rows] for name, value in (activations or {}).items()}
            with replaced(model, put):
                image = decode_with(model, codes[rows], [each[rows] for each in noise])
            images.append(pixels.to_bytes(image, model.bins).cpu())
            finite.append(image.flatten(1).isfinite().all(1).cpu())
    return torch.cat(images), torch.cat(finite)


def decode_with(model: LatentModel, codes: Codes, noise: Sequence[Tensor]) -> Tensor:
    """Decode codes, differentiably, with noise inputs (batch, 1, height, width) or with the stored ones."""
    if not noise:
        return model.decode_codes(codes)
    if not isinstance(model, HasNoise):
        raise Unsupported(f"{type(model).__name__} has no noise inputs, got {len(noise)}")
    return model.decode_with_noise(codes.values.to(model.device, model.dtype), noise, codes.space)


def replaced(model: LatentModel, activations: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    """A block in which the named layers return these activations for every input."""

    def answer(value: Tensor) -> Hook:
        return lambda _: value

    return hooked(model, {name: answer(value) for name, value in activations.items()})
