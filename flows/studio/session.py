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
from flows.editing.editor import Editor, open_editor
from flows.editing.history import History, edited_upload
from flows.editing.records import load_history, save_history
from flows.errors import DataMissing, UserError
from flows.files import write_atomically
from flows.metrics.perceptual import FeatureNetwork, make_network
from flows.once import prepared
from flows.opening import read_description
from flows.semantics.base import SemanticModel
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


class Session(NamedTuple):
    """What one visitor has on the page.

    Attributes:
        name: of the model.
        history: of the picture.
        other: of a second picture, to mix with.
    """

    name: str
    history: History
    other: History | None = None


def require_image(session: Session | None) -> Session:
    """Raises ValueError where there is no picture yet."""
    if session is None:
        raise UserError("there is no picture yet: upload one, pick an example, or take a sample")
    return session


class Studio:
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
        judges: Sequence[SemanticModel],
        folder: Path,
        directions: Path | None = None,
        exemplars: int = 1000,
        device: str | None = None,
    ):
        self.paths = {Path(path).name: path for path in checkpoints}
        self.judges, self.folder, self.directions = judges, folder, directions
        self.exemplars, self.device = exemplars, device
        self._editors: dict[str, Editor] = {}
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
        shape = list(self.editor(name).model.image_shape)
        return [
            each
            for each, path in self.paths.items()
            if read_description(path).get("image_shape", shape) == shape
        ]

    def editor(self, name: str) -> Editor:
        """The editor of a model. Raises ValueError where there is none of that name."""
        if name not in self.paths:
            raise UserError(f"there is no model {name!r} here; there are {', '.join(self.paths)}")
        with self._opening:
            if name not in self._editors:
                given = self.directions if name == self.first else None
                self._editors[name] = open_editor(
                    self.paths[name], self.judges, given, self.exemplars, self.device, usual=True
                )
        return self._editors[name]

    def warm(self, name: str) -> None:
        """Look at a model's exemplars meanwhile, so that the first stroke need not wait for it."""
        editor = self.editor(name)
        if editor.segmenter is not None and name not in self._warmed:
            self._warmed.add(name)
            # Not at once: a page that opens has better use for the machine.
            later = threading.Timer(WARM_AFTER, lambda: editor.pictures)
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
        editor = self.editor(name)
        with self._filing:
            if name not in self._examples:
                found = actions.examples(editor, EXAMPLES, self.folder / name)
                self._examples[name] = [str(path) for path in found]
        return self._examples[name]

    def open(self, name: str, path: str | None, size: float = 1.0, x: float = 0.5, y: float = 0.5) -> Session:
        """A picture file on a model, cropped: the box is `size` of the largest, its middle at x, y."""
        if path is None:
            raise UserError("there is no picture yet: upload one, or pick an example")
        upload, editor = open_upload(path), self.editor(name)
        box = crop(upload, editor.model.image_shape[1:], size, x, y)
        return Session(name, editor.open(upload, Path(path).name, box))

    def crop_again(self, name: str, session: Session | None, size: float, x: float, y: float) -> Session:
        """The upload with another box; its edits are gone."""
        start, editor = require_image(session).history.start, self.editor(name)
        if start.upload is None:
            raise UserError("a sample is not cropped: upload a picture first")
        upload = pixels.to_pillow(start.upload)
        box = crop(upload, editor.model.image_shape[1:], size, x, y)
        return Session(name, editor.open(upload, start.name, box))

    def change_model(self, name: str, session: Session | None) -> Session:
        """The same picture on another model, without its edits; a sample where it has no encoder."""
        editor = self.editor(name)
        start = session.history.start if session else None
        if start is None or start.upload is None or not editor.encodes:
            return Session(name, editor.sample(start.seed if start else 0))
        upload = pixels.to_pillow(start.upload)
        return Session(name, editor.open(upload, start.name, start.box))

    def sample(self, name: str, seed: float, temperature: float) -> Session:
        """A picture that a model draws."""
        return Session(name, self.editor(name).sample(whole(seed, "seed"), temperature))

    # Editing --------------------------------------------------------------------------------------

    def steer(
        self, session: Session | None, values: Sequence[float], without: Sequence[str],
        levels: Sequence[str], budget: float,
    ) -> Session:  # fmt: skip
        """The picture with the sliders at these values, in the order of `sliders`; a budget of 0 is none."""
        session = require_image(session)
        editor = self.editor(session.name)
        sigmas = {
            name: float(value) for name, value in zip(self.slots(session.name), values, strict=True) if name
        }
        history = actions.steered(editor, session.history, sigmas, without, levels, budget or None)
        return session._replace(history=history)

    def slots(self, name: str) -> list[str]:
        """Names of the directions, `POOL` to each of `GROUPS`; "" where a slider is hidden."""
        named = [names[:POOL] for names in self.editor(name).groups.values()]
        return [each for names in named for each in (*names, *[""] * (POOL - len(names)))]

    def paint(
        self, session: Session | None, drawing: dict[str, Any] | None, label: str, stroke: Stroke,
        strength: float,
    ) -> Session:  # fmt: skip
        """With what was brushed onto the enlarged picture."""
        session = require_image(session)
        editor = self.editor(session.name)
        mask = mask_of_drawing(drawing, editor.model.image_shape[1:])
        history = editor.then(session.history, editor.stroke(session.history, label, mask, stroke, strength))
        return session._replace(history=history)

    def classes(self, name: str) -> list[str]:
        """That can be painted, things first."""
        segmenter = self.editor(name).segmenter
        known = list(segmenter.classes) if segmenter else []
        return [each for each in FIRST if each in known] + [each for each in known if each not in FIRST]

    def undo(self, session: Session | None) -> Session:
        """Without the last edit."""
        session = require_image(session)
        return session._replace(history=session.history.undone())

    def reset(self, session: Session | None) -> Session:
        """Without any edit."""
        session = require_image(session)
        return session._replace(history=History.of(session.history.start))

    # Records --------------------------------------------------------------------------------------

    def save(self, session: Session | None) -> str:
        """A record file of all that was done."""
        session = require_image(session)
        editor = self.editor(session.name)
        path = self.new_file(f"{Path(session.history.start.name).stem}.safetensors")
        save_history(path, session.history, editor.model, editor.checkpoint)
        return str(path)

    def load(self, name: str, path: str | None) -> tuple[Session, bool]:
        """A record file on the model that it is of, and whether the very bytes came again."""
        if path is None:
            raise UserError("there is no record yet: choose a file that was downloaded here")
        history, same = load_history(Path(path), self.editor(name).model)
        return Session(name, history), same

    def picture_file(self, session: Session | None) -> str:
        """The edited picture, laid back into the upload it was cropped from, as a PNG file."""
        history = require_image(session).history
        path = self.new_file(f"{Path(history.start.name).stem}-edited.png")
        edited_upload(history).save(path)
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
            self._inside[key] = actions.look_inside(self.editor(name), layer)
        shown, names = [], []
        for row, images in self._inside[key]:
            names.append(f"{row.unit} ({row.label})")
            shown += [(image, f"unit {row.unit}: {row.label}, IoU {row.iou:.2f}") for image in images[:4]]
        return shown, names

    def switch(self, session: Session | None, layer: str, units: Sequence[str]) -> Session:
        """With units off, as `units` names them."""
        session = require_image(session)
        editor = self.editor(session.name)
        if not units:
            raise UserError("no unit is chosen: look at a layer and choose some of its units")
        edit = editor.switch(layer, [int(each.split(" ")[0]) for each in units])
        return session._replace(history=editor.then(session.history, edit))

    def layers(self, name: str) -> list[str]:
        """That can be looked into, those that know most of objects first."""
        editor = self.editor(name)
        inside = networks_inside(editor.model)
        return sorted(default_layers(editor.model, editor.space), key=lambda layer: layer not in inside)

    def mix(
        self, session: Session | None, path: str | None, seed: float, sphere: bool
    ) -> tuple[Session, Image.Image]:
        """A second picture, of a file or a sample, and the way to it."""
        session = require_image(session)
        editor = self.editor(session.name)
        other = self.open(session.name, path).history if path else editor.sample(whole(seed, "seed"))
        way = actions.interpolate_histories(editor, session.history, other, sphere=sphere)
        heads = [f"{i / (len(way) - 1):.2f}" for i in range(len(way))]
        return session._replace(other=other), views.strip(way, heads)

    def take_share(self, session: Session | None, share: float, levels: Sequence[str]) -> Session:
        """A share of the way to the second picture, on some levels or on all."""
        session = require_image(session)
        if session.other is None:
            raise UserError("there is no second picture yet: show the way to one first")
        editor = self.editor(session.name)
        edit = editor.towards(session.history, session.other.codes, share, levels)
        return session._replace(history=editor.then(session.history, edit))

    def samples(self, name: str, seed: float, temperature: float) -> list[tuple[Image.Image, str]]:
        """So many samples, each with its seed."""
        editor, first = self.editor(name), whole(seed, "seed")
        with prepared():
            drawn = {i: editor.sample(i, temperature).picture for i in range(first, first + SAMPLES)}
        return [(views.enlarged(picture, 128), f"seed {i}") for i, picture in drawn.items()]

    def nearest(self, session: Session | None) -> tuple[Image.Image, str]:
        """The training image most like the picture."""
        session = require_image(session)
        found, apart = actions.nearest_training_image(self.editor(session.name), session.history.picture)
        return views.enlarged(found), f"Nearest of {actions.REAL:,} training images: {apart:.3f} of 1 away."

    def compare(
        self, names: Sequence[str], session: Session | None, seconds: float
    ) -> Iterator[tuple[str, Image.Image]]:
        """A table and a row of pictures that grow: this picture through one model after the other."""
        picture = require_image(session).history.start.picture
        steps: dict[str, actions.Compared] = {}
        for name in names:
            for latest in actions.compare_on_model(self.editor(name), picture, seconds, self.network):
                steps[name] = latest
                came = {told: step.back for told, step in steps.items() if step.back is not None}
                yield actions.compared_table(list(steps.values())), views.compared(picture, came)

    def search(self, name: str, session: Session | None, seconds: float) -> Iterator[tuple[Image.Image, str]]:
        """The picture looked for by optimisation on another model, as it goes."""
        for step in actions.search(self.editor(name), require_image(session).history.start.picture, seconds):
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


def mask_of_drawing(drawing: dict[str, Any] | None, shape: tuple[int, int]) -> Tensor:
    """Where the brush was, of what an image editor gives: bool of this (height, width)."""
    masks = [np.asarray(layer)[:, :, 3] for layer in (drawing or {}).get("layers", [])]
    if not masks:
        return torch.zeros(shape, dtype=torch.bool)
    return actions.mask_of(torch.from_numpy(np.maximum.reduce(masks)), *shape)
