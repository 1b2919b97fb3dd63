"""flows sample: pictures from the prior."""

from pathlib import Path

from jsonargparse.typing import PositiveInt

from flows import images as pixels
from flows.commands.common import labels_or_none, save_picture, write_json
from flows.models.base import LikelihoodModel
from flows.opening import open_model


def sample(
    checkpoint: str,
    output: Path = Path("samples.png"),
    n: PositiveInt = 64,
    temperature: float | None = None,
    space: str | None = None,
    seed: int = 0,
    label: int | None = None,
    zoom: PositiveInt = 2,
    batch: PositiveInt = 64,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Draw n pictures; picture i is the same for every n.

    Args:
        checkpoint: folder or hub repository of the model.
        output: a file for one sheet, or a folder (no suffix) for one file per picture.
        n: how many.
        temperature: factor on the codes' distance from the middle of their space; in a GAN's w, truncation.
            None takes 0.7 for flows and 1 for the others.
        space: latent space that the codes are drawn in; None takes z, and w of a StyleGAN.
        seed: of the codes.
        label: class, for a class-conditional model.
        zoom: factor by which the sheet enlarges every pixel.
        batch: pictures decoded at a time.
        json: file for the result.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    space = space or model.sampling_space
    if temperature is None:
        temperature = 0.7 if isinstance(model, LikelihoodModel) else 1.0
    codes = model.sample(n, space, seed, temperature, labels_or_none(model, label, n))
    images = model.decode_bytes(codes, batch)
    if output.suffix:
        save_picture(pixels.grid(images, zoom=zoom), output)
    else:
        for i, image in enumerate(images):
            save_picture(image, output / f"{i:06d}.png")
    print(f"{n} samples at temperature {temperature}: {output}")
    write_json(
        json,
        {
            "checkpoint": checkpoint,
            "n": n,
            "space": space,
            "temperature": temperature,
            "seed": seed,
            "output": str(output),
        },
    )
