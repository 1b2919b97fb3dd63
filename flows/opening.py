"""What commands and the studio begin with: models, judges, data sets and pictures by name."""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from PIL import Image
from torch import Tensor

import flows
import flows.models
import flows.semantics
from flows import images as pixels
from flows.data.base import Batch, ImageData
from flows.data.decode import BROKEN, reason, upright
from flows.errors import CheckpointError, Unsupported, UserError
from flows.inversion.records import ImageSource
from flows.models.base import LatentModel, LikelihoodModel
from flows.semantics.base import SemanticModel
from flows.semantics.load import load_semantic_model
from flows.semantics.predictor import AttributePredictor
from flows.semantics.segmenter import UNetSegmenter
from flows.stored import CONFIG_FILE, StoredModule, load_stored, types_in
from flows.training.folder import instantiate_data


def open_model(checkpoint: str, device: str | None) -> LatentModel:
    """The model of a checkpoint on `device`; on an accelerator where there is one and none was named."""
    return flows.load(checkpoint, map_location=usable(device))


def load_any(checkpoint: str, device: str | None) -> StoredModule:
    """The same of whatever a checkpoint holds, a judge, too."""
    types = {**types_in(flows.models, StoredModule), **types_in(flows.semantics, StoredModule)}
    return load_stored(checkpoint, types, usable(device))


def usable(device: str | None) -> str:
    """The device that was named, else an accelerator, else the host. Raises ValueError where it is none."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"--device {chosen}: torch cannot use it here ({reason})") from error
    return chosen


def load_likelihood(checkpoint: str, device: str | None) -> LikelihoodModel:
    """The same for a model that has a likelihood."""
    model = open_model(checkpoint, device)
    if not isinstance(model, LikelihoodModel):
        raise Unsupported(f"{checkpoint} holds a {type(model).__name__}, which has no likelihood")
    return model


def data_of(model: LatentModel, given: ImageData | None) -> ImageData:
    """The data set the user named, otherwise the one that the model was trained on.

    Raises:
        ValueError: its images do not fit the model, or the checkpoint does not say what it was trained on.
    """
    if given is None:
        source = model.description.get("source")
        if source is None:
            raise CheckpointError("this checkpoint does not record its data set: name one with --data")
        given = instantiate_data(source)
    if tuple(given.image_shape) != tuple(model.image_shape) or given.bins != model.bins:
        raise UserError(
            f"--data {type(given).__name__} has images {tuple(given.image_shape)} with {given.bins} grey "
            f"levels, the model expects {tuple(model.image_shape)} with {model.bins}"
        )
    return given


def first_test(model: LatentModel, n: int) -> Batch:
    """The first n images of the model's test set, with their labels."""
    return data_of(model, None).first("test", n)


def read_pictures(paths: list[Path], image_shape: tuple[int, int, int], resize: bool) -> Tensor:
    """Picture files as uint8 (n, C, H, W).

    Raises:
        ValueError: a file is no picture, or has another size and `resize` was not given.
    """
    return torch.stack([read_picture(path, image_shape, resize) for path in paths])


def read_picture(path: Path, image_shape: tuple[int, int, int], resize: bool) -> Tensor:
    """One picture file, upright and laid over white, as uint8 (C, H, W); see `read_pictures`."""
    channels, height, width = image_shape
    picture = open_picture(path, channels)
    if picture.size != (width, height):
        if not resize:
            raise UserError(
                f"{path} has {picture.width}×{picture.height} pixels, the model expects {width}×{height}; "
                "--resize true crops it in the middle and resizes it"
            )
        picture = pixels.fit(picture, height, width)
    return pixels.from_pillow(picture, channels)


def read_source(path: Path, image_shape: tuple[int, int, int]) -> tuple[Tensor, ImageSource]:
    """A picture file cropped in the middle and resized, uint8 (C, H, W), and what was cropped."""
    channels, height, width = image_shape
    picture = open_picture(path, channels)
    box = pixels.centre_box(picture, height, width)
    image = pixels.from_pillow(pixels.fit(picture, height, width), channels)
    return image, ImageSource(str(path), picture.size, box)


def open_picture(path: Path, channels: int) -> Image.Image:
    """A picture file, upright and laid over white, grey for one channel, else RGB.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected picture files")
    try:
        with Image.open(path) as opened:
            return upright(opened, channels)
    except BROKEN as error:
        raise UserError(f"{path} cannot be read as a picture ({reason(error)})") from error


J = TypeVar("J", bound=SemanticModel)
SemanticKind = Literal["predictor", "segmenter"]
SHIPPED = Path(__file__).parents[1] / "checkpoints"
CACHE = Path("~/.cache/flows/surveys")


def shipped(*names: str) -> list[str]:
    """Folders of checkpoints that come with the code, as seen from here, where they are there."""
    folders = [SHIPPED / name for name in names if (SHIPPED / name).is_dir()]
    here = Path.cwd()
    return [str(each.relative_to(here) if each.is_relative_to(here) else each) for each in folders]


def read_description(checkpoint: str) -> dict[str, Any]:
    """What a checkpoint's folder says of itself, unopened; nothing where there is none."""
    try:
        return dict(json.loads((Path(checkpoint) / CONFIG_FILE).read_text()))
    except (OSError, ValueError):
        return {}


def find_bundled(kind: SemanticKind, model: LatentModel) -> str | None:
    """Folder of the shipped judge for the model's data set and shape; None where there is none."""
    own = model.description.get("name")
    for folder in shipped(f"scenes-{kind}", f"scenes64-{kind}"):
        told = read_description(folder)
        if told["image_shape"] == list(model.image_shape) and told["description"]["name"] == own:
            return folder
    return None


def bundled_model(kind: SemanticKind, model: LatentModel) -> str:
    """The same. Raises ValueError where there is none."""
    found = find_bundled(kind, model)
    if found is None:
        own = model.description.get("name", "an unknown data set")
        raise UserError(
            f"--{kind}: none is shipped for {own} with images {tuple(model.image_shape)}; name a checkpoint "
            f"of one, as `train.py --config configs/scenes/{kind}.yaml` trains it"
        )
    return found


def load_predictor(checkpoint: str | None, model: LatentModel) -> AttributePredictor:
    """The attribute predictor of a checkpoint, on the model's device; None takes the shipped one.

    Raises:
        ValueError: it holds something else, or is for images of another shape.
    """
    return _load_semantic(checkpoint or bundled_model("predictor", model), model, AttributePredictor)


def load_segmenter(checkpoint: str | None, model: LatentModel) -> UNetSegmenter:
    """The same for a segmenter."""
    return _load_semantic(checkpoint or bundled_model("segmenter", model), model, UNetSegmenter)


def _load_semantic(checkpoint: str, model: LatentModel, kind: type[J]) -> J:
    judge = load_semantic_model(checkpoint, str(model.device))
    if not isinstance(judge, kind):
        raise UserError(f"{checkpoint} holds a {type(judge).__name__}, expected one of {kind.__name__}")
    if tuple(judge.image_shape) != tuple(model.image_shape):
        raise UserError(
            f"{checkpoint} judges images {tuple(judge.image_shape)}, the model draws "
            f"{tuple(model.image_shape)}"
        )
    return judge
