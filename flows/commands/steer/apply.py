"""`flows steer apply`: move pictures, test images or samples along directions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flows.bounds import FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed
from flows.commands.common import Fps, Label, at_least, check_outputs, check_unused, write_json
from flows.commands.given import SAMPLES, Given, read_given
from flows.drawing import Drawing, draw_rows
from flows.metrics.reconstruction import psnr
from flows.metrics.typicality import limit_typicality
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.opening import open_model
from flows.steering.base import Direction, load_directions, place, shift
from flows.steering.levels import to_levels
from flows.steering.selection import select_directions

FPS = 4.0
FAR = 30.0
"""Number of sigmas beyond which a move is called far; samples lie within five."""
ALPHAS = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]


def apply(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    alphas: list[FiniteFloat] = ALPHAS,
    images: list[Path] | None = None,
    test: NonNegativeInt = 0,
    codes: list[Path] | None = None,
    space: str | None = None,
    n: PositiveInt = SAMPLES,
    label: Label | None = None,
    levels: list[str] | None = None,
    absolute: bool = False,
    budget: PositiveFloat | None = None,
    temperature: PositiveFloat = 1.0,
    seed: Seed = 0,
    resize: bool = False,
    output: Path = Path("steered.png"),
    fps: Fps = FPS,
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
        codes: Files of codes to move: code files, arrays (.npy, .npz, .pt), or records of `flows compare` or
            `flows studio`, with their tuned weights. `FILE#2` takes the third code alone.
        space: Latent space of arrays in `codes` that do not state it; None takes the only one that fits.
        n: Number of samples to move, if nothing else is given.
        label: Class of picture files or samples, by number or name, for a class-conditional model.
        levels: Levels of the code that are moved; None moves all.
        absolute: Whether to move to that many sigmas from the direction's hyperplane, instead of by that many
            sigmas from the image's own code.
        budget: Maximum | |z|/√D − 1 | of moved codes; longer moves are shortened. 0.1 keeps codes about as
            typical as samples. None sets no limit.
        temperature: Temperature of the samples.
        seed: Seed of the samples.
        resize: Whether to centre-crop and resize pictures of another size; otherwise they cause an error.
        output: Picture file for the grid; a .gif, .webp or .mp4 file for an animation with one frame per
            move; or a folder (no suffix) for one PNG per moved image at the model's size.
        fps: Frames per second of an animation.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    inputs = [directions, *(images or []), *(codes or [])]
    check_outputs(drawing=output, json=json, animated=True, inputs=inputs)
    check_unused(output, fps=fps != FPS)
    model = open_model(checkpoint, device)
    selected = select_directions(load_directions(directions, model), names)
    given = read_given(
        model,
        selected[0].space,
        images=images,
        test=test,
        codes=codes,
        n=n,
        temperature=temperature,
        seed=seed,
        resize=resize,
        label=label,
        array_space=space,
    )
    found, latent = given.found, model.check_space(given.found.codes.space)
    selected = [to_levels(model, each, latent.name) for each in selected]
    if levels is not None:
        selected = [each.on_levels(levels, latent) for each in selected]
    start = found.codes.to(model.device)
    unmoved = found.decode(model)
    strips, moved, reached = dict[str, list[Tensor]](), dict[str, list[float]](), dict[str, list[float]]()
    for direction in selected:
        moves = [(place if absolute else shift)(start, direction, alpha) for alpha in alphas]
        if budget is not None:
            moves, reached[direction.name] = within_budget(model, start, moves, direction, alphas, budget)
        strips[direction.name] = found.decode_moved(model, moves)
        moved[direction.name] = [
            float((strip.int() - unmoved.int()).abs().float().mean()) for strip in strips[direction.name]
        ]
    if far := [f"{alpha:+g}" for alpha in alphas if abs(alpha) > FAR]:
        print(f"moves of {', '.join(far)} σ lead far outside of all samples: the model draws anything there")
    written = drawing_of(given, strips, alphas).save(output, fps)
    counts = f"{len(selected)} directions, {len(found)} images, {len(alphas)} moves"
    print(f"{counts}: {written}")
    result: dict[str, Any] = {
        "checkpoint": checkpoint,
        "directions": [each.name for each in selected],
        "alphas": alphas,
        "images": found.names,
    }
    if given.encoded:
        quality = psnr(given.images, unmoved).tolist()
        print(f"PSNR of the reconstructions without a move: {at_least(min(quality))}")
        result["unmoved_psnr"] = quality
    if reached:
        result["sigmas_within_budget"] = reached
    write_json(json, {**result, "mean_change": moved})


def within_budget(
    model: LatentModel,
    start: Codes,
    moves: list[Codes],
    direction: Direction,
    alphas: list[FiniteFloat],
    budget: float,
) -> tuple[list[Codes], list[float]]:
    """Shorten moves to a budget of typicality, and say by how much.

    Returns:
        Moved codes, and the mean number of sigmas that each move reaches.
    """
    wanted = [sigmas_moved(start, to, direction) for to in moves]
    kept = [limit_typicality(model, start, to, budget) for to in moves]
    reached = [sigmas_moved(start, to, direction) for to in kept]
    for alpha, full, cut in zip(alphas, wanted, reached, strict=True):
        if abs(cut) < 0.99 * abs(full):
            print(f"{direction.name} {alpha:+g}: the budget leaves {cut:+.3g} of {full:+.3g} σ on average")
    return kept, reached


def drawing_of(given: Given, strips: Mapping[str, list[Tensor]], alphas: list[FiniteFloat]) -> Drawing:
    """Moved images as a sheet, as an animation, or each at its size; see `apply`.

    Args:
        given: Images before the moves.
        strips: Name of each direction to the images (n, C, H, W) of each move.
        alphas: Moves in sigmas.
    """

    def images() -> tuple[list[str], list[Tensor]]:
        labelled = [
            (f"{name}-{direction}-{alpha:+.10g}", image)
            for direction, moves in strips.items()
            for alpha, pictures in zip(alphas, moves, strict=True)
            for name, image in zip(given.found.names, pictures, strict=True)
        ]
        return [name for name, _ in labelled], [image for _, image in labelled]

    def frames() -> list[Image.Image]:
        return [
            draw_rows(
                [(direction, moves[i]) for direction, moves in strips.items()],
                len(given.found),
                head=[f"{alpha:+g} σ"],
            )
            for i, alpha in enumerate(alphas)
        ]

    def sheet() -> Image.Image:
        before = [[image] if given.encoded else [] for image in given.images]
        rows = [
            (direction if i == 0 else "", torch.stack([*before[i], *(each[i] for each in moves)]))
            for direction, moves in strips.items()
            for i in range(len(before))
        ]
        head = [*(["input"] if given.encoded else []), *(f"{alpha:+g}" for alpha in alphas)]
        return draw_rows(rows, len(head), head=head)

    return Drawing(images, frames, sheet)


def sigmas_moved(start: Codes, end: Codes, direction: Direction) -> float:
    """Mean number of sigmas that codes have moved along a direction."""
    step = direction.step.to(start.values)
    along = (end.values - start.values) @ step / (step @ step)
    return float(along.mean()) / direction.sigma
