"""What a page's components ask for and are given, with the history that stands behind them."""

import hashlib
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.dissection.instrument import default_layers, networks_inside
from flows.dissection.paint import Stroke
from flows.editing.history import History, laid_back
from flows.editing.records import load_history, save_history
from flows.editing.workbench import Workbench, open_workbench
from flows.errors import DataMissing, UserError
from flows.files import write_atomically
from flows.metrics.perceptual import FeatureNetwork, make_network
from flows.once import prepared
from flows.opening import told_by
from flows.semantics.base import Judge
from flows.studio import actions, views
from flows.studio.uploads import open_upload

POOL = 8
"""Sliders of a group."""
FIRST = ("window", "door", "bed", "lamp", "plant", "picture", "tree", "person", "vehicle", "banner")
"""Classes that come first in the list, where the segmenter has them."""
ALPHAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
EXAMPLES = 8
WARM_AFTER = 2.0
"""Seconds after a model was chosen that its exemplars are looked at."""
MOST_FILES = 4000
"""Pictures that are kept as files, a few thousand bytes each."""
SAMPLES = 12


class Sitting(NamedTuple):
    """What one visitor has on the page.

    Attributes:
        name: of the model.
        history: of the picture.
        other: of a second picture, to mix with.
    """

    name: str
    history: History
    other: History | None = None


def has(sitting: Sitting | None) -> Sitting:
    """Raises ValueError where there is no picture yet."""
    if sitting is None:
        raise UserError("there is no picture yet: upload one, pick an example, or take a sample")
    return sitting


