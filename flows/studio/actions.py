"""Actions of the page's buttons, as functions of an editor and a history that do not depend on the page."""

import copy
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue

import torch
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.display.page import as_fixed, as_text
from flows.display.table import Table, without_figures
from flows.dissection.agreement import UnitRow, dissect
from flows.dissection.omission import omissions, shares_of
from flows.dissection.paint import touched_units
from flows.dissection.report import top_images
from flows.editing.editor import Editor, ScoreReading
from flows.editing.history import History, Start
from flows.editing.paths import line
from flows.editing.paths import sphere as sphere_between
from flows.errors import Unsupported, UserError
from flows.inversion.base import Inversion, Inverter
from flows.inversion.comparison import Group, Measures, Row, measured
from flows.inversion.encoder import Encoder
from flows.inversion.exact import Exact, invert_exactly
from flows.inversion.found import Found, found_by
from flows.inversion.optimise import Optimise
from flows.inversion.records import ImageSource
from flows.metrics.neighbours import nearest
from flows.metrics.perceptual import FeatureNetwork
from flows.metrics.reconstruction import psnr
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import segment_bytes

LEFT = 5.0
"""Seconds after which an optimisation ends whose client no longer reads its progress."""
SEEN = 400
"""Number of samples from which the class of each unit is determined."""
COUNTED = 500
"""Number of samples, and of test images, whose classes are counted."""
REAL = 2000
"""Number of training images that are searched for the nearest one."""


# Invert -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inverted:
    """Inversion of a picture.

    Attributes:
        reconstruction: uint8 (C, H, W), reconstruction.
        certificate: Sentence about the error of the reconstruction.
        typicality: Typicality of the code; NaN without a map to the prior space.
        sample_typicality: Typicality of samples, (n,); empty without a map to the prior space.
        seconds: Seconds of the inversion.
    """

    reconstruction: Tensor
    certificate: str
    typicality: float
    sample_typicality: Tensor
    seconds: float


def inverted(editor: Editor, history: History) -> Inverted:
    """Encode and reconstruct the picture at the start of a history; decode a code that was found.

    Raises:
        Unsupported: The model has no encoder, and the code was not found by a search or in a file.
    """
    model, picture = editor.model, history.start.picture[None]
    if history.start.method:
        return _decoded(editor, history.start)
    if not editor.encodes:
        raise Unsupported(f"{editor.name} has no encoder: find a code by optimisation")
    with editor.lock:
        start = time.perf_counter()
        if editor.latent.exact:
            exact = invert_exactly(model, picture, history.start.codes.labels)
            seconds, given = time.perf_counter() - start, exact.certificates[0]
            reconstruction = exact.reconstruction[0]
            verdict = "Bit-exact: every byte is reconstructed." if given.bit_exact else "Not exact."
            certificate = f"{verdict} Largest error {given.error:.1e} of 1, {given.precision}."
        else:
            learned = Encoder(editor.space).invert(model, picture, labels=history.start.codes.labels)
            seconds, reconstruction = learned.seconds, learned.reconstruction[0]
            largest = int((reconstruction.int() - picture[0].int()).abs().max())
            certificate = (
                f"Learned encoder, not exact: PSNR {float(psnr(picture, reconstruction[None])[0]):.1f} dB, "
                f"largest error {largest} of 255."
            )
        value, sample_typicality = editor.typicality(history.start.codes), editor.sample_typicality
    return Inverted(reconstruction, certificate, value, sample_typicality, seconds)


def _decoded(editor: Editor, start: Start) -> Inverted:
    """Decode the code at the start of a history, which a search found or a file holds."""
    adaptations = () if start.adaptation is None else (start.adaptation,)
    found = Found(codes=start.codes, names=[start.name], adaptations=adaptations)
    with editor.lock:
        begun = time.perf_counter()
        reconstruction = found.decode(editor.model)[0]
        seconds = time.perf_counter() - begun
        value, sample_typicality = editor.typicality(start.codes), editor.sample_typicality
    quality = float(psnr(start.picture[None], reconstruction[None])[0])
    largest = int((reconstruction.int() - start.picture.int()).abs().max())
    same = f"PSNR {as_fixed(quality, '.1f', ' dB')}, largest error {largest} of 255"
    certificate = f"Code by {start.method}: {'the picture is its decoded image' if not largest else same}."
    return Inverted(reconstruction, certificate, value, sample_typicality, seconds)


def why_not(editor: Editor, picture: Tensor) -> str:
    """Reason why a picture, uint8 (C, H, W), cannot be inverted: its shape is another; empty if it can."""
    if tuple(picture.shape) == tuple(editor.model.image_shape):
        return ""
    expected, got = (pixels.size_text(*shape[1:]) for shape in (editor.model.image_shape, picture.shape))
    return f"{editor.name} expects pictures of {expected} pixels, this one has {got}"


