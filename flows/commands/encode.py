"""flows encode: picture files to a code file, each with a certificate."""

from dataclasses import asdict
from pathlib import Path

from flows.commands.common import labels_or_none, write_json
from flows.inversion.codes import CodeFile, save_codes
from flows.inversion.exact import invert_exactly
from flows.opening import open_model, read_pictures


def encode(
    checkpoint: str,
    images: list[Path],
    output: Path = Path("codes.safetensors"),
    resize: bool = False,
    label: int | None = None,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Encode pictures exactly, and certify that each comes back; what fp32 misses is encoded in fp64.

    Args:
        checkpoint: folder or hub repository of the model.
        images: picture files.
        output: the code file.
        resize: crop pictures of another size to a square in the middle and resize them.
        label: class of the pictures, for a class-conditional model.
        json: file for the certificates.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    pictures = read_pictures(images, model.image_shape, resize)
    labels = labels_or_none(model, label, len(pictures))
    inversion = invert_exactly(model, pictures, labels)
    names = [path.name for path in images]
    save_codes(output, CodeFile(inversion.codes, names, inversion.certificates), model)
    levels = "" if model.bins == 256 else f" at {model.bins} grey levels"
    for name, given in zip(names, inversion.certificates, strict=True):
        verdict = f"bit-exact{levels}" if given.certified else "NOT certified"
        print(f"{name}: {verdict} in {given.precision}, largest error {given.error:.1e}")
    print(f"{len(names)} codes: {output}")
    certificates = [
        {"name": name, **asdict(given)} for name, given in zip(names, inversion.certificates, strict=True)
    ]
    write_json(
        json, {"checkpoint": checkpoint, "fingerprint": model.fingerprint(), "certificates": certificates}
    )
