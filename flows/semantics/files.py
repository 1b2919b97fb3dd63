"""Classifiers and segmenters of other projects: TorchScript, torch.export, or weights of torchvision."""

import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flows.core.checks import did_you_mean
from flows.core.schema import parse
from flows.data.decode import sides
from flows.errors import UserError
from flows.images import IMAGENET_DEVIATION, IMAGENET_MEAN
from flows.semantics.adapters import ClassPredictor, ClassSegmenter
from flows.storage.files import expand, file_digest, load_yaml, reading

Kind = Literal["predictor", "segmenter"]
TORCHVISION = "torchvision:"
"""Start of the name of a model of torchvision: `torchvision:resnet18`, or `torchvision:resnet18=FILE`."""
SUFFIXES = (".pt", ".pth", ".pt2", ".ts", ".jit", ".torchscript")
SIDES: dict[Kind, int] = {"predictor": 224, "segmenter": 520}
"""Sides of the images of torchvision's models, by kind."""


@dataclass(frozen=True)
class ClassList:
    """Classes of a network, and how its images are prepared.

    Attributes:
        classes: Names of the classes, in the order of the network's outputs.
        side: Side in pixels that images are resized to, or height and width; None takes the one that the file
            states, or else that of the images.
        mean, deviation: Mean and std of each colour for the normalisation, pixels in [0, 1].
        exclusive: Whether exactly one class is true (softmax), otherwise any number of them (sigmoid).
        attribute: Name of the attribute that exclusive classes belong to.
    """

    classes: list[str]
    side: int | tuple[int, int] | None = None
    mean: list[float] = field(default_factory=lambda: list(IMAGENET_MEAN))
    deviation: list[float] = field(default_factory=lambda: list(IMAGENET_DEVIATION))
    exclusive: bool = True
    attribute: str = "class"


class FromFile:
    """Network from a file, for images of one shape; see `load_file`.

    Attributes:
        image_shape: (C, H, W) of the images.
        digest: Identifier of file, classes and preparation.
    """

    image_shape: tuple[int, int, int]
    digest: str

    def fingerprint(self) -> str:
        """Identifier of file, classes and preparation."""
        return self.digest


class FilePredictor(FromFile, ClassPredictor):
    """Classifier from a file; see `load_file`."""


class FileSegmenter(FromFile, ClassSegmenter):
    """Segmenter from a file; see `load_file`."""


def is_file_name(name: str) -> bool:
    """Whether the name of a predictor or segmenter is that of a file or of a model of torchvision."""
    return name.startswith(TORCHVISION) or Path(name).suffix.lower() in SUFFIXES


def load_file(
    name: str, kind: Kind, classes: Path | None, image_shape: tuple[int, int, int], device: str
) -> FilePredictor | FileSegmenter:
    """Load a classifier or segmenter from a file.

    TorchScript is read by `torch.jit.load`, files of torch.export (.pt2) by `torch.export.load`, weights of
    torchvision by `torch.load(weights_only=True)`; none of them runs Python code of the file. A file of
    torchvision's weights is recognised by its name, `resnet18-….pth`, or is named with its model,
    `torchvision:resnet18=FILE`. `torchvision:resnet18` alone takes torchvision's own weights, which are
    downloaded once.

    Args:
        name: File, or name of a model of torchvision.
        kind: Kind that is asked for.
        classes: File with the classes; None takes that beside the file, of the same name with .txt or .yaml.
            A .txt file has one class per line; a .yaml file has the fields of `ClassList`.
        image_shape: (C, H, W) of the images that it will be asked about.
        device: Torch device.

    Raises:
        UserError: The file cannot be read, the classes are missing, or their number is another one.
    """
    network, given, source, side = open_network(name, kind, classes, device)
    size, name_of = given.side or side, Path(source).stem
    loaded: FilePredictor | FileSegmenter
    if kind == "predictor":
        loaded = FilePredictor(
            network,
            given.classes,
            given.attribute,
            given.exclusive,
            size,
            given.mean,
            given.deviation,
            name_of,
        )
    else:
        loaded = FileSegmenter(network, given.classes, size, given.mean, given.deviation, name_of)
    loaded.image_shape = image_shape
    loaded.digest = f"{source} {given}"[:2000]
    if Path(source).is_file():
        loaded.digest = f"{file_digest(Path(source))[:16]} {given}"
    try_once(loaded, name, kind, device)
    return loaded


