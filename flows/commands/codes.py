"""`flows codes`: convert files of codes to another format or latent space."""

from pathlib import Path

from flows.commands.common import check_outputs, write_json
from flows.commands.given import read_codes
from flows.errors import UserError
from flows.inversion.arrays import SUFFIXES, is_plain
from flows.inversion.codes import CodeFile, save_codes
from flows.models.codes import concatenate
from flows.opening import open_model


def codes(
    checkpoint: str,
    files: list[Path],
    output: Path = Path("codes.safetensors"),
    space: str | None = None,
    to: str | None = None,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Convert codes between formats and latent spaces, for other programs and from them.

    Args:
        checkpoint: Folder or name of the model.
        files: Code files of `flows encode` or `flows codes`, arrays (.npy, .npz, .pt, .safetensors), or
            records of `flows compare` or `flows studio`; their codes are joined. `FILE#2` takes the third
            code alone.
        output: Code file to write, in the format of its suffix: .safetensors, .npz or .pt, or .npy for the
            values alone.
        space: Latent space of arrays that do not state it; None takes the only one that fits.
        to: Latent space to which the codes are converted; None keeps theirs.
        json: File for names, space and shape of the codes.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(file=output, json=json, suffixes=SUFFIXES, inputs=files)
    model = open_model(checkpoint, device)
    parts = [read_codes(path, model, space) for path in files]
    if to is not None:
        parts = [part.converted(model, to) for part in parts]
    adapted = [name for part in parts for i, name in enumerate(part.names) if part.adaptation(i)]
    if adapted:
        print(
            f"codes alone do not reconstruct {len(adapted)} images, whose search changed weights, noise or "
            "activations as well; `flows decode`, `steer apply`, `paint` and `interpolate` take the record"
        )
    if len({part.codes.values.dtype for part in parts}) > 1:
        raise UserError("the files have codes of several precisions; convert them one at a time")
    joined = concatenate([part.codes for part in parts])
    names = [name for part in parts for name in part.names]
    certified = all(part.certificates for part in parts)
    certificates = [each for part in parts for each in part.certificates] if certified else []
    save_codes(output, CodeFile(joined, names, certificates), model)
    alone = "; .npy has the values alone: no model, space or names" if is_plain(output) else ""
    print(f"{len(joined)} codes {tuple(joined.values.shape)} of {joined.space}: {output}{alone}")
    write_json(
        json,
        {
            "checkpoint": checkpoint,
            "fingerprint": model.fingerprint(),
            "space": joined.space,
            "shape": list(joined.values.shape),
            "names": names,
        },
    )
