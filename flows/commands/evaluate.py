"""`flows evaluate`: bits/dim with its terms, samples, and their nearest training images."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from flows import images as pixels
from flows.commands.common import check_outputs, write_json
from flows.core.bounds import NonNegativeInt, PositiveInt, Temperature
from flows.data.base import ImageData, StreamedData
from flows.display.drawing import save_picture
from flows.display.page import as_fixed
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
    temperature: Temperature = 0.8,
    output: Path | None = None,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Evaluate bits/dim with the terms of the bound, and check that samples are no copies of training images.

    Args:
        checkpoint: Folder or name of the model.
        data: Data set; None takes the one that the model was trained on.
        split: Split that is evaluated.
        images: Number of images of the split; None takes all.
        iwbo: Number of importance samples per image for the tighter bound; 0 skips it.
        neighbours: Number of samples whose nearest training images are found; 0 skips them.
        temperature: Temperature of the samples that are compared with training images.
        output: Output folder for samples.png and neighbours.png; None writes no pictures.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(output=output, json=json)
    model = load_likelihood(checkpoint, device)
    source = data_of(model, data)
    report = evaluate_likelihood(model, source.split(split), images, iwbo_samples=iwbo)
    print(
        f"{report.bits_per_dim:.4f} bits/dim ± {as_fixed(report.standard_error)} on "
        f"{report.images:,} {split} images of {source.name}"
    )
    print("  " + "\n+ ".join(f"{value:8.4f}  {name}" for name, value in report.terms.items()))
    if report.iwbo is not None:
        print(f"{report.iwbo:.4f} bits/dim with {iwbo} importance samples per image")
    result = {"checkpoint": checkpoint, "data": source.name, "split": split, **asdict(report)}
    if output is not None:
        save_picture(sample_sheet(model), output / "samples.png")
        print(f"samples: {output / 'samples.png'}")
    if neighbours and isinstance(source, StreamedData):
        print("nearest training images: skipped, the training images are streamed")
    elif neighbours:
        result["neighbours"] = _neighbours(model, source, neighbours, temperature, output)
    write_json(json, result)


def _neighbours(
    model: LikelihoodModel,
    source: ImageData,
    count: int,
    temperature: float,
    output: Path | None,
) -> dict[str, float]:
    """Median distance of samples and of test images to the training set; copies would be much nearer."""
    samples = generate(model, count, temperature)
    test = source.split("test").first(100).images
    train = source.split("train")
    parts = (pixels.reduce(part.images, model.bins) for part in batches(train, None, 1000))
    distance, index = nearest(torch.cat([samples, pixels.reduce(test, model.bins)]), parts)
    of_samples, of_test = float(distance[:count].median()), float(distance[count:].median())
    print(
        "distance to the nearest training image, median of root-mean-square pixel differences: "
        f"{of_samples:.4f} for samples, {of_test:.4f} for test images"
    )
    if output is not None:
        neighbours = pixels.reduce(train.__getitems__(index[:count].tolist()).images, model.bins)
        sheet = pixels.grid(torch.cat([samples, neighbours]), count, zoom=2)
        save_picture(sheet, output / "neighbours.png")
        print(f"samples above their nearest training images: {output / 'neighbours.png'}")
    return {"samples": of_samples, "test": of_test}
