"""flows studio: a page on which a picture is inverted, steered, painted on and compared."""

from importlib.util import find_spec
from pathlib import Path

from jsonargparse.typing import PositiveInt

from flows.errors import DataMissing, UserError
from flows.opening import shipped, usable
from flows.semantics.load import load_semantic_model
from flows.studio.serve import serve

FIRST = (
    "scenes64-glow", "scenes64-lia", "scenes-glow", "scenes-lia", "scenes-stylegan", "scenes-dcgan",
)  # fmt: skip
"""Of the shipped checkpoints, in this order."""


def studio(
    checkpoint: list[str] | None = None,
    predictor: str | None = None,
    segmenter: str | None = None,
    directions: Path | None = None,
    exemplars: PositiveInt = 1000,
    host: str = "127.0.0.1",
    port: PositiveInt | None = None,
    browser: bool = True,
    device: str | None = None,
) -> None:
    """Open a page in the browser: invert, steer, paint, look inside, mix, sample, compare; your own picture.

    Needs `pip install -e ".[studio]"`. Nothing leaves this machine: the page is served here, to here.

    Args:
        checkpoint: folders or hub repositories of models; none takes those that are shipped.
        predictor: checkpoint of an attribute predictor; models of scenes have the shipped ones besides.
        segmenter: checkpoint of a segmenter; likewise.
        directions: file of `flows steer find` for the first model; none takes directions.safetensors in its
            folder.
        exemplars: pictures after which things are painted.
        host: to bind to; 0.0.0.0 lets the whole network in.
        port: of the page; none takes the first free one from 7860 on.
        browser: open one.
        device: torch device.
    """
    if find_spec("gradio") is None:
        raise DataMissing('gradio is missing: pip install -e ".[studio]"')
    paths = checkpoint or shipped(*FIRST)
    if not paths:
        raise UserError("--checkpoint: none is shipped with this installation; name a folder")
    on = usable(device)
    judges = [load_semantic_model(path, on) for path in (predictor, segmenter) if path]
    serve(paths, judges, host, port, directions, exemplars, device, browser)
