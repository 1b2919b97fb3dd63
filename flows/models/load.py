"""Loading of models by the class that their checkpoint names."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import flows.models
from flows.models.base import LatentModel
from flows.storage.index import SEMANTIC, is_available, read_index
from flows.storage.stored import load_stored, types_in, with_own


def load(
    path_or_repo: str | Path, map_location: str = "cpu", classes: Sequence[type[LatentModel]] = ()
) -> LatentModel:
    """Load a model from a folder, by its name in the index of models, or from a hub repository.

        model = flows.load("checkpoints/fashion-glow")
        model = flows.load("fashion-glow")  # one of flows.list_models()
        model = flows.load("hf-hub:owner/name")
        model = flows.load("checkpoints/mine", classes=[MyFlow])  # defined in your notebook or script

    Args:
        path_or_repo: Folder written by `train.py` or `save_pretrained`; name of a model of the index, which
            is downloaded if it is published and not here; or `hf-hub:owner/name`, a repository of the Hugging
            Face hub.
        map_location: Device to load the weights to.
        classes: Classes of models that flows does not know, because they are defined in a notebook or script.
            A checkpoint names its class alone, which is looked up among these first and is never imported.

    Raises:
        CheckpointError: There is no such folder or model, a file is missing, was altered or cannot be
            downloaded, or the format version or the class of the model is unknown to this release.
        UserError: Torch cannot use the device here, or one of `classes` is no class of models.
    """
    types = with_own(types_in(flows.models, LatentModel), classes, LatentModel)
    return cast(LatentModel, load_stored(path_or_repo, types, map_location))


def list_models() -> list[str]:
    """Names of the models of the index that are here or can be downloaded, which `load` accepts."""
    return [name for name, entry in read_index().items() if entry.kind not in SEMANTIC and is_available(name)]