class Desk:
    """The models of a page, each opened when it is first asked for.

    Args:
        checkpoints: folders or hub repositories.
        judges: of any shapes; after them come the shipped ones, for models of their data set.
        folder: for the files that the page gives out.
        directions: of the first checkpoint, instead of those in its folder.
        exemplars: pictures after which things are painted.
        device: torch device.
    """

    def __init__(
        self,
        checkpoints: Sequence[str],
        judges: Sequence[Judge],
        folder: Path,
        directions: Path | None = None,
        exemplars: int = 1000,
        device: str | None = None,
    ):
        self.paths = {Path(path).name: path for path in checkpoints}
        self.judges, self.folder, self.directions = judges, folder, directions
        self.exemplars, self.device = exemplars, device
        self._benches: dict[str, Workbench] = {}
        self._opening = threading.Lock()
        self._warmed: set[str] = set()
        self._filing, self._files = threading.Lock(), deque[Path]()
        self._examples: dict[str, list[str]] = {}
        self._inside: dict[tuple[str, str], Any] = {}

    @property
    def first(self) -> str:
        """The model that the page opens with."""
        return next(iter(self.paths))

    def alike(self, name: str) -> list[str]:
        """Models of pictures of the same shape, as far as their folders tell without being opened."""
        shape = list(self.bench(name).model.image_shape)
        return [each for each, path in self.paths.items() if told_by(path).get("image_shape", shape) == shape]

    def bench(self, name: str) -> Workbench:
        """The workbench of a model. Raises ValueError where there is none of that name."""
        if name not in self.paths:
            raise UserError(f"there is no model {name!r} here; there are {', '.join(self.paths)}")
        with self._opening:
            if name not in self._benches:
                given = self.directions if name == self.first else None
                self._benches[name] = open_workbench(
                    self.paths[name], self.judges, given, self.exemplars, self.device, usual=True
                )
        return self._benches[name]

    def warm(self, name: str) -> None:
        """Look at a model's exemplars meanwhile, so that the first stroke need not wait for it."""
        bench = self.bench(name)
        if bench.segmenter is not None and name not in self._warmed:
            self._warmed.add(name)
            # Not at once: a page that opens has better use for the machine.
            later = threading.Timer(WARM_AFTER, lambda: bench.pictures)
            later.daemon = True
            later.start()

    @cached_property
    def network(self) -> FeatureNetwork | None:
        """For the perceptual distance; None without the extra `metrics`."""
        try:
            return make_network("efficientnet-lite0")
        except DataMissing:
            return None

    # Beginning ------------------------------------------------------------------------------------

    def examples(self, name: str) -> list[str]:
        """Files of test images, made once."""
        bench = self.bench(name)
        with self._filing:
            if name not in self._examples:
                found = actions.examples(bench, EXAMPLES, self.folder / name)
                self._examples[name] = [str(path) for path in found]
        return self._examples[name]

    def open(self, name: str, path: str | None, size: float = 1.0, x: float = 0.5, y: float = 0.5) -> Sitting:
        """A picture file on a model, cropped: the box is `size` of the largest, its middle at x, y."""
        if path is None:
            raise UserError("there is no picture yet: upload one, or pick an example")
        upload, bench = open_upload(path), self.bench(name)
        box = crop(upload, bench.model.image_shape[1:], size, x, y)
        return Sitting(name, bench.open(upload, Path(path).name, box))

    def crop_again(self, name: str, sitting: Sitting | None, size: float, x: float, y: float) -> Sitting:
        """The upload with another box; its edits are gone."""
        start, bench = has(sitting).history.start, self.bench(name)
        if start.upload is None:
            raise UserError("a sample is not cropped: upload a picture first")
        upload = pixels.to_pillow(start.upload)
        box = crop(upload, bench.model.image_shape[1:], size, x, y)
        return Sitting(name, bench.open(upload, start.name, box))

    def change_model(self, name: str, sitting: Sitting | None) -> Sitting:
        """The same picture on another model, without its edits; a sample where it has no encoder."""
        bench = self.bench(name)
        start = sitting.history.start if sitting else None
        if start is None or start.upload is None or not bench.encodes:
            return Sitting(name, bench.sample(start.seed if start else 0))
        upload = pixels.to_pillow(start.upload)
        return Sitting(name, bench.open(upload, start.name, start.box))

    def sample(self, name: str, seed: float, temperature: float) -> Sitting:
        """A picture that a model draws."""
        return Sitting(name, self.bench(name).sample(whole(seed, "seed"), temperature))

    # Editing --------------------------------------------------------------------------------------

    def steer(
        self, sitting: Sitting | None, values: Sequence[float], without: Sequence[str],
        levels: Sequence[str], budget: float,
    ) -> Sitting:  # fmt: skip
        """The picture with the sliders at these values, in the order of `sliders`; a budget of 0 is none."""
        sitting = has(sitting)
        bench = self.bench(sitting.name)
        sigmas = {
            name: float(value) for name, value in zip(self.slots(sitting.name), values, strict=True) if name
        }
        history = actions.steered(bench, sitting.history, sigmas, without, levels, budget or None)
        return sitting._replace(history=history)

    def slots(self, name: str) -> list[str]:
        """Names of the directions, `POOL` to each of `GROUPS`; "" where a slider is hidden."""
        named = [names[:POOL] for names in self.bench(name).groups.values()]
        return [each for names in named for each in (*names, *[""] * (POOL - len(names)))]

    def paint(
        self, sitting: Sitting | None, drawing: dict[str, Any] | None, label: str, stroke: Stroke,
        strength: float,
    ) -> Sitting:  # fmt: skip
        """With what was brushed onto the enlarged picture."""
        sitting = has(sitting)
        bench = self.bench(sitting.name)
        mask = brushed(drawing, bench.model.image_shape[1:])
        history = bench.then(sitting.history, bench.stroke(sitting.history, label, mask, stroke, strength))
        return sitting._replace(history=history)

    def classes(self, name: str) -> list[str]:
        """That can be painted, things first."""
        segmenter = self.bench(name).segmenter
        known = list(segmenter.classes) if segmenter else []
        return [each for each in FIRST if each in known] + [each for each in known if each not in FIRST]

    def undo(self, sitting: Sitting | None) -> Sitting:
        """Without the last edit."""
        sitting = has(sitting)
        return sitting._replace(history=sitting.history.undone())

    def reset(self, sitting: Sitting | None) -> Sitting:
        """Without any edit."""
        sitting = has(sitting)
        return sitting._replace(history=History.of(sitting.history.start))

    # Records --------------------------------------------------------------------------------------

    def save(self, sitting: Sitting | None) -> str:
        """A record file of all that was done."""
        sitting = has(sitting)
        bench = self.bench(sitting.name)
        path = self.new_file(f"{Path(sitting.history.start.name).stem}.safetensors")
        save_history(path, sitting.history, bench.model, bench.checkpoint)
        return str(path)

    def load(self, name: str, path: str | None) -> tuple[Sitting, bool]:
        """A record file on the model that it is of, and whether the very bytes came again."""
        if path is None:
            raise UserError("there is no record yet: choose a file that was downloaded here")
        history, same = load_history(Path(path), self.bench(name).model)
        return Sitting(name, history), same

    def picture_file(self, sitting: Sitting | None) -> str:
        """The edited picture, laid back into the upload it was cropped from, as a PNG file."""
        history = has(sitting).history
        path = self.new_file(f"{Path(history.start.name).stem}-edited.png")
        laid_back(history).save(path)
        return str(path)

    def file(self, image: Image.Image) -> str:
        """A picture as a file, the same one for the same pixels, written once and whole.

        Gradio writes a picture anew for everyone it shows it to, at one place: who reads it meanwhile gets
        half of it.
        """
        digest = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).hexdigest()[:32]
        path = self.folder / "pictures" / f"{digest}.png"
        with self._filing:
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                write_atomically(path, lambda target: image.save(target, "PNG", compress_level=1))
                self._files.append(path)
            if len(self._files) > MOST_FILES:
                self._files.popleft().unlink(missing_ok=True)
        return str(path)

    def new_file(self, name: str) -> Path:
        """A path in the page's folder that nobody has."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / name.replace(" ", "-")

    # Looking --------------------------------------------------------------------------------------

    def units(self, name: str, layer: str) -> tuple[list[tuple[Image.Image, str]], list[str]]:
        """Pictures of a layer's units with what they agree with, and the units, the best first."""
        key = name, layer
        if key not in self._inside:
            self._inside[key] = actions.look_inside(self.bench(name), layer)
        shown, names = [], []
        for row, images in self._inside[key]:
            names.append(f"{row.unit} ({row.label})")
            shown += [(image, f"unit {row.unit}: {row.label}, IoU {row.iou:.2f}") for image in images[:4]]
        return shown, names

    def switch(self, sitting: Sitting | None, layer: str, units: Sequence[str]) -> Sitting:
        """With units off, as `units` names them."""
        sitting = has(sitting)
        bench = self.bench(sitting.name)
        if not units:
            raise UserError("no unit is chosen: look at a layer and choose some of its units")
        edit = bench.switch(layer, [int(each.split(" ")[0]) for each in units])
        return sitting._replace(history=bench.then(sitting.history, edit))

    def layers(self, name: str) -> list[str]:
        """That can be looked into, those that know most of objects first."""
        bench = self.bench(name)
        inside = networks_inside(bench.model)
        return sorted(default_layers(bench.model, bench.space), key=lambda layer: layer not in inside)

    def mix(
        self, sitting: Sitting | None, path: str | None, seed: float, sphere: bool
    ) -> tuple[Sitting, Image.Image]:
        """A second picture, of a file or a sample, and the way to it."""
        sitting = has(sitting)
        bench = self.bench(sitting.name)
        other = self.open(sitting.name, path).history if path else bench.sample(whole(seed, "seed"))
        way = actions.between(bench, sitting.history, other, sphere=sphere)
        heads = [f"{i / (len(way) - 1):.2f}" for i in range(len(way))]
        return sitting._replace(other=other), views.strip(way, heads)

    def take_share(self, sitting: Sitting | None, share: float, levels: Sequence[str]) -> Sitting:
        """A share of the way to the second picture, on some levels or on all."""
        sitting = has(sitting)
        if sitting.other is None:
            raise UserError("there is no second picture yet: show the way to one first")
        bench = self.bench(sitting.name)
        edit = bench.towards(sitting.history, sitting.other.code, share, levels)
        return sitting._replace(history=bench.then(sitting.history, edit))

    def samples(self, name: str, seed: float, temperature: float) -> list[tuple[Image.Image, str]]:
        """So many samples, each with its seed."""
        bench, first = self.bench(name), whole(seed, "seed")
        with prepared():
            drawn = {i: bench.sample(i, temperature).picture for i in range(first, first + SAMPLES)}
        return [(views.enlarged(picture, 128), f"seed {i}") for i, picture in drawn.items()]

    def nearest(self, sitting: Sitting | None) -> tuple[Image.Image, str]:
        """The training image most like the picture."""
        sitting = has(sitting)
        found, apart = actions.nearest_training_image(self.bench(sitting.name), sitting.history.picture)
        return views.enlarged(found), f"Nearest of {actions.REAL:,} training images: {apart:.3f} of 1 away."

    def compare(
        self, names: Sequence[str], sitting: Sitting | None, seconds: float
    ) -> Iterator[tuple[str, Image.Image]]:
        """A table and a row of pictures that grow: this picture through one model after the other."""
        picture = has(sitting).history.start.picture
        steps: dict[str, actions.Compared] = {}
        for name in names:
            for latest in actions.bring_back(self.bench(name), picture, seconds, self.network):
                steps[name] = latest
                came = {told: step.back for told, step in steps.items() if step.back is not None}
                yield actions.compared_table(list(steps.values())), views.compared(picture, came)

    def search(self, name: str, sitting: Sitting | None, seconds: float) -> Iterator[tuple[Image.Image, str]]:
        """The picture looked for by optimisation on another model, as it goes."""
        for step in actions.search(self.bench(name), has(sitting).history.start.picture, seconds):
            told = "done" if step.found else f"{step.share:.0%}"
            yield views.enlarged(step.back), f"{name}: {step.psnr:.1f} dB after {step.seconds:.1f} s, {told}"


