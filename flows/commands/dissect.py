"""`flows dissect`: find the classes that units respond to, and ablate and insert units."""

from pathlib import Path

from flows.commands.common import check_outputs, finish
from flows.data.base import ImageData
from flows.display.formats import Formats
from flows.dissection.study import DissectionSettings, dissect_model
from flows.opening import bundled_model, data_of, load_segmenter, open_model


def dissect(
    checkpoint: str,
    settings: DissectionSettings = DissectionSettings(),
    segmenter: str | None = None,
    segmenter_classes: Path | None = None,
    out: Path = Path("dissection"),
    formats: Formats = Formats(),
    json: Path | None = None,
    data: ImageData | None = None,
    device: str | None = None,
) -> None:
    """Find the class that each unit of a model responds to, and ablate the best units of each class.

    Layers are feature maps of a generator, hidden states and coupling networks of a flow, and spatial parts
    of the code, such as `code/level2` of a Glow. Units are interpretable by the released rule of GAN
    dissection; `by IoU` counts the class with the highest IoU.

    Args:
        checkpoint: Folder or name of the model.
        settings: Settings of the dissection.
        segmenter: Checkpoint of a segmenter; None takes the included one for the model's images.
        segmenter_classes: File with the names of the classes, one per line, if the segmenter is a file of
            another project: TorchScript, torch.export, or weights of torchvision.
        out: Output folder for index.html, its pictures and units.json.
        formats: Additional formats of tables and figures.
        json: Additional file for the contents of units.json.
        data: Data set of the test images; None takes the one that the model was trained on.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    model = open_model(checkpoint, device)
    segmenter = segmenter or bundled_model("segmenter", model)
    of_classes = load_segmenter(segmenter, model, segmenter_classes)
    result = dissect_model(model, of_classes, settings, data_of(model, data) if settings.needs_data else None)
    title = f"Units of {Path(checkpoint).name}, {result.codes} {settings.source}"
    inputs = {"checkpoint": checkpoint, "segmenter": segmenter}
    finish(result, out, "units.json", title, inputs, json, formats=formats)
