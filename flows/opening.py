"""Loading of models, predictors, segmenters, data sets and pictures for the verbs and the studio."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from PIL import Image
from torch import Tensor

import flows
import flows.models
import flows.semantics
from flows import images as pixels
from flows.core.checks import check_device
from flows.data.base import Batch, ImageData
from flows.data.decode import decode, named
from flows.data.source import can_instantiate, instantiate_data
from flows.errors import CheckpointError, Unsupported, UserError
from flows.inversion.arrays import SUFFIXES
from flows.inversion.records import ImageSource
from flows.models.base import LatentModel, LikelihoodModel
from flows.semantics.base import (
    Predictor,
    Segmenter,
    SemanticModel,
    StoredPredictor,
    StoredSegmenter,
)
from flows.semantics.files import FilePredictor, FileSegmenter, is_file_name, load_file
from flows.semantics.load import load_semantic_model
from flows.storage.files import StrPath, what_is
from flows.storage.index import SEMANTIC, find_folder, folder_of, read_index
from flows.storage.places import locate
from flows.storage.stored import StoredModule, load_stored, types_in, with_own
from flows.storage.trained import TrainingFacts, read_training
from flows.storage.versioned import kind_of, read_metadata


def open_model(checkpoint: str, device: str | None) -> LatentModel:
    """Load the model of a checkpoint; see `usable` for the device."""
    return flows.load(checkpoint, map_location=usable(device))


def names_of(checkpoints: Sequence[str], option: str) -> dict[str, str]:
    """Checkpoints by name: the name of the folder, with as many folders before it as make it the only one.

    Raises:
        UserError: One checkpoint is given twice.
    """
    places = [Path(locate(each)) for each in checkpoints]
    paths = [place.absolute().parts if place.is_dir() else place.parts for place in places]
    if len(set(paths)) < len(paths):
        raise UserError(f"{option}: one checkpoint is given twice: {', '.join(checkpoints)}")
    names: dict[str, str] = {}
    for own, checkpoint in zip(paths, checkpoints, strict=True):
        others = [each for each in paths if each != own]
        length = next(n for n in range(1, len(own) + 1) if all(own[-n:] != each[-n:] for each in others))
        names["/".join(own[-length:])] = checkpoint
    return names


def load_any(checkpoint: str, device: str | None, classes: Sequence[type[StoredModule]] = ()) -> StoredModule:
    """Load a checkpoint of any kind: model, predictor or segmenter; see `usable` for the device.

    Args:
        checkpoint: Folder or name of the checkpoint.
        device: Torch device.
        classes: Classes that the checkpoint may have besides those of the package.
    """
    types = {**types_in(flows.models, StoredModule), **types_in(flows.semantics, StoredModule)}
    return load_stored(checkpoint, with_own(types, classes, StoredModule), usable(device))


def usable(device: str | None) -> str:
    """Name of the given device, else of CUDA if it is available, else of the host.

    Raises:
        UserError: Torch cannot use the device.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(chosen, "--device")
    return chosen


def load_likelihood(checkpoint: str, device: str | None) -> LikelihoodModel:
    """Load the model of a checkpoint; raises Unsupported if it has no likelihood."""
    model = open_model(checkpoint, device)
    if not isinstance(model, LikelihoodModel):
        raise Unsupported(f"{checkpoint} holds a {type(model).__name__}, which has no likelihood")
    return model


def data_known(model: LatentModel) -> bool:
    """Whether the checkpoint records a data set that may be opened; its files may still be missing."""
    return can_instantiate(model.description.get("source"))


