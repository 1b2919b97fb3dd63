"""The studio as a server: opened, bound, answering."""

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from flows.errors import UserError
from flows.semantics.base import SemanticModel

LARGEST_FILE = "64mb"
"""Of an upload."""
VISITORS = 100
"""That are remembered at once, with their pictures: some thirteen megabytes for each large upload."""


def serve(
    checkpoints: Sequence[str],
    judges: Sequence[SemanticModel],
    host: str = "127.0.0.1",
    port: int | None = None,
    directions: Path | None = None,
    exemplars: int = 1000,
    device: str | None = None,
    browser: bool = False,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        checkpoints: of the models, the first one is opened at once.
        judges: of any shapes; after them come the shipped ones, for models of their data set.
        host: to bind to.
        port: None takes the first free one from 7860 on.
        directions: of the first model, instead of those beside it.
        exemplars: pictures after which things are painted.
        device: torch device.
        browser: open one.

    Raises:
        ModuleNotFoundError: gradio is not installed.
        UserError: the port is taken.
    """
    # Before gradio is imported: it asks the network otherwise, and the page shall not leave the machine.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from flows.studio.page import CSS, Page
    from flows.studio.session import Studio

    with tempfile.TemporaryDirectory(prefix="flows-studio-") as folder:
        studio = Studio(checkpoints, judges, Path(folder), directions, exemplars, device)
        studio.editor(studio.first)
        blocks = Page(studio).blocks
        blocks.queue(default_concurrency_limit=2, max_size=400)
        try:
            _, address, _ = blocks.launch(
                server_name=host, server_port=port, inbrowser=browser, share=False, quiet=True, css=CSS,
                show_error=True, max_file_size=LARGEST_FILE, allowed_paths=[folder], prevent_thread_lock=True,
                footer_links=[], ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
                state_session_capacity=VISITORS,
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"port {port} of {host} is taken, or not ours; --port names another") from error
        print(f"studio: {address} ({', '.join(studio.paths)}); ctrl-c ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            blocks.close(verbose=False)
