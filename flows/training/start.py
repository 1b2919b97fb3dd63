"""Checks and announcements between the config and the first step."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from flows.core.checks import check_memory
from flows.core.torch_internals import BatchNorm
from flows.data.base import ImageData, Split, SplitName, StreamedData
from flows.data.folder import Folder
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.storage.stored import StoredModule
from flows.training.settings import Training

KEPT = ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE", "ACCELERATE_CPU_AFFINITY")
"""Variables of Accelerate that choose the hardware; what a run computes does not depend on them."""
NEUTRAL = ("", "0", "1", "no", "false", "none", "fp32")
"""Values, in lower case, with which the other variables change nothing; launchers set them."""


def ignored_environment() -> list[str]:
    """Remove Accelerate's variables from the environment; returns those that would have changed the run.

    They may be left over from another project. A run is what its settings say.
    """
    others = [name for name in os.environ if name.startswith("ACCELERATE_") and name not in KEPT]
    values = {name: os.environ.pop(name) for name in sorted(others)}
    return [f"{name}={value}" for name, value in values.items() if value.lower() not in NEUTRAL]


def check_classes(
    model: StoredModule, data: ImageData, opened: Mapping[SplitName, Split] | None = None
) -> None:
    """Raise UserError unless the labels of the data set are the classes of a class-conditional model.

    The splits are opened unless they are given.
    """
    classes = model.num_classes if isinstance(model, LatentModel) else 0
    if not classes:
        return
    names, known = data.class_names, f"model.num_classes: expected %s, got {classes}; "
    kind = type(data).__name__
    if names and len(names) != classes:
        listed = f"{kind} has {len(names)} classes: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
        raise UserError(known % len(names) + listed)
    for labels in labels_of(data.opened() if opened is None else opened):
        low, high = int(labels.min()), int(labels.max())
        if low < 0:
            found = int((labels < 0).sum())
            how = "it needs a subfolder for each class" if isinstance(data, Folder) else "labels are needed"
            raise UserError(
                f"{type(model).__name__} is class-conditional, and {found:,} of {len(labels):,} images of "
                f"{kind} have no label: {how}"
            )
        if high >= classes:
            raise UserError(known % f"at least {high + 1}" + f"{kind} has labels up to {high}")


def check_batch(training: Training, image_shape: Sequence[int], world: int) -> None:
    """Raise UserError if the images of one micro-batch alone, as input and gradient, exceed the memory."""
    images = training.batch // (world * training.accumulate)
    check_memory(8 * images * math.prod(image_shape), f"training.batch: a micro-batch of {images:,} images")


def labels_of(opened: Mapping[SplitName, Split]) -> Iterator[Tensor]:
    """Labels of the splits that hold them without reading images, int64 (n,) each."""
    for split in opened.values():
        labels = getattr(split, "labels", None)
        if isinstance(labels, Tensor) and len(labels):
            yield labels


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether figures depend on how a batch is divided into micro-batches, because of batch norm."""
    norms = (getattr(part, "uses_batch_statistics", False) for part in model.modules())
    return any(norms) or any(isinstance(part, BatchNorm) for part in model.modules())


def start_notes(training: Training, data: ImageData) -> list[str]:
    """Sentences on settings that have no effect with this data set."""
    if isinstance(data, StreamedData) and training.workers:
        return ["training.workers has no effect: a stream is read in the main process"]
    return []


def duration(images: int, images_per_second: float) -> str:
    """Sentence on how long a run takes: `about 26 minutes for 256,000 images (165 images/s)`."""
    seconds = images / images_per_second
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, size = next(each for each in units if seconds >= 2 * each[1] or each[1] == 1)
    count = max(1, round(seconds / size))
    return f"about {count} {unit} for {images:,} images ({images_per_second:.3g} images/s)"


def set_threads(threads: int | None) -> None:
    """Set the number of threads of torch's operations; None leaves it."""
    if threads is not None:
        torch.set_num_threads(threads)
