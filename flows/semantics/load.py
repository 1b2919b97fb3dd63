"""Loading of predictors and segmenters from checkpoints."""

from pathlib import Path
from typing import cast

import flows.semantics
from flows.semantics.base import SemanticModel
from flows.storage.stored import load_stored, types_in

__all__ = ["load_semantic_model"]


def load_semantic_model(path_or_repo: str | Path, map_location: str = "cpu") -> SemanticModel:
    """Load a predictor or segmenter from a folder, by its name in the index, or from a hub repository.

    Raises:
        CheckpointError: No such folder, a file is missing or was altered, another format version, or the
            model is not a predictor or segmenter of this release.
    """
    return cast(
        SemanticModel, load_stored(path_or_repo, types_in(flows.semantics, SemanticModel), map_location)
    )
