"""`flows atlas`: standard steering, dissection and omissions of one model, in one report."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flows.atlas import Atlas, AtlasSettings
from flows.commands.common import check_outputs, finish, write_json
from flows.commands.omissions import reconstruct
from flows.data.base import ImageData
from flows.display.formats import Formats
from flows.images import size_text
from flows.models.base import LatentModel
from flows.opening import (
    CACHE,
    SemanticKind,
    data_if_needed,
    find_bundled,
    load_predictor,
    load_segmenter,
    open_model,
    training_command,
)
from flows.storage.files import expand


def atlas(
    checkpoint: str,
    predictor: str | None = None,
    classes: Path | None = None,
    segmenter: str | None = None,
    segmenter_classes: Path | None = None,
    settings: AtlasSettings = AtlasSettings(),
    out: Path = Path("atlas"),
    formats: Formats = Formats(),
    json: Path | None = None,
    data: ImageData | None = None,
    device: str | None = None,
) -> None:
    """Find and score directions, dissect units and find omissions, in one report.

    Parts that were already run in this folder with the same inputs are skipped. Without a predictor,
    directions are found from the classes of encoded images, or as principal components, and are drawn without
    measuring them; without a segmenter, dissection and omissions are left out.

    Args:
        checkpoint: Folder or name of the model.
        predictor: Checkpoint of an attribute predictor; None takes the included one for the model's images.
        classes: File with the names of the classes, one per line, if the predictor is a file of another
            project: TorchScript, torch.export, or weights of torchvision.
        segmenter: Checkpoint of a segmenter; None takes the included one for the model's images.
        segmenter_classes: File with the names of the classes, one per line, if the segmenter is a file of
            another project: TorchScript, torch.export, or weights of torchvision.
        settings: Settings of the atlas.
        out: Output folder, with index.html and one folder for each part.
        formats: Additional formats of tables and figures.
        json: File for a list of the parts, and whether each was run or skipped.
        data: Data set of the model; None takes the one that it was trained on.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    model = open_model(checkpoint, device)
    predictor = predictor or find_bundled("predictor", model)
    segmenter = segmenter or find_bundled("segmenter", model)
    scores = load_predictor(predictor, model, classes) if predictor else None
    masks = load_segmenter(segmenter, model, segmenter_classes) if segmenter else None
    say_missing(model, scores is None, masks is None)

    used = {"checkpoint": checkpoint, "predictor": predictor, "segmenter": segmenter}
    made = Atlas(
        name=Path(checkpoint).name,
        model=model,
        predictor=scores,
        segmenter=masks,
        data=data_if_needed(model, data, needed=False),
        settings=settings,
        reconstruct=partial(reconstruct, model, 100),
        show=partial(show_part, used, formats),
        say=print,
        formats=formats.chosen,
        cache=expand(CACHE),
    )
    done = made.write(out)
    say_done(done, out)
    write_json(json, {"checkpoint": checkpoint, "done": done})


def show_part(
    used: Mapping[str, Any], formats: Formats, result: Any, folder: Path, name: str, title: str
) -> None:
    """Write and print a part of the atlas, with the inputs that it used."""
    other = "segmenter" if name == "scores.json" else "predictor"
    inputs = {key: value for key, value in used.items() if key != other}
    finish(result, folder, name, title, inputs, formats=formats)


def say_done(done: Mapping[str, bool], out: Path) -> None:
    """Say which parts were run and where the front page is."""
    for name, ran in done.items():
        print(f"{name}: {'done' if ran else 'skipped, was run before with the same inputs'}")
    print(f"written to {out}: index.html")


def say_missing(model: LatentModel, no_predictor: bool, no_segmenter: bool) -> None:
    """Say what is left out for want of a predictor or a segmenter, and how to get one."""
    if no_predictor:
        print(f"steering: effects are not measured, there is no predictor. {way_to('predictor', model)}")
    if no_segmenter:
        print(f"dissection, omissions: skipped, there are no masks. {way_to('segmenter', model)}")


def way_to(kind: SemanticKind, model: LatentModel) -> str:
    """Sentence that says how to get a predictor or segmenter for the images of a model."""
    size = size_text(*model.image_shape[1:])
    return f"{training_command(kind)} trains one for other data of {size} pixels, and --{kind} takes it"
