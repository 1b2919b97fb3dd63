"""Comparison of inverters on the same images, with quality, time and failures."""

import math
import os
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.hardware import hardware
from flows.core.numerics import to_double
from flows.core.statistics import interval_of_median
from flows.errors import is_user_error
from flows.inversion.base import Inversion, Inverter
from flows.inversion.edits import Edited, edit_consistency
from flows.inversion.exact import in_own_precision
from flows.inversion.optimise import extent
from flows.inversion.records import ImageSource, Record, record_of
from flows.metrics.identity import Identity
from flows.metrics.likelihood import bits_per_dim
from flows.metrics.perceptual import FeatureNetwork, perceptual_distance
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.metrics.typicality import typicality
from flows.models.base import LatentModel, LikelihoodModel
from flows.models.codes import Codes

__all__ = ["Group", "Measures", "Result", "Row", "compare"]


@dataclass(frozen=True)
class Group:
    """Images that are inverted together.

    Attributes:
        images: uint8 (n, C, H, W).
        sources: One source per image.
        codes: Name of a model to its codes that generated the images.
        only: Name of the only model that inverts the images; None for all models.
        labels: int64 (n,), classes of the images, −1 where unknown; None where no class is known.
        data: Name of the data set whose classes the labels count; None if every model has the same classes.
        from_test: Whether these are the first test images of a data set as they are, which the data set may
            be able to render again with another factor.
    """

    images: Tensor
    sources: list[ImageSource]
    codes: dict[str, Codes] = field(default_factory=dict)
    only: str | None = None
    labels: Tensor | None = None
    data: str | None = None
    from_test: bool = False

    def labels_counted_by(self, model: LatentModel) -> Tensor | None:
        """Labels of the images, unless they count the classes of another data set than the model's."""
        same = self.data is None or self.data == model.description.get("name")
        return self.labels if same else None


