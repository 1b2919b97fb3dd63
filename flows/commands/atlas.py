"""`flows atlas`: standard steering, dissection and omissions of one model, in one report."""

from functools import partial
from pathlib import Path
from typing import Any

from flows.atlas import Atlas, AtlasSettings
from flows.commands.common import check_outputs, finish, write_json
from flows.commands.omissions import reconstruct
from flows.models.base import LatentModel
from flows.opening import (
    CACHE,
    SemanticKind,
    data_if_needed,
    find_bundled,
    load_predictor,
    load_segmenter,
    open_model,
)
from flows.storage.files import expand


def atlas(
    checkpoint: str,
    predictor: str | None = None,
    segmenter: str | None = None,
    settings: AtlasSettings = AtlasSettings(),
    out: Path = Path("atlas"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Find and score directions, dissect units and find omissions, in one report.

    Parts that were already run in this folder with the same inputs are skipped. Without a predictor,
    directions are found from the classes of encoded images, or as principal components, and are drawn without
    measuring them; without a segmenter, dissection and omissions are left out.

    Args:
        checkpoint: Folder or hub repository of the model.
        predictor: Checkpoint of an attribute predictor; None takes the included one for the model's images.
        segmenter: Checkpoint of a segmenter; None takes the included one for the model's images.
        settings: Settings of the atlas.
        out: Output folder, with index.html and one folder for each part.
        json: File for a list of the parts, and whether each was run or skipped.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    model = open_model(checkpoint, device)
    scores = load_predictor(predictor, model) if predictor or find_bundled("predictor", model) else None
    classes = load_segmenter(segmenter, model) if segmenter or find_bundled("segmenter", model) else None
    if scores is None:
        print(f"steering: effects are not measured, there is no predictor. {way_to('predictor', model)}")
    if classes is None:
        print(f"dissection, omissions: skipped, there are no masks. {way_to('segmenter', model)}")
    inputs = {"checkpoint": checkpoint, "predictor": predictor, "segmenter": segmenter}

    def show(result: Any, folder: Path, name: str, title: str) -> None:
        finish(result, folder, name, title, inputs)

    made = Atlas(
        name=Path(checkpoint).name,
        model=model,
        predictor=scores,
        segmenter=classes,
        data=data_if_needed(model, None, needed=False),
        settings=settings,
        reconstruct=partial(reconstruct, model, 100),
        show=show,
        say=print,
        cache=expand(CACHE),
    )
    done = made.write(out)
    for name, ran in done.items():
        print(f"{name}: {'done' if ran else 'skipped, was run before with the same inputs'}")
    print(f"written to {out}: index.html")
    write_json(json, {"checkpoint": checkpoint, "done": done})


def way_to(kind: SemanticKind, model: LatentModel) -> str:
    """Sentence that says how to get a predictor or segmenter for the images of a model."""
    shape = "×".join(map(str, model.image_shape))
    config = f"`train.py --config configs/scenes/{kind}.yaml --data …`"
    return f"{config} trains one for images {shape} of other data, and --{kind} takes it"
