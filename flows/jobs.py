"""Jobs that are skipped if their results exist: a marker file records all inputs of a result."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.files import write_atomically

MARKER = "done.json"


def run_once(folder: Path, inputs: dict[str, Any], job: Callable[[], object]) -> bool:
    """Run a job that writes to a folder, unless it ran before with the same inputs; returns whether it ran.

    The marker is written after the job, so an interrupted job is run again.

    Args:
        folder: Folder of the job's results.
        inputs: Everything that the results depend on, as plain JSON values.
        job: Function that writes the results.
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
