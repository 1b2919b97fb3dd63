"""Loading of predictors and segmenters from checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import flows.semantics
from flows.semantics.base import SemanticModel
from flows.storage.stored import load_stored, types_in, with_own

__all__ = ["load_semantic_model"]


def load_semantic_model(
    path_or_repo: str | Path, map_location: str = "cpu", classes: Sequence[type[SemanticModel]] = ()
) -> SemanticModel:
    """Load a predictor or segmenter from a folder, by its name in the index, or from a hub repository.

    Args:
        path_or_repo: Folder, name in the index, or `hf-hub:owner/name`.
        map_location: Device to load the weights to.
        classes: Classes of semantic models that are defined in a notebook or script, as in `flows.load`.

    Raises:
        CheckpointError: No such folder, a file is missing or was altered, another format version, or the
            model is not a predictor or segmenter of this release.
    """
    types = with_own(types_in(flows.semantics, SemanticModel), classes, SemanticModel)
    return cast(SemanticModel, load_stored(path_or_repo, types, map_location))
