"""Inverters side by side: the same images, the same clock, every failure shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from flows.inversion.base import Inversion, Inverter
from flows.metrics.likelihood import bits_per_dim
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.models.base import LatentModel, LikelihoodModel

Groups = Mapping[str, Tensor]
"""Name to uint8 (n, C, H, W)."""


@dataclass(frozen=True)
class Row:
    """One model, one inverter, one group of images.

    Attributes:
        model, inverter, group: names.
        images: how many.
        note: why the pair is impossible; then everything below is not a number.
        psnr, worst_psnr: median and least over the images, dB, infinite where an image is returned as it was.
        ssim: mean structural similarity.
        bit_exact: share of images returned with every byte.
        seconds: per image.
        steps: of optimisation, per image and start.
        starts: how many.
        spread: median over the images of (worst − best) loss over the starts, relative to the best; 0 where
            there is one answer.
        apart: median distance between the codes of two starts, relative to the codes' own length.
        failed: share of starts that diverged.
        typicality: mean of |z|/√D − 1 over the codes in the prior space; 0 is typical, either sign is not.
    """

    model: str
    inverter: str
    group: str
    images: int
    note: str = ""
    psnr: float = math.nan
    worst_psnr: float = math.nan
    ssim: float = math.nan
    bit_exact: float = math.nan
    seconds: float = math.nan
    steps: int = 0
    starts: int = 1
    spread: float = math.nan
    apart: float = math.nan
    failed: float = math.nan
    typicality: float = math.nan

    def as_dict(self) -> dict[str, object]:
        """Columns by name."""
        return asdict(self)


@dataclass(frozen=True)
class Picture:
    """What one method made of one group, for the grid."""

    model: str
    inverter: str
    group: str
    reconstruction: Tensor


def compare(
    models: Mapping[str, LatentModel], inverters: Mapping[str, Inverter], groups: Groups, seed: int = 0
) -> tuple[list[Row], list[Picture]]:
    """Every inverter on every model and group; impossible pairs are rows with the reason.

    Every pair starts from the same seed.
    """
    rows, pictures = [], []
    for model_name, model in models.items():
        model.eval()
        for inverter_name, inverter in inverters.items():
            reason = inverter.why_not(model)
            for group, images in groups.items():
                head = model_name, inverter_name, group, len(images)
                if reason:
                    rows.append(Row(*head, note=reason))
                    continue
                found = inverter.invert(model, images, torch.Generator().manual_seed(seed))
                rows.append(measure(model, found, images, head))
                pictures.append(Picture(model_name, inverter_name, group, found.reconstruction))
    return rows, pictures


def measure(model: LatentModel, found: Inversion, images: Tensor, head: tuple[str, str, str, int]) -> Row:
    """The row of one inversion."""
    quality = psnr(images, found.reconstruction)
    same = (images == found.reconstruction).flatten(1).all(1)
    starts = max(1, len(found.losses))
    spread, apart, failed = 0.0, 0.0, 0.0
    if len(found.losses):
        best, worst = found.losses.amin(0), found.losses.amax(0)
        spread = float(((worst - best) / best.clamp(min=1e-12)).median())
        failed = float(found.losses.isinf().double().mean())
        apart = _apart(found.all_codes)
    return Row(
        *head, psnr=float(quality.median()), worst_psnr=float(quality.min()),
        ssim=structural_similarity(images, found.reconstruction), bit_exact=float(same.double().mean()),
        seconds=found.seconds / len(images), steps=found.steps, starts=starts, spread=spread, apart=apart,
        failed=failed, typicality=typicality(model, found),
    )  # fmt: skip


def _apart(codes: Tensor) -> float:
    """Median distance of two starts' codes (starts, batch, D), relative to their root mean squared length."""
    if len(codes) < 2:
        return 0.0
    pairs = torch.combinations(torch.arange(len(codes)))
    distance = (codes[pairs[:, 0]] - codes[pairs[:, 1]]).norm(dim=2)
    return float(distance.median() / codes.norm(dim=2).square().mean().sqrt())


@torch.no_grad()
def typicality(model: LatentModel, found: Inversion) -> float:
    """Mean of |z|/√D − 1; not a number where the codes have no counterpart in the prior space."""
    try:
        code = found.code.to(model.dtype).to(model.device)
        z = model.convert(code, found.space, "z")
    except ValueError:
        return math.nan
    return float((z.norm(dim=1) / math.sqrt(z.shape[1]) - 1).mean())


def likelihood_of(model: LatentModel, images: Tensor) -> float:
    """Mean bits/dim of uint8 images where the model has a likelihood, otherwise not a number."""
    if not isinstance(model, LikelihoodModel):
        return math.nan
    with torch.no_grad():
        log_prob = model(images.to(model.device), None, torch.Generator().manual_seed(0)).log_prob
    return float(bits_per_dim(log_prob, images[0].numel()).mean())


def error_map(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Largest difference of the channels, uint8 (n, C, H, W), four times as bright as it is."""
    difference = (images.int() - reconstruction.int()).abs().amax(1, keepdim=True)
    return (4 * difference).clamp(max=255).byte().expand_as(images)


def grid_rows(groups: Groups, pictures: Sequence[Picture], group: str) -> list[tuple[str, Tensor]]:
    """Labelled rows for one group: the input, then each reconstruction with its error map."""
    images = groups[group]
    rows = [("input", images)]
    for picture in pictures:
        if picture.group == group:
            name, back = f"{picture.model}, {picture.inverter}", picture.reconstruction
            rows += [(name, back), (f"{name}: error, 4 times", error_map(images, back))]
    return rows
