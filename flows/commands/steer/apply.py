"""`flows steer apply`: move pictures, test images or samples along directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flows.commands.common import Fps, at_least, check_outputs, check_unused, write_json
from flows.commands.given import Given, GivenSettings, read_given
from flows.core.bounds import FiniteFloat, PositiveFloat
from flows.core.options import Options
from flows.display.drawing import Drawing, draw_rows
from flows.editing.moves import move_found
from flows.metrics.reconstruction import psnr
from flows.opening import open_model
from flows.steering.base import doubts, load_directions
from flows.steering.levels import to_levels
from flows.steering.selection import select_directions

FPS = 4.0
FAR = 30.0
"""Number of sigmas beyond which a move is called far; samples lie within five."""
ALPHAS = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]


@dataclass(frozen=True, kw_only=True)
class MoveSettings(Options):
    """Settings of moves along directions.

    Attributes:
        alphas: Moves in sigmas, one per column.
        levels: Levels of the code that are moved; None moves all.
        absolute: Whether to move to that many sigmas from the direction's hyperplane, instead of by that many
            sigmas from the image's own code.
        budget: Maximum | |z|/√D − 1 | of moved codes; longer moves are shortened. 0.1 keeps codes about as
            typical as samples. None sets no limit.
    """

    alphas: list[FiniteFloat] = field(default_factory=lambda: list(ALPHAS))
    levels: list[str] | None = None
    absolute: bool = False
    budget: PositiveFloat | None = None


def apply(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    moves: MoveSettings = MoveSettings(),
    given: GivenSettings = GivenSettings(),
    output: Path = Path("steered.png"),
    fps: Fps = FPS,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Move images along directions, in a grid with one row per image and one column per move.

    Moves are in sigmas; one sigma is the standard deviation of codes along the direction. Given pictures are
    shown at the left of the grid.

    Args:
        checkpoint: Folder or name of the model.
        directions: File of directions, written by `flows steer find`.
        names: Names of the directions; None takes all.
        moves: Moves.
        given: Images or codes to move.
        output: Picture file for the grid; a .gif, .webp or .mp4 file for an animation with one frame per
            move; or a folder (no suffix) for one PNG per moved image at the model's size.
        fps: Frames per second of an animation.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(drawing=output, json=json, animated=True, inputs=[directions, *given.files])
    check_unused(output, fps=fps != FPS)
    model = open_model(checkpoint, device)
    selected = select_directions(load_directions(directions, model), names)
    read = read_given(model, selected[0].space, given)
    found, latent = read.found, model.check_space(read.found.codes.space)
    selected = [to_levels(model, each, latent.name) for each in selected]
    if moves.levels is not None:
        selected = [each.on_levels(moves.levels, latent) for each in selected]
    unmoved = found.decode(model)
    moved = {
        each.name: move_found(model, found, unmoved, each, moves.alphas, moves.absolute, moves.budget)
        for each in selected
    }
    of_moves = [note for each in moved.values() for note in each.notes]
    print_notes([*doubts(selected), *of_moves, *far_moves(moves.alphas)])
    strips = {name: each.images for name, each in moved.items()}
    written = drawing_of(read, strips, moves.alphas).save(output, fps)
    print(f"{len(selected)} directions, {len(found)} images, {len(moves.alphas)} moves: {written}")
    result: dict[str, Any] = {
        "checkpoint": checkpoint,
        "directions": [each.name for each in selected],
        "alphas": moves.alphas,
        "images": found.names,
        **unmoved_quality(read, unmoved),
    }
    if moves.budget is not None:
        result["sigmas_within_budget"] = {name: each.reached for name, each in moved.items()}
    write_json(json, {**result, "mean_change": {name: each.change for name, each in moved.items()}})


def print_notes(notes: Sequence[str]) -> None:
    """Print sentences, one per line."""
    for note in notes:
        print(note)


def far_moves(alphas: Sequence[float]) -> list[str]:
    """Sentence on moves that lead far outside of all samples, if there are any."""
    far = ", ".join(f"{alpha:+g}" for alpha in alphas if abs(alpha) > FAR)
    note = f"moves of {far} σ lead far outside of all samples: the model draws anything there"
    return [note] if far else []


def unmoved_quality(given: Given, unmoved: Tensor) -> dict[str, list[float]]:
    """PSNR of the reconstructions of given pictures, which is printed; nothing for codes and samples."""
    if not given.encoded:
        return {}
    quality = psnr(given.images, unmoved).tolist()
    print(f"PSNR of the reconstructions without a move: {at_least(min(quality))}")
    return {"unmoved_psnr": quality}


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