def whole(number: float | None, what: str) -> int:
    """A whole number of a field on the page. Raises ValueError where it is none."""
    if number is None or number != int(number) or not 0 <= number < 2**31:
        raise UserError(f"{what}: expected a whole number from 0 on, got {number}")
    return int(number)


def crop(upload: Image.Image, shape: tuple[int, int], size: float, x: float, y: float) -> pixels.Box:
    """A box of a shape (height, width): `size` of the largest there is, its middle at shares x and y."""
    left, top, right, bottom = pixels.centre_box(upload, *shape)
    width, height = max(1, round(size * (right - left))), max(1, round(size * (bottom - top)))
    at_x = min(max(round(x * upload.width - width / 2), 0), upload.width - width)
    at_y = min(max(round(y * upload.height - height / 2), 0), upload.height - height)
    return at_x, at_y, at_x + width, at_y + height


def brushed(drawing: dict[str, Any] | None, shape: tuple[int, int]) -> Tensor:
    """Where the brush was, of what an image editor gives: bool of this (height, width)."""
    masks = [np.asarray(layer)[:, :, 3] for layer in (drawing or {}).get("layers", [])]
    if not masks:
        return torch.zeros(shape, dtype=torch.bool)
    return actions.mask_of(torch.from_numpy(np.maximum.reduce(masks)), *shape)
