"""`flows encode`: encode picture files to a code file with certificates."""

from dataclasses import asdict
from pathlib import Path

from flows.commands.common import Label, check_outputs, option_labels, write_json
from flows.inversion.arrays import SUFFIXES, is_plain
from flows.inversion.codes import CodeFile, save_codes
from flows.inversion.exact import invert_exactly
from flows.opening import open_model, read_sources


def encode(
    checkpoint: str,
    images: list[Path],
    output: Path = Path("codes.safetensors"),
    resize: bool = False,
    label: Label | None = None,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Encode pictures exactly and certify that each reconstruction is bit-exact.

    Pictures that are not certified in fp32 are encoded in fp64.

    Args:
        checkpoint: Folder or name of the model, which must have an exact inverse.
        images: Picture files.
        output: Code file to write, in the format of its suffix: .safetensors, .npz or .pt, or .npy for the
            values alone.
        resize: Whether to centre-crop and resize pictures of another size; otherwise they cause an error.
        label: Class of the pictures, by number or name, for a class-conditional model; None takes the most
            likely class of each.
        json: File for the certificates.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(file=output, json=json, suffixes=SUFFIXES, inputs=images)
    model = open_model(checkpoint, device)
    pictures, sources = read_sources(images, model.image_shape, resize)
    labels = option_labels(model, label, len(pictures))
    inversion = invert_exactly(model, pictures, labels)
    names = [path.name for path in images]
    save_codes(output, CodeFile(inversion.codes, names, inversion.certificates), model)
    levels = "" if model.bins == 256 else f" at {model.bins} grey levels"
    crops = [source.crop_text(model.image_shape) for source in sources]
    for name, crop, certificate in zip(names, crops, inversion.certificates, strict=True):
        verdict = f"bit-exact{levels}" if certificate.certified else "NOT certified"
        what = f"{name} ({crop})" if crop else name
        print(f"{what}: {verdict} in {certificate.precision}, largest error {certificate.error:.1e}")
    alone = "; .npy has the values alone: no model, names or certificates" if is_plain(output) else ""
    print(f"{len(names)} codes: {output}{alone}")
    certificates = [
        {"name": name, "crop": crop, **asdict(certificate)}
        for name, crop, certificate in zip(names, crops, inversion.certificates, strict=True)
    ]
    write_json(
        json,
        {
            "checkpoint": checkpoint,
            "fingerprint": model.fingerprint(),
            "grey_levels": model.bins,
            "certificates": certificates,
        },
    )
