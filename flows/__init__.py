"""Train invertible generative models and use their inverse.

import flows

model = flows.load("checkpoints/fashion-glow")
codes = model.encode_bytes(images)     # images: uint8 (n, C, H, W), or Pillow images
same = model.decode_bytes(codes)       # the same bytes
samples = model.generate(16, temperature=0.7)    # a picture in a notebook; samples.pixels are uint8

run = flows.train(flows.models.Glow((3, 32, 32)), images, "runs/mine")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows import bijections as bijections
    from flows import data as data
    from flows import dissection as dissection
    from flows import editing as editing
    from flows import errors as errors
    from flows import images as images
    from flows import inversion as inversion
    from flows import metrics as metrics
    from flows import models as models
    from flows import semantics as semantics
    from flows import steering as steering
    from flows import testing as testing
    from flows.core.once import prepared as prepared
    from flows.errors import CheckpointError as CheckpointError
    from flows.errors import DataMissing as DataMissing
    from flows.errors import FlowsError as FlowsError
    from flows.errors import Interrupted as Interrupted
    from flows.errors import NonFinite as NonFinite
    from flows.errors import Unsupported as Unsupported
    from flows.errors import UserError as UserError
    from flows.images import Images as Images
    from flows.models.base import LatentModel as LatentModel
    from flows.models.base import Space as Space
    from flows.models.codes import Codes as Codes
    from flows.models.load import list_models as list_models
    from flows.models.load import load as load
    from flows.run import Run as Run
    from flows.run import train as train

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Codes",
    "DataMissing",
    "FlowsError",
    "Images",
    "Interrupted",
    "LatentModel",
    "NonFinite",
    "Run",
    "Space",
    "Unsupported",
    "UserError",
    "__version__",
    "list_models",
    "load",
    "prepared",
    "train",
]

_FOUND_IN = {
    "flows.errors": (
        "CheckpointError",
        "DataMissing",
        "FlowsError",
        "Interrupted",
        "NonFinite",
        "Unsupported",
        "UserError",
    ),
    "flows.images": ("Images",),
    "flows.models.base": ("LatentModel", "Space"),
    "flows.models.codes": ("Codes",),
    "flows.models.load": ("list_models", "load"),
    "flows.core.once": ("prepared",),
    "flows.run": ("Run", "train"),
}
_MODULES = {
    "bijections",
    "data",
    "dissection",
    "editing",
    "errors",
    "images",
    "inversion",
    "metrics",
    "models",
    "semantics",
    "steering",
    "testing",
}


def __getattr__(name: str) -> Any:
    """Import a public name or package when it is first used: `import flows` itself imports no torch."""
    if name in _MODULES:
        return importlib.import_module(f"flows.{name}")
    for module, names in _FOUND_IN.items():
        if name in names:
            value = getattr(importlib.import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'flows' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
