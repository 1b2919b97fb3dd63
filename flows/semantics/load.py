"""Find the class of a judge that a checkpoint names, and load it."""

from pathlib import Path
from typing import cast

import flows.semantics
from flows.semantics.base import SemanticModel
from flows.stored import load_stored, types_in


def load_semantic_model(path_or_repo: str | Path, map_location: str = "cpu") -> SemanticModel:
    """The predictor or segmenter in a folder that `train.py` wrote, or in a repository of the hub.

    Raises:
        CheckpointError: see `flows.load`.
    """
    return cast(
        SemanticModel, load_stored(path_or_repo, types_in(flows.semantics, SemanticModel), map_location)
    )
