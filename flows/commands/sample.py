"""`flows sample`: generate images from the prior."""

import math
from pathlib import Path

from flows import images as pixels
from flows.commands.common import Label, Zoom, check_outputs, check_unused, option_labels, write_json
from flows.core.bounds import PositiveInt, Seed, Temperature
from flows.display.drawing import check_size, is_folder, lossy_note, save_images, save_picture
from flows.models.base import LatentModel, LikelihoodModel
from flows.models.codes import Codes
from flows.opening import open_model

ZOOM = 2


def sample(
    checkpoint: str,
    output: Path = Path("samples.png"),
    n: PositiveInt = 64,
    temperature: Temperature | None = None,
    space: str | None = None,
    seed: Seed = 0,
    label: Label | None = None,
    zoom: Zoom = ZOOM,
    batch: PositiveInt = 64,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Generate n samples; sample i does not depend on n.

    Args:
        checkpoint: Folder or name of the model.
        output: Picture file for one sheet, or a folder (no suffix) for one file per sample.
        n: Number of samples.
        temperature: Factor on the distance of the codes from the mean of their space; truncation in the w of
            a GAN. None takes 0.7 for flows and 1 for other models.
        space: Latent space of the codes; None takes w for StyleGAN and z for other models.
        seed: Seed of the codes.
        label: Class of the samples, by number or name, for a class-conditional model; None takes all classes
            in turn or, in a space whose codes include their class, random ones.
        zoom: Factor by which the sheet enlarges every pixel.
        batch: Number of samples that are decoded at a time.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(drawing=output, json=json)
    check_unused(output, zoom=zoom != ZOOM)
    model = open_model(checkpoint, device)
    columns, (_, height, width) = math.ceil(math.sqrt(n)), model.image_shape
    check_size(output, columns * (zoom * width + 2), math.ceil(n / columns) * (zoom * height + 2))
    space = space or model.sampling_space
    if temperature is None:
        temperature = 0.7 if isinstance(model, LikelihoodModel) else 1.0
    codes = model.sample(n, space, seed, temperature, option_labels(model, label, n))
    write(output, model, codes, zoom, batch)
    print(f"{n} samples at temperature {temperature}: {output}{lossy_note(output)}")
    drawn = {"n": n, "space": space, "temperature": temperature, "seed": seed}
    write_json(json, {"checkpoint": checkpoint, **drawn, "output": str(output)})


def write(output: Path, model: LatentModel, codes: Codes, zoom: int, batch: int) -> None:
    """Write samples as a sheet, or to a folder, batch by batch: an interruption keeps what is finished."""
    if not is_folder(output):
        save_picture(pixels.grid(model.decode_bytes(codes, batch), zoom=zoom), output)
        return
    for i, part in enumerate(codes.split(batch)):
        names = [f"{number:06d}" for number in range(i * batch, i * batch + len(part))]
        save_images(output, names, model.decode_bytes(part, batch))