def data_of(model: LatentModel, given: ImageData | None) -> ImageData:
    """Data set that the user named, otherwise the one that the model was trained on.

    Raises:
        UserError: The images of the data set do not fit the model.
        CheckpointError: The checkpoint does not record its data set.
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


def training_of(checkpoint: str, model: LatentModel) -> TrainingFacts:
    """Facts of the training of a model: what its checkpoint records, and the size of its data set, if known.

    Args:
        checkpoint: Folder or name of the model.
        model: Model.

    Raises:
        CheckpointError: A file of the checkpoint was altered or cut off.
    """
    facts = read_training(checkpoint)
    if facts.split_images is not None or not data_known(model):
        return facts
    try:
        available = instantiate_data(model.description["source"]).training_images
    except UserError:  # the data set has moved or changed; the model can be used without it
        return facts
    return replace(facts, split_images=available)


def data_if_needed(model: LatentModel, given: ImageData | None, needed: bool) -> ImageData | None:
    """Data set as `data_of` gives it; None if it is not needed and neither named nor recorded."""
    return data_of(model, given) if needed or given is not None or data_known(model) else None


def first_test(model: LatentModel, n: int, given: ImageData | None = None) -> Batch:
    """First n images of the test split of a data set, see `data_of`, with their labels."""
    return data_of(model, given).first("test", n)


def read_sources(
    paths: Sequence[StrPath], image_shape: tuple[int, int, int], resize: bool
) -> tuple[Tensor, list[ImageSource]]:
    """Read picture files as uint8 (n, C, H, W), with the source of each; see `read_source`."""
    read = [read_source(path, image_shape, resize) for path in paths]
    return torch.stack([image for image, _ in read]), [source for _, source in read]


def read_source(
    path: StrPath, image_shape: tuple[int, int, int], resize: bool = True
) -> tuple[Tensor, ImageSource]:
    """Read a picture file, upright and flattened over white, as uint8 (C, H, W), with the source of the crop.

    Args:
        path: Picture file.
        image_shape: (C, H, W) of the model.
        resize: Whether to centre-crop and resize a picture of another size; otherwise it causes an error.

    Raises:
        UserError: The file does not exist, is no picture, or has another size.
    """
    channels, height, width = image_shape
    picture = open_picture(path, channels)
    size, box = picture.size, pixels.centre_box(picture, height, width)
    if size != (width, height):
        if not resize:
            raise UserError(
                f"{path} has {size[0]}×{size[1]} pixels, the model expects {width}×{height}; --resize true "
                "crops and resizes it"
            )
        picture = pixels.crop_and_resize(picture, height, width, box)
    return pixels.from_pillow(picture, channels), ImageSource(str(path), size, box)


def open_picture(path: StrPath, channels: int) -> Image.Image:
    """Open a picture file, upright and flattened over white, in grey for one channel, else in RGB.

    Raises:
        UserError: The file does not exist or cannot be read as a picture.
    """
    if state := what_is(Path(path)):
        raise UserError(f"{path} {state}: expected a picture file")
    if Path(path).suffix.lower() in SUFFIXES:
        kind = kind_of(read_metadata(path)) if Path(path).suffix == ".safetensors" else "is a file of arrays"
        raise UserError(f"{path} {kind}; expected a picture file")
    with named(path):
        picture = decode(path)
    return pixels.flatten(picture, channels)


SemanticKind = Literal["predictor", "segmenter"]
PROTOCOLS: dict[SemanticKind, type[Any]] = {"predictor": Predictor, "segmenter": Segmenter}
METHODS: dict[SemanticKind, str] = {"predictor": "predict", "segmenter": "segment"}
"""Method by which a class is one of the kind: Python cannot ask a class for a protocol with attributes."""
CACHE = Path("~/.cache/flows/surveys")
KIND_ORDER = ("flow", "autoencoder", "generator")
"""Order of the models in a list: those with an exact likelihood, with an encoder, the rest."""
SEMANTIC_ORDER = ("segmenter", "predictor")
"""Order in which semantic models equip a model: a segmenter is asked for by more tools."""


def with_tools() -> list[str]:
    """Folders of the models of the index that are here, best equipped with semantic models.

    Those for which a segmenter is here, else those with a predictor, else all; the largest images first, and
    among those of one size flows, then other models with an encoder, then the rest.
    """
    index = read_index()
    here = {name: folder for name in index if (folder := find_folder(name))}
    models = [name for name in here if index[name].kind not in SEMANTIC]
    for kind in SEMANTIC_ORDER:
        semantic = [index[name] for name in here if index[name].kind == kind]
        served = [
            name
            for name in models
            if any(each.serves(index[name].image_shape, index[name].data) for each in semantic)
        ]
        if served:
            models = served
            break
    size = {name: math.prod(index[name].image_shape[1:]) for name in models}
    models.sort(key=lambda name: (-size[name], KIND_ORDER.index(index[name].kind), name))
    return [shortened(here[name]) for name in models]


def shortened(folder: Path) -> str:
    """Path of a folder, relative to the working folder if it lies below it."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def find_bundled(kind: SemanticKind, model: LatentModel, download: bool = False) -> str | None:
    """Folder of the predictor or segmenter of the index for the model's data set and image shape, or None.

    Args:
        kind: Kind of semantic model.
        model: Model whose images it is for.
        download: Whether one that is published and not here is downloaded.
    """
    own = model.description.get("name")
    for name, entry in read_index().items():
        if entry.kind == kind and entry.serves(model.image_shape, own):
            folder = folder_of(name) if download and entry.url else find_folder(name)
            if folder is not None:
                return shortened(folder)
    return None


