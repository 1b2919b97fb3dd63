"""Response times of the studio: start, slider and brush stroke.

    python benchmarks/studio.py                        # needs the extras `studio` and `dev`, and Chromium

Start: from the command to a page with its examples in headless Chromium. Slider: from the key press to the
changed picture in that page. Stroke: the callback without the browser, whose image editor would need a
graphics card. Writes docs/results/studio.json and prints its table.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from saving import in_words, new_parser, publish

from flows.display.results import Made, Result, Shown
from flows.studio.page import Page as StudioPage
from flows.studio.session import Studio

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "checkpoints"
MODELS = ("scenes-glow", "scenes-lia", "scenes64-glow", "scenes64-lia")
TIMES = 20


def start(names: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], str]:
    """Start the studio on a free port; returns the process and the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(SHIPPED / name) for name in names]
    command = [sys.executable, "-m", "flows", "studio", "--browser", "false", "--port", str(port)]
    return subprocess.Popen([*command, "--checkpoint", *paths]), f"http://127.0.0.1:{port}/"


def wait_for(address: str) -> None:
    """Wait until the server listens; a browser that reloads repeatedly would slow it down."""
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:  # the server does not listen yet
            time.sleep(0.05)


def arrive(page: Page, address: str) -> None:
    """Wait until the server listens and the page shows its examples."""
    wait_for(address)
    page.goto(address)
    page.wait_for_selector("#examples img")


def slider_times(page: Page) -> list[float]:
    """Milliseconds from a key press on the slider `daylight` to the changed picture."""
    page.locator("#examples button").first.click()
    page.wait_for_function("document.querySelector('#status').innerText.includes('test-image-0')")
    page.get_by_role("tab", name="Steer").click()
    page.wait_for_timeout(15_000)  # the exemplars are computed meanwhile
    handle = page.get_by_label("range slider for daylight")
    handle.focus()
    found = []
    for _ in range(TIMES + 2):
        page.wait_for_timeout(300)
        before = page.locator("#now img").nth(1).get_attribute("src")
        begun = time.perf_counter()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "before => { const image = document.querySelectorAll('#now img')[1];"
            " return image.src !== before && image.complete }",
            arg=before, polling="raf",
        )  # fmt: skip
        found.append(1000 * (time.perf_counter() - begun))
    return found[2:]


def stroke_times(name: str) -> list[float]:
    """Milliseconds of the callback of a stroke, after the exemplars have been computed."""
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio([str(SHIPPED / name)], [], Path(folder))
        page, editor = StudioPage(studio), studio.editor(name)
        if editor.segmenter is None:
            return []
        session = studio.open(name, studio.examples(name)[1])
        layer = np.zeros((384, 384, 4), np.uint8)
        layer[192:324, 96:264, 3] = 255
        assert editor.pictures
        found = []
        for _ in range(TIMES + 2):
            begun = time.perf_counter()
            page.paint(session, {"layers": [layer]}, "bed", "draw", 1.0)
            found.append(1000 * (time.perf_counter() - begun))
        return found[2:]


def times(browser: Browser, name: str) -> dict[str, float | None]:
    """Times of one model."""
    page = browser.new_page(viewport={"width": 1280, "height": 1100})
    begun = time.perf_counter()
    server, address = start((name,))
    try:
        arrive(page, address)
        usable = time.perf_counter() - begun
        sliders = slider_times(page)
    finally:
        server.terminate()
        server.wait()
    page.close()
    strokes = stroke_times(name)
    return {
        "start_seconds": usable,
        "slider_ms": statistics.median(sliders),
        "slider_worst_ms": max(sliders),
        "stroke_ms": statistics.median(strokes) if strokes else None,
    }


def measure() -> dict[str, dict[str, float | None]]:
    """Times of all models."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        return {name: times(browser, name) for name in MODELS}


def result(data: dict[str, Any], made: Made) -> Result:
    """Table with one row per model."""
    columns = [
        "model",
        "start to usable, s",
        "slider to picture, ms, median",
        "slider to picture, ms, slowest",
        "stroke, ms",
    ]
    rows = [
        [
            f"{name}, {'64×64' if name.startswith('scenes64-') else '32×32'}",
            f"{each['start_seconds']:.1f}",
            f"{each['slider_ms']:.0f}",
            f"{each['slider_worst_ms']:.0f}",
            f"{each['stroke_ms']:.0f}" if each["stroke_ms"] else "–",
        ]
        for name, each in data.items()
    ]
    count = in_words(TIMES)
    text = (
        "Start: from the command to a page with its examples. Slider: from a key press on the slider to the "
        f"changed image in the page, median and slowest of {count}. Stroke: the callback without the "
        f"browser, median of {count}."
    )
    return Result("The page", made, {"table": Shown(columns, rows)}, text, data=data)


def main() -> None:
    """Measure all models; write studio.json and print its table."""
    publish(new_parser(__doc__).parse_args(), "studio", result, measure)


if __name__ == "__main__":
    main()