def check_size(editor: Editor, picture: Tensor) -> None:
    """Raise UserError unless a picture, uint8 (C, H, W), has the model's image shape."""
    if reason := why_not(editor, picture):
        raise UserError(reason)


@dataclass(frozen=True)
class Searched:
    """Progress of an optimisation.

    Attributes:
        reconstruction: uint8 (C, H, W), reconstruction by the current code.
        share: Share of the time budget that is used, in [0, 1].
        psnr: PSNR of the reconstruction, dB.
        seconds: Elapsed seconds.
        code: Code so far, which can be edited.
        found: Result; None until the optimisation has ended.
    """

    reconstruction: Tensor
    share: float
    psnr: float
    seconds: float
    code: Found
    found: Inversion | None = None


def search(
    editor: Editor, picture: Tensor, seconds: float, every: float = 0.3, labels: Tensor | None = None
) -> Iterator[Searched]:
    """Find the code of a picture by optimisation; closing the iterator ends the optimisation.

    Args:
        editor: Editor of any model; a copy of the model is used, so that the editor's lock is free.
        picture: uint8 (C, H, W).
        seconds: Maximum duration in seconds.
        every: Seconds between two reports of the progress. If no report is read for `LEFT` seconds, the
            optimisation ends.
        labels: int64 (1,), class of the picture; None if it is unknown.

    Raises:
        UserError: The optimisation does not support the model, or the picture does not have its shape.
    """
    check_size(editor, picture)
    with editor.lock:
        model = copy.deepcopy(editor.model)
    target = pixels.reduce(picture[None], model.bins)
    reports: Queue[Codes | Inversion | Exception] = Queue()
    stopped, share, begun, last = threading.Event(), [0.0], time.perf_counter(), [0.0]

    def watch(used: float, codes: Codes) -> bool:
        share[0] = used
        # A waiting consumer empties the queue at once; if a report is left in it, the client has gone.
        if reports.empty() and time.perf_counter() - last[0] > every:
            last[0] = time.perf_counter()
            reports.put(codes.with_values(codes.values.clone()))
        left = not reports.empty() and time.perf_counter() - last[0] > LEFT
        return not stopped.is_set() and not left

    inverter = Optimise(editor.space, steps=100_000, seconds=seconds, watch=watch)
    inverter.check(model, target)

    def work() -> None:
        try:
            reports.put(inverter.invert(model, target, torch.Generator().manual_seed(0), labels))
        except Exception as error:  # raised again by the consumer
            reports.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            report = reports.get()
            if isinstance(report, Exception):
                raise report
            yield searched(model, target, report, share[0], time.perf_counter() - begun)
            if isinstance(report, Inversion):
                return
    finally:
        stopped.set()


def searched(
    model: LatentModel, target: Tensor, report: Codes | Inversion, share: float, elapsed: float
) -> Searched:
    """Progress of a search, or its result, for a picture uint8 (1, C, H, W)."""
    names = ["found"]
    if isinstance(report, Inversion):
        reconstruction, share = report.reconstruction, 1.0
        code, result = found_by(report, names, model), report
    else:
        reconstruction, result = model.decode_bytes(report), None
        code = Found(codes=report.cpu(), names=names)
    quality = float(psnr(target, reconstruction)[0])
    return Searched(reconstruction[0], share, quality, elapsed, code, result)


# Compare ------------------------------------------------------------------------------------------

COMPARED = {
    "psnr": "dB", "ssim": "SSIM", "perceptual": "perceptual", "bit_exact": "bit-exact",
    "undone": "undone, dB", "typicality": "typicality", "seconds": "seconds",
}  # fmt: skip
"""Columns of the page's table: name of an attribute of `inversion.comparison.Row` to heading."""


@dataclass(frozen=True)
class Compared:
    """Result of one model on one picture.

    Attributes:
        row: Figures; during an optimisation only PSNR and seconds.
        reconstruction: uint8 (C, H, W), reconstruction so far; None if the model cannot invert the picture.
    """

    row: Row
    reconstruction: Tensor | None = None


