"""Find the class that a checkpoint names, and load it."""

from pathlib import Path
from typing import cast

import flows.models
from flows.models.base import LatentModel
from flows.stored import load_stored, types_in


def load_model(path_or_repo: str | Path, map_location: str = "cpu") -> LatentModel:
    """See `flows.load`."""
    return cast(LatentModel, load_stored(path_or_repo, types_in(flows.models, LatentModel), map_location))