Groups = Mapping[str, Group]
LIKELIHOOD_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Row:
    """Figures of one inverter on one model and group of images.

    Attributes:
        model, inverter, group: Names.
        images: Number of images.
        note: Reason why the pair is impossible, or "failed: " and the error; the figures are then NaN. Empty
            otherwise.
        psnr, worst_psnr: Median and minimum over the images, dB. A bit-exact image has infinity, an image
            whose inversion diverged 0.
        psnr_low, psnr_high: 95 % interval of the median.
        ssim: Mean structural similarity; 0 for images whose inversion diverged.
        perceptual: Mean distance by a network, of images whose inversion did not diverge; NaN without one.
        identity: Mean similarity of faces by a recognition network, of the same images; NaN without one.
        bit_exact: Share of images that are reconstructed bit-exactly, in [0, 1].
        seconds: Time per image, seconds.
        steps: Number of optimisation steps per image and restart.
        starts: Number of restarts.
        restart_gap: Median over images of (worst − best)/best final loss of the restarts that converged;
            0 for a single restart.
        apart: Median distance between the codes of two restarts, relative to the root mean square norm of the
            codes.
        failed: Share of restarts that diverged, in [0, 1].
        diverged: Number of images of which every restart diverged; they are not in the record.
        typicality: Mean |typicality| of the codes (`flows.metrics.typicality`); 0 is typical.
        log_prob: Mean log-density of the codes, nats per dimension; NaN if the model does not know it.
        undone: PSNR after an edit and its undoing (`edit_consistency`), dB.
        reached, leakage, edited, back: Figures of edits along the directions that were compared with true
            ones (`EditFigures`), each the mean over the directions; NaN if none was.
        code_error: Median distance to the code that generated the image, relative to that code's distance
            from the mean of the space; NaN if no code is known.
        hardware: Name of the processor or accelerator that inverted the images; empty without figures.
    """

    model: str
    inverter: str
    group: str
    images: int
    note: str = ""
    psnr: float = math.nan
    psnr_low: float = math.nan
    psnr_high: float = math.nan
    worst_psnr: float = math.nan
    ssim: float = math.nan
    perceptual: float = math.nan
    identity: float = math.nan
    bit_exact: float = math.nan
    seconds: float = math.nan
    steps: int = 0
    starts: int = 1
    restart_gap: float = math.nan
    apart: float = math.nan
    failed: float = math.nan
    diverged: int = 0
    typicality: float = math.nan
    log_prob: float = math.nan
    undone: float = math.nan
    reached: float = math.nan
    leakage: float = math.nan
    edited: float = math.nan
    back: float = math.nan
    code_error: float = math.nan
    hardware: str = ""

    @property
    def impossible(self) -> bool:
        """Whether the model or the images lack what the inverter needs."""
        return bool(self.note) and not self.note.startswith("failed: ")

    @property
    def reason(self) -> str:
        """Note for tables: why there are no figures, or which of them lack images; empty for none."""
        if self.note:
            return f"impossible: {self.note}" if self.impossible else self.note
        if not self.diverged:
            return ""
        return (
            f"every search diverged for {self.diverged} of {self.images} images, which are not in the record"
        )

    def as_dict(self) -> dict[str, object]:
        """Return the columns by name."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """Row of a comparison with the data that it was computed from.

    Attributes:
        row: Row of the table.
        reconstruction: uint8 (n, C, H, W); empty if the pair is impossible or failed.
        each_psnr: PSNR of each image, dB.
        record: Record that reproduces the reconstruction; None if the pair is impossible or failed.
        edits: Edits that were compared with true ones, one per direction.
        bug: Whether the pair failed by an exception that is no `UserError`.
    """

    row: Row
    reconstruction: Tensor = field(default_factory=lambda: torch.empty(0))
    each_psnr: list[float] = field(default_factory=list)
    record: Record | None = None
    edits: list[Edited] = field(default_factory=list)
    bug: bool = False


class Store(Protocol):
    """Files of finished pairs; see `pairs.Pairs`."""

    def load(self, row: Row, model: LatentModel, group: Group) -> Result | None:
        """Read a finished pair with the names of a row; None if there is none."""
        ...

    def save(self, result: Result, model: LatentModel, group: Group) -> None:
        """Write a finished pair."""
        ...


class Editing(Protocol):
    """Edits of found codes that are compared with true ones; see `editing.editability.Editability`."""

    def measure(
        self, name: str, model: LatentModel, inverter: Inverter, found: Inversion, images: Tensor, seed: int
    ) -> list[Edited]:
        """Edit the inverted images of a model with this name along each direction."""
        ...


@dataclass(frozen=True)
class Measures:
    """Measures of each pair besides pixels, codes and time.

    Attributes:
        network: Network of the perceptual distance; None for no distance.
        edits: Whether to measure edit consistency, which inverts four more images per row.
        editing: Edits of the groups of test images that are compared with true ones; None for none.
        identity: Network that recognises faces; None for no identity score.
    """

    network: FeatureNetwork | None = None
    edits: bool = True
    editing: Editing | None = None
    identity: Identity | None = None


def compare(
    models: Mapping[str, LatentModel],
    inverters: Mapping[str, Inverter],
    groups: Groups,
    seed: int = 0,
    measures: Measures = Measures(),
    store: Store | None = None,
    results: list[Result] | None = None,
) -> list[Result]:
    """Run every inverter on every model and group; impossible pairs are rows with the reason.

    Every pair starts from the same seed. A pair that raises an exception, for example out of memory or in a
    user's generator, becomes a row with the message, and the traceback of a bug is printed on standard error;
    with FLOWS_DEBUG set, the exception is raised.

    Args:
        models: Models by name, all with the same number of grey levels; they are set to eval mode.
        inverters: Inverters by name.
        groups: Groups of images by name.
        seed: Seed of all random numbers.
        measures: Measures of each pair.
        store: Store that has pairs of an earlier run, and gets each pair as soon as it is finished; what it
            raises, as on a full disk, ends the comparison.
        results: List to which each result is appended, and which is returned; the caller of an interrupted
            comparison has what is finished.
    """
    results = [] if results is None else results
    for model_name, model in models.items():
        warm_up(model.eval())
        for inverter_name, inverter in inverters.items():
            impossible = inverter.why_not(model)
            for name, group in groups.items():
                if group.only not in (None, model_name):
                    continue
                row = Row(
                    model=model_name,
                    inverter=inverter_name,
                    group=name,
                    images=len(group.images),
                    note=impossible or unlabelled(model, inverter, group),
                )
                finished = store.load(row, model, group) if store is not None and not row.note else None
                # Listed first: an interruption in between must not leave a pair on disk without a report.
                results.append(finished or attempt(row, model, inverter, group, seed, measures))
                if store is not None and finished is None:
                    store.save(results[-1], model, group)
    return results


def attempt(
    row: Row, model: LatentModel, inverter: Inverter, group: Group, seed: int, measures: Measures
) -> Result:
    """Result of a pair; that of an impossible or failed one has the reason in its row."""
    if row.note:
        return Result(row)
    try:
        return one(row, model, inverter, group, seed, measures)
    except Exception as error:  # the other pairs may have taken hours
        if os.environ.get("FLOWS_DEBUG"):
            raise
        message, bug = str(error).split("\n")[0], not is_user_error(error)
        if bug:
            traceback.print_exception(error)
        return Result(replace(row, note=f"failed: {type(error).__name__}: {message}"), bug=bug)


def unlabelled(model: LatentModel, inverter: Inverter, group: Group) -> str:
    """Return the reason why a group without labels cannot be inverted; empty if it can."""
    space = inverter.space_of(model)
    if not model.needs_labels(space, group.labels_counted_by(model)):
        return ""
    others = [name for name, other in model.spaces.items() if not other.labelled]
    return f"codes of {space!r} need labels, which these images lack" + (
        f"; use space {others[0]!r}" if others else ""
    )


@torch.no_grad()
def warm_up(model: LatentModel) -> None:
    """Decode once, so that the time of the first pair does not include the device's set-up."""
    model.decode_codes(model.sample(1, model.prior_space.name))


