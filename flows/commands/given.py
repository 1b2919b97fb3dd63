"""Images or codes that a verb is given: picture files, test images, files of codes, or samples."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from flows import images as pixels
from flows.commands.common import Label, option_labels
from flows.editing.sources import read_found
from flows.errors import Unsupported, UserError
from flows.files import distinct
from flows.inversion.arrays import SUFFIXES
from flows.inversion.found import Found
from flows.inversion.records import ImageSource
from flows.models.base import LatentModel
from flows.models.codes import concatenate
from flows.opening import first_test, read_sources

SAMPLES = 8
"""Default number of samples of the verbs that edit them."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """Codes with their images.

    Attributes:
        found: n codes.
        images: uint8 (n, C, H, W) at the model's grey levels: the given pictures, or the decoded codes.
        encoded: Whether the images were given and then encoded, not decoded from codes.
    """

    found: Found
    images: Tensor
    encoded: bool


def read_given(
    model: LatentModel,
    space: str,
    *,
    images: list[Path] | None,
    test: int,
    codes: list[Path] | None,
    n: int,
    temperature: float,
    seed: int,
    resize: bool,
    label: Label | None,
    array_space: str | None,
) -> Given:
    """Read and encode what a verb was given: the first of picture files, test images, codes, else samples.

    Args:
        model: Model of the codes.
        space: Latent space for encoding and sampling; codes of a file stay in theirs if there is no map.
        images: Picture files.
        test: Number of test images.
        codes: Files of codes; see `read_found`.
        n: Number of samples.
        temperature: Temperature of the samples.
        seed: Seed of the samples.
        resize: Whether pictures of another size are cropped and resized.
        label: Class of picture files and samples, for a class-conditional model.
        array_space: Latent space of arrays in `codes` that do not state it.

    Raises:
        UserError: More than one source was given.
        Unsupported: The model has no encoder, and pictures were given.
    """
    sources = {"--images": bool(images), "--test": bool(test), "--codes": bool(codes)}
    chosen = [option for option, there in sources.items() if there]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other; give one of them")
    if chosen and (n, temperature, seed) != (SAMPLES, 1.0, 0):
        raise UserError(f"--n, --temperature and --seed are of samples; leave them out beside {chosen[0]}")
    if array_space is not None and not codes:
        raise UserError("--space is that of arrays in --codes; leave it out")
    if codes:
        if label is not None:
            raise UserError("--label: codes of a file have their classes; leave it out")
        return _of_codes(model, space, codes, array_space)
    if (images or test) and not model.check_space(space).encodes:
        raise Unsupported(
            f"{type(model).__name__} has no encoder for pictures: give samples (--n), or codes that `flows "
            "compare --inverters optimise` finds for them (--codes with its record)"
        )
    if images:
        return _of_images(model, space, images, resize, label)
    if test:
        batch = first_test(model, test)
        if len(batch.images) < test:
            print(f"--test {test}: the data set has {len(batch.images)} test images; all are used")
        pictures = pixels.reduce(batch.images, model.bins)
        labels = batch.labels if label is None else option_labels(model, label, len(pictures))
        names = [f"test-{i}" for i in range(len(pictures))]
        found = Found(codes=model.encode_bytes(pictures, space, labels), names=names)
        return Given(found=found, images=pictures, encoded=True)
    drawn = model.sample(n, space, seed, temperature, option_labels(model, label, n))
    names = [f"sample-{i}" for i in range(n)]
    return Given(found=Found(codes=drawn, names=names), images=model.decode_bytes(drawn), encoded=False)


def _of_images(model: LatentModel, space: str, paths: list[Path], resize: bool, label: Label | None) -> Given:
    read, sources = read_sources(paths, model.image_shape, resize)
    print_crops(sources, model)
    pictures = pixels.reduce(read, model.bins)
    labels = option_labels(model, label, len(pictures))
    names = distinct([Path(each.name).stem for each in sources])
    found = Found(codes=model.encode_bytes(pictures, space, labels), names=names)
    return Given(found=found, images=pictures, encoded=True)


def _of_codes(model: LatentModel, space: str, paths: list[Path], array_space: str | None) -> Given:
    read = [read_codes(path, model, array_space) for path in paths]
    parts = [
        part.converted(model, space) if space in model.spaces[part.codes.space].conversions else part
        for part in read
    ]
    found = Found(
        codes=concatenate([part.codes for part in parts]),
        names=distinct([Path(name).stem for part in parts for name in part.names]),
        adaptations=[part.adaptation(i) for part in parts for i in range(len(part))],
        precision=[precision for part in parts for precision in part.precision]
        if all(part.precision for part in parts)
        else [],
    )
    return Given(found=found, images=found.decode(model), encoded=False)


def read_codes(path: Path, model: LatentModel, space: str | None = None) -> Found:
    """Read a file of codes; `FILE#2` takes the third code alone. See `read_found`."""
    name, mark, number = path.name.rpartition("#")
    if not mark or path.is_file() or not number.isdecimal():
        return read_found(path, model, space)
    found = read_found(path.with_name(name), model, space)
    if int(number) >= len(found):
        raise UserError(f"{path}: the file has codes 0 … {len(found) - 1}")
    return found[int(number)]


def is_codes(path: Path) -> bool:
    """Whether a path names a file of codes, by its suffix, and not a picture."""
    return Path(path.name.partition("#")[0]).suffix.lower() in SUFFIXES


def print_crops(sources: list[ImageSource], model: LatentModel) -> None:
    """Say which part of each picture is used, and in which size, where it is not the picture itself."""
    for source in sources:
        if crop := source.crop_text(model.image_shape):
            print(f"{Path(source.name).name}: {crop}")
