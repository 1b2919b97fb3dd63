"""Inverters side by side: the same images, the same clock, every failure shown."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from flows import images as pixels
from flows.inversion.base import Inversion, Inverter
from flows.inversion.edits import edit_consistency
from flows.inversion.exact import in_own_precision
from flows.inversion.optimise import extent
from flows.inversion.records import ImageSource, Record, record_of
from flows.metrics.likelihood import bits_per_dim
from flows.metrics.perceptual import FeatureNetwork, perceptual_distance
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.metrics.typicality import typicality
from flows.models.base import LatentModel, LikelihoodModel
from flows.models.codes import Codes


@dataclass(frozen=True)
class Group:
    """Images that are inverted together.

    Attributes:
        images: uint8 (n, C, H, W).
        sources: one for each.
        codes: Codes that generated the images, for a model whose name is a key.
        only: Name of the one model that inverts them; None for every model.
        labels: int64 (n,), classes of the images, −1 where unknown; None where no class is known.
    """

    images: Tensor
    sources: list[ImageSource]
    codes: dict[str, Codes] = field(default_factory=dict)
    only: str | None = None
    labels: Tensor | None = None


Groups = Mapping[str, Group]
LIKELIHOOD_BATCH = 128


@dataclass(frozen=True)
class Row:
    """One model, one inverter, one group of images.

    Attributes:
        model, inverter, group: names.
        images: how many.
        note: why the pair is impossible, or "failed: …", what broke; then everything below is not a number.
        psnr, worst_psnr: median and least over the images, dB, infinite where an image is returned as it was
            and 0, the worst there is, where none came back because a search diverged.
        ssim: mean structural similarity, of what came back; 0 where nothing did.
        perceptual: mean distance by a named network; not a number without one.
        bit_exact: share of images returned with every byte.
        seconds: per image.
        steps: of optimisation, per image and start.
        starts: how many.
        spread: median over the images of (worst − best) loss over the starts that did not fail, relative to
            the best; 0 where there is one answer.
        apart: median distance between the codes of two starts, relative to the codes' own length.
        failed: share of starts that diverged.
        typicality: mean |typicality| of the codes, see `flows.metrics.typicality`; 0 is typical.
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

    @property
    def reason(self) -> str:
        """`note` as a sentence for tables; empty where there are figures."""
        return self.note if self.note.startswith("failed: ") or not self.note else f"impossible: {self.note}"

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

    Every pair starts from the same seed. One that breaks (no memory left, a generator of the user's that
    raises) is a row with what it said, and the others go on; with FLOWS_DEBUG set, it raises.

    Args:
        models: in eval mode afterwards, of one number of grey levels.
        inverters: by name.
        groups: by name.
        seed: of everything random.
        network: for the perceptual distance.
        edits: measure the consistency of edits, which inverts four more images.
    """
    results = []
    for model_name, model in models.items():
        warm_up(model.eval())
        for inverter_name, inverter in inverters.items():
            impossible = inverter.why_not(model)
            for name, group in groups.items():
                if group.only not in (None, model_name):
                    continue
                reason = impossible or unlabelled(model, inverter, group)
                row = Row(model_name, inverter_name, name, len(group.images), reason)
                try:
                    result = Result(row) if reason else one(row, model, inverter, group, seed, network, edits)
                except Exception as error:  # whatever it is, hours of other pairs must not be lost
                    if os.environ.get("FLOWS_DEBUG"):
                        raise
                    said = str(error).split("\n")[0]
                    result = Result(replace(row, note=f"failed: {type(error).__name__}: {said}"))
                results.append(result)
    return results


def unlabelled(model: LatentModel, inverter: Inverter, group: Group) -> str:
    """Why a group without labels cannot be inverted; empty where it can."""
    space = inverter.space_of(model)
    if not model.needs_labels(space, group.labels):
        return ""
    others = [name for name, other in model.spaces.items() if not other.labelled]
    return f"codes of {space!r} need classes, which these images have not" + (
        f"; search {others[0]!r}" if others else ""
    )


@torch.no_grad()
def warm_up(model: LatentModel) -> None:
    """Decode once: the first pair's clock must not pay for what a device sets up."""
    model.decode_codes(model.sample(1, model.prior_space.name))


def one(
    row: Row,
    model: LatentModel,
    inverter: Inverter,
    group: Group,
    seed: int,
    network: FeatureNetwork | None,
    edits: bool,
) -> Result:
    """One inverter on one model and group; `row` has their names."""
    group = replace(group, images=pixels.reduce(group.images, model.bins))
    inversion = inverter.invert(model, group.images, torch.Generator().manual_seed(seed), group.labels)
    return measured(row, model, inverter if edits else None, inversion, group, seed, network)


