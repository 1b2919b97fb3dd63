"""flows evaluate: bits/dim with its terms, samples, and their nearest training images."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console

from flows import images as pixels
from flows.commands.common import save_picture, write_json
from flows.data.base import ImageData, StreamedData
from flows.metrics.likelihood import batches, evaluate_likelihood
from flows.metrics.neighbours import nearest
from flows.models.base import LikelihoodModel
from flows.opening import data_of, load_likelihood
from flows.training.validation import generate, sample_sheet


def evaluate(
    checkpoint: str,
    data: ImageData | None = None,
    split: Literal["test", "validation", "train"] = "test",
    images: PositiveInt | None = None,
    iwbo: NonNegativeInt = 0,
    neighbours: NonNegativeInt = 10,
    temperature: float = 0.8,
    output: Path | None = None,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Bits/dim of a split with the terms of the bound, a sheet of samples, and a check for copies.

    Args:
        checkpoint: folder or hub repository of the model.
        data: data set; that of its training where not given.
        split: which split.
        images: how many of it; all where not given.
        iwbo: importance samples per image for the tighter bound; 0 leaves it out.
        neighbours: samples whose nearest training image is looked up; 0 leaves it out.
        temperature: of those samples.
        output: folder for samples.png and neighbours.png; pictures are not drawn where not given.
        json: file for the result.
        device: torch device.
    """
    console = Console()
    model = load_likelihood(checkpoint, device)
    source = data_of(model, data)
    report = evaluate_likelihood(model, source.split(split), images, iwbo_samples=iwbo)
    console.print(
        f"[bold]{report.bits_per_dim:.4f} bits/dim[/] ± {report.standard_error:.4f} on {report.images:,} "
        f"{split} images of {source.name}"
    )
    console.print("  " + "\n+ ".join(f"{value:8.4f}  {name}" for name, value in report.terms.items()))
    if report.iwbo is not None:
        console.print(f"{report.iwbo:.4f} bits/dim by {iwbo} importance samples per image")
    result = {"checkpoint": checkpoint, "data": source.name, "split": split, **asdict(report)}
    if output is not None:
        save_picture(sample_sheet(model), output / "samples.png")
        console.print(f"samples: {output / 'samples.png'}")
    if neighbours and isinstance(source, StreamedData):
        console.print("nearest training images: left out, the training images are a stream")
    elif neighbours:
        result["neighbours"] = _neighbours(model, source, neighbours, temperature, output, console)
    write_json(json, result)


def _neighbours(
    model: LikelihoodModel,
    source: ImageData,
    count: int,
    temperature: float,
    output: Path | None,
    console: Console,
) -> dict[str, float]:
    """Distance of samples and of test images to the training set: copies are much nearer than test images."""
    samples = generate(model, count, temperature)
    test = source.split("test").first(100).images
    train = source.split("train")
    parts = (pixels.reduce(part.images, model.bins) for part in batches(train, None, 1000))
    distance, index = nearest(torch.cat([samples, pixels.reduce(test, model.bins)]), parts)
    of_samples, of_test = float(distance[:count].median()), float(distance[count:].median())
    console.print(
        f"nearest training image, root-mean-square pixel difference, median: {of_samples:.4f} for samples, "
        f"{of_test:.4f} for test images"
    )
    if output is not None:
        found = pixels.reduce(train.__getitems__(index[:count].tolist()).images, model.bins)
        sheet = pixels.grid(torch.cat([samples, found]), count, zoom=2)
        save_picture(sheet, output / "neighbours.png")
        console.print(f"samples above their nearest training images: {output / 'neighbours.png'}")
    return {"samples": of_samples, "test": of_test}
