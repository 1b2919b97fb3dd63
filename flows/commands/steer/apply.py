"""`flows steer apply`: move pictures, test images or samples along directions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.bounds import FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed
from flows.commands.common import check_outputs, write_json
from flows.errors import UserError
from flows.metrics.reconstruction import psnr
from flows.metrics.typicality import limit_typicality
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.opening import first_test, open_model, read_pictures
from flows.page import draw_rows, save_picture
from flows.steering.base import Direction, load_directions, place, shift

ALPHAS = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]


def apply(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    alphas: list[FiniteFloat] = ALPHAS,
    images: list[Path] | None = None,
    test: NonNegativeInt = 0,
    n: PositiveInt = 8,
    levels: list[str] | None = None,
    absolute: bool = False,
    budget: PositiveFloat | None = None,
    temperature: PositiveFloat = 1.0,
    seed: Seed = 0,
    resize: bool = False,
    output: Path = Path("steered.png"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Move images along directions, in a grid with one row per image and one column per move.

    Moves are in sigmas; one sigma is the standard deviation of codes along the direction.

    Args:
        checkpoint: Folder or hub repository of the model.
        directions: File of directions, written by `flows steer find`.
        names: Names of the directions; None takes all.
        alphas: Moves in sigmas, one per column.
        images: Picture files to encode and move; they are shown at the left of the grid.
        test: Number of test images to move, if there are no picture files.
        n: Number of samples to move, if there are neither picture files nor test images.
        levels: Levels of the code that are moved; None moves all.
        absolute: Whether to move to that many sigmas from the direction's hyperplane, instead of by that many
            sigmas from the image's own code.
        budget: Maximum | |z|/√D − 1 | of moved codes; longer moves are shortened. 0.1 keeps codes about as
            typical as samples. None sets no limit.
        temperature: Temperature of the samples.
        seed: Seed of the samples.
        resize: Whether to centre-crop and resize pictures of another size; otherwise they cause an error.
        output: Picture file for the grid.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(picture=output, json=json)
    model = open_model(checkpoint, device)
    selected = select_directions(load_directions(directions, model), names)
    space = selected[0].space
    if levels is not None:
        selected = [each.on_levels(levels, model.check_space(space)) for each in selected]
    inputs, labels = given_images(model, images, test, resize)
    if inputs is None:
        codes = model.sample(n, space, seed, temperature)
    else:
        codes = model.encode_bytes(inputs, space, labels)
    rows, moved, reached = [], dict[str, list[float]](), dict[str, list[float]]()
    unmoved = model.decode_bytes(codes)
    for direction in selected:
        moves = [(place if absolute else shift)(codes, direction, alpha) for alpha in alphas]
        if budget is not None:
            wanted = [sigmas_moved(codes, to, direction) for to in moves]
            moves = [limit_typicality(model, codes, to, budget) for to in moves]
            reached[direction.name] = [sigmas_moved(codes, to, direction) for to in moves]
            for alpha, full, cut in zip(alphas, wanted, reached[direction.name], strict=True):
                if abs(cut) < 0.99 * abs(full):
                    kept = f"{cut:+.3g} of {full:+.3g} σ on average"
                    print(f"{direction.name} {alpha:+g}: the budget leaves {kept}")
        strips = [model.decode_bytes(to) for to in moves]
        moved[direction.name] = [
            float((strip.int() - unmoved.int()).abs().float().mean()) for strip in strips
        ]
        for i in range(len(codes)):
            strip = torch.stack([pictures[i] for pictures in strips])
            strip = strip if inputs is None else torch.cat([inputs[i : i + 1], strip])
            rows.append((direction.name if i == 0 else "", strip))
    head = [*([] if inputs is None else ["input"]), *(f"{alpha:+g}" for alpha in alphas)]
    save_picture(draw_rows(rows, len(head), head=head), output)
    print(f"{len(selected)} directions, {len(codes)} images, {len(alphas)} moves: {output}")
    result: dict[str, Any] = {
        "checkpoint": checkpoint,
        "directions": [each.name for each in selected],
        "alphas": alphas,
    }
    if inputs is not None:
        quality = psnr(inputs, unmoved).tolist()
        print(f"PSNR of the reconstructions without a move: at least {min(quality):.1f} dB")
        result["unmoved_psnr"] = quality
    if reached:
        result["sigmas_within_budget"] = reached
    write_json(json, {**result, "mean_change": moved})


def sigmas_moved(start: Codes, end: Codes, direction: Direction) -> float:
    """Mean number of sigmas that codes have moved along a direction."""
    step = direction.step.to(start.values)
    along = (end.values - start.values) @ step / (step @ step)
    return float(along.mean()) / direction.sigma


def given_images(
    model: LatentModel, paths: list[Path] | None, test: int, resize: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Images that a verb was given, at the model's grey levels, and their labels if they are known.

    Args:
        model: Model that the images are for.
        paths: Picture files.
        test: Number of test images, if there are no files.
        resize: Whether pictures of another size are cropped and resized.

    Returns:
        uint8 (n, C, H, W) and int64 (n,); None and None if neither was given.

    Raises:
        UserError: Both were given.
    """
    if paths and test:
        raise UserError("--images and --test exclude each other; give one of them")
    if paths:
        return pixels.reduce(read_pictures(paths, model.image_shape, resize), model.bins), None
    if test:
        batch = first_test(model, test)
        if len(batch.images) < test:
            print(f"--test {test}: the data set has {len(batch.images)} test images; all are used")
        return pixels.reduce(batch.images, model.bins), batch.labels
    return None, None


def select_directions(
    directions: list[Direction], names: list[str] | None, option: str = "--names"
) -> list[Direction]:
    """Directions with the given names (None takes all), which must be in one space.

    Raises:
        UserError: There is no direction of a name, or the directions are in several spaces.
    """
    known = [each.name for each in directions]
    for name in names or []:
        if name not in known:
            raise UserError(f"{option}: there is no direction {name!r}; the file has {', '.join(known)}")
    selected = [each for name in dict.fromkeys(names or known) for each in directions if each.name == name]
    if not selected:
        raise UserError("the file has no directions; `flows steer find` writes some")
    if len({each.space for each in selected}) != 1:
        raise UserError("the directions are in several spaces; choose those of one space by --names")
    return selected


def split_directions(
    known: list[Direction],
    names: list[str] | None,
    without: list[str] | None,
    rest: list[Direction] | None = None,
) -> tuple[list[Direction], list[Direction]]:
    """Directions with the given names, and those to which they are to be made orthogonal.

    Args:
        known: Directions of the file.
        names: Names of the directions; None takes all.
        without: Names of the directions to which the others are to be made orthogonal.
        rest: Directions among which those of `without` are; None takes `known`.

    Raises:
        UserError: There is no direction of a name, or none is left beside those of `without`.
    """
    fixed = select_directions(known if rest is None else rest, without, "--without") if without else []
    selected = [
        each
        for each in select_directions(known, names)
        if rest is not None or each.name not in (without or [])
    ]
    if not selected:
        raise UserError("--without: no other direction is left")
    return selected, fixed