def measured(
    row: Row,
    model: LatentModel,
    inverter: Inverter | None,
    found: Inversion,
    group: Group,
    seed: int = 0,
    network: FeatureNetwork | None = None,
) -> Result:
    """`row` with all figures of an inversion.

    Args:
        row: with the names.
        model: that was inverted.
        inverter: to measure the consistency of edits with, which inverts four more images; None does not.
        found: the inversion.
        group: of images as reduced to the model's grey levels.
        seed: of everything random.
        network: for the perceptual distance.
    """
    images = group.images
    quality = psnr(images, found.reconstruction).where(found.drawn, 0.0)
    row = measure(row, in_own_precision(model, found), found, group, quality)
    if network is not None and found.drawn.any():
        pair = images[found.drawn], found.reconstruction[found.drawn]
        row = replace(row, perceptual=float(perceptual_distance(network, *pair).mean()))
    if inverter is not None:
        row = replace(row, undone=edit_consistency(model, inverter, found, seed))
    return Result(row, found.reconstruction, quality.tolist(), record_of(found, group.sources, seed))


def measure(head: Row, model: LatentModel, found: Inversion, group: Group, quality: Tensor) -> Row:
    """`head` with the figures of one inversion; `quality` is every image's PSNR.

    Args:
        head: with the names.
        model: in the precision of the codes.
        found: the inversion.
        group: of images.
        quality: (n,), dB.
    """
    images, came = group.images, found.drawn
    same = (images == found.reconstruction).flatten(1).all(1) & came
    similar = structural_similarity(images[came], found.reconstruction[came]) if came.any() else 0.0
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
        ssim=similar * float(came.double().mean()), bit_exact=float(same.double().mean()),
        seconds=found.seconds / len(images), steps=found.steps, starts=starts, spread=spread, apart=apart,
        failed=failed, typicality=mean_typicality(model, found.codes),
        log_prob=log_prob_of(model, found.codes),
        code_error=math.nan if known is None else code_error(model, found.codes, known),
    )  # fmt: skip


def _apart(codes: Tensor) -> float:
    """Median distance of two starts' codes (starts, batch, D), relative to their root mean squared length."""
    if len(codes) < 2:
        return 0.0
    pairs = torch.combinations(torch.arange(len(codes)))
    distance = (codes[pairs[:, 0]] - codes[pairs[:, 1]]).norm(dim=2)
    return float(distance.median() / codes.norm(dim=2).square().mean().sqrt())


@torch.no_grad()
def mean_typicality(model: LatentModel, codes: Codes) -> float:
    """Mean |typicality| of codes; NaN without a map to the prior space."""
    if not model.can_convert(codes, model.prior_space.name):
        return math.nan
    return float(typicality(model, codes).abs().mean())


@torch.no_grad()
def log_prob_of(model: LatentModel, codes: Codes) -> float:
    """Mean log-density of codes per dimension, nats; NaN where the model does not know it."""
    if not model.spaces[codes.space].density:
        return math.nan
    values = codes.to(model).values
    return float(model.log_prob_code(values, codes.space).mean() / values.shape[1])


@torch.no_grad()
def code_error(model: LatentModel, codes: Codes, known: Codes) -> float:
    """Median distance to the codes that generated the images, relative to their distance from the mean.

    Both are compared in the space of `codes` or, without a map to it, in that of `known`; NaN without either.
    """
    if model.can_convert(known, codes.space):
        known = model.convert_codes(known, codes.space)
    elif model.can_convert(codes, known.space):
        codes = model.convert_codes(codes, known.space)
    else:
        return math.nan
    mean, _ = extent(model, codes.space, codes=1000)
    values, truth = codes.to(model).values, known.to(model).values
    return float(((values - truth).norm(dim=1) / (truth - mean).norm(dim=1)).median())


@torch.no_grad()
def likelihood_of(model: LatentModel, images: Tensor, labels: Tensor | None = None) -> float:
    """Mean bits/dim of uint8 images where the model has a likelihood, otherwise NaN; see `labels_of`."""
    if not isinstance(model, LikelihoodModel) or model.needs_labels(model.prior_space.name, labels):
        return math.nan
    labels = model.labels_of(images, labels, model.prior_space.name)
    random, parts = torch.Generator().manual_seed(0), []
    for start in range(0, len(images), LIKELIHOOD_BATCH):
        rows = slice(start, start + LIKELIHOOD_BATCH)
        some = None if labels is None else labels[rows]
        parts.append(model(images[rows].to(model.device), some, random).log_prob)
    return float(bits_per_dim(torch.cat(parts), images[0].numel()).mean())
