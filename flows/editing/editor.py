"""A model with all that it takes to edit pictures with it: judges, directions, exemplars."""

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
from flows.data.base import ImageData
from flows.dissection.exemplars import (
    ExemplarBrush,
    Pictures,
    exemplars_of_codes,
    exemplars_of_images,
)
from flows.dissection.instrument import Change, instrument
from flows.dissection.paint import Canvas, Stroke, StrokeEdit
from flows.editing.history import Edit, History, Start
from flows.errors import Unsupported, UserError
from flows.metrics.typicality import limit_typicality, typicality
from flows.models.base import LatentModel, Space
from flows.models.codes import Codes
from flows.opening import data_of, find_bundled, open_model
from flows.semantics.base import Predictor, Score, Segmenter, SemanticModel, predict_images, scores_of
from flows.semantics.load import load_semantic_model
from flows.steering.base import Direction, load_directions, shift
from flows.steering.boundary import condition

EXEMPLARS = 2000
"""Pictures after which things are painted, unless told otherwise."""
DIRECTIONS = "directions.safetensors"
"""In a checkpoint's folder, what `flows steer find` found for it."""
SCALE = 512
"""Samples by whose codes the scale of a conditioned direction is measured."""
REMEMBERED = 64
"""Pictures whose readings are kept."""
USUAL = 256
"""Samples that say how typical codes are."""
GROUPS = ("layout", "objects", "attributes", "colour", "other")


@dataclass(frozen=True)
class ScoreReading:
    """What a predictor says of a picture.

    Attributes:
        name: of the score.
        value: not a number where it cannot be seen.
        text: the value for people: a percentage of a probability, else the number.
    """

    name: str
    value: float
    text: str


