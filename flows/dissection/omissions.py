"""What a model cannot draw: class statistics of samples and data (Bau et al. 2019, arXiv 1910.11626)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flows.errors import Unsupported
from flows.metrics.frechet import Frechet, frechet, half_split_floor
from flows.models.base import BATCH, LatentModel

RESAMPLES = 500


@dataclass(frozen=True)
class ClassRow:
    """How much of a class the samples have.

    Attributes:
        label: name of the class.
        data, samples: mean share of an image's pixels, percent.
        relative: (samples − data)/data.
        low, high: 95 % bootstrap interval of `relative`, over images of both sets.
        data_images, samples_images: share of the images that have any.
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
        rows: classes that the data has, those that are missing most first: by the interval's upper end.
        distance: Fréchet segmentation distance.
        floor: the same between random halves of the data.
    """

    rows: list[ClassRow]
    distance: Frechet
    floor: Frechet

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "classes": [asdict(row) for row in self.rows],
            "fsd": {"mean": self.distance.mean, "covariance": self.distance.covariance},
            "floor": {"mean": self.floor.mean, "covariance": self.floor.covariance},
        }


def shares_of(masks: Tensor) -> Tensor:
    """Pixels of every class in percent of the image, (n, classes), of bool (n, classes, H, W)."""
    return 100 * masks.flatten(2).float().mean(2)


def omissions(
    data: Tensor, samples: Tensor, classes: Sequence[str], fewest: float = 0.01, seed: int = 0
) -> Omissions:
    """Compare class shares of samples with those of the data.

    Args:
        data: (n, classes), percent; see `shares_of`.
        samples: (m, classes), by the same segmenter: its own errors are then on both sides.
        classes: their names.
        fewest: share of the data's images that must have a class for it to be ranked.
        seed: of the bootstrap.

    Returns:
        what is missing, most first. A class counts as missing by the upper end of its interval, so that what
        is rare and merely unlucky does not lead.
    """
    random = torch.Generator().manual_seed(seed)

    def again(shares: Tensor) -> Tensor:
        return shares[torch.randint(len(shares), (len(shares),), generator=random)].mean(0)

    means = [torch.stack([again(each) for _ in range(RESAMPLES)]) for each in (data, samples)]
    ratio = means[1] / means[0].clamp(min=1e-9) - 1
    low, high = torch.quantile(ratio, torch.tensor([0.025, 0.975]), dim=0)
    rows = []
    for i, label in enumerate(classes):
        has = float((data[:, i] > 0).double().mean())
        if has < fewest:
            continue
        there, drawn = float(data[:, i].mean()), float(samples[:, i].mean())
        rows.append(ClassRow(
            label, there, drawn, drawn / there - 1, float(low[i]), float(high[i]), has,
            float((samples[:, i] > 0).double().mean()),
        ))  # fmt: skip
    rows.sort(key=lambda row: row.high)
    return Omissions(rows, frechet(data, samples), half_split_floor(data))


@dataclass(frozen=True)
class EnergyRow:
    """How implausible a flow finds the pixels of a class.

    Attributes:
        label: name of the class.
        energy: mean of z²/2 over the class's pixels in real images, nats per pixel; see `energy_maps`.
        low, high: its 95 % bootstrap interval, over images.
        images: share of the images that have the class.
    """

    label: str
    energy: float
    low: float
    high: float
    images: float


def energy_by_class(
    maps: Tensor, masks: Tensor, classes: Sequence[str], fewest: float = 0.01, seed: int = 0
) -> list[EnergyRow]:
    """The classes, those first that a flow is surest to find implausible: by the interval's lower end.

    Args:
        maps: energy (n, H, W).
        masks: bool (n, classes, H, W).
        classes: their names.
        fewest: share of the images that must have a class for it to be ranked.
        seed: of the bootstrap.
    """
    random = torch.Generator().manual_seed(seed)
    pixels = masks.flatten(2).double().sum(2)
    sums = (masks * maps[:, None]).flatten(2).double().sum(2)
    found = []
    for i, label in enumerate(classes):
        has = torch.nonzero(pixels[:, i] > 0)[:, 0]
        if len(has) < max(2, fewest * len(maps)):
            continue
        again = has[torch.randint(len(has), (RESAMPLES, len(has)), generator=random)]
        means = sums[:, i][again].sum(1) / pixels[:, i][again].sum(1)
        low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
        mean = float(sums[has, i].sum() / pixels[has, i].sum())
        found.append(EnergyRow(label, mean, low, high, len(has) / len(maps)))
    return sorted(found, key=lambda row: -row.low)


@torch.no_grad()
def energy_maps(
    model: LatentModel, images: Tensor, labels: Tensor | None = None, batch: int = BATCH
) -> Tensor:
    """Where a flow finds images implausible: the energy of its code, z²/2, at every place, nats per pixel.

    Every level's part of the code is spread over the pixels that it lies on; the sum over an image is that of
    z²/2 over its code.

    Args:
        model: one with an exact inverse whose code lies over the image.
        images: uint8 (n, C, H, W).
        labels: int64 (n,), classes of the images; see `LatentModel.encode_bytes`.
        batch: Number of images at a time.

    Returns:
        (n, H, W) on the host.

    Raises:
        ValueError: no part of its code lies over the image.
    """
    space = model.prior_space
    if not space.maps or not space.exact:
        raise Unsupported(f"{type(model).__name__} has no exact code that lies over the image: no energy map")
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
