"""Codes with the scores of their images: what every method with labels learns from."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flows.files import reading, write_atomically
from flows.models.base import LatentModel
from flows.numerics import exact_arithmetic
from flows.once import prepared
from flows.semantics.base import Predictor, Score, column_of

BATCH = 100
"""Images decoded and judged at a time; results do not depend on it."""


@dataclass(frozen=True)
class Survey:
    """Codes and what their images show.

    Attributes:
        space: of the codes.
        codes: float32 (n, D), on the host.
        values: float32 (n, number of scores); not a number where a score says nothing of that image.
        scores: the columns of `values`.
        labels: int64 (n,) of a class-conditional model, else None.
        fingerprint: of the model.
    """

    space: str
    codes: Tensor
    values: Tensor
    scores: tuple[Score, ...]
    labels: Tensor | None = None
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.codes)

    def column(self, name: str) -> Tensor:
        """The values (n,) of one score. Raises ValueError naming those that there are."""
        return self.values[:, column_of(self.scores, name)]

    def score(self, name: str) -> Score:
        """The score of that name; as `column`."""
        return self.scores[column_of(self.scores, name)]


@torch.no_grad()
def survey_samples(
    model: LatentModel,
    predictor: Predictor,
    n: int,
    space: str | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    cache: Path | None = None,
) -> Survey:
    """Draw n codes and let a predictor see their images.

    Args:
        model: any.
        predictor: for images of the model's shape.
        n: how many.
        space: of the codes; None takes the model's search space.
        seed: of the codes; those of the same seed are the same, however many.
        temperature: of the codes.
        cache: folder in which the result is looked up and kept, by all that it depends on.
    """
    space = space or model.search_space
    model.check_space(space)
    stored = None
    if cache is not None and hasattr(predictor, "fingerprint"):
        asked = [model.fingerprint(), predictor.fingerprint(), n, space, seed, temperature]
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        stored = cache / f"survey-{digest}.safetensors"
        if stored.is_file():
            with reading(stored, "survey; remove it"):
                found = load_file(stored)
            return Survey(
                space, found["codes"], found["values"], predictor.scores, found.get("labels"),
                model.fingerprint(),
            )  # fmt: skip
    random = torch.Generator().manual_seed(seed)
    codes = model.sample_codes(n, space, random, temperature)
    labels = model.classes_in_turn(n)
    values = score_codes(model, predictor, codes, space, labels)
    survey = Survey(space, codes.float().cpu(), values, predictor.scores, labels, model.fingerprint())
    if stored is not None:
        tensors = {"codes": survey.codes, "values": survey.values}
        tensors |= {} if labels is None else {"labels": labels}
        write_atomically(stored, lambda path: save_file(tensors, path))
    return survey


@torch.no_grad()
def survey_images(
    model: LatentModel, images: Tensor, values: Tensor, scores: Sequence[Score], space: str | None = None
) -> Survey:
    """Encode images of which something is known.

    Args:
        model: one that can encode.
        images: uint8 (n, C, H, W).
        values: (n, number of scores), the truth.
        scores: its columns.
        space: of the codes; None takes the model's search space.
    """
    space = space or model.search_space
    codes = encode_images(model, images, space)
    return Survey(space, codes, values.float(), tuple(scores), None, model.fingerprint())


def encode_images(model: LatentModel, images: Tensor, space: str) -> Tensor:
    """Codes float32 (n, D), on the host, of uint8 images, as `survey_images` has them."""
    return model.encode_bytes(images, space).float().cpu()


@torch.no_grad()
def score_codes(
    model: LatentModel, predictor: Predictor, codes: Tensor, space: str, labels: Tensor | None = None
) -> Tensor:
    """Scores (n, number of scores) of what codes (n, D) draw, on the host; see `Predictor.predict`."""
    return seen_in(model, codes, space, labels, lambda images: predictor.predict(images.float()).float())


@torch.no_grad()
def seen_in(
    model: LatentModel, codes: Tensor, space: str, labels: Tensor | None, see: Callable[[Tensor], Tensor]
) -> Tensor:
    """What `see` says of the images (batch, C, H, W) in [0, 1] that codes (n, D) draw, on the host."""
    found = []
    with prepared(), exact_arithmetic(model.device):
        for i in range(0, len(codes), BATCH):
            code = codes[i : i + BATCH].to(model.device, model.dtype)
            which = None if labels is None else labels[i : i + BATCH].to(model.device)
            found.append(see(model.decode(code, space, which).clamp(0, 1)).cpu())
    return torch.cat(found)
