"""`flows decode`: decode a file of codes to picture files."""

from pathlib import Path

from flows.commands.common import check_outputs, write_json
from flows.commands.given import read_codes
from flows.display.drawing import save_images
from flows.opening import open_model


def decode(
    checkpoint: str,
    codes: Path,
    output: Path = Path("decoded"),
    space: str | None = None,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Decode a file of codes to pictures; the model must be the one that made them.

    Every code is decoded in the precision of its certificate, if it has one, and with the weights, noise
    inputs and activations that its search changed.

    Args:
        checkpoint: Folder or name of the model.
        codes: Code file of `flows encode` or `flows codes`, array (.npy, .npz, .pt, .safetensors), or record
            of `flows compare` or `flows studio`. `FILE#2` takes the third code alone.
        output: Output folder for PNG files with the names of the encoded pictures.
        space: Latent space of an array that does not state it; None takes the only one that fits.
        json: File for a list of the pictures.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(output=output, json=json, inputs=[codes])
    model = open_model(checkpoint, device)
    found = read_codes(codes, model, space)
    names = [Path(name).stem for name in found.names]
    written = save_images(output, names, (found[i].decode(model)[0] for i in range(len(found))))
    print(f"{len(written)} pictures: {output}")
    write_json(json, {"checkpoint": checkpoint, "pictures": [str(path) for path in written]})