def compare_on_model(
    editor: Editor,
    picture: Tensor,
    seconds: float,
    network: FeatureNetwork | None = None,
    labels: Tensor | None = None,
) -> Iterator[Compared]:
    """Invert a picture with the model's inverse or encoder or, without one, by optimisation.

    Args:
        editor: Editor of the model.
        picture: uint8 (C, H, W); if the model expects another shape, the note of the row says so.
        seconds: Duration of an optimisation, in seconds.
        network: Network of the perceptual distance; None computes no distance.
        labels: int64 (1,), class of the picture; None if it is unknown.

    Yields:
        Result; for an optimisation, first its progress.
    """
    row = Row(model=editor.name, inverter="optimisation", group="this picture", images=1)
    if reason := why_not(editor, picture):
        yield Compared(replace(row, note=reason))
        return
    try:
        if editor.encodes:
            exact = editor.latent.exact
            inverter: Inverter = Exact() if exact else Encoder(editor.space)
            with editor.lock:
                target = pixels.reduce(picture[None], editor.model.bins)
                inversion = inverter.invert(editor.model, target, labels=labels)
            row = replace(row, inverter="inverse" if exact else "encoder")
            yield _measured(editor, row, inverter, inversion, picture, network)
            return
        for step in search(editor, picture, seconds, labels=labels):
            if step.found is None:
                by = f"optimisation, {step.share:.0%}"
                yield Compared(
                    replace(row, inverter=by, psnr=step.psnr, seconds=step.seconds), step.reconstruction
                )
            else:
                yield _measured(editor, row, None, step.found, picture, network)
    except UserError as error:  # the model cannot invert it, or diverged; the other models go on
        yield Compared(replace(row, note=str(error)))


def _measured(
    editor: Editor,
    row: Row,
    inverter: Inverter | None,
    inversion: Inversion,
    picture: Tensor,
    network: FeatureNetwork | None,
) -> Compared:
    group = Group(pixels.reduce(picture[None], editor.model.bins), [ImageSource(row.group)])
    with editor.lock:
        result = measured(row, editor.model, inverter, inversion, group, measures=Measures(network))
    return Compared(result.row, result.reconstruction[0])


def compared_table(steps: Sequence[Compared]) -> str:
    """Markdown table with one line per model: its figures, or the reason why there are none."""
    lines = []
    for row in (step.row for step in steps):
        figures = [as_text(getattr(row, name), 3) for name in COMPARED]
        figures[list(COMPARED).index("bit_exact")] = {1.0: "yes", 0.0: "no"}.get(row.bit_exact, "–")
        without = ["–", *without_figures(row.note, len(COMPARED))]
        lines.append([row.model, *(without if row.note else [row.inverter, *figures])])
    return Table(["model", "by", *COMPARED.values()], lines).markdown(names=2).rstrip()


# Steer --------------------------------------------------------------------------------------------


def steered(
    editor: Editor,
    history: History,
    sigmas: dict[str, float],
    without: Sequence[str] = (),
    levels: Sequence[str] = (),
    budget: float | None = None,
) -> History:
    """Move the picture by the values of the sliders; replaces the last move and keeps earlier edits."""
    base = unmoved(history)
    if not any(sigmas.values()):
        return base
    return editor.then(base, editor.move(base, sigmas, without, levels, budget))


def is_move(history: History) -> bool:
    """Whether the last edit is a move by sliders."""
    return bool(history.edits) and "sigmas" in history.edits[-1].settings


def unmoved(history: History) -> History:
    """History without the last edit if it is a move by sliders."""
    return history.undone() if is_move(history) else history


def sliders_of(history: History) -> dict[str, float]:
    """Values of the sliders, by name of the direction; empty if the last edit is no move."""
    return dict(history.edits[-1].settings["sigmas"]) if is_move(history) else {}


def strip_along(
    editor: Editor, history: History, name: str, alphas: Sequence[float], without: Sequence[str] = ()
) -> list[Tensor]:
    """Pictures, uint8 (C, H, W), moved along one direction by each of `alphas`, in sigmas."""
    base = unmoved(history)
    return [
        editor.then(base, editor.move(base, {name: alpha}, without)).picture if alpha else base.picture
        for alpha in alphas
    ]


def compare_readings(
    editor: Editor, before: Tensor, after: Tensor, most: int = 12, asked: Collection[str] = ()
) -> list[tuple[ScoreReading, ScoreReading]]:
    """Predictions for two pictures: first the scores in `asked`, then those that change most."""
    pairs = list(zip(editor.readings(before), editor.readings(after), strict=True))

    def change(pair: tuple[ScoreReading, ScoreReading]) -> float:
        difference = abs(pair[0].value - pair[1].value)
        # The value is NaN if the attribute is not visible; appearing or vanishing counts as a change of 1.
        return difference if difference == difference else float(pair[0].text != pair[1].text)

    return sorted(pairs, key=lambda pair: (pair[0].name not in asked, -change(pair)))[:most]


# Paint --------------------------------------------------------------------------------------------


def units_touched(history: History) -> str:
    """Layers and the number of their units that the last edit changed, as text."""
    stroke_edit = history.edits[-1].stroke_edit if history.edits else None
    counts = touched_units(stroke_edit.changes) if stroke_edit else {}
    return ", ".join(f"{layer}: {count} units" for layer, count in counts.items()) or "no units"