def training_command(kind: SemanticKind) -> str:
    """Command that trains a predictor or segmenter on a user's data, for messages."""
    return f"`flows train --config folder/{kind} --data …`"


def bundled_model(kind: SemanticKind, model: LatentModel) -> str:
    """Folder of the included predictor or segmenter for the model; raises UserError if none fits."""
    folder = find_bundled(kind, model, download=True)
    if folder is None:
        own = model.description.get("name", "an unknown data set")
        classes = model.description.get("class_names") and model.spaces[model.search_space].encodes
        without = "; `steer find --source images` takes the classes of the data" if classes else ""
        raise UserError(
            f"--{kind}: none is included for {own} with images {tuple(model.image_shape)}; name one, "
            f"as {training_command(kind)} trains one"
            f"{without if kind == 'predictor' else ''}"
        )
    return folder


def load_predictor(
    checkpoint: str | None, model: LatentModel, classes: Path | None = None
) -> StoredPredictor:
    """Load a predictor of scores for a model, on the model's device; see `load_semantic` for the arguments.

    Raises:
        UserError: The checkpoint holds no predictor or one for another image shape, or none is included.
    """
    return cast(StoredPredictor, load_semantic(checkpoint, model, "predictor", classes))


def load_segmenter(
    checkpoint: str | None, model: LatentModel, classes: Path | None = None
) -> StoredSegmenter:
    """Load a segmenter for a model, on the model's device; see `load_semantic` for the arguments.

    Raises:
        UserError: The checkpoint holds no segmenter or one for another image shape, or none is included.
    """
    return cast(StoredSegmenter, load_semantic(checkpoint, model, "segmenter", classes))


def load_semantic(
    checkpoint: str | None, model: LatentModel, kind: SemanticKind, classes: Path | None = None
) -> SemanticModel | FilePredictor | FileSegmenter:
    """Load a predictor or segmenter for a model: any semantic model that fulfils the protocol of the kind.

    Args:
        checkpoint: Folder or name of a checkpoint, or a file of another project, see `load_file`; None takes
            the included one.
        model: Model whose images are measured.
        kind: Kind of semantic model.
        classes: File with the classes of a network of another project.
    """
    checkpoint = checkpoint or bundled_model(kind, model)
    return open_semantic(checkpoint, kind, classes, model.image_shape, str(model.device))


def open_semantic(
    checkpoint: str, kind: SemanticKind, classes: Path | None, image_shape: tuple[int, int, int], device: str
) -> SemanticModel | FilePredictor | FileSegmenter:
    """Load a predictor or segmenter for images of a shape, (C, H, W); see `load_semantic`."""
    if is_file_name(checkpoint) and not Path(checkpoint).is_dir():
        return load_file(checkpoint, kind, classes, image_shape, device)
    if classes is not None:
        raise UserError(f"--classes is for files of other projects; {checkpoint} knows its own")
    loaded = load_semantic_model(checkpoint, device)
    if not isinstance(loaded, PROTOCOLS[kind]):
        raise UserError(
            f"{checkpoint} holds a {type(loaded).__name__}, expected a {kind}: a class with the members of "
            f"flows.semantics.{PROTOCOLS[kind].__name__}"
        )
    if tuple(loaded.image_shape) != tuple(image_shape):
        raise UserError(
            f"{checkpoint} expects images {tuple(loaded.image_shape)}, the model generates "
            f"{tuple(image_shape)}"
        )
    return loaded
