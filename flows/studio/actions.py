"""What the page's buttons do: plain functions of an editor and a history that know of no page."""

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
from flows.dissection.dissect import UnitRow, dissect
from flows.dissection.omissions import omissions, shares_of
from flows.dissection.paint import touched_units
from flows.dissection.report import top_images
from flows.editing.editor import Editor, ScoreReading
from flows.editing.history import History
from flows.editing.paths import line
from flows.editing.paths import sphere as sphere_between
from flows.errors import Unsupported, UserError
from flows.inversion.base import Inversion, Inverter
from flows.inversion.compare import Group, Row, measured
from flows.inversion.encoder import Encoder
from flows.inversion.exact import Exact, invert_exactly
from flows.inversion.optimise import Optimise
from flows.inversion.records import ImageSource
from flows.metrics.neighbours import nearest
from flows.metrics.perceptual import FeatureNetwork
from flows.metrics.reconstruction import psnr
from flows.models.codes import Codes
from flows.page import as_text
from flows.semantics.base import segment_bytes

LEFT = 5.0
"""Seconds after which a search that nobody looks at any more ends."""
SEEN = 400
"""Samples by which units are named."""
COUNTED = 500
"""Samples and test images whose classes are counted."""
REAL = 2000
"""Training images among which a sample's nearest is looked for."""


# Invert -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inverted:
    """How a picture comes back.

    Attributes:
        back: uint8 (C, H, W).
        certificate: in a sentence.
        typicality: of its code; not a number where the model has no map to its prior.
        usual: likewise of samples, (n,).
        seconds: to find the code.
    """

    back: Tensor
    certificate: str
    typicality: float
    usual: Tensor
    seconds: float


def inverted(editor: Editor, history: History) -> Inverted:
    """Encode the picture a history begins with, and draw it again.

    Raises:
        ValueError: the model has no encoder.
    """
    model, picture = editor.model, history.start.picture[None]
    if not editor.encodes:
        raise Unsupported(f"{editor.name} has no encoder: look for a code by optimisation")
    with editor.lock:
        start = time.perf_counter()
        if editor.latent.exact:
            found = invert_exactly(model, picture, history.start.codes.labels)
            seconds, given = time.perf_counter() - start, found.certificates[0]
            back = found.reconstruction[0]
            said = "Bit-exact: every byte comes back." if given.bit_exact else "Not exact."
            told = f"{said} Largest error {given.error:.1e} of 1, {given.precision}."
        else:
            learned = Encoder(editor.space).invert(model, picture, labels=history.start.codes.labels)
            seconds, back = learned.seconds, learned.reconstruction[0]
            apart = int((back.int() - picture[0].int()).abs().max())
            told = (
                f"A learned encoder, not exact: {float(psnr(picture, back[None])[0]):.1f} dB, "
                f"largest error {apart} of 255."
            )
        value, usual = editor.typicality(history.start.codes), editor.usual_typicality
    return Inverted(back, told, value, usual, seconds)


def check_size(editor: Editor, picture: Tensor) -> None:
    """Raise ValueError where uint8 (C, H, W) is not of the model's shape."""
    if tuple(picture.shape) != tuple(editor.model.image_shape):
        width = editor.model.image_shape[2]
        raise UserError(f"{editor.name} draws pictures of {width} pixels, this one has {picture.shape[2]}")


@dataclass(frozen=True)
class Searched:
    """A search on its way.

    Attributes:
        back: uint8 (C, H, W), what its code draws now.
        share: of its budget that is used.
        psnr: dB.
        seconds: so far.
        found: the inversion, once it has ended.
    """

    back: Tensor
    share: float
    psnr: float
    seconds: float
    found: Inversion | None = None


def search(editor: Editor, picture: Tensor, seconds: float, every: float = 0.3) -> Iterator[Searched]:
    """Look for a code by optimisation; closing the iterator ends the search.

    Args:
        editor: of any model; a copy of it is searched, so that others may go on with it.
        picture: uint8 (C, H, W).
        seconds: at most.
        every: so many seconds it tells how far it is; not asked for `LEFT` seconds, it ends.

    Raises:
        ValueError: the model cannot be searched, or the picture is not of its shape.
    """
    check_size(editor, picture)
    with editor.lock:
        model = copy.deepcopy(editor.model)
    target = pixels.reduce(picture[None], model.bins)
    news: Queue[Codes | Inversion | Exception] = Queue()
    stopped, share, begun, last = threading.Event(), [0.0], time.perf_counter(), [0.0]

    def watch(used: float, codes: Codes) -> bool:
        share[0] = used
        # Whoever waits takes the news at once: where they lie, nobody does any more.
        if news.empty() and time.perf_counter() - last[0] > every:
            last[0] = time.perf_counter()
            news.put(codes.with_values(codes.values.clone()))
        left = not news.empty() and time.perf_counter() - last[0] > LEFT
        return not stopped.is_set() and not left

    inverter = Optimise(editor.space, steps=100_000, seconds=seconds, watch=watch)
    inverter.check(model, target)

    def work() -> None:
        try:
            news.put(inverter.invert(model, target, torch.Generator().manual_seed(0)))
        except Exception as error:  # told where it is waited for
            news.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            found = news.get()
            passed = time.perf_counter() - begun
            if isinstance(found, Exception):
                raise found
            if isinstance(found, Inversion):
                back = found.reconstruction
                yield Searched(back[0], 1.0, float(psnr(target, back)[0]), passed, found)
                return
            back = model.decode_bytes(found)
            yield Searched(back[0], share[0], float(psnr(target, back)[0]), passed)
    finally:
        stopped.set()


