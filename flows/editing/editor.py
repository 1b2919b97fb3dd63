"""Editor of pictures: a model with a predictor, a segmenter, directions and exemplars."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import RLock

import torch
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.core.checks import some_of
from flows.data.base import ImageData, first_of
from flows.dissection.exemplars import (
    ExemplarBrush,
    Pictures,
    exemplars_of_codes,
    exemplars_of_images,
)
from flows.dissection.paint import Canvas, Stroke, StrokeEdit
from flows.dissection.probe import Change, instrument
from flows.editing.history import Edit, History, Start
from flows.errors import DataMissing, Unsupported, UserError
from flows.inversion.found import Found
from flows.metrics.typicality import limit_typicality, typicality
from flows.models.base import LatentModel, Space
from flows.models.codes import Codes
from flows.opening import data_known, data_of, find_bundled, open_model
from flows.semantics.base import Predictor, Score, Segmenter, SemanticModel, predict_images, scores_of
from flows.semantics.load import load_semantic_model
from flows.steering.base import DIRECTIONS_FILE, Direction, load_directions, shift
from flows.steering.boundary import condition
from flows.steering.levels import to_levels
from flows.steering.operators import group_of
from flows.storage.places import locate

__all__ = ["Editor", "ScoreReading", "open_editor"]

EXEMPLARS = 2000
"""Default number of images among which exemplars for painting are found."""
SCALE = 512
"""Number of samples on which sigma and hyperplane of a conditioned direction are computed."""
REMEMBERED = 64
"""Number of pictures whose predictions are cached."""
USUAL = 256
"""Number of samples from which the usual typicality of codes is estimated."""
GROUPS = ("layout", "objects", "attributes", "colour", "other")


@dataclass(frozen=True)
class ScoreReading:
    """Prediction of one score of a picture.

    Attributes:
        name: Name of the score.
        value: Value of the score; NaN if the attribute is not visible.
        text: Value as text: a percentage for a probability, otherwise a number.
    """

    name: str
    value: float
    text: str


class Editor:
    """Edits pictures with one model: encode, steer, paint, ablate units. Each edit gives a new `History`.

    Attributes:
        checkpoint: Folder or name of the model.
        model: Model in eval mode.
        predictor: Predictor for the model's images; None if there is none.
        segmenter: Segmenter for the model's images; None if there is none.
        space: Name of the latent space in which pictures are edited.
        directions: All directions by name; that of another space or of an earlier name has it in brackets.
        exemplars: Number of images among which exemplars for painting are found.
        lock: Lock to hold while the model runs, because hooks on its layers are shared by all threads.
    """

    def __init__(
        self,
        checkpoint: str,
        model: LatentModel,
        predictor: Predictor | None = None,
        segmenter: Segmenter | None = None,
        directions: Sequence[Direction] = (),
        exemplars: int = EXEMPLARS,
    ):
        self.checkpoint, self.model = checkpoint, model
        self.predictor, self.segmenter = predictor, segmenter
        self.space = directions[0].space if directions else model.search_space
        self.directions = named_apart(directions, self.space)
        self.exemplars, self.lock, self._exemplar_lock = exemplars, RLock(), RLock()
        self._exemplars: Pictures | None = None
        self._brushes: dict[str, ExemplarBrush] = {}
        self._scales: dict[str, Codes] = {}
        self._read = lru_cache(REMEMBERED)(self._read_bytes)

    @property
    def name(self) -> str:
        """Name of the checkpoint, without its folder."""
        return Path(self.checkpoint).name

    @property
    def latent(self) -> Space:
        """Latent space in which pictures are edited."""
        return self.model.spaces[self.space]

    @property
    def encodes(self) -> bool:
        """Whether pictures can be encoded, exactly or by a learned encoder, without their classes."""
        return self.latent.encodes and not self.model.needs_labels(self.space)

    @cached_property
    def data(self) -> ImageData | None:
        """Data set that the model was trained on; None if it is unknown or not on this machine.

        Raises:
            UserError: The checkpoint records a data set that does not fit the model.
        """
        if not data_known(self.model):
            return None
        try:
            return data_of(self.model, None)
        except DataMissing:
            return None

    # Pictures -------------------------------------------------------------------------------------

    def open(
        self, upload: Image.Image, name: str, box: pixels.Box | None = None, label: int | None = None
    ) -> History:
        """Crop, resize and encode a picture.

        Args:
            upload: Upright picture of any size; it is flattened over white.
            name: Name of the file.
            box: Part of the upload to keep, in its pixels; None takes the largest centred box.
            label: Class of the picture, for a class-conditional model; None if it is unknown.

        Returns:
            History without edits.

        Raises:
            Unsupported: The model has no encoder.
            UserError: The box is not within the picture.
        """
        if not self.encodes:
            raise Unsupported(f"{self.name} has no encoder for pictures; take a sample of it")
        channels, height, width = self.model.image_shape
        flat = pixels.flatten(upload, channels)
        box = box or pixels.centre_box(flat, height, width)
        if len(box) != 4 or not all(isinstance(edge, int) for edge in box):
            raise UserError(f"box: expected four whole numbers, got {box}")
        if not (0 <= box[0] < box[2] <= flat.width and 0 <= box[1] < box[3] <= flat.height):
            raise UserError(f"expected a box within {flat.width}×{flat.height} pixels, got {box}")
        small = pixels.crop_and_resize(flat, height, width, box)
        picture = pixels.reduce(pixels.from_pillow(small, channels), self.model.bins)
        with self.lock:
            codes = self.model.encode_bytes(picture[None], self.space, None if label is None else [label])
        whole = pixels.from_pillow(flat, channels)
        return History.of(Start(picture=picture, codes=codes.cpu(), name=name, upload=whole, box=box))

    def sample(self, seed: int, temperature: float = 1.0, label: int | None = None) -> History:
        """Generate a sample, of a class if it is given, as a history without edits."""
        labels = None if label is None else torch.tensor([label])
        if labels is None and self.latent.labelled:
            labels = torch.tensor([seed % self.model.num_classes])
        with self.lock:
            codes = self.model.sample(1, self.space, seed, temperature, labels)
            picture = self.model.decode_bytes(codes)[0]
        return History.of(Start(picture=picture, codes=codes.cpu(), name="sample", seed=seed))

    def begin(
        self, found: Found, picture: Tensor | None = None, start: Start | None = None, method: str = "code"
    ) -> History:
        """Start with a code that a search found, or that a file holds, as a history without edits.

        Args:
            found: One code with what belongs to it.
            picture: uint8 (C, H, W), picture that the code was found for, whose reconstruction residual is
                kept where nothing changes; None takes the decoded code.
            start: Start of the picture on another model, whose name, upload and box are kept; None if there
                is none.
            method: Name of the search or file that the code comes from.

        Raises:
            UserError: There is not exactly one code.
        """
        if len(found) != 1:
            raise UserError(f"expected one code, got {len(found)}; choose one of {some_of(found.names)}")
        latent, space = self.model.spaces, found.codes.space
        if space != self.space and self.space in latent[space].conversions:
            found = found.converted(self.model, self.space)
        with self.lock:
            shown = found.decode(self.model)[0] if picture is None else picture
        name = Path(found.names[0]).name if start is None else start.name
        return History.of(
            Start(
                picture=pixels.reduce(shown, self.model.bins),
                codes=found.codes.to(self.model.dtype).cpu(),
                name=name,
                upload=start.upload if start else None,
                box=start.box if start else None,
                adaptation=found.adaptation(0),
                method=method,
            )
        )

    # Edits ----------------------------------------------------------------------------------------

    def move(
        self,
        history: History,
        sigmas: Mapping[str, float],
        without: Sequence[str] = (),
        levels: Sequence[str] = (),
        budget: float | None = None,
    ) -> Edit:
        """Make an edit that moves the code along directions; apply it by `then`.

        Args:
            history: History of the picture.
            sigmas: Moves in sigmas, by name of the direction.
            without: Names of directions to which the others are made orthogonal.
            levels: Levels of the code that are moved; if empty, all.
            budget: Maximum | |z|/√D − 1 | after the move; longer moves are shortened. None sets no limit.

        Raises:
            UserError: There is no direction or level of a name, or a direction lies in the span of `without`.
            Unsupported: A direction is in a space that has no map to and from that of the picture's code.
        """
        start = moved = history.codes
        for name, amount in sigmas.items():
            if amount:
                moved = self._shifted(moved, self.direction(name, without, levels), amount)
        if budget is not None:
            with self.lock:
                moved = limit_typicality(self.model, start, moved, budget)
        parts = [f"{name} {amount:+.3g} σ" for name, amount in sigmas.items() if amount]
        settings = {
            "sigmas": dict(sigmas),
            "without": list(without),
            "levels": list(levels),
            "budget": budget,
        }
        return Edit(", ".join(parts) or "not moved", step=moved.values - start.values, settings=settings)

    @torch.no_grad()
    def _shifted(self, codes: Codes, direction: Direction, amount: float) -> Codes:
        """Move codes along a direction of any space with a map to and from theirs."""
        own, other = codes.space, direction.space
        if own == other:
            return shift(codes, direction, amount)
        spaces = self.model.spaces
        with self.lock:
            back, forth = own in spaces[other].conversions, other in spaces[own].conversions
            if back and not forth:
                return shift(codes, to_levels(self.model, direction, own), amount)
            if not (back and forth):
                raise Unsupported(
                    f"{direction.name} is a direction of {other}, and this picture has a code of {own}, from "
                    f"which {type(self.model).__name__} has no map to {other}"
                )
            there = self.model.convert_codes(codes, other)
            moved = self.model.convert_codes(shift(there, direction, amount), own)
            still = self.model.convert_codes(there, own)
        # The difference, so that the rounding of the two maps does not move the code.
        return codes.with_values(codes.values + (moved.values - still.values).to(codes.values))

    def direction(self, name: str, without: Sequence[str] = (), levels: Sequence[str] = ()) -> Direction:
        """Direction of a name, made orthogonal to those of `without` and restricted to levels; see `move`."""
        for each in (name, *without):
            if each not in self.directions:
                known = ", ".join(self.directions) or "none; `flows steer find` finds some"
                raise UserError(f"{self.name} has no direction {each!r}; it has {known}")
        direction = self.directions[name]
        others = [self.directions[each] for each in without if each != name]
        others = [each for each in others if each.space == direction.space]
        if others:
            direction = condition(direction, others, self._scale_in(direction.space))
        return direction.on_levels(levels, self.model.spaces[direction.space]) if levels else direction

    def _scale_in(self, space: str) -> Codes:
        """Samples that give conditioned directions of a space their sigma."""
        if space not in self._scales:
            with self.lock:
                self._scales[space] = self.model.sample(SCALE, space, 0).cpu()
        return self._scales[space]

    def towards(self, history: History, other: Codes, share: float, levels: Sequence[str] = ()) -> Edit:
        """Make an edit that moves a share of the way to another picture's code, on some levels or on all.

        Raises:
            UserError: The codes are in different spaces, or the space has no such level.
        """
        history.codes.check_alongside(other)
        step = share * (other.values - history.codes.values)
        if levels:
            kept = torch.zeros_like(step)
            for part in self.model.spaces[other.space].slices_of(levels):
                kept[:, part] = step[:, part]
            step = kept
        where = f"{', '.join(levels)} " if levels else ""
        return Edit(f"{where}{share:.0%} of the way to another picture", step=step)

    @torch.no_grad()
    def stroke(
        self, history: History, label: str, mask: Tensor, stroke: Stroke, strength: float = 1.0
    ) -> Edit:
        """Make an edit that draws or erases a class under a brush; apply it by `then`.

        Args:
            history: History of the picture.
            label: Name of the class.
            mask: bool (H, W), pixels under the brush.
            stroke: Draw or erase.
            strength: Strength of the stroke, from 0 (no change) to 1.

        Raises:
            UserError: The mask is empty, there is no such class, or there is no exemplar of it.
            Unsupported: There is no segmenter, or the model has no layer to paint with.
        """
        if not mask.any():
            raise UserError("nothing is painted yet: mark the region on the picture with the brush")
        brush, stage = self.brush(label), history.stages[-1]
        with self.lock, history.probe(self.model) as probe:
            canvas = Canvas(probe, stage.codes, stage.picture, earlier=stage.earlier)
            stroke_edit = brush.stroke_edit(canvas, mask, stroke, strength)
        if not stroke_edit.changes:
            return Edit(f"no {label} to erase there")
        return Edit(f"{stroke} {label}", stroke_edit=stroke_edit)

    def ablate(self, layer: str, units: Sequence[int]) -> Edit:
        """Make an edit that ablates units of a layer everywhere; apply it by `then`.

        Raises:
            UserError: There is no such layer, or the layer has no such unit.
        """
        with instrument(self.model, self.space) as probe:
            probe.check(layer)
            channels = probe.layers[layer].channels
        for unit in units:
            if not 0 <= unit < channels:
                raise UserError(f"{layer} has units 0 … {channels - 1}, there is no unit {unit}")
        amount = torch.zeros(channels, 1, 1)
        amount[list(units)] = 1
        everywhere = torch.ones(self.model.image_shape[1:], dtype=torch.bool)
        change = Change(amount, torch.zeros(channels, 1, 1))
        label = f"off: {layer} {', '.join(map(str, units))}"
        return Edit(label, stroke_edit=StrokeEdit([(layer, change)], everywhere))

    def then(self, history: History, edit: Edit) -> History:
        """Apply an edit while holding the lock; see `History.then`."""
        with self.lock:
            return history.then(self.model, edit)

    # Codes ----------------------------------------------------------------------------------------

    def typicality(self, codes: Codes) -> float:
        """Typicality of one code; NaN without a map to the prior space."""
        values = self._typicality(codes)
        return float(values[0]) if len(values) else float("nan")

    @cached_property
    def sample_typicality(self) -> Tensor:
        """Typicality of samples, (n,); empty without a map to the prior space."""
        with self.lock:
            codes = self.model.sample(USUAL, self.space, 1)
        return self._typicality(codes)

    @torch.no_grad()
    def _typicality(self, codes: Codes) -> Tensor:
        with self.lock:
            if self.model.values_in(codes, self.model.prior_space.name) is None:
                return torch.empty(0)
            return typicality(self.model, codes).cpu()

    # Predictor and segmenter ----------------------------------------------------------------------

    def brush(self, label: str) -> ExemplarBrush:
        """Brush of a class, made once; see `exemplars.Pictures.brush`."""
        if label not in self._brushes:
            self._brushes[label] = self.pictures.brush(self.model, label)
        return self._brushes[label]

    @property
    def pictures(self) -> Pictures:
        """Exemplars, computed once by a copy of the model, so that the lock is free meanwhile.

        Raises:
            Unsupported: There is no segmenter.
        """
        if self.segmenter is None:
            raise Unsupported(f"{self.name} has no segmenter for its images, which painting needs")
        with self._exemplar_lock:
            if self._exemplars is None:
                with self.lock:
                    model = copy.deepcopy(self.model)
                self._exemplars = exemplars_of(model, self.segmenter, self.exemplars, self.space)
            return self._exemplars

    def readings(self, picture: Tensor) -> list[ScoreReading]:
        """Predictions for uint8 (C, H, W), in the order of the scores; empty without a predictor."""
        # Cached, because a slider is moved repeatedly from the same picture.
        return self._read(picture.numpy().tobytes())

    def _read_bytes(self, content: bytes) -> list[ScoreReading]:
        if self.predictor is None:
            return []
        picture = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(self.model.image_shape)
        with self.lock:
            predicted = predict_images(
                self.predictor, pixels.to_unit(picture[None], self.model.bins), self.model.device
            )
        pairs = zip(self.predictor.scores, predicted[0].tolist(), strict=True)
        return [ScoreReading(score.name, value, _as_words(score, value)) for score, value in pairs]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Names of the directions in each of `GROUPS`, by the group of the score that each is named after."""
        known = (
            self.predictor.scores
            if self.predictor
            else scores_of(self.data.all_attributes() if self.data else [])
        )
        own = self.data.menu_groups if self.data else {}
        scores = {score.name: own.get(score.attribute, score.group) for score in known}
        groups: dict[str, list[str]] = {group: [] for group in GROUPS}
        kinds = {"layout": "layout", "category": "layout", "object": "objects", "colour": "colour"}
        for label, direction in self.directions.items():
            name = direction.name
            group = kinds.get(scores[name], "attributes") if name in scores else group_of(name) or "other"
            groups[group].append(label)
        return groups

    @cached_property
    def classes(self) -> list[str]:
        """Classes that can be painted, those of the data set's menu first; empty without a segmenter."""
        known = list(self.segmenter.classes) if self.segmenter else []
        return first_of(self.data.menu_classes if self.data else (), known)


