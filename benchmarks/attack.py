r"""Images that are made to break the round trip of a flow, and what its certificate says of them.

    python benchmarks/attack.py      # all shipped flows, ten minutes on two cores

Two attacks start from test images and from noise. `evolution` changes bytes of rectangles and keeps a change
that raises the error of the round trip in fp32. `gradient` moves bytes along the sign of the gradient of the
code's magnitude. For each image: is it exact in plain fp32, what does the certificate say, and does the code
that it certifies decode to every byte, alone and in batches of other sizes? Writes docs/results/attack.json
and prints its table.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from saving import new_parser, number, publish, short_exponent
from torch import Tensor

from flows import images as pixels
from flows.display.page import as_fixed
from flows.display.results import Made, Result, Shown
from flows.inversion.exact import decode_exactly, invert_exactly
from flows.metrics.roundtrip import in_precision, round_trip
from flows.models.base import LikelihoodModel
from flows.opening import first_test, load_likelihood

FLOWS = ("fashion-nice", "fashion-realnvp", "fashion-glow", "scenes-nice", "scenes-realnvp", "scenes-glow",
         "scenes64-glow")  # fmt: skip
BATCHES = (1, 7, 100)


def starts(model: LikelihoodModel, n: int) -> Tensor:
    """Images to begin with, half of them test images and half noise: uint8 (n, C, H, W)."""
    noise = torch.randint(256, (n - n // 2, *model.image_shape), dtype=torch.uint8)
    return pixels.reduce(torch.cat([first_test(model, n // 2).images, noise]), model.bins)


def error_of(model: LikelihoodModel, images: Tensor) -> Tensor:
    """Error of the round trip in fp32, (n,); infinite where it is not finite."""
    return round_trip(model, images, per_level=False).error.cpu()


def change(child: Tensor, images: Tensor) -> None:
    """Change a random rectangle of an image: to that of another, black and white noise, a colour or noise."""
    channels, height, width = child.shape
    tall, wide = int(torch.randint(1, height + 1, ())), int(torch.randint(1, width + 1, ()))
    top, left = int(torch.randint(height - tall + 1, ())), int(torch.randint(width - wide + 1, ()))
    place = (slice(None), slice(top, top + tall), slice(left, left + wide))
    other = images[int(torch.randint(len(images), ()))][place]
    black_or_white = 255 * torch.randint(2, (channels, tall, wide), dtype=torch.uint8)
    colour = torch.randint(256, (channels, 1, 1), dtype=torch.uint8).expand(channels, tall, wide)
    noise = torch.randint(256, (channels, tall, wide), dtype=torch.uint8)
    child[place] = (other, black_or_white, colour, noise)[int(torch.randint(4, ()))]


def evolution(model: LikelihoodModel, images: Tensor, seconds: float) -> Tensor:
    """Change bytes of random rectangles, and keep what raises the error."""
    images, best = images.clone(), error_of(model, images)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        children = images.clone()
        for child in children:
            change(child, images)
        children = pixels.reduce(children, model.bins)
        errors = error_of(model, children)
        better = errors > best
        images[better], best[better] = children[better], errors[better]
    return images


def gradient(model: LikelihoodModel, images: Tensor, seconds: float) -> Tensor:
    """Move bytes by the sign of the gradient of log mean z², in steps of 8 grey levels that shrink to 1."""
    end, begun = time.monotonic() + seconds, time.monotonic()
    kept, best = images.clone(), error_of(model, images)
    labels = model.labels_to_encode(images, None, model.prior_space.name)
    while time.monotonic() < end:
        x = pixels.to_unit(images, model.bins).requires_grad_()
        code = model.encode(x, model.prior_space.name, labels)
        (slope,) = torch.autograd.grad(code.square().mean(1).clamp(min=1e-12).log().sum(), x)
        step = max(1.0, 8 * (end - time.monotonic()) / (end - begun))
        moved = images.float() + step * slope.nan_to_num().sign()
        images = pixels.reduce(moved.clamp(0, 255).round().to(torch.uint8), model.bins)
        errors = error_of(model, images)
        better = errors > best
        kept[better], best[better] = images[better], errors[better]
    return kept


ATTACKS: dict[str, Callable[[LikelihoodModel, Tensor, float], Tensor]] = {
    "evolution": evolution,
    "gradient": gradient,
}


def outcome_of(model: LikelihoodModel, images: Tensor) -> dict[str, Any]:
    """Outcome of an attack: what fp32 and fp64 return, what the certificate says, and whether it is true."""
    single = round_trip(model, images, per_level=False)
    double = round_trip(in_precision(model, "fp64"), images, per_level=False)
    inversion = invert_exactly(model, images)
    precisions = [each.precision for each in inversion.certificates]
    said = torch.tensor([each.certified for each in inversion.certificates])
    kept = torch.ones(len(images), dtype=torch.bool)
    for size in BATCHES:
        for rows in torch.arange(len(images)).split(size):
            decoded = decode_exactly(model, inversion.codes[rows], [precisions[i] for i in rows.tolist()])
            kept[rows] &= (decoded == images[rows]).flatten(1).all(1)
    return {
        "images": len(images),
        "error_fp32": float(single.error.max()),
        "exact_fp32": int(single.bit_exact.sum()),
        "exact_fp64": int(double.bit_exact.sum()),
        "certified_fp32": sum(each.certified and each.precision == "fp32" for each in inversion.certificates),
        "certified_fp64": sum(each.certified and each.precision == "fp64" for each in inversion.certificates),
        "certified": int(said.sum()),
        "certified_and_decoded": int((said & kept).sum()),
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Outcomes of all attacks on all models."""
    rows = []
    for checkpoint in given.models:
        model = load_likelihood(checkpoint, None)
        for name, attack in ATTACKS.items():
            torch.manual_seed(given.seed)
            attacked = attack(model, starts(model, given.images), given.seconds)
            rows.append({"model": Path(checkpoint).name, "attack": name, **outcome_of(model, attacked)})
            print(rows[-1])
    return {"seconds": given.seconds, "seed": given.seed, "rows": rows}


