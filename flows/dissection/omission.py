"""Classes that a model omits: class statistics of samples and data (Bau et al. 2019, arXiv 1910.11626)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flows.core.statistics import check_enough, interval
from flows.errors import Unsupported
from flows.metrics.frechet import Frechet, frechet, half_split_floor
from flows.models.base import BATCH, LatentModel

__all__ = ["Omissions", "energy_by_class", "energy_maps", "omissions", "shares_of"]

RESAMPLES = 500
"""Number of bootstrap resamples."""


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Share of a class in data and samples.

    Attributes:
        label: Name of the class.
        data, samples: Mean share of an image's pixels, in percent.
        relative: Relative difference, (samples − data)/data.
        low, high: 95 % bootstrap interval of `relative`, over images of both sets; NaN if so few images of
            the data have the class that some resamples have none.
        data_images, samples_images: Share of the images that have the class.
    """

    label: str
    data: float
    samples: float
    relative: float
    low: float
    high: float
    data_images: float
    samples_images: float


@dataclass(frozen=True)
class Omissions:
    """Class statistics of samples and data.

    Attributes:
        rows: Classes of the data, most clearly missing first, by the upper end of the interval.
        distance: Fréchet segmentation distance of samples and data.
        floor: Fréchet segmentation distance of random halves of the data.
    """

    rows: list[ClassRow]
    distance: Frechet
    floor: Frechet

    def as_dict(self) -> dict[str, Any]:
        """Fields as plain values."""
        return {
            "classes": [asdict(row) for row in self.rows],
            "fsd": {"mean": self.distance.mean, "covariance": self.distance.covariance},
            "floor": {"mean": self.floor.mean, "covariance": self.floor.covariance},
        }


def shares_of(masks: Tensor) -> Tensor:
    """Pixels of each class in percent of the image, (n, classes), from masks bool (n, classes, H, W)."""
    return 100 * masks.flatten(2).float().mean(2)


def omissions(
    data: Tensor, samples: Tensor, classes: Sequence[str], fewest: float = 0.01, seed: int = 0
) -> Omissions:
    """Compare class shares of samples with those of the data.

    Args:
        data: (n, classes), percent; see `shares_of`.
        samples: (m, classes), percent, from the same segmenter, so that its errors are the same in both.
        classes: Names of the classes.
        fewest: Minimum share of the data's images that have a class for it to be ranked.
        seed: Seed of the bootstrap.

    Returns:
        Class statistics, most clearly missing first. Classes are sorted by the upper end of the interval, so
        that rare classes with few pixels by chance do not come first.

    Raises:
        UserError: There are fewer than ten images in one of the sets.
    """
    for name, shares in (("test images", data), ("samples", samples)):
        check_enough(f"{name} for the shares of classes", len(shares))
    random = torch.Generator().manual_seed(seed)

    def resampled_mean(shares: Tensor) -> Tensor:
        return shares[torch.randint(len(shares), (len(shares),), generator=random)].mean(0)

    means = [torch.stack([resampled_mean(each) for _ in range(RESAMPLES)]) for each in (data, samples)]
    low, high = interval(means[1] / means[0] - 1)
    rows = []
    for i, label in enumerate(classes):
        has = float((data[:, i] > 0).double().mean())
        if has < fewest:
            continue
        in_data, in_samples = float(data[:, i].mean()), float(samples[:, i].mean())
        rows.append(
            ClassRow(
                label=label,
                data=in_data,
                samples=in_samples,
                relative=in_samples / in_data - 1,
                low=float(low[i]),
                high=float(high[i]),
                data_images=has,
                samples_images=float((samples[:, i] > 0).double().mean()),
            )
        )
    rows.sort(key=lambda row: math.inf if math.isnan(row.high) else row.high)
    return Omissions(rows, frechet(data, samples), half_split_floor(data))


@dataclass(frozen=True, kw_only=True)
class EnergyRow:
    """Energy of a flow's code at the pixels of a class; implausible pixels have a high energy.

    Attributes:
        label: Name of the class.
        energy: Mean of z²/2 over the pixels of the class in real images, nats per pixel; see `energy_maps`.
        low, high: 95 % bootstrap interval of `energy`, over images.
        images: Share of the images that have the class.
    """

    label: str
    energy: float
    low: float
    high: float
    images: float


def energy_by_class(
    maps: Tensor, masks: Tensor, classes: Sequence[str], fewest: float = 0.01, seed: int = 0
) -> list[EnergyRow]:
    """Energy of each class, highest first by the lower end of the interval.

    Args:
        maps: (n, H, W), energy.
        masks: bool (n, classes, H, W).
        classes: Names of the classes.
        fewest: Minimum share of the images that have a class for it to be ranked.
        seed: Seed of the bootstrap.
    """
    random = torch.Generator().manual_seed(seed)
    pixels = masks.flatten(2).double().sum(2)
    sums = (masks * maps[:, None]).flatten(2).double().sum(2)
    rows = []
    for i, label in enumerate(classes):
        has = torch.nonzero(pixels[:, i] > 0)[:, 0]
        if len(has) < max(2, fewest * len(maps)):
            continue
        resampled = has[torch.randint(len(has), (RESAMPLES, len(has)), generator=random)]
        means = sums[:, i][resampled].sum(1) / pixels[:, i][resampled].sum(1)
        low, high = (float(end) for end in interval(means[:, None]))
        mean = float(sums[has, i].sum() / pixels[has, i].sum())
        rows.append(EnergyRow(label=label, energy=mean, low=low, high=high, images=len(has) / len(maps)))
    return sorted(rows, key=lambda row: -row.low)


@torch.no_grad()
def energy_maps(
    model: LatentModel, images: Tensor, labels: Tensor | None = None, batch: int = BATCH
) -> Tensor:
    """Energy of a flow's code, z²/2, at each pixel, in nats per pixel; high where an image is implausible.

    Each level's part of the code is distributed over the pixels that it covers; the sum over an image is that
    of z²/2 over its code.

    Args:
        model: Model with an exact inverse and a code with spatial parts.
        images: uint8 (n, C, H, W).
        labels: int64 (n,), classes of the images; see `LatentModel.encode_bytes`.
        batch: Number of images at a time.

    Returns:
        Energy maps (n, H, W), on the host.

    Raises:
        Unsupported: The model has no exact code with spatial parts.
    """
    space = model.prior_space
    if not space.maps or not space.exact:
        raise Unsupported(
            f"{type(model).__name__} has no exact code with spatial levels; energy maps need one"
        )
    _, height, width = model.image_shape
    maps = []
    for part in model.encode_bytes(images, space.name, labels, batch).split(batch):
        total = torch.zeros(len(part), 1, height, width)
        for level, shape in space.maps.items():
            values = part.values[:, space.levels[level]].unflatten(1, shape)
            energy = values.square().sum(1, keepdim=True) / 2
            share = shape[1] * shape[2] / (height * width)
            total += share * interpolate(energy.cpu().float(), (height, width), mode="nearest")
        maps.append(total[:, 0])
    return torch.cat(maps)
