"""`flows interpolate`: interpolate between two pictures or codes in latent space."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from flows import images as pixels
from flows.commands.common import Fps, Label, Zoom, check_outputs, check_unused, option_labels, write_json
from flows.commands.given import is_codes, print_crops, read_codes
from flows.core.bounds import PositiveInt
from flows.display.drawing import Drawing, check_size, enlarge, is_animation, is_folder, lossy_note, rate_note
from flows.editing.paths import line, sphere
from flows.errors import Unsupported, UserError
from flows.inversion.encoder import Encoder
from flows.inversion.exact import invert_exactly
from flows.inversion.found import Found, blended
from flows.metrics.reconstruction import psnr
from flows.models.base import LatentModel
from flows.models.codes import Codes, concatenate
from flows.opening import open_model, read_sources

FPS, ZOOM = 8.0, 2


def interpolate(
    checkpoint: str,
    first: Path,
    second: Path,
    output: Path = Path("interpolation.png"),
    steps: PositiveInt = 9,
    path: Literal["line", "sphere"] = "line",
    space: str | None = None,
    resize: bool = False,
    label: Label | None = None,
    zoom: Zoom = ZOOM,
    fps: Fps = FPS,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Interpolate between two pictures or codes in latent space, as a strip of images.

    If the inverse is exact, the ends of the strip equal the pictures. With a learned encoder, the ends are
    reconstructions, and the pictures are shown beside them. Tuned weights, noise inputs and activations of
    codes that a search found are interpolated, too.

    Args:
        checkpoint: Folder or name of the model.
        first: Picture file, or file of codes, at the left end: code file, array (.npy, .npz, .pt), or record
            of `flows compare` or `flows studio`. `FILE#2` takes the third code, FILE the first.
        second: Picture file, or file of codes, at the right end.
        output: Picture file for the strip; a .gif, .webp or .mp4 file for an animation; or a folder (no
            suffix) for one PNG per image at the model's size.
        steps: Number of images in the strip, both ends included.
        path: Path between the codes: a straight line, or a great circle with interpolated length.
        space: Latent space of the codes, for a learned encoder or an array of codes; None takes the model's
            search space (w for LIA).
        resize: Whether to centre-crop and resize pictures of another size; otherwise they cause an error.
        label: Class of both pictures, by number or name, for a class-conditional model; None takes the most
            likely class of each, and each image of the strip has the class of the nearer picture.
        zoom: Factor by which a strip or an animation enlarges every pixel.
        fps: Frames per second of an animation.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    if steps < 2:
        raise UserError(f"--steps: expected at least 2, got {steps}")
    check_outputs(drawing=output, json=json, animated=True, inputs=[first, second])
    check_unused(output, fps=fps != FPS, zoom=zoom != ZOOM)
    if label is not None and is_codes(first) and is_codes(second):
        raise UserError("--label: codes of a file have their classes; leave it out")
    model = open_model(checkpoint, device)
    _, height, width = model.image_shape
    if not (is_folder(output) or is_animation(output)):
        check_size(output, zoom * width * steps, zoom * height)
    ends = [read_end(model, each, space, resize, label) for each in (first, second)]
    codes = common_codes(model, ends)
    strip = images_between(model, ends, codes, steps, path)
    drawing_of(strip, ends, zoom).save(output, fps)
    quality = [float(psnr(end.picture[None], end.image[None])[0]) for end in ends if end.picture is not None]
    verdict = f"{verdict_of(ends, quality)}{lossy_note(output)}"
    print(
        f"{steps} images along the {path} in {codes.space}: {output}{rate_note(output, fps)}; ends {verdict}"
    )
    result = {"checkpoint": checkpoint, "steps": steps, "path": path, "space": codes.space}
    exact = all(end.bit_exact for end in ends)
    write_json(json, {**result, "ends_bit_exact": exact, "ends_psnr": quality})


@dataclass(frozen=True, kw_only=True)
class End:
    """End of a strip.

    Attributes:
        found: One code.
        image: uint8 (C, H, W), decoded code.
        picture: uint8 (C, H, W), picture that was encoded, at the model's grey levels; None for a given code.
        bit_exact: Whether the image equals the picture byte for byte.
    """

    found: Found
    image: Tensor
    picture: Tensor | None = None
    bit_exact: bool = False

    @property
    def learned(self) -> bool:
        """Whether a picture was encoded by a learned encoder, so that the image may differ from it."""
        return self.picture is not None and not self.found.certificates


def read_end(model: LatentModel, path: Path, space: str | None, resize: bool, label: Label | None) -> End:
    """Read and encode a picture, or read a code; see `interpolate`.

    Raises:
        Unsupported: The model has no encoder, and the path is that of a picture.
        UserError: The model has an exact inverse, which has one space, and another space was given.
    """
    if is_codes(path):
        found = read_codes(path, model, space)
        if len(found) > 1:
            print(f"{path} has {len(found)} codes, of which the first is taken; {path}#1 names the next one")
        found = found[0]
        return End(found=found, image=found.decode(model)[0])
    if not model.check_space(space or model.search_space).encodes:
        raise Unsupported(
            f"{type(model).__name__} has no encoder for {path}: give codes that `flows compare --inverters "
            "optimise` finds for it, by the path of its record"
        )
    pictures, sources = read_sources([path], model.image_shape, resize)
    print_crops(sources, model)
    labels = option_labels(model, label, 1)
    picture = pixels.reduce(pictures, model.bins)[0]
    if not model.is_exact:
        learned = Encoder(space).invert(model, pictures, labels=labels)
        return End(
            found=Found(codes=learned.codes.cpu(), names=[path.name]),
            image=learned.reconstruction[0],
            picture=picture,
        )
    if space not in (None, model.prior_space.name):
        raise UserError(
            f"--space: {type(model).__name__} has only space {model.prior_space.name!r}, got {space!r}"
        )
    exact = invert_exactly(model, pictures, labels)
    certificates = exact.certificates
    found = Found(
        codes=exact.codes,
        names=[path.name],
        precision=[certificates[0].precision],
        certificates=certificates,
    )
    return End(
        found=found, image=exact.reconstruction[0], picture=picture, bit_exact=certificates[0].bit_exact
    )


def common_codes(model: LatentModel, ends: list[End]) -> Codes:
    """Codes of both ends in one space, fp64 (2, D); raises UserError if there is no such space."""
    first, second = (end.found for end in ends)
    if first.codes.space != second.codes.space:
        if second.codes.space in model.spaces[first.codes.space].conversions:
            first = first.converted(model, second.codes.space)
        else:
            second = second.converted(model, first.codes.space)
    return concatenate([each.codes.cpu().to(torch.float64) for each in (first, second)])


def images_between(
    model: LatentModel, ends: list[End], codes: Codes, steps: int, path: Literal["line", "sphere"]
) -> Tensor:
    """Images (steps, C, H, W) of the codes on a path between the ends, which are the ends' own images."""
    share = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    first, last = codes.values.split(1)
    values = line(first, last, share) if path == "line" else sphere(first, last, share)
    way = codes[(share[:, 0] > 0.5).long()].with_values(values)
    one, other = (end.found.adaptation(0) for end in ends)
    between = Found(
        codes=way,
        names=[str(i) for i in range(steps)],
        adaptations=[blended(model, one, other, float(each)) for each in share] if one or other else [],
    )
    strip = between.decode(model)
    strip[0], strip[-1] = ends[0].image, ends[1].image
    return strip


def drawing_of(strip: Tensor, ends: list[End], zoom: int) -> Drawing:
    """Images as a strip, beside learned ends' pictures, as an animation, or each at its size."""

    def sheet() -> Tensor:
        before, after = (
            [end.picture[None]] if end.learned and end.picture is not None else [] for end in ends
        )
        shown = torch.cat([*before, strip, *after])
        return pixels.grid(shown, len(shown), zoom=zoom)

    return Drawing(
        images=lambda: ([f"{i:04d}" for i in range(len(strip))], strip),
        frames=lambda: [enlarge(image, zoom * max(image.shape[1:])).convert("RGB") for image in strip],
        sheet=sheet,
    )


def verdict_of(ends: list[End], quality: list[float]) -> str:
    """Text that says how well the ends reconstruct the pictures."""
    if not quality:
        return "given as codes"
    if any(end.learned for end in ends):
        return f"reconstructed with {' and '.join(f'{each:.1f}' for each in quality)} dB, beside the pictures"
    exact = all(end.bit_exact for end in ends if end.picture is not None)
    return f"reconstructed {'' if exact else 'NOT '}bit-exact"
