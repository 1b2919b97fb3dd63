"""flows interpolate: from one picture to another through the latent space."""

from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt

from flows import images as pixels
from flows.commands.common import labels_or_none, save_picture, write_json
from flows.editing.paths import line, sphere
from flows.errors import UserError
from flows.inversion.encoder import Encoder
from flows.inversion.exact import invert_exactly
from flows.metrics.reconstruction import psnr
from flows.models.codes import Codes
from flows.opening import open_model, read_pictures


def interpolate(
    checkpoint: str,
    first: Path,
    second: Path,
    output: Path = Path("interpolation.png"),
    steps: PositiveInt = 9,
    path: Literal["line", "sphere"] = "line",
    space: str | None = None,
    resize: bool = False,
    label: int | None = None,
    zoom: PositiveInt = 2,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """A strip of pictures between two of yours.

    Its ends are the pictures themselves, exactly, where the inverse is exact; where an encoder is learned
    they are what comes back, with your pictures beside them.

    Args:
        checkpoint: folder or hub repository of the model.
        first: picture file at the left end.
        second: picture file at the right end.
        output: file for the strip.
        steps: pictures in the strip, both ends included.
        path: straight line between the codes, or along the sphere, with interpolated length.
        space: of the codes, for a model with several; w of LIA unless told otherwise.
        resize: crop pictures of another size to a square in the middle and resize them.
        label: class of both, for a class-conditional model.
        zoom: factor by which the strip enlarges every pixel.
        json: file for the result.
        device: torch device.
    """
    if steps < 2:
        raise UserError(f"--steps: expected at least 2, got {steps}")
    model = open_model(checkpoint, device)
    pictures = read_pictures([first, second], model.image_shape, resize)
    labels = labels_or_none(model, label, 2)
    if model.is_exact:
        if space not in (None, model.prior_space.name):
            raise UserError(f"--space: {type(model).__name__} has space 'z' alone, got {space!r}")
        exact = invert_exactly(model, pictures, labels)
        codes, ends = exact.codes, exact.reconstruction
        kept = all(given.certified for given in exact.certificates)
    else:
        inversion = Encoder(space).invert(model, pictures, labels=labels)
        codes, ends, kept = inversion.codes, inversion.reconstruction, False
    share = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    mix = {"line": line, "sphere": sphere}[path]
    first_code, last_code = codes.values.double().cpu().split(1)
    way = Codes(mix(first_code, last_code, share), codes.space, labels_or_none(model, label, steps))
    strip = model.decode_bytes(way)
    strip[0], strip[-1] = ends
    chosen, learned = codes.space, not model.spaces[codes.space].exact
    if learned:
        strip = torch.cat([pictures[:1], strip, pictures[1:]])
    save_picture(pixels.grid(strip, len(strip), zoom=zoom), output)
    quality = psnr(pixels.reduce(pictures, model.bins), ends).tolist()
    told = f"{quality[0]:.1f} and {quality[1]:.1f} dB from the pictures, which stand beside them"
    verdict = told if learned else f"{'' if kept else 'NOT '}bit-exact"
    print(f"{steps} pictures along the {path} in {chosen}: {output}; ends {verdict}")
    result = {"checkpoint": checkpoint, "steps": steps, "path": path, "space": chosen, "ends_bit_exact": kept}
    write_json(json, {**result, "ends_psnr": quality})
