"""What was done to one picture, one edit after the other: each can be undone, all can be done again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flows import images as pixels
from flows.dissection.instrument import instrument
from flows.dissection.paint import Canvas, Changes, StrokeEdit
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.once import prepared


@dataclass(frozen=True)
class Start:
    """Where a history begins.

    Attributes:
        picture: uint8 (C, H, W), as the model sees it.
        codes: Code of the picture, in the model's precision, on the host.
        name: of the file, or "sample".
        seed: of a sample.
        upload: uint8 (C, height, width), the upright picture it was cropped from; None of a sample.
        box: the part of it that was kept.
    """

    picture: Tensor
    codes: Codes
    name: str
    seed: int = 0
    upload: Tensor | None = None
    box: pixels.Box | None = None


@dataclass(frozen=True)
class Edit:
    """A step of the code, or a dab on layers.

    Attributes:
        label: Description of the edit, for lists.
        step: (1, D), added to the code; None of a dab.
        dab: what changes under a brush; None of a step.
        settings: plain values by which a page shows it again, as the sigmas of its sliders.
    """

    label: str
    step: Tensor | None = None
    stroke_edit: StrokeEdit | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """What the next edit goes on from; see `paint.Canvas`.

    Attributes:
        picture: uint8 (C, H, W).
        codes: Code of the picture.
        earlier: changes of layers that are not in the code.
    """

    picture: Tensor
    codes: Codes
    earlier: Changes = field(default_factory=list)


@dataclass(frozen=True)
class History:
    """A picture and its edits; it is never changed, every edit gives another one.

    Attributes:
        start: where it begins.
        edits: one after the other.
        stages: the first is the start's, then one after each edit.
    """

    start: Start
    edits: tuple[Edit, ...] = ()
    stages: tuple[Stage, ...] = ()

    @staticmethod
    def of(start: Start) -> "History":
        """Without edits: its picture is the start's, byte for byte."""
        return History(start, (), (Stage(start.picture, start.codes),))

    @property
    def picture(self) -> Tensor:
        """After all edits, uint8 (C, H, W)."""
        return self.stages[-1].picture

    @property
    def codes(self) -> Codes:
        """After all edits, (1, D); what painting changed in a model without an exact inverse is beside it."""
        return self.stages[-1].codes

    @torch.no_grad()
    def then(self, model: LatentModel, edit: Edit) -> "History":
        """With one edit more."""
        with prepared(), instrument(model, self.start.codes.space) as probe:
            stage = self.stages[-1]
            canvas = Canvas(probe, stage.codes, stage.picture, earlier=stage.earlier)
            if edit.step is not None:
                canvas = canvas.moved(edit.step)
            if edit.stroke_edit is not None and edit.stroke_edit.changes:
                canvas, _ = canvas.painted(edit.stroke_edit)
        after = Stage(canvas.picture, canvas.codes.cpu(), canvas.earlier)
        return replace(self, edits=(*self.edits, edit), stages=(*self.stages, after))

    def undone(self) -> "History":
        """Without the last edit: the very bytes that were there before it."""
        if not self.edits:
            return self
        return replace(self, edits=self.edits[:-1], stages=self.stages[:-1])

    def again(self, model: LatentModel) -> "History":
        """Every edit done anew from the start."""
        found = History.of(self.start)
        for edit in self.edits:
            found = found.then(model, edit)
        return found


def edited_upload(history: History) -> Image.Image:
    """The edited picture in the upload it was cropped from, at the upload's size; elsewhere its pixels.

    Where nothing was edited the upload's own pixels stay, too: enlarged, what is cropped would be blurred.
    """
    start, edited = history.start, pixels.to_pillow(history.picture)
    if start.upload is None or start.box is None:
        return edited
    changed = (history.picture != start.picture).any(0)
    return pixels.unfit(edited, start.box, pixels.to_pillow(start.upload), changed)
