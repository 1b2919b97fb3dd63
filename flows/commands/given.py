"""Images or codes that a verb is given: picture files, test images, files of codes, or samples."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from flows import images as pixels
from flows.commands.common import Label, option_labels
from flows.core.bounds import NonNegativeInt, PositiveFloat, PositiveInt, Seed
from flows.core.options import Options
from flows.editing.sources import read_found
from flows.errors import Unsupported, UserError
from flows.inversion.arrays import SUFFIXES
from flows.inversion.found import Found
from flows.inversion.records import ImageSource
from flows.models.base import LatentModel
from flows.models.codes import concatenate
from flows.opening import first_test, read_sources
from flows.storage.files import distinct

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


@dataclass(frozen=True, kw_only=True)
class GivenSettings(Options):
    """Images or codes that a verb is given.

    Attributes:
        images: Picture files; they are encoded.
        test: Number of test images, if there are no picture files.
        codes: Files of codes: code files, arrays (.npy, .npz, .pt), or records of `flows compare` or
            `flows studio`, with their tuned weights. `FILE#2` takes the third code alone.
        space: Latent space of arrays in `codes` that do not state it; None takes the only one that fits.
        n: Number of samples, if nothing else is given.
        label: Class of picture files or samples, by number or name, for a class-conditional model.
        temperature: Temperature of the samples.
        seed: Seed of the samples.
        resize: Whether to centre-crop and resize pictures of another size; otherwise they cause an error.
    """

    images: list[Path] | None = None
    test: NonNegativeInt = 0
    codes: list[Path] | None = None
    space: str | None = None
    n: PositiveInt = SAMPLES
    label: Label | None = None
    temperature: PositiveFloat = 1.0
    seed: Seed = 0
    resize: bool = False

    @property
    def files(self) -> list[Path]:
        """Files that are read."""
        return [*(self.images or []), *(self.codes or [])]

    def check(self) -> None:
        """Raise UserError if sources exclude each other, or an option has no effect on the given one."""
        sources = {"--images": bool(self.images), "--test": bool(self.test), "--codes": bool(self.codes)}
        chosen = [option for option, there in sources.items() if there]
        if len(chosen) > 1:
            raise UserError(f"{' and '.join(chosen)} exclude each other; give one of them")
        if chosen and (self.n, self.temperature, self.seed) != (SAMPLES, 1.0, 0):
            raise UserError(
                f"--n, --temperature and --seed are of samples; leave them out beside {chosen[0]}"
            )
        if self.space is not None and not self.codes:
            raise UserError("--space is that of arrays in --codes; leave it out")
        if self.codes and self.label is not None:
            raise UserError("--label: codes of a file have their classes; leave it out")


def read_given(model: LatentModel, space: str, settings: GivenSettings) -> Given:
    """Read and encode what a verb was given: the first of picture files, test images, codes, else samples.

    Args:
        model: Model of the codes.
        space: Latent space for encoding and sampling; codes of a file stay in theirs if there is no map.
        settings: Sources of images or codes.

    Raises:
        UserError: More than one source was given.
        Unsupported: The model has no encoder, and pictures were given.
    """
    settings.check()
    if settings.codes:
        return _of_codes(model, space, settings.codes, settings.space)
    if (settings.images or settings.test) and not model.check_space(space).encodes:
        raise Unsupported(
            f"{type(model).__name__} has no encoder for pictures: give samples (--n), or codes that `flows "
            "compare --inverters optimise` finds for them (--codes with its record)"
        )
    if settings.images:
        return _of_images(model, space, settings.images, settings.resize, settings.label)
    if settings.test:
        return _of_test(model, space, settings.test, settings.label)
    labels = option_labels(model, settings.label, settings.n)
    drawn = model.sample(settings.n, space, settings.seed, settings.temperature, labels)
    names = [f"sample-{i}" for i in range(settings.n)]
    return Given(found=Found(codes=drawn, names=names), images=model.decode_bytes(drawn), encoded=False)


def _of_test(model: LatentModel, space: str, test: int, label: Label | None) -> Given:
    batch = first_test(model, test)
    if len(batch.images) < test:
        print(f"--test {test}: the data set has {len(batch.images)} test images; all are used")
    pictures = pixels.reduce(batch.images, model.bins)
    labels = batch.labels if label is None else option_labels(model, label, len(pictures))
    names = [f"test-{i}" for i in range(len(pictures))]
    found = Found(codes=model.encode_bytes(pictures, space, labels), names=names)
    return Given(found=found, images=pictures, encoded=True)


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
