"""History of one picture: a sequence of edits that can be undone and repeated."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.core.once import prepared
from flows.dissection.paint import Canvas, Changes, StrokeEdit
from flows.dissection.probe import Probe, instrument
from flows.inversion.found import Adaptation, adapted, offset
from flows.models.base import LatentModel
from flows.models.codes import Codes

__all__ = ["Edit", "History", "Start", "edited_upload"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start of a history: a picture and its code.

    Attributes:
        picture: uint8 (C, H, W), at the model's size and grey levels.
        codes: Code of the picture, in the model's precision, on the host.
        name: Name of the file, or "sample".
        seed: Seed of a sample.
        upload: uint8 (C, height, width), upright picture that `picture` was cropped from; None for a sample.
        box: Part of the upload that was kept; None for a sample.
        adaptation: Weights, noise inputs and activations that a search changed besides the code; None if the
            model as it is decodes the code.
        method: Name of the search or file that the code comes from; empty for an encoded picture or a sample.
    """

    picture: Tensor
    codes: Codes
    name: str
    seed: int = 0
    upload: Tensor | None = None
    box: pixels.Box | None = None
    adaptation: Adaptation | None = None
    method: str = ""


@dataclass(frozen=True)
class Edit:
    """Edit of a picture: a step of its code, or a change of layers under a brush.

    Attributes:
        label: Description of the edit, for lists.
        step: (1, D), step that is added to the code; None for a stroke.
        stroke_edit: Changes of layers under a brush; None for a step.
        settings: Plain values from which a page restores its controls, such as the sigmas of sliders.
    """

    label: str
    step: Tensor | None = None
    stroke_edit: StrokeEdit | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """State after an edit, from which the next one continues; see `paint.Canvas`.

    Attributes:
        picture: uint8 (C, H, W).
        codes: Code of the picture.
        earlier: Changes of layers by earlier strokes that the code does not contain.
    """

    picture: Tensor
    codes: Codes
    earlier: Changes = field(default_factory=list)


@dataclass(frozen=True)
class History:
    """Picture and its edits; immutable, every edit gives a new history.

    Attributes:
        start: Picture and code before the first edit.
        edits: Edits in their order.
        stages: States, first that of the start, then one after each edit.
    """

    start: Start
    edits: tuple[Edit, ...] = ()
    stages: tuple[Stage, ...] = ()

    @staticmethod
    def of(start: Start) -> "History":
        """History without edits; its picture is that of the start, byte for byte."""
        return History(start, (), (Stage(start.picture, start.codes),))

    @property
    def picture(self) -> Tensor:
        """Picture after all edits, uint8 (C, H, W)."""
        return self.stages[-1].picture

    @property
    def codes(self) -> Codes:
        """Code after all edits; without an exact inverse it lacks the strokes, see `Stage.earlier`."""
        return self.stages[-1].codes

    @torch.no_grad()
    def then(self, model: LatentModel, edit: Edit) -> "History":
        """Apply an edit and return the new history."""
        with prepared(), self.probe(model) as probe:
            stage = self.stages[-1]
            canvas = Canvas(probe, stage.codes, stage.picture, earlier=stage.earlier)
            if edit.step is not None:
                canvas = canvas.moved(edit.step)
            if edit.stroke_edit is not None and edit.stroke_edit.changes:
                canvas, _ = canvas.painted(edit.stroke_edit)
        after = Stage(canvas.picture, canvas.codes.cpu(), canvas.earlier)
        return replace(self, edits=(*self.edits, edit), stages=(*self.stages, after))

    @contextmanager
    def probe(self, model: LatentModel) -> Iterator[Probe]:
        """Context with a probe on the model that decodes the codes, with the adaptation of the start."""
        adaptation = self.start.adaptation or Adaptation()
        own = model if self.start.adaptation is None else _adapted(model, adaptation)
        with offset(own, adaptation), instrument(own, self.start.codes.space) as probe:
            yield probe

    def undone(self) -> "History":
        """History without the last edit; the picture has the same bytes as before the edit."""
        if not self.edits:
            return self
        return replace(self, edits=self.edits[:-1], stages=self.stages[:-1])

    def again(self, model: LatentModel) -> "History":
        """Repeat all edits from the start."""
        history = History.of(self.start)
        for edit in self.edits:
            history = history.then(model, edit)
        return history


_adapted = lru_cache(4)(adapted)
"""Copies of models for the latest starts that need one; models do not change while pictures are edited."""


def edited_upload(history: History) -> Image.Image:
    """Paste the edited picture into the upload that it was cropped from, at the size of the upload.

    Pixels of the crop that were not edited are kept from the upload, because the enlarged crop is blurred.
    """
    start, edited = history.start, pixels.to_pillow(history.picture)
    if start.upload is None or start.box is None:
        return edited
    changed = (history.picture != start.picture).any(0)
    return pixels.paste_crop(edited, start.box, pixels.to_pillow(start.upload), changed)
