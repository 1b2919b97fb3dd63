"""State of the studio: its models, and the sessions of its visitors."""

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
from flows.dissection.paint import Stroke
from flows.dissection.probe import default_layers, networks_inside
from flows.editing.editor import Editor, open_editor
from flows.editing.history import History, edited_upload
from flows.editing.records import load_history, save_history
from flows.errors import UserError
from flows.files import write_atomically
from flows.metrics.perceptual import EfficientNetLite0, FeatureNetwork
from flows.once import prepared
from flows.opening import names_of
from flows.semantics.base import SemanticModel
from flows.stored import read_description
from flows.studio import actions, views
from flows.studio.uploads import open_upload

POOL = 8
"""Maximum number of sliders per group."""
FIRST = ("window", "door", "bed", "lamp", "plant", "picture", "tree", "person", "vehicle", "banner")
"""Classes at the top of the list of classes, if the segmenter has them."""
ALPHAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Moves of a strip, in sigmas."""
EXAMPLES = 8
"""Number of test images that are offered as examples."""
WARM_AFTER = 2.0
"""Seconds between the choice of a model and the computation of its exemplars."""
MOST_FILES = 4000
"""Maximum number of pictures that are kept as files, of a few thousand bytes each."""
SAMPLES = 12
"""Number of samples that are generated at a time."""


class Session(NamedTuple):
    """State of one visitor's page.

    Attributes:
        name: Name of the model.
        history: History of the picture.
        other: History of a second picture for interpolation, if there is one.
        label: Class of the picture before the edits, as its data set gives it; None if it is unknown.
    """

    name: str
    history: History
    other: History | None = None
    label: int | None = None


def require_image(session: Session | None) -> Session:
    """Return the session; raises UserError if there is no picture yet."""
    if session is None:
        raise UserError("there is no picture yet: upload one, pick an example, or take a sample")
    return session


class Studio:
    """Models of a page, each opened when it is first used, and actions on the sessions of visitors.

    Args:
        checkpoints: Folders or hub repositories of the models.
        semantic_models: Predictors and segmenters for images of any shapes; the included ones are added for
            models of their data set.
        folder: Folder for files that the page serves.
        directions: File of directions of the first model; None takes the one in its folder.
        exemplars: Number of images per model among which exemplars for painting are found.
        device: Torch device; None takes CUDA if it is available.
    """

    def __init__(
        self,
        checkpoints: Sequence[str],
        semantic_models: Sequence[SemanticModel],
        folder: Path,
        directions: Path | None = None,
        exemplars: int = 1000,
        device: str | None = None,
    ):
        self.paths = names_of(checkpoints, "--checkpoint")
        self.semantic_models, self.folder, self.directions = semantic_models, folder, directions
        self.exemplars, self.device = exemplars, device
        self._editors: dict[str, Editor] = {}
        self._opening = threading.Lock()
        self._warmed: set[str] = set()
        self._filing, self._files = threading.Lock(), deque[Path]()
        self._examples: dict[str, dict[str, int | None]] = {}
        self._inside: dict[tuple[str, str], Any] = {}

    @property
    def first(self) -> str:
        """Name of the model that the page opens with."""
        return next(iter(self.paths))

    def alike(self, name: str) -> list[str]:
        """Names of the models with the same image shape, by their config, without loading them."""
        shape = list(self.editor(name).model.image_shape)
        return [
            each
            for each, path in self.paths.items()
            if read_description(path).get("image_shape", shape) == shape
        ]

    def editor(self, name: str) -> Editor:
        """Editor of a model, opened once; raises UserError if there is no such model."""
        if name not in self.paths:
            raise UserError(f"there is no model {name!r} here; there are {', '.join(self.paths)}")
        with self._opening:
            if name not in self._editors:
                given = self.directions if name == self.first else None
                self._editors[name] = open_editor(
                    self.paths[name],
                    self.semantic_models,
                    given,
                    self.exemplars,
                    self.device,
                    include_bundled=True,
                )
        return self._editors[name]

    def warm(self, name: str) -> None:
        """Compute a model's exemplars in the background, so that the first stroke does not wait for them."""
        editor = self.editor(name)
        if editor.segmenter is not None and name not in self._warmed:
            self._warmed.add(name)
            # Delayed, because the page is still being loaded.
            later = threading.Timer(WARM_AFTER, lambda: editor.pictures)
            later.daemon = True
            later.start()

    @cached_property
    def network(self) -> FeatureNetwork | None:
        """Network of the perceptual distance; None without the extra `metrics`."""
        return EfficientNetLite0() if EfficientNetLite0.is_installed() else None

    # Beginning ------------------------------------------------------------------------------------

    def examples(self, name: str) -> list[str]:
        """Files of test images, written once."""
        editor = self.editor(name)
        with self._filing:
            if name not in self._examples:
                classes = actions.examples(editor, EXAMPLES, self.folder / name)
                self._examples[name] = {str(path): label for path, label in classes.items()}
        return list(self._examples[name])

    def open(self, name: str, path: str | None, size: float = 1.0, x: float = 0.5, y: float = 0.5) -> Session:
        """Start a session with a picture file; see `crop` for size, x and y."""
        if path is None:
            raise UserError("there is no picture yet: upload one, or pick an example")
        upload, editor = open_upload(path), self.editor(name)
        box = crop(upload, editor.model.image_shape[1:], size, x, y)
        label = self._examples.get(name, {}).get(path)
        return Session(name, editor.open(upload, Path(path).name, box, label), label=label)

    def crop_again(self, name: str, session: Session | None, size: float, x: float, y: float) -> Session:
        """Start a session with the same upload, cropped to another box, without edits."""
        start, editor = require_image(session).history.start, self.editor(name)
        if start.upload is None:
            raise UserError("a sample cannot be cropped: upload a picture first")
        upload = pixels.to_pillow(start.upload)
        box = crop(upload, editor.model.image_shape[1:], size, x, y)
        label = session.label if session and session.name == name else None
        return Session(name, editor.open(upload, start.name, box, label), label=label)

    def change_model(self, name: str, session: Session | None) -> Session:
        """Start a session with the same upload on another model; a sample if that is not possible."""
        editor = self.editor(name)
        start = session.history.start if session else None
        if start is None or start.upload is None or not editor.encodes:
            return Session(name, editor.sample(start.seed if start else 0))
        upload = pixels.to_pillow(start.upload)
        label = session.label if session and self.same_classes(session.name, name) else None
        return Session(name, editor.open(upload, start.name, start.box, label), label=label)

    def sample(self, name: str, seed: float, temperature: float) -> Session:
        """Start a session with a sample."""
        return Session(name, self.editor(name).sample(whole(seed, "seed"), temperature))

    # Editing --------------------------------------------------------------------------------------

    def steer(
        self,
        session: Session | None,
        values: Sequence[float],
        without: Sequence[str],
        levels: Sequence[str],
        budget: float,
    ) -> Session:
        """Move the picture by the values of the sliders, in the order of `slots`; budget 0 sets no limit."""
        session = require_image(session)
        editor = self.editor(session.name)
        sigmas = {
            name: float(value) for name, value in zip(self.slots(session.name), values, strict=True) if name
        }
        history = actions.steered(editor, session.history, sigmas, without, levels, budget or None)
        return session._replace(history=history)

    def slots(self, name: str) -> list[str]:
        """Names of the directions of all sliders, `POOL` for each of `GROUPS`; "" for a hidden slider."""
        groups = [names[:POOL] for names in self.editor(name).groups.values()]
        return [slot for names in groups for slot in (*names, *[""] * (POOL - len(names)))]

    def paint(
        self,
        session: Session | None,
        drawing: dict[str, Any] | None,
        label: str,
        stroke: Stroke,
        strength: float,
    ) -> Session:
        """Draw or erase a class where the brush was on the enlarged picture."""
        session = require_image(session)
        editor = self.editor(session.name)
        mask = mask_of_drawing(drawing, editor.model.image_shape[1:])
        history = editor.then(session.history, editor.stroke(session.history, label, mask, stroke, strength))
        return session._replace(history=history)

    def classes(self, name: str) -> list[str]:
        """Classes that can be painted, those of `FIRST` first; empty without a segmenter."""
        segmenter = self.editor(name).segmenter
        known = list(segmenter.classes) if segmenter else []
        return [each for each in FIRST if each in known] + [each for each in known if each not in FIRST]

    def undo(self, session: Session | None) -> Session:
        """Undo the last edit."""
        session = require_image(session)
        return session._replace(history=session.history.undone())

    def reset(self, session: Session | None) -> Session:
        """Undo all edits."""
        session = require_image(session)
        return session._replace(history=History.of(session.history.start))

    # Records --------------------------------------------------------------------------------------

    def save(self, session: Session | None) -> str:
        """Write a record of all edits; returns its path."""
        session = require_image(session)
        editor = self.editor(session.name)
        path = self.new_file(f"{Path(session.history.start.name).stem}.safetensors")
        save_history(path, session.history, editor.model, editor.checkpoint)
        return str(path)

    def load(self, name: str, path: str | None) -> tuple[Session, bool]:
        """Start a session from a record of the model; also returns whether its bytes were reproduced."""
        if path is None:
            raise UserError("there is no record yet: choose a file that was downloaded here")
        history, same = load_history(Path(path), self.editor(name).model)
        return Session(name, history), same

    def picture_file(self, session: Session | None) -> str:
        """Write the edited picture as PNG, pasted into the upload if it was cropped; returns its path."""
        history = require_image(session).history
        path = self.new_file(f"{Path(history.start.name).stem}-edited.png")
        edited_upload(history).save(path)
        return str(path)

    def file(self, image: Image.Image) -> str:
        """Path of a PNG file of a picture, written once and atomically; equal pixels have the same file.

        Gradio would write the file again for every visitor, at the same path, so that others could read an
        incomplete file.
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
        """Unused path in the page's folder."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / name.replace(" ", "-")

    # Views ----------------------------------------------------------------------------------------

    def units(self, name: str, layer: str) -> tuple[list[tuple[Image.Image, str]], list[str]]:
        """Top images of a layer's units with captions, and the names of the units, the best first."""
        key = name, layer
        if key not in self._inside:
            self._inside[key] = actions.look_inside(self.editor(name), layer)
        shown, names = [], []
        for row, images in self._inside[key]:
            names.append(f"{row.unit} ({row.label})")
            shown += [(image, f"unit {row.unit}: {row.label}, IoU {row.iou:.2f}") for image in images[:4]]
        return shown, names

    def ablate(self, session: Session | None, layer: str, units: Sequence[str]) -> Session:
        """Ablate units, given by their names from `units`."""
        session = require_image(session)
        editor = self.editor(session.name)
        if not units:
            raise UserError("no unit is chosen: show the units of a layer and choose some of them")
        edit = editor.ablate(layer, [int(each.split(" ")[0]) for each in units])
        return session._replace(history=editor.then(session.history, edit))

    def layers(self, name: str) -> list[str]:
        """Layers that can be dissected, the hidden layers of coupling networks first."""
        editor = self.editor(name)
        inside = networks_inside(editor.model)
        return sorted(default_layers(editor.model, editor.space), key=lambda layer: layer not in inside)

    def mix(
        self, session: Session | None, path: str | None, seed: float, sphere: bool
    ) -> tuple[Session, Image.Image]:
        """Set the second picture, a file or a sample, and show the interpolation to it."""
        session = require_image(session)
        editor = self.editor(session.name)
        other = self.open(session.name, path).history if path else editor.sample(whole(seed, "seed"))
        way = actions.interpolate_histories(editor, session.history, other, sphere=sphere)
        heads = [f"{i / (len(way) - 1):.2f}" for i in range(len(way))]
        return session._replace(other=other), views.strip(way, heads)

    def take_share(self, session: Session | None, share: float, levels: Sequence[str]) -> Session:
        """Move the code a share of the way to the second picture, on some levels or on all."""
        session = require_image(session)
        if session.other is None:
            raise UserError("there is no second picture yet: interpolate to one first")
        editor = self.editor(session.name)
        edit = editor.towards(session.history, session.other.codes, share, levels)
        return session._replace(history=editor.then(session.history, edit))

    def samples(self, name: str, seed: float, temperature: float) -> list[tuple[Image.Image, str]]:
        """`SAMPLES` enlarged samples, each with its seed as caption."""
        editor, first = self.editor(name), whole(seed, "seed")
        with prepared():
            samples = {i: editor.sample(i, temperature).picture for i in range(first, first + SAMPLES)}
        return [(views.enlarged(picture, 128), f"seed {i}") for i, picture in samples.items()]

    def nearest(self, session: Session | None) -> tuple[Image.Image, str]:
        """Nearest training image, and a sentence with its distance."""
        session = require_image(session)
        image, distance = actions.nearest_training_image(self.editor(session.name), session.history.picture)
        return views.enlarged(
            image
        ), f"Nearest of {actions.REAL:,} training images; RMS distance {distance:.3f}."

    def compare(
        self, names: Sequence[str], session: Session | None, seconds: float
    ) -> Iterator[tuple[str, Image.Image]]:
        """Table and picture of reconstructions, updated while the models invert the picture in turn."""
        session = require_image(session)
        picture = session.history.start.picture
        steps: dict[str, actions.Compared] = {}
        for name in names:
            labels = self.labels_on(session, name)
            for latest in actions.compare_on_model(self.editor(name), picture, seconds, self.network, labels):
                steps[name] = latest
                reconstructions = {
                    label: step.reconstruction
                    for label, step in steps.items()
                    if step.reconstruction is not None
                }
                yield actions.compared_table(list(steps.values())), views.compared(picture, reconstructions)

    def search(self, name: str, session: Session | None, seconds: float) -> Iterator[tuple[Image.Image, str]]:
        """Reconstruction and progress of an optimisation on another model, updated while it runs."""
        session = require_image(session)
        picture, labels = session.history.start.picture, self.labels_on(session, name)
        for step in actions.search(self.editor(name), picture, seconds, labels=labels):
            state = "done" if step.found else f"{step.share:.0%}"
            yield (
                views.enlarged(step.reconstruction),
                f"{name}: {step.psnr:.1f} dB after {step.seconds:.1f} s, {state}",
            )

    def same_classes(self, one: str, other: str) -> bool:
        """Whether the labels of two models count the same classes: one model, or one data set."""
        first, second = (self.editor(name).model.description.get("name") for name in (one, other))
        return one == other or (first is not None and first == second)

    def labels_on(self, session: Session, name: str) -> Tensor | None:
        """Class of the session's picture, int64 (1,), for another model; None if it is unknown there."""
        if not self.same_classes(session.name, name):
            return None
        known = None if session.label is None else torch.tensor([session.label])
        return session.history.start.codes.labels if known is None else known


