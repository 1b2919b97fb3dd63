"""Jobs that need not be done twice: a marker with all that a result depends on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.files import write_atomically

MARKER = "done.json"


def run_once(folder: Path, inputs: dict[str, Any], job: Callable[[], object]) -> bool:
    """Do a job that writes to a folder, unless it was done with the same inputs; whether it was done now.

    The marker is written after the job: what was broken off is done again.

    Args:
        folder: of the job's results.
        inputs: all that they depend on, plain JSON values.
        job: writes them.
    """
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text()).get("digest") == digest:
        return False
    marker.unlink(missing_ok=True)
    job()
    text = json.dumps({"digest": digest, "inputs": inputs}, indent=1) + "\n"
    write_atomically(marker, lambda path: path.write_text(text))
    return True