# Compare ------------------------------------------------------------------------------------------

COMPARED = {
    "psnr": "dB", "ssim": "SSIM", "perceptual": "perceptual", "bit_exact": "bit-exact",
    "undone": "undone, dB", "typicality": "typicality", "seconds": "seconds",
}  # fmt: skip
"""Figures of `inversion.compare.Row`, and what they are called in the page's table."""


@dataclass(frozen=True)
class Compared:
    """One model on one picture.

    Attributes:
        row: its figures; of a search on its way only decibels and seconds.
        back: uint8 (C, H, W), what comes back, or has come so far; None where the pair is impossible.
    """

    row: Row
    back: Tensor | None = None


def compare_on_model(
    editor: Editor, picture: Tensor, seconds: float, network: FeatureNetwork | None = None
) -> Iterator[Compared]:
    """A picture, uint8 (C, H, W), through a model: by its inverse or encoder, else by a search as it goes on.

    Args:
        editor: of the model.
        picture: of its shape; of another, the row says so.
        seconds: of a search.
        network: for the perceptual distance.
    """
    row = Row(editor.name, "search", "this picture", 1)
    try:
        check_size(editor, picture)
        if editor.encodes:
            exact = editor.latent.exact
            inverter: Inverter = Exact() if exact else Encoder(editor.space)
            with editor.lock:
                found = inverter.invert(editor.model, pixels.reduce(picture[None], editor.model.bins))
            row = replace(row, inverter="inverse" if exact else "encoder")
            yield _judged(editor, row, inverter, found, picture, network)
            return
        for step in search(editor, picture, seconds):
            if step.found is None:
                by = f"search, {step.share:.0%}"
                yield Compared(replace(row, inverter=by, psnr=step.psnr, seconds=step.seconds), step.back)
            else:
                yield _judged(editor, row, None, step.found, picture, network)
    except UserError as error:
        yield Compared(replace(row, note=str(error)))


def _judged(
    editor: Editor, row: Row, inverter: Inverter | None, found: Inversion, picture: Tensor,
    network: FeatureNetwork | None,
) -> Compared:  # fmt: skip
    group = Group(pixels.reduce(picture[None], editor.model.bins), [ImageSource(row.group)])
    with editor.lock:
        result = measured(row, editor.model, inverter, found, group, network=network)
    return Compared(result.row, result.reconstruction[0])


def compared_table(steps: Sequence[Compared]) -> str:
    """Markdown: a line for each model, its figures or why there are none."""
    lines = [
        f"| model | by | {' | '.join(COMPARED.values())} |", f"| --- | --- |{' --: |' * len(COMPARED)}"
    ]  # fmt: skip
    for row in (step.row for step in steps):
        figures = [as_text(getattr(row, name), 3) for name in COMPARED]
        figures[list(COMPARED).index("bit_exact")] = {1.0: "yes", 0.0: "no"}.get(row.bit_exact, "–")
        told = " | ".join(figures) if not row.note else f"{row.note} |{' |' * (len(COMPARED) - 2)}"
        lines.append(f"| {row.model} | {row.inverter if not row.note else '–'} | {told} |")
    return "\n".join(lines)


# Steer --------------------------------------------------------------------------------------------


def steered(
    editor: Editor,
    history: History,
    sigmas: dict[str, float],
    without: Sequence[str] = (),
    levels: Sequence[str] = (),
    budget: float | None = None,
) -> History:
    """The picture with its sliders there: the last move is replaced, what was painted before it stays."""
    base = unmoved(history)
    if not any(sigmas.values()):
        return base
    return editor.then(base, editor.move(base, sigmas, without, levels, budget))


def is_move(history: History) -> bool:
    """Whether the last edit is one of sliders."""
    return bool(history.edits) and "sigmas" in history.edits[-1].settings


def unmoved(history: History) -> History:
    """With the sliders at 0."""
    return history.undone() if is_move(history) else history


def sliders_of(history: History) -> dict[str, float]:
    """Where the sliders stand."""
    return dict(history.edits[-1].settings["sigmas"]) if is_move(history) else {}


def strip_along(
    editor: Editor, history: History, name: str, alphas: Sequence[float], without: Sequence[str] = ()
) -> list[Tensor]:
    """The picture moved along one direction by so many sigmas each: uint8 (C, H, W)."""
    base = unmoved(history)
    return [
        editor.then(base, editor.move(base, {name: alpha}, without)).picture if alpha else base.picture
        for alpha in alphas
    ]


