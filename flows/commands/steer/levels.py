"""flows steer levels: which level of the code carries what."""

from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from flows.commands.common import print_table, write_json
from flows.commands.steer.apply import select_directions
from flows.opening import first_test, load_predictor, open_model
from flows.page import as_text
from flows.steering.base import load_directions
from flows.steering.evaluate import check_own_scores
from flows.steering.levels import levels_map, rank_levels, to_levels, with_levels


def levels(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    predictor: str | None = None,
    space: str | None = None,
    alpha: PositiveFloat = 2.0,
    n: PositiveInt = 300,
    test: NonNegativeInt = 0,
    seed: NonNegativeInt = 1,
    out: Path = Path("levels"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Move one level of the code at a time, and let a predictor see how much of the change comes.

    Levels are the scales of a flow, or the layers of a StyleGAN's or LIA's w+, to which directions of w are
    taken.

    Args:
        checkpoint: folder or hub repository of the model.
        directions: file of `flows steer find`.
        names: of the directions to take; None takes all.
        predictor: checkpoint of an attribute predictor; None takes the shipped one for its images.
        space: whose levels are moved; None takes that of the directions, or w+ where that has one level only.
        alpha: sigmas moved.
        n: samples, of another seed than the directions were found on.
        test: so many images of the model's test set instead, encoded.
        seed: of samples.
        out: folder for index.html, levels.png and levels.json.
        json: file for the result, beside the one in `out`.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    judge = load_predictor(predictor, model)
    given = select_directions(load_directions(directions, model), names)
    wide = space or with_levels(model, given[0].space)
    check_own_scores(given, judge)
    found = [to_levels(model, each, wide) for each in given]
    if test:
        batch = first_test(model, test)
        codes = model.encode_bytes(batch.images, wide, batch.labels)
    else:
        with torch.no_grad():
            codes = model.convert_codes(model.sample(n, given[0].space, seed), wide)
    ranked = rank_levels(model, judge, found, codes, alpha)
    written = levels_map(out, f"Levels of {Path(checkpoint).name}'s {wide}, {alpha:g} σ", ranked)
    result = {"checkpoint": checkpoint, "space": wide, "alpha": alpha, "levels": ranked}
    for path in (out / "levels.json", json):
        write_json(path, result)
    head = list(model.check_space(wide).levels)
    print_table(
        ["direction", *head, "most"],
        [
            [name, *(as_text(row[level]) for level in head), max(row, key=lambda level: abs(row[level]))]
            for name, row in ranked.items()
        ],
    )
    print(f"written to {out}: {', '.join(written)}, levels.json")