def result(data: dict[str, Any], made: Made) -> Result:
    """Table with one row per flow, and the attacks side by side."""
    by_flow: dict[str, list[dict[str, Any]]] = {}
    for row in data["rows"]:
        by_flow.setdefault(row["model"], []).append(row)
    attacks = ", ".join(dict.fromkeys(row["attack"] for row in data["rows"]))
    sizes = f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}"
    columns = [
        "flow",
        f"largest error in fp32: {attacks}",
        "lost in fp32",
        "certified in fp32",
        "certified in fp64",
        f"of these decode to every byte, in batches of {sizes}",
    ]

    def total(own: list[dict[str, Any]], key: str) -> int:
        return sum(each[key] for each in own)

    rows = [
        [
            f"`{flow}`",
            ", ".join(short_exponent(as_fixed(number(each, "error_fp32"), ".1e")) for each in own),
            ", ".join(str(each["images"] - each["exact_fp32"]) for each in own),
            ", ".join(str(each["certified_fp32"]) for each in own),
            ", ".join(str(each["certified_fp64"]) for each in own),
            f"{total(own, 'certified_and_decoded')} of {total(own, 'certified')}",
        ]
        for flow, own in by_flow.items()
    ]
    text = (
        f"{data['rows'][0]['images']} images per flow, half of them test images and half noise, changed for "
        f"{data['seconds']:g} seconds: by evolution and along the gradient."
    )
    tables = {"table": Shown(columns, rows, names=[0])}
    return Result("Images that are made to break the inverse", made, tables, text, data=data)


def main() -> None:
    """Attack all models; write attack.json and print its table."""
    parser = new_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=list(FLOWS), help="checkpoints of flows")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=30, help="duration of each attack on each model")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    publish(given, "attack", result, partial(measure, given))


if __name__ == "__main__":
    main()