def compare_readings(
    editor: Editor, before: Tensor, after: Tensor, most: int = 12, asked: Collection[str] = ()
) -> list[tuple[ScoreReading, ScoreReading]]:
    """What the predictor says of two pictures: what was asked to change, then what changed most."""
    pairs = list(zip(editor.readings(before), editor.readings(after), strict=True))

    def change(pair: tuple[ScoreReading, ScoreReading]) -> float:
        apart = abs(pair[0].value - pair[1].value)
        # What comes or goes counts as a whole change.
        return apart if apart == apart else float(pair[0].text != pair[1].text)

    return sorted(pairs, key=lambda pair: (pair[0].name not in asked, -change(pair)))[:most]


# Paint --------------------------------------------------------------------------------------------


def units_touched(history: History) -> str:
    """Layers and how many of their units the last edit changed, in words."""
    stroke_edit = history.edits[-1].stroke_edit if history.edits else None
    found = touched_units(stroke_edit.changes) if stroke_edit else {}
    return ", ".join(f"{layer}: {count} units" for layer, count in found.items()) or "no units were touched"


def mask_of(alpha: Tensor, height: int, width: int) -> Tensor:
    """Where a brush was on an enlarged picture: bool (height, width), a pixel of which a quarter is covered.

    Args:
        alpha: uint8 (h, w) of the brush's layer, of any size.
        height: of the model's pictures.
        width: likewise.
    """
    grey = Image.fromarray(alpha.numpy()).resize((width, height), Image.Resampling.BOX)
    return pixels.from_pillow(grey, 1)[0] > 63


# Look inside --------------------------------------------------------------------------------------


def look_inside(editor: Editor, layer: str, units: int = 6) -> list[tuple[UnitRow, list[Image.Image]]]:
    """The units of a layer that agree best with classes, each with the samples that move it most.

    Raises:
        ValueError: there is no segmenter, or no such layer.
    """
    if editor.segmenter is None:
        raise Unsupported(f"{editor.name} has no segmenter of its images: units cannot be named")
    with editor.lock:
        codes = editor.model.sample(SEEN, editor.space, 0)
        agreement = dissect(editor.model, editor.segmenter, codes, [layer])[layer]
        best = diverse(agreement.rows())[:units]
        return top_images(editor.model, codes, best)


def diverse(rows: Sequence[UnitRow]) -> list[UnitRow]:
    """Units by their agreement, but the best of each class before any second one."""
    better, ranked = Counter[str](), []
    for row in sorted(rows, key=lambda row: -row.iou):
        ranked.append((better[row.label], row))
        better[row.label] += 1
    return [row for _, row in sorted(ranked, key=lambda pair: pair[0])]


def missing_classes(editor: Editor) -> list[tuple[str, float, float]]:
    """Classes with their mean shares in test images and in samples, percent; what is missing most first.

    Raises:
        ValueError: there is no segmenter, or the data set is not here.
    """
    model, segmenter = editor.model, editor.segmenter
    if segmenter is None or editor.data is None:
        raise Unsupported(
            f"{editor.name} has no segmenter of its images, or no data set here: nothing to count"
        )
    with editor.lock:
        real = pixels.reduce(editor.data.first("test", COUNTED).images, model.bins)
        drawn = model.decode_bytes(model.sample(COUNTED, editor.space, 0))
        shares = [
            shares_of(segment_bytes(segmenter, each, model.bins, model.device)) for each in (real, drawn)
        ]
    found = omissions(shares[0], shares[1], segmenter.classes)
    return [(row.label, row.data, row.samples) for row in found.rows]


# Mix and sample -----------------------------------------------------------------------------------


def interpolate_histories(
    editor: Editor, history: History, other: History, steps: int = 7, sphere: bool = False
) -> list[Tensor]:
    """Pictures on the way from one to the other, uint8 (C, H, W), both ends as they are.

    Args:
        editor: of both.
        history: at share 0.
        other: at share 1.
        steps: with both ends.
        sphere: along the great circle of the two codes, their lengths mixed; else along the line.
    """
    share = torch.linspace(0, 1, steps, dtype=torch.float64)[1:-1, None]
    ends = history.codes.values.double(), other.codes.values.double()
    way = history.codes[[0] * len(share)].with_values((sphere_between if sphere else line)(*ends, share))
    with editor.lock:
        between = editor.model.decode_bytes(way)
    return [history.picture, *between, other.picture]


def nearest_training_image(editor: Editor, picture: Tensor) -> tuple[Tensor, float]:
    """Of the first two thousand, uint8 (C, H, W), and its distance in root-mean-square on the [0, 1] scale.

    Raises:
        ValueError: the data set is not here.
    """
    if editor.data is None:
        raise UserError(f"the training images of {editor.name} are not here")
    images = pixels.reduce(editor.data.first("train", REAL).images, editor.model.bins)
    distance, index = nearest(picture[None], [images])
    return images[int(index[0])], float(distance[0])


def examples(editor: Editor, n: int, folder: Path) -> list[Path]:
    """Test images as files in a folder, so that they can be opened like anybody's."""
    if editor.data is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(editor.data.first("test", n).images):
        paths.append(folder / f"test-image-{i}.png")
        pixels.to_pillow(image).save(paths[-1])
    return paths