def one(
    row: Row, model: LatentModel, inverter: Inverter, group: Group, seed: int, measures: Measures
) -> Result:
    """Run one inverter on one model and group; `row` has their names."""
    group = replace(group, images=pixels.reduce(group.images, model.bins))
    random = torch.Generator().manual_seed(seed)
    inversion = inverter.invert(model, group.images, random, group.labels_counted_by(model))
    result = measured(row, model, inverter, inversion, group, seed, measures)
    if measures.editing is None or not group.from_test:
        return result
    found = measures.editing.measure(row.model, model, inverter, inversion, group.images, seed)
    return with_edits(result, found)


def with_edits(result: Result, edits: list[Edited]) -> Result:
    """Add edits and their mean figures to a result."""

    def mean(name: str) -> float:
        values = [getattr(edit.figures, name) for edit in edits if len(edit.rows)]
        return sum(values) / len(values) if values else math.nan

    row = replace(
        result.row, reached=mean("reached"), leakage=mean("leakage"), edited=mean("psnr"), back=mean("back")
    )
    return replace(result, row=row, edits=edits)


def measured(
    row: Row,
    model: LatentModel,
    inverter: Inverter | None,
    found: Inversion,
    group: Group,
    seed: int = 0,
    measures: Measures = Measures(),
) -> Result:
    """Return a result with all figures of an inversion.

    Args:
        row: Row with the names.
        model: Model that was inverted.
        inverter: Inverter, for measuring edit consistency; None measures none.
        found: Inversion of the images.
        group: Group of images, reduced to the model's grey levels.
        seed: Seed of the inversion.
        measures: Measures, of which `editing` is not used.
    """
    images = group.images
    quality = psnr(images, found.reconstruction).where(found.succeeded, 0.0)
    row = with_figures(row, in_own_precision(model, found), found, group, quality)
    if found.succeeded.any():
        pair = images[found.succeeded], found.reconstruction[found.succeeded]
        if measures.network is not None:
            row = replace(row, perceptual=float(perceptual_distance(measures.network, *pair).mean()))
        if measures.identity is not None:
            row = replace(row, identity=float(measures.identity.similarity(*pair).mean()))
    if measures.edits and inverter is not None:
        row = replace(row, undone=edit_consistency(model, inverter, found, seed))
    return Result(row, found.reconstruction, quality.tolist(), record_of(found, group.sources, seed))


