"""What a studio holds in memory while more and more people visit it, and whether everybody is answered.

    python benchmarks/studio_load.py                   # the extra `dev`; five minutes on two cores

Visitors come twenty at a time, each with an upload of 1600×1600 pixels, which is kept whole; each moves a
slider four times and takes record and picture along. They never say goodbye: what is forgotten is forgotten
by the server's own limits.
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
from flows.commands.common import print_table, write_json
from flows.data.scenes import Scenes
from flows.editing.editor import GROUPS
from flows.studio.session import POOL

MODEL = "scenes64-glow"
AT_ONCE, MOVES, SIDE = 20, 4, 1600


def megabytes(server: Popen[bytes]) -> int:
    """That the server holds, Linux only."""
    told = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", told)
    assert found is not None
    return int(found[1]) // 1024


def visit(address: str, upload: Path, number: int) -> int:
    """One visitor; how many answers they had."""
    client = Client(address, verbose=False)
    client.predict(MODEL, handle_file(upload), api_name="/open")
    for move in range(MOVES):
        sigmas = [0.0] * (POOL * len(GROUPS))
        sigmas[2 * POOL] = round(-2 + move / 2 + number / 100, 3)  # the first of the attributes
        client.predict([], [], 0, *sigmas, api_name="/steer")
    client.predict(api_name="/keep")
    client.predict(api_name="/take")
    return 1 + MOVES + 2


def main() -> None:
    """Measure, and write JSON and a table."""
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
    print_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


if __name__ == "__main__":
    main()
