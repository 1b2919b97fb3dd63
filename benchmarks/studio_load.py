"""Memory of the studio's server and answered requests, for a growing number of visitors.

    python benchmarks/studio_load.py                   # needs the extra `dev`; five minutes on two cores

Visitors come twenty at a time. Each uploads 1600×1600 pixels, which the server stores unreduced, moves a
slider four times, and downloads record and picture. No visitor closes the session, so that sessions end by
the limits of the server only. Writes docs/results/studio-load.json and prints its table.
"""

import argparse
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any

from gradio_client import Client, handle_file
from saving import in_words, new_parser, publish
from studio import start, wait_for

from flows import images as pixels
from flows.data.scenes import Scenes
from flows.display.results import Made, Result, Shown
from flows.editing.editor import GROUPS
from flows.studio.session import POOL

MODEL = "scenes64-glow"
AT_ONCE, MOVES, SIDE = 20, 4, 1600
REQUESTS = 1 + MOVES + 2
"""Requests of one visitor: upload, moves and two downloads."""


def megabytes(server: Popen[bytes]) -> int:
    """Resident memory of the server in MB, on Linux."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+)", status)
    assert match is not None
    return int(match[1]) // 1024


def visit(address: str, upload: Path, number: int) -> int:
    """Run one visitor; returns the number of answered requests."""
    client = Client(address, verbose=False)
    client.predict(MODEL, handle_file(upload), api_name="/open")
    for move in range(MOVES):
        sigmas = [0.0] * (POOL * len(GROUPS))
        sigmas[2 * POOL] = round(-2 + move / 2 + number / 100, 3)  # first slider of the group `attributes`
        client.predict([], [], 0, *sigmas, api_name="/steer")
    client.predict(api_name="/keep")
    client.predict(api_name="/take")
    return REQUESTS


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Memory and answers after every wave of visitors."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        upload = Path(folder) / "room.png"
        image = Scenes(size=64, test=1, cache=None).split("test").images[0]
        pixels.to_pillow(image).resize((SIDE, SIDE)).save(upload)
        server, address = start((MODEL,))
        try:
            wait_for(address)
            rows.append({"visitors": 0, "answers": 0, "megabytes": megabytes(server), "seconds": 0.0})
            for wave in range(given.waves):
                begun = time.perf_counter()
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    answers = sum(pool.map(lambda i: visit(address, upload, i), range(AT_ONCE)))
                rows.append({
                    "visitors": (wave + 1) * AT_ONCE, "answers": answers, "megabytes": megabytes(server),
                    "seconds": round(time.perf_counter() - begun, 1),
                })  # fmt: skip
                print(rows[-1], flush=True)
        finally:
            server.terminate()
            server.wait()
    return {"model": MODEL, "upload": SIDE, "waves": rows}


def result(data: dict[str, Any], made: Made) -> Result:
    """Table with one row per wave of visitors."""
    columns = [
        "visitors",
        "requests answered, of this wave",
        "memory of the server, MB",
        "seconds of this wave",
    ]
    rows = [
        [str(each["visitors"]), str(each["answers"]), f"{each['megabytes']:,}", f"{each['seconds']:.1f}"]
        for each in data["waves"]
    ]
    side = data["upload"]
    text = (
        f"The studio with {data['model']}. Visitors come {in_words(AT_ONCE)} at a time. Each uploads "
        f"{side}×{side} pixels, moves a slider {in_words(MOVES)} times, and downloads record and picture, "
        f"which are {REQUESTS} requests. No visitor closes the session."
    )
    return Result("Visitors of the studio", made, {"table": Shown(columns, rows)}, text, data=data)


def main() -> None:
    """Measure all waves of visitors; write studio-load.json and print its table."""
    parser = new_parser(__doc__)
    parser.add_argument("--waves", type=int, default=14)
    given = parser.parse_args()
    publish(given, "studio-load", result, partial(measure, given))


if __name__ == "__main__":
    main()
