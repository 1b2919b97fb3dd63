"""Train invertible generative models and use their inverse.

import flows

model = flows.load("checkpoints/fashion-glow")
code = model.encode(images)          # images: floats (batch, C, H, W) in [0, 1]
back = model.decode(code)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from flows.models.base import LatentModel

__version__ = "0.1.0"


def load(path_or_repo: str | Path, map_location: str = "cpu") -> LatentModel:
    """The model in a folder written by `train.py` or `save_pretrained`, or in a repository of the hub.

    The class is named by the checkpoint and looked up among the models of this package.

    Args:
        path_or_repo: a folder, or `owner/name` on the Hugging Face hub.
        map_location: device to load to.

    Raises:
        flows.stored.CheckpointError: no such folder, a file is missing or was altered, another format
            version, or a model type that this release does not know.
    """
    from flows.models.load import load_model

    return load_model(path_or_repo, map_location)


def prepared() -> AbstractContextManager[None]:
    """A block in which no weights change, so that scaled kernels and inverses are worked out once.

    For many calls without gradients, as a slider makes them; see `flows.once`.
    """
    from flows.once import prepared as block

    return block()