def try_once(loaded: FilePredictor | FileSegmenter, name: str, kind: Kind, device: str) -> None:
    """Raise UserError unless the network answers images of the shape as one of its kind does."""
    images = torch.full((2, *loaded.image_shape), 0.5, device=device)
    height, width = sides(loaded.logits.side or loaded.image_shape[1:])
    size = f"{height}, {width}"
    try:
        with torch.no_grad():
            logits = loaded.logits(images)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{name} does not take images (2, 3, {size}), or returns no logits ({reason}); a .yaml file in "
            "--classes may state their `side`"
        ) from error
    expected = 2 if kind == "predictor" else 4
    if logits.dim() != expected:
        form = "(batch, classes)" if kind == "predictor" else "(batch, classes, height, width)"
        raise UserError(f"{name}: expected a {kind} that returns {form}, got {tuple(logits.shape)}")
    count = len(loaded.scores) if isinstance(loaded, FilePredictor) else len(loaded.classes)
    if logits.shape[1] != count:
        raise UserError(f"{name} returns {logits.shape[1]} classes, and --classes names {count}")


# Networks -----------------------------------------------------------------------------------------


def open_network(
    name: str, kind: Kind, classes: Path | None, device: str
) -> tuple[Callable[[Tensor], Any], ClassList, str, int | tuple[int, int] | None]:
    """Network of a file, its classes, the file or name, and the size of its images if that is known."""
    if name.startswith(TORCHVISION):
        model, _, file = name.removeprefix(TORCHVISION).partition("=")
        if not file:
            network, categories = of_torchvision(model, kind)
            given = read_classes(classes) if classes else ClassList(categories)
            return network.to(device), given, name, SIDES[kind]
        return torchvision_weights(model, file, kind, classes, device)
    path = expand(name)
    if not path.is_file():
        raise UserError(f"{name} is missing: expected a file ({', '.join(SUFFIXES)})")
    form = form_of(path)
    if form == "weights":
        return torchvision_weights(model_of_file(path), name, kind, classes, device)
    given = read_classes(classes_beside(path, classes))
    with reading(path, f"{form} file"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of TorchScript, which people have all the same
        if form == "TorchScript":
            scripted = torch.jit.load(str(path), map_location=device).eval()
            return scripted, given, str(path), None
        program = torch.export.load(str(path))
        network = program.module().to(device)
    batch, _, height, width = input_shape(program)
    size = None if height is None or width is None else (height, width)
    return in_batches(network, batch), given, str(path), size


def form_of(path: Path) -> str:
    """Form of a file: TorchScript, torch.export, or weights."""
    if not zipfile.is_zipfile(path):
        return "weights"  # those of older releases of torch are no archives
    with zipfile.ZipFile(path) as archive:
        parts = {part for name in archive.namelist() for part in Path(name).parts}
    if (
        path.suffix.lower() == ".pt2"
        or "archive_format" in parts
        or "serialized_exported_program.json" in parts
    ):
        return "torch.export"
    return "TorchScript" if "code" in parts or "constants.pkl" in parts else "weights"


def input_shape(program: "torch.export.ExportedProgram") -> list[int | None]:
    """Shape of the images that an exported program takes, None for sizes that vary."""
    inputs = set(program.graph_signature.user_inputs)
    node = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs)
    return [size if isinstance(size, int) else None for size in node.meta["val"].shape]


def in_batches(network: nn.Module, batch: int | None) -> Callable[[Tensor], Any]:
    """Network that takes batches of any size: one that was exported for a fixed size gets full parts."""
    if batch is None:
        return network

    def call(images: Tensor) -> Tensor:
        answers = []
        for part in images.split(batch):
            filled = torch.cat([part, part[:1].expand(batch - len(part), -1, -1, -1)])
            answer = network(filled)
            answers.append((answer if isinstance(answer, Tensor) else answer["out"])[: len(part)])
        return torch.cat(answers)

    return call


