"""`flows studio`: serve a web page to invert, steer, paint and compare pictures."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.core.bounds import PositiveInt
from flows.errors import UserError, missing_extra
from flows.studio.address import choose_port

if TYPE_CHECKING:
    from flows.opening import SemanticKind  # imported only where the page is served


def studio(
    checkpoint: list[str] | None = None,
    predictor: str | None = None,
    classes: Path | None = None,
    segmenter: str | None = None,
    segmenter_classes: Path | None = None,
    directions: Path | None = None,
    exemplars: PositiveInt = 1000,
    host: str = "127.0.0.1",
    port: PositiveInt | None = None,
    root_path: str = "",
    browser: bool = True,
    device: str | None = None,
) -> None:
    """Serve a web page to invert, steer, paint, dissect, mix, sample and compare your own pictures.

    Requires the extra `studio`: `pip install "exact-flows[studio]"`. By default the page is served to this
    machine only; no data leave the machine.

    Args:
        checkpoint: Folders or names of models; None takes the included ones.
        predictor: Checkpoint of an attribute predictor, for all models of its image size; models of scenes
            at another size use the included one.
        classes: File with the names of the classes, one per line, if the predictor is a file of another
            project: TorchScript, torch.export, or weights of torchvision.
        segmenter: Checkpoint of a segmenter, for all models of its image size; models of scenes at another
            size use the included one.
        segmenter_classes: File with the names of the classes, one per line, if the segmenter is a file of
            another project: TorchScript, torch.export, or weights of torchvision.
        directions: File of directions of the first model, written by `flows steer find`; None takes
            directions.safetensors in the folder of its checkpoint.
        exemplars: Number of images per model among which exemplars for painting are found.
        host: Address to bind to; 0.0.0.0 serves the page to the whole network.
        port: Port of the page; None takes the first free one from 7860.
        root_path: Path under which a proxy serves the page, such as /flows.
        browser: Whether to open the page in a browser.
        device: Torch device; None takes CUDA if it is available.
    """
    if find_spec("gradio") is None:
        raise missing_extra("the studio needs gradio", "studio")
    if root_path and not root_path.startswith("/"):
        raise UserError(f"--root_path: expected a path that begins with /, got {root_path!r}")
    chosen_port = choose_port(host, port)
    # Imported after the checks, because torch takes seconds.
    from flows.opening import SemanticKind, usable, with_tools
    from flows.storage.stored import read_description
    from flows.studio.serve import serve

    paths = checkpoint or with_tools()
    if not paths:
        raise UserError("--checkpoint: this installation includes no checkpoints; name a folder")
    chosen = usable(device)
    descriptions = [read_description(path) for path in paths]
    named: dict[SemanticKind, tuple[str | None, Path | None]] = {
        "predictor": (predictor, classes), "segmenter": (segmenter, segmenter_classes)
    }  # fmt: skip
    semantic_models = [
        each
        for kind, (path, own) in named.items()
        if path
        for each in for_page(kind, path, own, descriptions, chosen)
    ]
    serve(paths, semantic_models, host, chosen_port, root_path, directions, exemplars, device, browser)


def for_page(
    kind: "SemanticKind",
    checkpoint: str,
    classes: Path | None,
    descriptions: Sequence[Mapping[str, Any]],
    device: str,
) -> list[Any]:
    """Load a predictor or segmenter for the models of the page; a file of another project fits all shapes.

    Args:
        kind: Kind of semantic model.
        checkpoint: Folder or name of a checkpoint, or file of another project.
        classes: File with the classes of a network of another project.
        descriptions: Contents of config.json of the models of the page.
        device: Torch device.

    Raises:
        UserError: It is of another kind, or no model of the page has images of its shape.
    """
    from flows.opening import PROTOCOLS, open_semantic
    from flows.semantics.files import is_file_name
    from flows.semantics.load import load_semantic_model

    if is_file_name(checkpoint):
        shapes = {tuple(each["image_shape"]) for each in descriptions if each.get("image_shape")}
        return [open_semantic(checkpoint, kind, classes, shape, device) for shape in sorted(shapes)]
    loaded = load_semantic_model(checkpoint, device)
    return [fitting(f"--{kind}", checkpoint, PROTOCOLS[kind], loaded, descriptions)]


def fitting(
    option: str, checkpoint: str, kind: type[Any], loaded: Any, descriptions: Sequence[Mapping[str, Any]]
) -> Any:
    """Return a loaded predictor or segmenter.

    Args:
        option: Name of its option.
        checkpoint: Folder or name that it was loaded from.
        kind: Class that the option expects.
        loaded: Loaded model.
        descriptions: Contents of config.json of the models of the page.

    Raises:
        UserError: It is of another kind, or no model of the page has images of its shape.
    """
    if not isinstance(loaded, kind):
        raise UserError(
            f"{option} {checkpoint}: expected a {kind.__name__.lower()}, found a {type(loaded).__name__}"
        )
    shapes = [each.get("image_shape") for each in descriptions]
    if None not in shapes and list(loaded.image_shape) not in shapes:
        own, known = tuple(loaded.image_shape), ", ".join(str(tuple(each)) for each in shapes if each)
        raise UserError(
            f"{option} {checkpoint}: it expects images {own}; the models of the page have {known}"
        )
    return loaded
