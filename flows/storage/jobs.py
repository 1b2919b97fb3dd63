"""Jobs that are skipped if their results exist: a marker file records all inputs of a result."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.core.schema import parse, read_json
from flows.errors import UserError
from flows.storage.files import write_text

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
    if marker.is_file() and digest_in(marker) == digest:
        return False
    marker.unlink(missing_ok=True)
    job()
    text = json.dumps({"digest": digest, "inputs": inputs}, indent=1) + "\n"
    write_text(marker, text)
    return True


def digest_in(marker: Path) -> str:
    """Digest of the inputs in a marker file; empty if the file is damaged, so that the job runs again."""
    try:
        recorded: dict[str, Any] = parse(dict[str, Any], read_json(marker.read_bytes()))
    except UserError:
        return ""
    return str(recorded.get("digest", ""))