def of_torchvision(model: str, kind: Kind) -> tuple[nn.Module, list[str]]:
    """Model of torchvision with its own weights, and its classes.

    Raises:
        UserError: There is no such model of this kind, or its weights are not here and cannot be downloaded.
    """
    import torchvision

    weights = torchvision.models.get_model_weights(checked_name(model, kind)).DEFAULT
    try:
        network = torchvision.models.get_model(model, weights=weights)
    except OSError as error:  # no network, or a server that refuses
        raise UserError(
            f"{TORCHVISION}{model}: its weights are not here and cannot be downloaded ({error}); "
            f"{TORCHVISION}{model}=FILE takes a file"
        ) from error
    return network.eval(), list(weights.meta["categories"])


def torchvision_weights(
    model: str, file: str, kind: Kind, classes: Path | None, device: str
) -> tuple[nn.Module, ClassList, str, int]:
    """Model of torchvision with the weights of a file; see `open_network`."""
    import torchvision

    path = expand(file)
    if not path.is_file():
        raise UserError(f"{file} is missing: expected a file of weights")
    given = read_classes(classes_beside(path, classes))
    with reading(path, "file of weights"):
        state = torch.load(path, map_location=device, weights_only=True)
        state = state.get("state_dict", state) if isinstance(state, dict) else state.state_dict()
    aux = {"aux_loss": True} if any(name.startswith("aux_classifier.") for name in state) else {}
    plain = {"weights_backbone": None, **aux} if kind == "segmenter" else {}
    network = torchvision.models.get_model(
        checked_name(model, kind), weights=None, num_classes=len(given.classes), **plain
    )
    try:
        network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()[:200]
        raise UserError(
            f"{file} is not of torchvision's {model} with {len(given.classes)} classes: {reason}"
        ) from error
    return network.to(device).eval(), given, str(path), SIDES[kind]


def model_of_file(path: Path) -> str:
    """Model of torchvision that a file is named after: resnet18 for `resnet18-f37072fd.pth`.

    Raises:
        UserError: It is named after none.
    """
    import torchvision

    stem = path.stem.lower()
    fitting = [
        name for name in torchvision.models.list_models() if re.match(rf"{name}(_coco)?([-_.]|$)", stem)
    ]
    if not fitting:
        raise UserError(
            f"{path} has weights alone, and its name is that of no model of torchvision; name the model, "
            f"`{TORCHVISION}resnet18={path.name}`, or write the whole as TorchScript or by torch.export"
        )
    return max(fitting, key=len)


def checked_name(model: str, kind: Kind) -> str:
    """Name of a model of torchvision; raises UserError if there is none of this kind."""
    import torchvision

    modules = {"predictor": torchvision.models, "segmenter": torchvision.models.segmentation}
    known = torchvision.models.list_models(module=modules[kind])
    if model not in known:
        raise UserError(f"{TORCHVISION}{model}: torchvision has no such {kind}.{did_you_mean(model, known)}")
    return model


# Classes ------------------------------------------------------------------------------------------


def classes_beside(path: Path, classes: Path | None) -> Path:
    """File with the classes of a network: the given one, or the one beside it of the same name."""
    if classes is not None:
        return classes
    for suffix in (".txt", ".yaml"):
        if (beside := path.with_suffix(suffix)).is_file():
            return beside
    raise UserError(
        f"{path}: expected the names of its classes, one per line, with --classes or in "
        f"{path.with_suffix('.txt').name} beside it"
    )


def read_classes(path: Path) -> ClassList:
    """Read the classes of a network: names in lines, or the fields of `ClassList` as YAML.

    Raises:
        UserError: The file cannot be read, names no class or one twice.
    """
    if not path.is_file():
        raise UserError(f"--classes {path} is missing: expected a file with one class per line")
    with reading(path, "list of classes"):
        content = path.read_bytes()
        if path.suffix.lower() in (".yaml", ".yml", ".json"):
            given: ClassList = parse(ClassList, load_yaml(content), str(path))
        else:
            lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
            given = ClassList([line for line in lines if line])
    check_names(path, given.classes)
    return given


def check_names(path: Path, classes: Sequence[str]) -> None:
    """Raise UserError unless each class is named once."""
    twice = next((name for name in classes if list(classes).count(name) > 1), None)
    if not classes or twice is not None:
        raise UserError(
            f"{path}: expected one class per line, each once, got "
            f"{'none' if twice is None else f'{twice!r} twice'}"
        )
