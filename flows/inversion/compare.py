"""Inverters side by side: the same images, the same clock, every failure shown."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from flows import images as pixels
from flows.inversion.base import Inversion, Inverter
from flows.inversion.edits import edit_consistency
from flows.inversion.optimise import extent
from flows.inversion.records import Record, Source, record_of
from flows.metrics.likelihood import bits_per_dim
from flows.metrics.perceptual import FeatureNetwork, perceptual_distance
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.models.base import LatentModel, LikelihoodModel


@dataclass(frozen=True)
class Group:
    """Images that are inverted together.

    Attributes:
        images: uint8 (n, C, H, W).
        sources: one for each.
        codes: for a model whose name is a key, the space and the codes that drew the images.
        only: name of the one model that inverts them; None for every model.
    """

    images: Tensor
    sources: list[Source]
    codes: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    only: str | None = None


Groups = Mapping[str, Group]


@dataclass(frozen=True)
class Row:
    """One model, one inverter, one group of images.

    Attributes:
        model, inverter, group: names.
        images: how many.
        note: why the pair is impossible; then everything below is not a number.
        psnr, worst_psnr: median and least over the images, dB, infinite where an image is returned as it was.
        ssim: mean structural similarity.
        perceptual: mean distance by a named network; not a number without one.
        bit_exact: share of images returned with every byte.
        seconds: per image.
        steps: of optimisation, per image and start.
        starts: how many.
        spread: median over the images of (worst − best) loss over the starts that did not fail, relative to
            the best; 0 where there is one answer.
        apart: median distance between the codes of two starts, relative to the codes' own length.
        failed: share of starts that diverged.
        typicality: mean distance of |z| from its own root mean square over the prior, relative to that; of a
            standard normal that is √D. 0 is typical; codes nearer to the middle and farther out are not.
        log_prob: mean log-density of the codes per dimension, nats, where the model knows it.
        undone: see `edit_consistency`, dB.
        code_error: median distance to the code that drew the image, relative to its distance from the middle;
            not a number where no code is known.
    """

    model: str
    inverter: str
    group: str
    images: int
    note: str = ""
    psnr: float = math.nan
    worst_psnr: float = math.nan
    ssim: float = math.nan
    perceptual: float = math.nan
    bit_exact: float = math.nan
    seconds: float = math.nan
    steps: int = 0
    starts: int = 1
    spread: float = math.nan
    apart: float = math.nan
    failed: float = math.nan
    typicality: float = math.nan
    log_prob: float = math.nan
    undone: float = math.nan
    code_error: float = math.nan

    def as_dict(self) -> dict[str, object]:
        """Columns by name."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """A row with what it was measured from.

    Attributes:
        row: of the table.
        reconstruction: uint8 (n, C, H, W); empty where the pair is impossible.
        each_psnr: of every image, dB.
        record: draws the reconstruction again; None where the pair is impossible.
    """

    row: Row
    reconstruction: Tensor = field(default_factory=lambda: torch.empty(0))
    each_psnr: list[float] = field(default_factory=list)
    record: Record | None = None


def compare(
    models: Mapping[str, LatentModel],
    inverters: Mapping[str, Inverter],
    groups: Groups,
    seed: int = 0,
    network: FeatureNetwork | None = None,
    edits: bool = True,
) -> list[Result]:
    """Every inverter on every model and group; impossible pairs are rows with the reason.

    Every pair starts from the same seed.

    Args:
        models: in eval mode afterwards.
        inverters: by name.
        groups: by name.
        seed: of everything random.
        network: for the perceptual distance.
        edits: measure the consistency of edits, which inverts four more images.
    """
    results = []
    for model_name, model in models.items():
        model.eval()
        for inverter_name, inverter in inverters.items():
            reason = inverter.why_not(model)
            for name, group in groups.items():
                if group.only not in (None, model_name):
                    continue
                row = Row(model_name, inverter_name, name, len(group.images), reason)
                if reason:
                    results.append(Result(row))
                    continue
                seen = replace(group, images=pixels.reduce(group.images, model.bins))
                found = inverter.invert(model, seen.images, torch.Generator().manual_seed(seed))
                quality = psnr(seen.images, found.reconstruction)
                row = measure(row, model, found, seen, quality)
                if network is not None:
                    distances = perceptual_distance(network, seen.images, found.reconstruction)
                    row = replace(row, perceptual=float(distances.mean()))
                if edits:
                    row = replace(row, undone=edit_consistency(model, inverter, found, seed))
                record = record_of(found, group.sources, seed)
                results.append(Result(row, found.reconstruction, quality.tolist(), record))
    return results


def measure(head: Row, model: LatentModel, found: Inversion, group: Group, quality: Tensor) -> Row:
    """`head` with the figures of one inversion; `quality` is every image's PSNR."""
    images = group.images
    same = (images == found.reconstruction).flatten(1).all(1)
    starts = max(1, len(found.losses))
    spread, apart, failed = 0.0, 0.0, 0.0
    if len(found.losses):
        ended = found.losses.isfinite()
        best = found.losses.amin(0)
        worst = found.losses.where(ended, -math.inf).amax(0)
        apart_by = ((worst - best) / best.clamp(min=1e-12))[ended.any(0)]
        spread = float(apart_by.median()) if len(apart_by) else math.nan
        failed = float(1 - ended.double().mean())
        apart = _apart(found.all_codes)
    known = group.codes.get(head.model)
    return replace(
        head, psnr=float(quality.median()), worst_psnr=float(quality.min()),
        ssim=structural_similarity(images, found.reconstruction), bit_exact=float(same.double().mean()),
        seconds=found.seconds / len(images), steps=found.steps, starts=starts, spread=spread, apart=apart,
        failed=failed, typicality=typicality(model, found), log_prob=log_prob_of(model, found),
        code_error=math.nan if known is None else code_error(model, found, *known),
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
    """See `Row`; not a number where the codes have no counterpart in the prior space."""
    try:
        code = found.code.to(model.dtype).to(model.device)
        z = model.convert(code, found.space, "z")
    except ValueError:
        return math.nan
    usual = model.sample_codes(1000, "z", torch.Generator().manual_seed(0)).norm(dim=1).square().mean().sqrt()
    return float((z.norm(dim=1) / usual - 1).abs().mean())


@torch.no_grad()
def log_prob_of(model: LatentModel, found: Inversion) -> float:
    """Mean log-density of codes per dimension, nats; not a number where the model does not know it."""
    try:
        code = found.code.to(model.dtype).to(model.device)
        return float(model.log_prob_code(code, found.space).mean() / code.shape[1])
    except ValueError:
        return math.nan


@torch.no_grad()
def code_error(model: LatentModel, found: Inversion, space: str, known: Tensor) -> float:
    """How far codes are from those that drew the images, relative to their distance from the middle."""
    code = found.code.to(model.dtype).to(model.device)
    try:
        known, space = model.convert(known, space, found.space), found.space
    except ValueError:
        try:
            code = model.convert(code, found.space, space)
        except ValueError:
            return math.nan
    middle, _ = extent(model, space, codes=1000)
    return float(((code - known).norm(dim=1) / (known - middle).norm(dim=1)).median())


def likelihood_of(model: LatentModel, images: Tensor) -> float:
    """Mean bits/dim of uint8 images where the model has a likelihood, otherwise not a number."""
    if not isinstance(model, LikelihoodModel) or model.num_classes:
        return math.nan
    with torch.no_grad():
        log_prob = model(images.to(model.device), None, torch.Generator().manual_seed(0)).log_prob
    return float(bits_per_dim(log_prob, images[0].numel()).mean())
