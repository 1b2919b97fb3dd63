"""Server of the studio's page."""

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.errors import UserError
from flows.semantics.base import SemanticModel

LARGEST_FILE = "64mb"
"""Maximum size of an uploaded file."""
VISITORS = 100
"""Maximum number of sessions that are kept; a session with a large upload takes about thirteen megabytes."""
LAUNCH: dict[str, Any] = {
    "share": False,
    "quiet": True,
    "show_error": True,
    "max_file_size": LARGEST_FILE,
    "prevent_thread_lock": True,
    "footer_links": [],
    "ssr_mode": False,
    "enable_monitoring": False,
    "pwa": False,
    "mcp_server": False,
    "state_session_capacity": VISITORS,
}
"""Options of gradio's server: nothing is shared, monitored or sent elsewhere."""


def serve(
    checkpoints: Sequence[str],
    semantic_models: Sequence[SemanticModel],
    host: str,
    port: int,
    root_path: str = "",
    directions: Path | None = None,
    exemplars: int = 1000,
    device: str | None = None,
    browser: bool = False,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        checkpoints: Folders or names of the models; the first one is opened at once.
        semantic_models: Predictors and segmenters for images of any shapes; the included ones are added for
            models of their data set.
        host: Address to bind to.
        port: Port of the page; see `address.choose_port`.
        root_path: Path of the page behind a proxy, such as "/flows".
        directions: File of directions of the first model; None takes the one in its folder.
        exemplars: Number of images per model among which exemplars for painting are found.
        device: Torch device; None takes CUDA if it is available.
        browser: Whether to open the page in a browser.

    Raises:
        DataMissing: The package gradio is not installed.
        UserError: The port is taken.
    """
    # Before gradio is imported, which would otherwise send data to its authors.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from flows.studio.page import CSS, Page
    from flows.studio.session import Studio

    with tempfile.TemporaryDirectory(prefix="flows-studio-") as folder:
        studio = Studio(checkpoints, semantic_models, Path(folder), directions, exemplars, device)
        studio.editor(studio.first)
        blocks = Page(studio).blocks
        blocks.queue(default_concurrency_limit=2, max_size=400)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                root_path=root_path or None,
                inbrowser=browser,
                css=CSS,
                allowed_paths=[folder],
                **LAUNCH,
            )
        except OSError as error:
            raise UserError(f"--port {port} of {host}: it cannot be used; choose another one") from error
        print(f"studio: {address} ({', '.join(studio.paths)}); stop it with Ctrl-C", flush=True)
        try:
            threading.Event().wait()
        finally:
            blocks.close(verbose=False)