class Editor:
    """See above; one picture at a time, for whoever holds the lock.

    Attributes:
        checkpoint: of the model.
        model: in eval mode.
        predictor, segmenter: judges of its images; None where there are none of that shape.
        directions: of the model, the first space's only.
        lock: to be held while the model works: what listens to its layers must not hear another's picture.
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
        self.directions = {each.name: each for each in directions if each.space == self.space}
        self.exemplars, self.lock, self._looking = exemplars, RLock(), RLock()
        self._seen: Pictures | None = None
        self._brushes: dict[str, ExemplarBrush] = {}
        self._read = lru_cache(REMEMBERED)(self._read_bytes)

    @property
    def name(self) -> str:
        """Of the checkpoint, without its folder."""
        return Path(self.checkpoint).name

    @property
    def latent(self) -> Space:
        """The space in which pictures are edited."""
        return self.model.spaces[self.space]

    @property
    def encodes(self) -> bool:
        """Whether pictures can be encoded, exactly or by a learned encoder, without their classes."""
        return self.latent.encodes and not self.model.needs_labels(self.space)

    @cached_property
    def data(self) -> ImageData | None:
        """What the model was trained on; None where that is not here."""
        try:
            return data_of(self.model, None)
        except UserError:
            return None

    # Pictures -------------------------------------------------------------------------------------

    def open(self, upload: Image.Image, name: str, box: pixels.Box | None = None) -> History:
        """A picture of anybody's, upright and flat, cropped, resized and encoded.

        Args:
            upload: of any size.
            name: of the file.
            box: the part to keep, in the upload's pixels; None takes the largest in the middle.

        Raises:
            ValueError: the model has no encoder, or the box is not in the picture.
        """
        if not self.encodes:
            raise Unsupported(f"{self.name} has no encoder for pictures; take a sample of it")
        channels, height, width = self.model.image_shape
        flat = pixels.flatten(upload, channels)
        box = box or pixels.centre_box(flat, height, width)
        if not (0 <= box[0] < box[2] <= flat.width and 0 <= box[1] < box[3] <= flat.height):
            raise UserError(f"expected a box within {flat.width}×{flat.height} pixels, got {box}")
        small = pixels.fit(flat, height, width, box)
        picture = pixels.reduce(pixels.from_pillow(small, channels), self.model.bins)
        with self.lock:
            codes = self.model.encode_bytes(picture[None], self.space)
        whole = pixels.from_pillow(flat, channels)
        return History.of(Start(picture, codes.cpu(), name, upload=whole, box=box))

    def sample(self, seed: int, temperature: float = 1.0) -> History:
        """A picture that the model draws."""
        labels = torch.tensor([seed % self.model.num_classes]) if self.latent.labelled else None
        with self.lock:
            codes = self.model.sample(1, self.space, seed, temperature, labels)
            picture = self.model.decode_bytes(codes)[0]
        return History.of(Start(picture, codes.cpu(), "sample", seed))

    # Edits ----------------------------------------------------------------------------------------

    def move(
        self,
        history: History,
        sigmas: Mapping[str, float],
        without: Sequence[str] = (),
        levels: Sequence[str] = (),
        budget: float | None = None,
    ) -> Edit:
        """A step along directions, for `History.then`.

        Args:
            history: of the picture that will be moved.
            sigmas: by name of the direction.
            without: names of directions that the others shall leave alone.
            levels: of the space, to move only these; none moves all.
            budget: largest | |z|/√D − 1 | that the step may lead to, else it is cut short.

        Raises:
            ValueError: there is no direction or level of that name, or nothing is left of one.
        """
        start = moved = history.codes
        for name, amount in sigmas.items():
            if amount:
                moved = shift(moved, self.direction(name, without, levels), amount)
        if budget is not None:
            with self.lock:
                moved = limit_typicality(self.model, start, moved, budget)
        parts = [f"{name} {amount:+.3g} σ" for name, amount in sigmas.items() if amount]
        settings = {
            "sigmas": dict(sigmas), "without": list(without), "levels": list(levels), "budget": budget,
        }  # fmt: skip
        return Edit(", ".join(parts) or "not moved", step=moved.values - start.values, settings=settings)

    def direction(self, name: str, without: Sequence[str] = (), levels: Sequence[str] = ()) -> Direction:
        """The direction of that name, leaving others alone, on some levels; see `move`."""
        for each in (name, *without):
            if each not in self.directions:
                known = ", ".join(self.directions) or "none; `flows steer find` finds some"
                raise UserError(f"{self.name} has no direction {each!r}; it has {known}")
        found = self.directions[name]
        others = [self.directions[each] for each in without if each != name]
        if others:
            found = condition(found, others, self._scale)
        return found.on_levels(levels, self.latent) if levels else found

    @cached_property
    def _scale(self) -> Codes:
        with self.lock:
            return self.model.sample(SCALE, self.space, 0).cpu()

    def towards(self, history: History, other: Codes, share: float, levels: Sequence[str] = ()) -> Edit:
        """A step towards another picture's code (1, D), a share of the way, on some levels or on all."""
        step = share * (other.values - history.codes.values)
        if levels:
            kept = torch.zeros_like(step)
            for level in levels:
                kept[:, self.latent.levels[level]] = step[:, self.latent.levels[level]]
            step = kept
        where = f"{', '.join(levels)} " if levels else ""
        return Edit(f"{where}{share:.0%} of the way to another picture", step=step)

    @torch.no_grad()
    def stroke(
        self, history: History, label: str, mask: Tensor, stroke: Stroke, strength: float = 1.0
    ) -> Edit:
        """A class drawn or erased under a brush, for `History.then`.

        Args:
            history: of the picture that will be painted on.
            label: name of the class.
            mask: bool (H, W), where the brush was.
            stroke: draw or erase.
            strength: 1 does all, 0 nothing.

        Raises:
            ValueError: the brush was nowhere, there is no such class, or no exemplar of it.
        """
        if not mask.any():
            raise UserError("nothing is painted yet: paint on the picture where the thing should be")
        brush, stage = self.brush(label), history.stages[-1]
        with self.lock, instrument(self.model, self.space) as probe:
            canvas = Canvas(probe, stage.codes, stage.picture, earlier=stage.earlier)
            stroke_edit = brush.stroke_edit(canvas, mask, stroke, strength)
        if not stroke_edit.changes:
            return Edit(f"no {label} to erase there")
        return Edit(f"{stroke} {label}", stroke_edit=stroke_edit)

    def switch(self, layer: str, units: Sequence[int]) -> Edit:
        """Units of a layer switched off everywhere, for `History.then`.

        Raises:
            ValueError: the layer has no such unit, or there is no such layer.
        """
        with instrument(self.model, self.space) as probe:
            probe.check(layer)
            channels = probe.layers[layer].channels
        for unit in units:
            if not 0 <= unit < channels:
                raise UserError(f"{layer} has units 0 … {channels - 1}, there is no {unit}")
        amount = torch.zeros(channels, 1, 1)
        amount[list(units)] = 1
        everywhere = torch.ones(self.model.image_shape[1:], dtype=torch.bool)
        change = Change(amount, torch.zeros(channels, 1, 1))
        told = f"off: {layer} {', '.join(map(str, units))}"
        return Edit(told, stroke_edit=StrokeEdit([(layer, change)], everywhere))

    def then(self, history: History, edit: Edit) -> History:
        """With one edit more; one picture at a time."""
        with self.lock:
            return history.then(self.model, edit)

    # Codes ----------------------------------------------------------------------------------------

    def typicality(self, codes: Codes) -> float:
        """Typicality of one code; NaN without a map to the prior."""
        found = self._typicality(codes)
        return float(found[0]) if len(found) else float("nan")

    @cached_property
    def usual_typicality(self) -> Tensor:
        """Typicality of samples, (n,); empty without a map to the prior."""
        with self.lock:
            codes = self.model.sample(USUAL, self.space, 1)
        return self._typicality(codes)

    @torch.no_grad()
    def _typicality(self, codes: Codes) -> Tensor:
        with self.lock:
            if not self.model.can_convert(codes, self.model.prior_space.name):
                return torch.empty(0)
            return typicality(self.model, codes).cpu()

    # Judges ---------------------------------------------------------------------------------------

    def brush(self, label: str) -> ExemplarBrush:
        """Of a class; see `exemplars.Pictures.brush`."""
        if label not in self._brushes:
            self._brushes[label] = self.pictures.brush(self.model, label)
        return self._brushes[label]

    @property
    def pictures(self) -> Pictures:
        """Exemplars, drawn and seen once; others may go on meanwhile, for a copy of the model draws them.

        Raises:
            ValueError: there is no segmenter.
        """
        if self.segmenter is None:
            raise Unsupported(f"{self.name} has no segmenter of its images: it cannot be painted with")
        with self._looking:
            if self._seen is None:
                with self.lock:
                    model = copy.deepcopy(self.model)
                self._seen = exemplars_of(model, self.segmenter, self.exemplars, self.space)
            return self._seen

    def readings(self, picture: Tensor) -> list[ScoreReading]:
        """What the predictor says of uint8 (C, H, W), in its order; nothing without one."""
        # Remembered: a slider is moved on and on from the same picture.
        return self._read(picture.numpy().tobytes())

    def _read_bytes(self, content: bytes) -> list[ScoreReading]:
        if self.predictor is None:
            return []
        picture = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(self.model.image_shape)
        with self.lock:
            seen = predict_images(
                self.predictor, pixels.to_unit(picture[None], self.model.bins), self.model.device
            )
        pairs = zip(self.predictor.scores, seen[0].tolist(), strict=True)
        return [ScoreReading(score.name, value, _as_words(score, value)) for score, value in pairs]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Names of the directions by `GROUPS`: by the attribute that the score of each is of."""
        told = (
            self.predictor.scores
            if self.predictor
            else scores_of(self.data.all_attributes() if self.data else [])
        )
        scores = {score.name: score.group for score in told}
        found: dict[str, list[str]] = {group: [] for group in GROUPS}
        kinds = {"layout": "layout", "category": "layout", "object": "objects"}
        for name in self.directions:
            if "hue" in name or name in ("red", "green", "blue"):
                found["colour"].append(name)
            elif name in scores:
                found[kinds.get(scores[name], "attributes")].append(name)
            else:
                found["other"].append(name)
        return found


def _as_words(score: Score, value: float) -> str:
    if value != value:
        return "not there"
    return f"{value:.0%}" if score.probability else f"{value:.2f}"


def open_editor(
    checkpoint: str,
    judges: Sequence[SemanticModel] = (),
    directions: Path | None = None,
    exemplars: int = EXEMPLARS,
    device: str | None = None,
    usual: bool = False,
) -> Editor:
    """An editor of a checkpoint, with the first predictor and segmenter for images of its shape.

    Args:
        checkpoint: folder or hub repository of the model.
        judges: any number, of any shapes.
        directions: file of `flows steer find`; None takes the one in the checkpoint's folder, if any.
        exemplars: pictures after which things are painted.
        device: torch device.
        usual: take the shipped judges where those do not fit, if there are some for the model's images.

    Raises:
        CheckpointError: the model or the directions cannot be read, or do not belong together.
    """
    model = open_model(checkpoint, device)
    fitting = [each for each in judges if tuple(each.image_shape) == tuple(model.image_shape)]
    if usual:
        beside = (find_bundled("predictor", model), find_bundled("segmenter", model))
        fitting += [load_semantic_model(path, str(model.device)) for path in beside if path is not None]
    predictor = next((each for each in fitting if isinstance(each, Predictor)), None)
    segmenter = next((each for each in fitting if isinstance(each, Segmenter)), None)
    kept = directions or Path(checkpoint) / DIRECTIONS
    found = load_directions(kept, model) if directions or kept.is_file() else []
    return Editor(checkpoint, model, predictor, segmenter, found, exemplars)


def exemplars_of(model: LatentModel, segmenter: Segmenter, n: int, space: str) -> Pictures:
    """n training images to paint after, or samples where the model has no encoder or no data."""
    latent = model.check_space(space)
    if not latent.encodes or model.description.get("source") is None:
        return exemplars_of_codes(model, segmenter, model.sample(n, space))
    batch = data_of(model, None).first("train", n)
    if latent.exact:
        images = pixels.reduce(batch.images, model.bins)
        return exemplars_of_images(model, segmenter, images, space, batch.labels)
    return exemplars_of_codes(model, segmenter, model.encode_bytes(batch.images, space, batch.labels))
