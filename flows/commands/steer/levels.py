"""`flows steer levels`: effect of each level of the code on the scores of directions."""

from pathlib import Path

import torch

from flows.commands.common import check_outputs, write_json
from flows.core.bounds import NonNegativeInt, PositiveFloat, PositiveInt, Seed
from flows.data.base import ImageData
from flows.display.formats import Formats
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.opening import first_test, load_predictor, open_model
from flows.steering.base import load_directions
from flows.steering.evaluate import check_own_scores
from flows.steering.levels import levels_map, levels_table, rank_levels, to_levels, with_levels
from flows.steering.selection import select_directions


def levels(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    predictor: str | None = None,
    classes: Path | None = None,
    space: str | None = None,
    alpha: PositiveFloat = 2.0,
    n: PositiveInt = 300,
    test: NonNegativeInt = 0,
    seed: Seed = 1,
    out: Path = Path("levels"),
    formats: Formats = Formats(),
    json: Path | None = None,
    data: ImageData | None = None,
    device: str | None = None,
) -> None:
    """Move one level of the code at a time along directions, and measure the change of their scores.

    Levels are the scales of a flow, or the layers of w+ of StyleGAN and LIA, to which directions in w are
    converted.

    Args:
        checkpoint: Folder or name of the model.
        directions: File of directions, written by `flows steer find`.
        names: Names of the directions; None takes all.
        predictor: Checkpoint of an attribute predictor; None takes the included one for the model's images.
        classes: File with the names of the classes, one per line, if the predictor is a file of another
            project: TorchScript, torch.export, or weights of torchvision.
        space: Latent space whose levels are moved; None takes the space of the directions or, if it has only
            one level, w+.
        alpha: Move to either side, in sigmas.
        n: Number of samples that are moved.
        test: Number of encoded test images that are moved instead of samples; 0 takes samples.
        seed: Seed of the samples, which should not be that of `steer find`.
        out: Output folder for index.html, levels.png and levels.json.
        formats: Additional formats of tables and figures.
        json: Additional file for the contents of levels.json.
        data: Data set of the test images; None takes the one that the model was trained on.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    model = open_model(checkpoint, device)
    loaded = load_predictor(predictor, model, classes)
    selected = select_directions(load_directions(directions, model), names)
    wide = space or with_levels(model, selected[0].space)
    check_own_scores(selected, loaded)
    converted = [to_levels(model, each, wide) for each in selected]
    if test:
        batch = first_test(model, test, data)
        codes = model.encode_bytes(batch.images, wide, batch.labels)
    else:
        codes = converted_samples(model, n, selected[0].space, wide, seed)
    ranked = rank_levels(model, loaded, converted, codes, alpha)
    title = f"Levels of {wide} of {Path(checkpoint).name}, {alpha:g} σ"
    written = levels_map(out, title, ranked, formats.chosen)
    result = {"checkpoint": checkpoint, "space": wide, "alpha": alpha, "levels": ranked}
    for path in (out / "levels.json", json):
        write_json(path, result)
    levels_table(ranked).print()
    print(f"written to {out}: {', '.join(written)}, levels.json")


@torch.no_grad()
def converted_samples(model: LatentModel, n: int, space: str, wide: str, seed: int) -> Codes:
    """Samples of a space, converted to the one whose levels are moved."""
    return model.convert_codes(model.sample(n, space, seed), wide)