def mask_of(alpha: Tensor, height: int, width: int) -> Tensor:
    """Mask of a brush on an enlarged picture: bool (height, width), pixels of which a quarter is covered.

    Args:
        alpha: uint8 (h, w), opacity of the brush's layer, of any size; the picture fills its height or its
            width and is in its middle.
        height: Height of the model's images.
        width: Width of the model's images.
    """
    layer = Image.fromarray(alpha.numpy())
    box = pixels.centre_box(layer, height, width)
    grey = layer.resize((width, height), Image.Resampling.BOX, box=box)
    return pixels.from_pillow(grey, 1)[0] > 63


# Look inside --------------------------------------------------------------------------------------


def look_inside(editor: Editor, layer: str, units: int = 6) -> list[tuple[UnitRow, list[Image.Image]]]:
    """Units of a layer that agree best with classes, each with the samples that activate it most.

    Raises:
        Unsupported: There is no segmenter.
        UserError: There is no such layer.
    """
    if editor.segmenter is None:
        raise Unsupported(f"{editor.name} has no segmenter for its images, which finds the classes of units")
    with editor.lock:
        codes = editor.model.sample(SEEN, editor.space, 0)
        agreement = dissect(editor.model, editor.segmenter, codes, [layer])[layer]
        best = diverse(agreement.rows_by_iou())[:units]
        return top_images(editor.model, codes, best)


def diverse(rows: Sequence[UnitRow]) -> list[UnitRow]:
    """Units by IoU, but the best unit of each class before the second of any class."""
    better, ranked = Counter[str](), []
    for row in sorted(rows, key=lambda row: -row.iou):
        ranked.append((better[row.label], row))
        better[row.label] += 1
    return [row for _, row in sorted(ranked, key=lambda pair: pair[0])]


def missing_classes(editor: Editor) -> list[tuple[str, float, float]]:
    """Classes with their mean shares in test images and in samples, percent; the most omitted class first.

    Raises:
        Unsupported: There is no segmenter, or the data set is not on this machine.
    """
    model, segmenter = editor.model, editor.segmenter
    if segmenter is None or editor.data is None:
        raise Unsupported(
            f"{editor.name} has no segmenter for its images, or its data set is not on this machine"
        )
    with editor.lock:
        real = pixels.reduce(editor.data.first("test", COUNTED).images, model.bins)
        samples = model.decode_bytes(model.sample(COUNTED, editor.space, 0))
        shares = [
            shares_of(segment_bytes(segmenter, images, model.bins, model.device))
            for images in (real, samples)
        ]
    statistics = omissions(shares[0], shares[1], segmenter.classes)
    return [(row.label, row.data, row.samples) for row in statistics.rows]


# Mix and sample -----------------------------------------------------------------------------------


def interpolate_histories(
    editor: Editor, history: History, other: History, steps: int = 7, sphere: bool = False
) -> list[Tensor]:
    """Interpolation between two pictures, uint8 (C, H, W) each; the ends are the pictures themselves.

    Args:
        editor: Editor of both pictures.
        history: History of the picture at share 0.
        other: History of the picture at share 1.
        steps: Number of pictures, both ends included.
        sphere: Whether to interpolate on a great circle, with linear length; otherwise on a line.
    """
    share = torch.linspace(0, 1, steps, dtype=torch.float64)[1:-1, None]
    history.codes.check_alongside(other.codes)
    ends = history.codes.values.double(), other.codes.values.double()
    way = history.codes[[0] * len(share)].with_values((sphere_between if sphere else line)(*ends, share))
    with editor.lock:
        between = editor.model.decode_bytes(way)
    return [history.picture, *between, other.picture]


def nearest_training_image(editor: Editor, picture: Tensor) -> tuple[Tensor, float]:
    """Nearest of the first `REAL` training images, uint8 (C, H, W), and its RMS distance, pixels in [0, 1].

    Raises:
        UserError: The data set is not on this machine.
    """
    if editor.data is None:
        raise UserError(f"the training images of {editor.name} are not on this machine")
    images = pixels.reduce(editor.data.first("train", REAL).images, editor.model.bins)
    distance, index = nearest(picture[None], [images])
    return images[int(index[0])], float(distance[0])


def examples(editor: Editor, n: int, folder: Path) -> dict[Path, int | None]:
    """Write test images to a folder, to be opened like uploads; return each file's class or None."""
    if editor.data is None:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    first, classes = editor.data.first("test", n), {}
    for i, (image, label) in enumerate(zip(first.images, first.labels.tolist(), strict=True)):
        path = folder / f"test-image-{i}.png"
        pixels.to_pillow(image).save(path)
        classes[path] = label if label >= 0 else None
    return classes
