"""flows steer apply: your pictures, test images or samples, moved along a direction."""

from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from flows import images as pixels
from flows.commands.common import write_json
from flows.errors import UserError
from flows.metrics.reconstruction import psnr
from flows.metrics.typicality import limit_typicality
from flows.models.base import LatentModel
from flows.opening import first_test, open_model, read_pictures
from flows.page import draw_rows, save_picture
from flows.steering.base import Direction, load_directions, place, shift

ALPHAS = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]


def apply(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    alphas: list[float] = ALPHAS,
    images: list[Path] | None = None,
    test: NonNegativeInt = 0,
    n: PositiveInt = 8,
    levels: list[str] | None = None,
    absolute: bool = False,
    budget: PositiveFloat | None = None,
    temperature: PositiveFloat = 1.0,
    seed: NonNegativeInt = 0,
    resize: bool = False,
    output: Path = Path("steered.png"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Strips of pictures moved along directions: a row for each picture, a column for each number of sigmas.

    Args:
        checkpoint: folder or hub repository of the model.
        directions: file of `flows steer find`.
        names: of the directions to take; None takes all.
        alphas: sigmas to move, one for each column.
        images: picture files of yours; they are encoded, and stand at the left.
        test: so many images of the model's test set instead.
        n: samples where neither images nor test are given.
        levels: of the space, to move only these; None moves all.
        absolute: sigmas from the direction's plane instead of from where the picture is.
        budget: largest | |z|/√D − 1 | that a move may lead to, else it is cut short; 0.1 keeps codes about
            where samples come from. None lets them go anywhere.
        temperature: of samples.
        seed: of samples.
        resize: crop pictures of another size to a square in the middle and resize them.
        output: file for the picture.
        json: file for the result.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    found = select_directions(load_directions(directions, model), names)
    space = found[0].space
    if levels is not None:
        found = [each.on_levels(levels, model.check_space(space)) for each in found]
    inputs, labels = given_images(model, images, test, resize)
    if inputs is None:
        codes = model.sample(n, space, seed, temperature)
    else:
        codes = model.encode_bytes(inputs, space, labels)
    rows, moved = [], {}
    for each in found:
        moves = [(place if absolute else shift)(codes, each, alpha) for alpha in alphas]
        if budget is not None:
            moves = [limit_typicality(model, codes, to, budget) for to in moves]
        strips = [model.decode_bytes(to) for to in moves]
        moved[each.name] = [float((strip.int() - strips[0].int()).abs().float().mean()) for strip in strips]
        for i in range(len(codes)):
            strip = torch.stack([pictures[i] for pictures in strips])
            strip = strip if inputs is None else torch.cat([inputs[i : i + 1], strip])
            rows.append((each.name if i == 0 else "", strip))
    head = [*([] if inputs is None else ["input"]), *(f"{alpha:+g}" for alpha in alphas)]
    save_picture(draw_rows(rows, len(head), head=head), output)
    print(f"{len(found)} directions, {len(codes)} pictures, {len(alphas)} steps: {output}")
    result = {"checkpoint": checkpoint, "directions": [each.name for each in found], "alphas": alphas}
    if inputs is not None:
        back = psnr(inputs, model.decode_bytes(codes)).tolist()
        print(f"unmoved, the pictures come back at {min(back):.1f} dB or more")
        result["unmoved_psnr"] = back
    write_json(json, {**result, "mean_change": moved})


def given_images(
    model: LatentModel, paths: list[Path] | None, test: int, resize: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Images that a command was given, at the model's grey levels, and their labels where they are known.

    Args:
        model: Model that the images are for.
        paths: Picture files.
        test: Number of test images, where there are no files.
        resize: Whether pictures of another size are cropped and resized.

    Returns:
        uint8 (n, C, H, W) and int64 (n,); None and None where neither was given.
    """
    if paths:
        return pixels.reduce(read_pictures(paths, model.image_shape, resize), model.bins), None
    if test:
        batch = first_test(model, test)
        return pixels.reduce(batch.images, model.bins), batch.labels
    return None, None


def select_directions(
    directions: list[Direction], names: list[str] | None, option: str = "--names"
) -> list[Direction]:
    """Those of that name, all of one space. Raises ValueError where there is none."""
    known = [each.name for each in directions]
    for name in names or []:
        if name not in known:
            raise UserError(f"{option}: there is no direction {name!r}; the file has {', '.join(known)}")
    found = [each for each in directions if names is None or each.name in names]
    if len({each.space for each in found}) != 1:
        raise UserError("the directions are of several spaces; choose those of one by --names")
    return found


def split_directions(
    known: list[Direction], names: list[str] | None, without: list[str] | None,
    rest: list[Direction] | None = None,
) -> tuple[list[Direction], list[Direction]]:  # fmt: skip
    """Directions of some names, and those that they are to leave alone, of another file or of the same.

    Raises:
        ValueError: there is none of such a name, or of the first none is left.
    """
    alone = select_directions(known if rest is None else rest, without, "--without") if without else []
    found = [
        each
        for each in select_directions(known, names)
        if rest is not None or each.name not in (without or [])
    ]
    if not found:
        raise UserError("--without: no direction is left")
    return found, alone
