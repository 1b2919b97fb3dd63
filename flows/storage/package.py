"""Files that come with flows, and the folder of those that it keeps."""

import os
from pathlib import Path

from flows.storage.files import expand

PACKAGE = Path(__file__).parents[1]


def packaged(name: str) -> Path:
    """Folder `configs` or `checkpoints` that comes with flows: in a wheel's package, beside it in a clone."""
    installed = PACKAGE / name
    return installed if installed.is_dir() else PACKAGE.parent / name


def cache_folder(name: str) -> Path:
    """Folder of downloaded or computed files, in `~/.cache/flows` or where the variable FLOWS_CACHE says."""
    return expand(os.environ.get("FLOWS_CACHE") or "~/.cache/flows") / name
