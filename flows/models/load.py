"""Loading of models by the class that their checkpoint names."""

from pathlib import Path
from typing import cast

import flows.models
from flows.models.base import LatentModel
from flows.storage.stored import BUNDLED, load_stored, read_description, types_in


def load(path_or_repo: str | Path, map_location: str = "cpu") -> LatentModel:
    """Load a model from a folder, by the name of a bundled model, or from a hub repository.

        model = flows.load("checkpoints/fashion-glow")
        model = flows.load("scenes-glow")  # one of flows.list_models()

    Args:
        path_or_repo: Folder written by `train.py` or `save_pretrained`, name of a bundled model, or
            `owner/name` on the Hugging Face hub.
        map_location: Device to load the weights to.

    Raises:
        CheckpointError: There is no such folder or model, a file is missing or was altered, or the format
            version or the class of the model is unknown to this release.
        UserError: Torch cannot use the device here.
    """
    return cast(LatentModel, load_stored(path_or_repo, types_in(flows.models, LatentModel), map_location))


def list_models() -> list[str]:
    """Names of the bundled models, which `load` accepts; empty where no checkpoints are installed."""
    known = types_in(flows.models, LatentModel)
    return sorted(
        folder.name for folder in BUNDLED.glob("*/") if read_description(folder).get("model_type") in known
    )
