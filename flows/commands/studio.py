"""flows studio: a page on which a picture is inverted, steered, painted on and compared."""

from importlib.util import find_spec
from pathlib import Path

from jsonargparse.typing import PositiveInt

from flows.opening import usable
from flows.semantics.load import load_judge
from flows.studio.serve import serve

SHIPPED = Path(__file__).parents[2] / "checkpoints"
FIRST = ("scenes-glow", "scenes-lia", "scenes-stylegan", "scenes-dcgan")
"""Of the shipped checkpoints, in this order."""
JUDGES = ("scenes-predictor", "scenes-segmenter")


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
        predictor: checkpoint of an attribute predictor; none takes the one that is shipped.
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
        raise ValueError('gradio is missing: pip install -e ".[studio]"')
    paths = checkpoint or [str(SHIPPED / name) for name in FIRST if (SHIPPED / name).is_dir()]
    if not paths:
        raise ValueError("--checkpoint: none is shipped with this installation; name a folder")
    given = [predictor, segmenter]
    wanted = [path or str(SHIPPED / name) for path, name in zip(given, JUDGES, strict=True)]
    on = usable(device)
    judges = [
        load_judge(path, on)
        for path, asked in zip(wanted, given, strict=True)
        if asked or Path(path).is_dir()
    ]
    serve(paths, judges, host, port, directions, exemplars, device, browser)