def whole(number: float | None, what: str) -> int:
    """Integer in a field of the page; raises UserError if the number is no integer in [0, 2³¹)."""
    if number is None or number != int(number) or not 0 <= number < 2**31:
        raise UserError(f"{what}: expected a whole number of at least 0, got {number}")
    return int(number)


def crop(upload: Image.Image, shape: tuple[int, int], size: float, x: float, y: float) -> pixels.Box:
    """Box of a crop with the aspect ratio of `shape`, within the upload.

    Args:
        upload: Picture to crop.
        shape: (height, width) of the model's images.
        size: Size relative to the largest possible box, in (0, 1].
        x: Horizontal centre of the box relative to the width of the upload, in [0, 1].
        y: Vertical centre of the box relative to the height of the upload, in [0, 1].
    """
    left, top, right, bottom = pixels.centre_box(upload, *shape)
    width, height = max(1, round(size * (right - left))), max(1, round(size * (bottom - top)))
    at_x = min(max(round(x * upload.width - width / 2), 0), upload.width - width)
    at_y = min(max(round(y * upload.height - height / 2), 0), upload.height - height)
    return at_x, at_y, at_x + width, at_y + height


def mask_of_drawing(drawing: dict[str, Any] | None, shape: tuple[int, int]) -> Tensor:
    """Mask of the brush, bool with the given (height, width), from the value of an image editor."""
    masks = [np.asarray(layer)[:, :, 3] for layer in (drawing or {}).get("layers", [])]
    if not masks:
        return torch.zeros(shape, dtype=torch.bool)
    return actions.mask_of(torch.from_numpy(np.maximum.reduce(masks)), *shape)
