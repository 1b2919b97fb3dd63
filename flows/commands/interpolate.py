"""`flows interpolate`: interpolate between two pictures in latent space."""

from pathlib import Path
from typing import Literal

import torch

from flows import images as pixels
from flows.bounds import PositiveInt
from flows.commands.common import Zoom, check_outputs, option_labels, write_json
from flows.editing.paths import line, sphere
from flows.errors import UserError
from flows.inversion.encoder import Encoder
from flows.inversion.exact import invert_exactly
from flows.metrics.reconstruction import psnr
from flows.opening import open_model, read_pictures
from flows.page import save_picture


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
    zoom: Zoom = 2,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Interpolate between two pictures in latent space, as a strip of images.

    If the inverse is exact, the ends of the strip equal the pictures. With a learned encoder, the ends are
    reconstructions, and the pictures are shown beside them.

    Args:
        checkpoint: Folder or hub repository of the model.
        first: Picture file at the left end.
        second: Picture file at the right end.
        output: Picture file for the strip.
        steps: Number of images in the strip, both ends included.
        path: Path between the codes: a straight line, or a great circle with interpolated length.
        space: Latent space of the codes, for a learned encoder; None takes the model's search space (w for
            LIA).
        resize: Whether to centre-crop and resize pictures of another size; otherwise they cause an error.
        label: Class of both pictures, for a class-conditional model; None takes the most likely class of
            each, and each image of the strip has the class of the nearer picture.
        zoom: Factor by which the strip enlarges every pixel.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    if steps < 2:
        raise UserError(f"--steps: expected at least 2, got {steps}")
    check_outputs(picture=output, json=json, inputs=[first, second])
    model = open_model(checkpoint, device)
    pictures = read_pictures([first, second], model.image_shape, resize)
    labels = option_labels(model, label, 2)
    if model.is_exact:
        if space not in (None, model.prior_space.name):
            raise UserError(
                f"--space: {type(model).__name__} has only space {model.prior_space.name!r}, got {space!r}"
            )
        exact = invert_exactly(model, pictures, labels)
        codes, ends = exact.codes, exact.reconstruction
        bit_exact = all(certificate.bit_exact for certificate in exact.certificates)
    else:
        inversion = Encoder(space).invert(model, pictures, labels=labels)
        codes, ends, bit_exact = inversion.codes, inversion.reconstruction, False
    share = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    mix = {"line": line, "sphere": sphere}[path]
    first_code, last_code = codes.values.double().cpu().split(1)
    nearer = (share[:, 0] > 0.5).long()
    way = codes.cpu()[nearer].with_values(mix(first_code, last_code, share))
    strip = model.decode_bytes(way)
    strip[0], strip[-1] = ends
    chosen, learned = codes.space, not model.spaces[codes.space].exact
    if learned:
        strip = torch.cat([pictures[:1], strip, pictures[1:]])
    save_picture(pixels.grid(strip, len(strip), zoom=zoom), output)
    quality = psnr(pixels.reduce(pictures, model.bins), ends).tolist()
    ends_text = f"reconstructed with {quality[0]:.1f} and {quality[1]:.1f} dB, beside the pictures"
    verdict = ends_text if learned else f"{'' if bit_exact else 'NOT '}bit-exact"
    print(f"{steps} images along the {path} in {chosen}: {output}; ends {verdict}")
    result = {
        "checkpoint": checkpoint,
        "steps": steps,
        "path": path,
        "space": chosen,
        "ends_bit_exact": bit_exact,
    }
    write_json(json, {**result, "ends_psnr": quality})