def with_figures(head: Row, model: LatentModel, found: Inversion, group: Group, quality: Tensor) -> Row:
    """Return `head` with the figures that need neither a network nor an inverter.

    Args:
        head: Row with the names.
        model: Model in the precision of the codes.
        found: Inversion of the images.
        group: Group of images.
        quality: (n,), PSNR of each image, dB.
    """
    images, succeeded = group.images, found.succeeded
    same = (images == found.reconstruction).flatten(1).all(1) & succeeded
    similarity = (
        structural_similarity(images[succeeded], found.reconstruction[succeeded]) if succeeded.any() else 0.0
    )
    starts = max(1, len(found.losses))
    restart_gap, apart, failed = 0.0, 0.0, 0.0
    if len(found.losses):
        finite = found.losses.isfinite()
        best = found.losses.amin(0)
        worst = found.losses.where(finite, -math.inf).amax(0)
        excess = ((worst - best) / best.clamp(min=1e-12))[finite.any(0)]
        restart_gap = float(excess.median()) if len(excess) else math.nan
        failed = float(1 - to_double(finite).mean())
        apart = _apart(found.all_codes)
    known = group.codes.get(head.model)
    psnr_low, psnr_high = interval_of_median(quality)
    return replace(
        head,
        psnr=float(quality.median()),
        psnr_low=psnr_low,
        psnr_high=psnr_high,
        worst_psnr=float(quality.min()),
        ssim=similarity * float(to_double(succeeded).mean()),
        bit_exact=float(to_double(same).mean()),
        seconds=found.seconds / len(images),
        steps=found.steps,
        starts=starts,
        restart_gap=restart_gap,
        apart=apart,
        failed=failed,
        diverged=int((~succeeded).sum()),
        typicality=mean_typicality(model, found.codes),
        log_prob=log_prob_of(model, found.codes),
        code_error=math.nan if known is None else code_error(model, found.codes, known),
        hardware=hardware(model.device),
    )


def _apart(codes: Tensor) -> float:
    """Median distance between the codes (starts, batch, D) of two restarts, relative to their RMS norm."""
    if len(codes) < 2:
        return 0.0
    pairs = torch.combinations(torch.arange(len(codes)))
    distance = (codes[pairs[:, 0]] - codes[pairs[:, 1]]).norm(dim=2)
    return float(distance.median() / codes.norm(dim=2).square().mean().sqrt())


@torch.no_grad()
def mean_typicality(model: LatentModel, codes: Codes) -> float:
    """Mean |typicality| of codes; NaN without a map to the prior space."""
    if model.values_in(codes, model.prior_space.name) is None:
        return math.nan
    return float(typicality(model, codes).abs().mean())


@torch.no_grad()
def log_prob_of(model: LatentModel, codes: Codes) -> float:
    """Mean log-density of codes, nats per dimension; NaN if the model does not know it."""
    if not model.spaces[codes.space].density:
        return math.nan
    values = codes.to(model).values
    return float(model.log_prob_code(values, codes.space).mean() / values.shape[1])


@torch.no_grad()
def code_error(model: LatentModel, codes: Codes, known: Codes) -> float:
    """Median distance to the codes that generated the images, relative to their distance from the mean.

    Both are compared in the space of `codes` or, without a map to it, in that of `known`; NaN without either.
    """
    space = codes.space
    values, truth = model.values_in(codes, space), model.values_in(known, space)
    if truth is None:
        space = known.space
        values, truth = model.values_in(codes, space), model.values_in(known, space)
    if values is None or truth is None:
        return math.nan
    mean, _ = extent(model, space, codes=1000)
    return float(((values - truth).norm(dim=1) / (truth - mean).norm(dim=1)).median())


@torch.no_grad()
def likelihood_of(model: LatentModel, images: Tensor, labels: Tensor | None = None) -> float:
    """Mean bits/dim of uint8 images; NaN if the model has no likelihood or labels are missing."""
    if not isinstance(model, LikelihoodModel) or model.needs_labels(model.prior_space.name, labels):
        return math.nan
    labels = model.labels_to_encode(images, labels, model.prior_space.name)
    random, parts = torch.Generator().manual_seed(0), []
    for start in range(0, len(images), LIKELIHOOD_BATCH):
        rows = slice(start, start + LIKELIHOOD_BATCH)
        batch_labels = None if labels is None else labels[rows]
        parts.append(model(images[rows].to(model.device), batch_labels, random).log_prob)
    return float(bits_per_dim(torch.cat(parts), images[0].numel()).mean())