def named_apart(directions: Sequence[Direction], space: str) -> dict[str, Direction]:
    """Directions by distinct names: with their space if it is not `space`, with a number if still equal."""
    named: dict[str, Direction] = {}
    for each in directions:
        name = each.name if each.space == space else f"{each.name} ({each.space})"
        count = 2
        while name in named:
            name = f"{each.name} ({each.space}, {count})"
            count += 1
        named[name] = each
    return named


def _as_words(score: Score, value: float) -> str:
    if value != value:
        return "not visible"
    return f"{value:.0%}" if score.probability else f"{value:.2f}"


def open_editor(
    checkpoint: str,
    semantic_models: Sequence[SemanticModel] = (),
    directions: Path | None = None,
    exemplars: int = EXEMPLARS,
    device: str | None = None,
    include_bundled: bool = False,
) -> Editor:
    """Open an editor for a checkpoint, with the first predictor and segmenter that fit its image shape.

    Args:
        checkpoint: Folder or name of the model.
        semantic_models: Predictors and segmenters for images of any shapes.
        directions: File of directions, written by `flows steer find`; None takes the one in the folder of the
            checkpoint, if there is one.
        exemplars: Number of images among which exemplars for painting are found.
        device: Torch device; None takes CUDA if it is available.
        include_bundled: Whether to add the included predictor and segmenter of the model's data set.

    Raises:
        CheckpointError: The model or the directions cannot be read, or do not belong together.
    """
    model = open_model(checkpoint, device)
    fitting = [each for each in semantic_models if tuple(each.image_shape) == tuple(model.image_shape)]
    if include_bundled:
        included = (find_bundled("predictor", model), find_bundled("segmenter", model))
        fitting += [load_semantic_model(path, str(model.device)) for path in included if path is not None]
    predictor = next((each for each in fitting if isinstance(each, Predictor)), None)
    segmenter = next((each for each in fitting if isinstance(each, Segmenter)), None)
    path = directions or Path(locate(checkpoint)) / DIRECTIONS_FILE
    known = load_directions(path, model) if directions or path.is_file() else []
    return Editor(checkpoint, model, predictor, segmenter, known, exemplars)


def exemplars_of(model: LatentModel, segmenter: Segmenter, n: int, space: str) -> Pictures:
    """Exemplars: n training images, or samples if the model has no encoder or its data set is unknown."""
    latent = model.check_space(space)
    if not latent.encodes or not data_known(model):
        return exemplars_of_codes(model, segmenter, model.sample(n, space))
    batch = data_of(model, None).first("train", n)
    if latent.exact:
        images = pixels.reduce(batch.images, model.bins)
        return exemplars_of_images(model, segmenter, images, space, batch.labels)
    return exemplars_of_codes(model, segmenter, model.encode_bytes(batch.images, space, batch.labels))
