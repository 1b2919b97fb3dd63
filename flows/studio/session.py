"""State of the studio: its models, and the sessions of its visitors."""

import hashlib
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.core.once import prepared
from flows.dissection.paint import Stroke
from flows.dissection.probe import default_layers, networks_inside
from flows.editing.editor import Editor, open_editor
from flows.editing.history import History, edited_upload
from flows.editing.records import load_history, save_history
from flows.editing.sources import read_found
from flows.errors import UserError
from flows.metrics.perceptual import EfficientNetLite0, FeatureNetwork
from flows.opening import names_of
from flows.semantics.base import SemanticModel
from flows.storage.files import write_atomically
from flows.storage.stored import read_description
from flows.storage.versioned import read_metadata
from flows.studio import actions, views
from flows.studio.state import FIRST_PAGE, FoundCode, Session, View, require_image
from flows.studio.uploads import naming, open_upload, read_owner

POOL = 8
"""Number of sliders per group that are shown at a time."""
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


class Studio:
    """Models of a page, each opened when it is first used, and actions on the sessions of visitors.

    Args:
        checkpoints: Folders or names of the models.
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

    def open(
        self,
        name: str,
        path: str | None,
        size: float = 1.0,
        x: float = 0.5,
        y: float = 0.5,
        class_name: str | None = None,
    ) -> Session:
        """Start a session with a picture file; see `crop` for size, x and y.

        Args:
            name: Name of the model.
            path: File of the picture.
            size: Size of the crop.
            x: Horizontal centre of the crop.
            y: Vertical centre of the crop.
            class_name: Class of the picture, as `class_names` gives it; None takes that of an example, else
                the most likely one.
        """
        if path is None:
            raise UserError("there is no picture yet: upload one, or pick an example")
        upload, editor = open_upload(path), self.editor(name)
        box = crop(upload, editor.model.image_shape[1:], size, x, y)
        label = self.class_number(name, class_name)
        label = self._examples.get(name, {}).get(path) if label is None else label
        history = editor.open(upload, Path(path).name, box, label)
        return Session(name, history, label=label, photo=history.start)

    def class_names(self, name: str) -> list[str]:
        """Names of the classes of a class-conditional model, or their numbers; empty for other models."""
        model = self.editor(name).model
        names = model.class_names
        return names + [str(i) for i in range(len(names), model.num_classes)]

    def class_number(self, name: str, class_name: str | None) -> int | None:
        """Number of a class; None for None or an empty name. Raises UserError if there is no such class."""
        if not class_name:
            return None
        known = self.class_names(name)
        if class_name not in known:
            raise UserError(f"{name} has no class {class_name!r}; it has {', '.join(known) or 'no classes'}")
        return known.index(class_name)

    def crop_again(self, name: str, session: Session | None, size: float, x: float, y: float) -> Session:
        """Start a session with the same upload, cropped to another box, without edits."""
        start, editor = require_image(session).history.start, self.editor(name)
        if start.upload is None:
            raise UserError("a sample cannot be cropped: upload a picture first")
        upload = pixels.to_pillow(start.upload)
        box = crop(upload, editor.model.image_shape[1:], size, x, y)
        label = session.label if session and session.name == name else None
        history = editor.open(upload, start.name, box, label)
        return Session(name, history, label=label, photo=history.start)

    def change_model(self, name: str, session: Session | None) -> Session:
        """Continue on another model; the session on this one is kept with all edits.

        The session on the chosen model is the one that was left, if there is one; else the latest upload is
        opened; else, or on a model without an encoder, a sample.
        """
        editor = self.editor(name)
        if session is None:
            return Session(name, editor.sample(0))
        if session.name == name:
            return session
        kept = session.leaving()
        if name in kept:
            left = kept[name]
            return left._replace(
                photo=session.photo, kept={key: each for key, each in kept.items() if key != name}
            )
        photo = session.photo
        if photo is None or photo.upload is None or not editor.encodes:
            history, label = editor.sample(session.history.start.seed), None
        else:
            label = session.label if self.same_classes(session.name, name) else None
            history = editor.open(pixels.to_pillow(photo.upload), photo.name, photo.box, label)
        return Session(name, history, label=label, photo=photo, kept=kept)

    def sample(
        self,
        name: str,
        seed: float,
        temperature: float,
        class_name: str | None = None,
        session: Session | None = None,
    ) -> Session:
        """Start a session with a sample; the upload and the sessions on other models are kept."""
        label = self.class_number(name, class_name)
        history = self.editor(name).sample(whole(seed, "seed"), temperature, label)
        photo, kept = (session.photo, session.kept) if session else (None, {})
        return Session(name, history, label=label, photo=photo, kept=kept)

    # Editing --------------------------------------------------------------------------------------

    def steer(
        self,
        session: Session | None,
        values: Sequence[float],
        without: Sequence[str],
        levels: Sequence[str],
        budget: float,
        view: View = FIRST_PAGE,
    ) -> Session:
        """Move the picture by the values of the sliders, in the order of `slots`; budget 0 sets no limit.

        Directions that have no slider in this view keep their move.
        """
        session = require_image(session)
        editor = self.editor(session.name)
        slots = self.slots(session.name, view)
        moved = actions.sliders_of(session.history)
        sigmas = {
            **{name: moved[name] for name in moved if name not in slots},
            **{name: float(value) for name, value in zip(slots, values, strict=True) if name},
        }
        history = actions.steered(editor, session.history, sigmas, without, levels, budget or None)
        return session._replace(history=history)

    def slots(self, name: str, view: View = FIRST_PAGE) -> list[str]:
        """Names of the directions of all sliders, `POOL` for each of `GROUPS`; "" for a hidden slider."""
        first = POOL * (view.page - 1)
        groups = [names[first : first + POOL] for names in self.found(name, view.words)]
        return [slot for names in groups for slot in (*names, *[""] * (POOL - len(names)))]

    def found(self, name: str, words: str) -> list[list[str]]:
        """Names of the directions in each of `GROUPS` that contain a text."""
        groups = self.editor(name).groups.values()
        return [[each for each in names if words.strip().lower() in each.lower()] for names in groups]

    def pages(self, name: str, words: str = "") -> int:
        """Number of pages on which all directions with a text have a slider; at least 1."""
        return max(1, *(-(-len(names) // POOL) for names in self.found(name, words)))

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
        """Classes that can be painted, those of the data set's menu first; empty without a segmenter."""
        return self.editor(name).classes

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

    def load(
        self, name: str, path: str | None, number: float | None = 0, session: Session | None = None
    ) -> tuple[Session, bool]:
        """Start a session from a record of the model, or from a file of codes.

        Args:
            name: Name of the model.
            path: Record of edits, record of an inversion, code file or array.
            number: Number of the code in a file of several.
            session: Session that is left.

        Returns:
            Session, and whether the bytes of a record of edits were reproduced.
        """
        if path is None:
            raise UserError("there is no file yet: choose a record, or a file of codes")
        editor, same = self.editor(name), True
        with naming(Path(path)):
            if "history_version" in read_metadata(path):
                history, same = load_history(Path(path), editor.model)
            else:
                found, i = read_found(path, editor.model), whole(number, "number of the code")
                if i >= len(found):
                    raise UserError(f"{path} has codes 0 … {len(found) - 1}, there is no code {i}")
                history = editor.begin(found[i], method=f"code {i} of {Path(path).name}")
        kept = {} if session is None else session.kept
        photo = history.start if history.start.upload is not None else session.photo if session else None
        return Session(name, history, photo=photo, kept=kept), same

    def owner(self, name: str, path: str | None) -> str | None:
        """Name of the other model that a record or code file belongs to; None if it is not on this page."""
        header = None if path is None else read_owner(path)
        for other in self.paths:
            stated = read_description(self.paths[other])
            # Its config states the fingerprint; opening the model to compute it takes seconds.
            if other != name and header == (stated.get("model_type"), stated.get("fingerprint")):
                return other
        return None

    def adopt(self, session: Session | None, found: FoundCode | None) -> Session:
        """Continue with a code that a search found, on its model, and keep the session that is left."""
        session = require_image(session)
        if found is None:
            raise UserError("no code is found yet: press Optimise, and wait until it is done or stopped")
        kept = {key: each for key, each in session.leaving().items() if key != found.name}
        if found.name == session.name:
            kept = dict(session.kept)
        return Session(found.name, found.history, label=session.label, photo=session.photo, kept=kept)

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
        self,
        session: Session | None,
        path: str | None,
        seed: float,
        sphere: bool,
        found: FoundCode | None = None,
    ) -> tuple[Session, Image.Image]:
        """Set the second picture, a found code, a file or a sample, and show the interpolation to it."""
        session = require_image(session)
        editor = self.editor(session.name)
        if found is not None and found.name != session.name:
            raise UserError(f"the code was found for {found.name}, and the picture is one of {session.name}")
        if found is not None:
            other = found.history
        else:
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

    def search(
        self, name: str, session: Session | None, seconds: float
    ) -> Iterator[tuple[Image.Image, str, FoundCode]]:
        """Reconstruction, progress and code of an optimisation on another model, updated while it runs."""
        session = require_image(session)
        start, labels, editor = session.history.start, self.labels_on(session, name), self.editor(name)
        for step in actions.search(editor, start.picture, seconds, labels=labels):
            state = "done" if step.found else f"{step.share:.0%}"
            text = f"{name}: {step.psnr:.1f} dB after {step.seconds:.1f} s, {state}"
            history = editor.begin(step.code, start.picture, start, f"optimisation, {step.psnr:.1f} dB")
            yield views.enlarged(step.reconstruction), text, FoundCode(name, history)

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
