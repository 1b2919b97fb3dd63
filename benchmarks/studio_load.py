"""Memory of the studio's server and answered requests, for a growing number of visitors.

    python benchmarks/studio_load.py                   # needs the extra `dev`; five minutes on two cores

Visitors come twenty at a time. Each uploads 1600×1600 pixels, which the server stores unreduced, moves a
slider four times, and downloads record and picture. No visitor closes the session, so that sessions end by
the limits of the server only.
"""

import argparse
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen

from gradio_client import Client, handle_file
from studio import ROOT, start, wait_for

from flows import images as pixels
from flows.commands.common import write_json
from flows.data.scenes import Scenes
from flows.display.table import Table
from flows.editing.editor import GROUPS
from flows.studio.session import POOL

MODEL = "scenes64-glow"
AT_ONCE, MOVES, SIDE = 20, 4, 1600


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
    return 1 + MOVES + 2


def main() -> None:
    """Measure all waves of visitors, write JSON and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--waves", type=int, default=14)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "studio_load.json")
    given = parser.parse_args()
    rows = []
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
    write_json(given.json, {"model": MODEL, "upload": SIDE, "waves": rows})
    Table(list(rows[0]), [[str(value) for value in row.values()] for row in rows]).print()


if __name__ == "__main__":
    main()
