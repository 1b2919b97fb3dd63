"""`flows decode`: decode a code file to picture files."""

from pathlib import Path

from flows.commands.common import check_outputs, write_json
from flows.inversion.codes import load_codes
from flows.inversion.exact import decode_exactly
from flows.opening import open_model
from flows.page import save_picture


def decode(
    checkpoint: str,
    codes: Path,
    output: Path = Path("decoded"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Decode a code file to pictures; the model must be the one that encoded them.

    Every code is decoded in the precision of its certificate.

    Args:
        checkpoint: Folder or hub repository of the model.
        codes: Code file, written by `flows encode`.
        output: Output folder for PNG files with the names of the encoded pictures.
        json: File for a list of the pictures.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(output=output, json=json, inputs=[codes])
    model = open_model(checkpoint, device)
    contents = load_codes(codes, model)
    precisions = [certificate.precision for certificate in contents.certificates]
    images = decode_exactly(model, contents.codes, precisions)
    stems = [Path(name).stem for name in contents.names]
    written = []
    for i, image in enumerate(images):
        # Pictures with the same name, from different folders, must not overwrite each other.
        stem = stems[i] if len(set(stems)) == len(stems) else f"{i:04d}-{stems[i]}"
        written.append(output / f"{stem}.png")
        save_picture(image, written[-1])
    print(f"{len(written)} pictures: {output}")
    write_json(json, {"checkpoint": checkpoint, "pictures": [str(path) for path in written]})
