"""Surveys: codes with the scores of their images, which labelled methods learn from."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from flows.core.schema import unaltered
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, Score, column_of
from flows.storage.files import StrPath, reading
from flows.storage.tensor_files import save_tensors

__all__ = ["Survey", "score_codes", "survey_images", "survey_samples"]


@dataclass(frozen=True)
class Survey:
    """Codes with the scores of their images.

    Attributes:
        codes: n codes, float32, on the host.
        values: float32 (n, number of scores), NaN where a score is undefined.
        scores: Scores of the columns of `values`.
        fingerprint: Fingerprint of the model.
    """

    codes: Codes
    values: Tensor
    scores: tuple[Score, ...]
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.codes)

    def column(self, name: str) -> Tensor:
        """Values (n,) of one score. Raises UserError, naming the known scores, if there is none."""
        return self.values[:, column_of(self.scores, name)]

    def score(self, name: str) -> Score:
        """Score with this name. Raises UserError, naming the known scores, if there is none."""
        return self.scores[column_of(self.scores, name)]


@torch.no_grad()
def survey_samples(
    model: LatentModel,
    predictor: Predictor,
    n: int,
    space: str | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    cache: StrPath | None = None,
) -> Survey:
    """Generate n codes and score their images with a predictor.

    Args:
        model: Model of the codes.
        predictor: Predictor for images of the model's shape.
        n: Number of codes.
        space: Latent space; None takes the model's search space.
        seed: Seed of the codes; code i does not depend on n.
        temperature: Temperature of the codes.
        cache: Folder in which results are stored, and looked up by all arguments; only for a predictor with a
            fingerprint.
    """
    space = space or model.search_space
    model.check_space(space)
    stored = None
    if cache is not None and hasattr(predictor, "fingerprint"):
        key = [model.fingerprint(), predictor.fingerprint(), n, space, seed, temperature]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        stored = Path(cache) / f"survey-{digest}.safetensors"
        if stored.is_file():
            with reading(stored, "survey; remove it"):
                kept = load_file(stored)
                values, scores = kept["codes"], kept["values"]
            with unaltered(f"{stored}, which may be removed,"):
                expected = {"codes": (n, *model.spaces[space].shape), "values": (n, len(predictor.scores))}
                if (found := {name: tuple(kept[name].shape) for name in expected}) != expected:
                    raise UserError(f"expected shapes {expected}, got {found}")
                codes = Codes(values, space, kept.get("labels"))
                codes.check_finite()
            return Survey(codes, scores, predictor.scores, model.fingerprint())
    codes = model.sample(n, space, seed, temperature)
    values = score_codes(model, predictor, codes)
    codes = codes.cpu().with_values(codes.values.float().cpu())
    if stored is not None:
        tensors = {"codes": codes.values, "values": values}
        tensors |= {} if codes.labels is None else {"labels": codes.labels}
        save_tensors(stored, tensors)
    return Survey(codes, values, predictor.scores, model.fingerprint())


@torch.no_grad()
def survey_images(
    model: LatentModel,
    images: Tensor,
    values: Tensor,
    scores: Sequence[Score],
    space: str | None = None,
    labels: Tensor | None = None,
) -> Survey:
    """Encode images whose scores are known.

    Args:
        model: Model with an encoder.
        images: uint8 (n, C, H, W).
        values: (n, number of scores), true values.
        scores: Columns of `values`.
        space: Latent space; None takes the model's search space.
        labels: int64 (n,), classes of the images; see `LatentModel.encode_bytes`.
    """
    codes = model.encode_bytes(images, space, labels)
    codes = codes.cpu().with_values(codes.values.float().cpu())
    return Survey(codes, values.float(), tuple(scores), model.fingerprint())


@torch.no_grad()
def score_codes(model: LatentModel, predictor: Predictor, codes: Codes) -> Tensor:
    """Scores (n, number of scores), on the host, of the images that codes decode to."""
    return model.map_images(codes, lambda images: predictor.predict(images.float()).float())
