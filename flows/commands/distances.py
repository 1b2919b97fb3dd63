"""`flows distances`: KID, FID and sliced Wasserstein distances between samples and real images."""

import math
from pathlib import Path
from typing import Literal

from torch import Tensor

from flows.commands.common import check_outputs, write_json
from flows.core.bounds import PositiveInt, Seed, Temperature
from flows.core.statistics import FEWEST, check_enough
from flows.data.base import ImageData
from flows.display.page import as_text
from flows.display.table import Table
from flows.errors import UserError
from flows.metrics.distribution import sliced_wasserstein
from flows.metrics.inception import Inception, inception_distance
from flows.metrics.perceptual import EfficientNetLite0, embed, kernel_distance
from flows.metrics.protocols import protocol
from flows.opening import data_of, open_model
from flows.reports.distances import HALVES
from flows.training.validation import generate


def distances(
    checkpoint: str,
    data: ImageData | None = None,
    split: Literal["test", "validation", "train"] = "test",
    images: PositiveInt = 2000,
    temperature: Temperature = 1.0,
    inception: Path | None = None,
    seed: Seed = 0,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Compare samples with real images by KID, FID and sliced Wasserstein distance, named by their protocols.

    The name of a figure says how it was measured: `kid2k_effnetlite0_t1` is KID of 2,000 images in each set,
    by features of EfficientNet-Lite0, at temperature 1; `…_halves` is the same distance between two sets of
    real images, which samples cannot be below but by chance. Figures with different names cannot be compared.

    Args:
        checkpoint: Folder or name of the model.
        data: Data set; None takes the one that the model was trained on.
        split: Split of the real images, of which twice `images` are needed.
        images: Number of samples, and of real images in each of the two sets; fewer if the split is smaller.
        temperature: Temperature of the samples.
        inception: File of the weights of Inception for FID and KID as published,
            pt_inception-2015-12-05-6726825d.pth of torch-fidelity; None leaves them out.
        seed: Seed of the samples.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(json=json)
    network = None if inception is None else Inception(inception)
    model = open_model(checkpoint, device)
    source = data_of(model, data)
    real = source.split(split).first(2 * images)
    n = len(real.images) // 2
    check_enough(f"images in each half of the {split} split", n, FEWEST)
    if tuple(real.images.shape[1:]) != tuple(model.image_shape):
        raise UserError(
            f"--data: expected images {tuple(model.image_shape)}, got {tuple(real.images.shape[1:])}"
        )
    sampled = generate(model, n, temperature, seed, real.labels[:n])
    first, second = real.images[:n], real.images[n : 2 * n]
    metrics: dict[str, float] = {}
    for end, images_compared in ((f"_t{temperature:g}", sampled), (f"_{HALVES}", second)):
        metrics |= {name + end: value for name, value in measured(first, images_compared, network).items()}
    metrics = dict(sorted(metrics.items()))
    Table(["figure", "value"], [[name, as_text(value)] for name, value in metrics.items()]).print()
    if not EfficientNetLite0.is_installed():
        print(f"no KID by EfficientNet-Lite0: {EfficientNetLite0.missing()}")
    write_json(json, {"checkpoint": checkpoint, "data": source.name, "split": split, "metrics": metrics})


def measured(first: Tensor, second: Tensor, inception: Inception | None) -> dict[str, float]:
    """Distances of two sets of uint8 images (n, C, H, W), by the names of their protocols."""
    n = len(first)
    figures = {protocol("swd", n): sliced_wasserstein(first, second)["mean"]}
    if EfficientNetLite0.is_installed():
        network = EfficientNetLite0()
        features = embed(network, first), embed(network, second)
        figures[protocol("kid", n, network.short)] = kernel_distance(*features)
    if inception is not None:
        features = inception(first), inception(second)
        figures[protocol("fid", n, inception.name)] = inception_distance(*features)
        figures[protocol("kid", n, inception.name)] = kernel_distance(*features)
    return {name: value for name, value in figures.items() if not math.isnan(value)}
