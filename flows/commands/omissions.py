"""flows omissions: what a model does not draw."""

from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from flows import images as pixels
from flows.commands.common import print_table, write_json
from flows.dissection.omissions import energy_by_class, energy_maps, shares_of
from flows.dissection.omissions import omissions as compare_classes
from flows.dissection.omissions_report import (
    Energies,
    Instances,
    as_result,
    lost_classes,
    write_omissions_report,
)
from flows.inversion.encoder import Encoder
from flows.inversion.layer import Layer
from flows.inversion.optimise import Optimise
from flows.models.base import LatentModel
from flows.opening import bundled_model, first_test, load_segmenter, open_model
from flows.page import as_text
from flows.semantics.base import Segmenter, segment_bytes

SHOWN = 12
"""Images of energy maps and of inversions."""
ENERGIES = 500
"""Test images over which a class's energy is taken."""


def omissions(
    checkpoint: str,
    segmenter: str | None = None,
    n: PositiveInt = 2000,
    temperature: PositiveFloat = 1.0,
    images: NonNegativeInt = SHOWN,
    steps: PositiveInt = 100,
    seed: NonNegativeInt = 0,
    out: Path = Path("omissions"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Compare the classes in samples with those in the test images; see what single images lose on the way.

    Samples and test images are seen by the same segmenter. A model without an exact inverse has images
    brought back by its last layers, whatever code might give them (layer inversion): what is lost then, these
    layers cannot draw. A flow loses nothing; what it does not expect has most energy in its code, which is
    told by class, and shown in maps.

    Args:
        checkpoint: folder or hub repository of the model.
        segmenter: checkpoint of a segmenter; None takes the shipped one for its images.
        n: samples, and test images at most.
        temperature: of samples.
        images: test images that are brought back, or mapped; 0 for none.
        steps: of layer inversion.
        seed: of samples.
        out: folder for index.html, classes.png, instances.png, or energy.png and energies.png, and
            omissions.json.
        json: file for the result, beside the one in `out`.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    segmenter = segmenter or bundled_model("segmenter", model)
    judge = load_segmenter(segmenter, model)
    batch = first_test(model, n)
    test = pixels.reduce(batch.images, model.bins)
    drawn = model.decode_bytes(model.sample(n, seed=seed, temperature=temperature))
    found = compare_classes(shares(judge, test, model), shares(judge, drawn, model), judge.classes)
    instances = None
    if images and not model.is_exact:
        instances = reconstruct_instances(model, judge, test[:images], batch.labels[:images], steps)
    energies = None
    if images and model.is_exact and model.prior_space.maps:
        many = max(ENERGIES, images)
        energies = implausible(model, judge, test[:many], batch.labels[:many], images)
    title = f"What {Path(checkpoint).name} does not draw, of {n:,} samples"
    written = write_omissions_report(out, title, found, instances, energies)
    told = {"checkpoint": checkpoint, "segmenter": segmenter, "n": n}
    result = {**told, **as_result(found, instances, energies)}
    for path in (out / "omissions.json", json):
        write_json(path, result)
    print_table(
        ["class", "data, %", "samples, %", "difference", "95 %"],
        [
            [row.label, as_text(row.data), as_text(row.samples), f"{100 * row.relative:+.0f} %",
             f"{100 * row.low:+.0f} … {100 * row.high:+.0f} %"]
            for row in found.rows
        ],
    )  # fmt: skip
    floor = f"halves of the data {found.floor.total:.3g}"
    print(f"Fréchet segmentation distance {found.distance.total:.3g}; {floor}")
    if energies is not None:
        print_table(
            ["class", "energy of its pixels, nats", "95 %"],
            [[row.label, as_text(row.energy), f"{row.low:.3g} … {row.high:.3g}"] for row in energies.rows],
        )
    print(f"written to {out}: {', '.join(written)}, omissions.json")


def implausible(model: LatentModel, judge: Segmenter, images: Tensor, labels: Tensor, shown: int) -> Energies:
    """Energy maps of a flow's code of uint8 images, by the class that a segmenter sees."""
    maps = energy_maps(model, images, labels)
    masks = segment_bytes(judge, images, model.bins, model.device)
    return Energies(images[:shown], maps[:shown], energy_by_class(maps, masks, judge.classes))


def shares(judge: Segmenter, images: Tensor, model: LatentModel) -> Tensor:
    """Pixels of every class in percent, (n, classes), of uint8 images of a model's grey levels."""
    parts = images.split(1000)
    return torch.cat([shares_of(segment_bytes(judge, part, model.bins, model.device)) for part in parts])


def reconstruct_instances(
    model: LatentModel, judge: Segmenter, images: Tensor, labels: Tensor, steps: int
) -> Instances:
    """Images through the encoder or a search, then through a search over a layer; see `Layer`."""
    encodes = model.check_space(model.search_space).encodes
    first = Encoder() if encodes else Optimise(None, steps)
    inverter = Layer(first, None, steps)
    found = inverter.invert(model, images, torch.Generator().manual_seed(0), labels)
    before, after = (
        segment_bytes(judge, each, model.bins, model.device) for each in (images, found.reconstruction)
    )
    lost = lost_classes(before, after, judge.classes)
    return Instances(f"by {inverter.layer_of(model)}", images, found.reconstruction, lost)
