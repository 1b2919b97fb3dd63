"""One dissection: the class of every unit, and what ablating and inserting the units of a class does."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from flows.core.bounds import PositiveFloat, PositiveInt, Seed
from flows.core.options import Options
from flows.data.base import ImageData, given
from flows.dissection.agreement import Scheme, best_by_class, dissect
from flows.dissection.artefacts import without
from flows.dissection.probe import default_layers, layers_of
from flows.dissection.report import Dissected, top_images
from flows.dissection.units import UnitOrder, UnitsOfClasses
from flows.errors import Unsupported, UserError
from flows.images import reduce
from flows.metrics.perceptual import PooledFeatures
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Segmenter

__all__ = ["DissectionSettings", "dissect_model"]

ABLATED = 200
"""Number of codes on which units are ablated."""
LEARNED = 400
"""Number of codes on which the order of units and their mean activation on a class are learned."""
NEEDED = "for the source 'images' and for an artefact"
"""Purpose of the data set, for the message without one."""
REAL = 4000
"""Number of test images that are searched for images without an artefact."""


@dataclass(frozen=True, kw_only=True)
class DissectionSettings(Options):
    """Settings of a dissection.

    Attributes:
        layers: Names of layers; None takes some of the outermost layers, some layers inside the coupling
            networks of a flow, and the spatial parts of the code.
        source: Source of the codes: samples, with masks from the segmenter, or encoded test images, with
            ground-truth masks.
        n: Number of codes; one half determines the thresholds, the other half is used for the counts.
        space: Latent space of the codes; None takes the model's search space.
        scheme: Choice of the thresholds: for each unit and class the one with the highest information
            quality, or one quantile for all.
        share: Share of locations at which a unit is active, for the scheme `quantile`.
        classes: Classes whose units are ablated; None takes all. Classes in too few images are skipped.
        units: Maximum number of units of a class that are ablated or inserted.
        order: Order of a class's units: by IoU with the class, or by their learned effect on it, which takes
            about one minute per class.
        insert: Classes whose units are set at every location in turn, to find where they can be inserted.
        artefact: Unwanted class, such as `banner`, whose units are ablated; the samples are compared with
            test images that do not contain it.
        seed: Seed of the samples.
    """

    layers: list[str] | None = None
    source: Literal["samples", "images"] = "samples"
    n: PositiveInt = 2000
    space: str | None = None
    scheme: Scheme = "information"
    share: PositiveFloat = 0.01
    classes: list[str] | None = None
    units: PositiveInt = 20
    order: UnitOrder = "agreement"
    insert: list[str] | None = None
    artefact: str | None = None
    seed: Seed = 0

    @property
    def needs_data(self) -> bool:
        """Whether test images are needed."""
        return self.source == "images" or self.artefact is not None


def dissect_model(
    model: LatentModel,
    segmenter: Segmenter,
    settings: DissectionSettings = DissectionSettings(),
    data: ImageData | None = None,
) -> Dissected:
    """Find the class that each unit of a model responds to, and ablate the best units of each class.

    Args:
        model: Model in eval mode.
        segmenter: Segmenter of the classes.
        settings: Settings of the dissection.
        data: Data set of the test images, for the source `images` and for an artefact.

    Raises:
        UserError: There is no such layer or class, too few codes, or no data set with class masks.
        Unsupported: The model has no spatial layer.
        TooFew: Too few test images are without the artefact.
        DataMissing: The artefact needs the extra `metrics`.
    """
    space = settings.space or model.search_space
    check_layers(model, space, settings.layers)
    layers = settings.layers or default_layers(model, space)
    if not layers:
        raise Unsupported(f"{type(model).__name__} has no spatial layer: there is nothing to dissect")
    check_classes(settings, segmenter)
    codes, masks = codes_of(model, space, settings, data)
    # Before the long computation, so that missing data and packages are reported at once.
    real = real_images(model, segmenter, settings.artefact, data) if settings.artefact else None
    found = dissect(model, segmenter, codes, layers, settings.scheme, settings.share, masks)
    best = list(best_by_class(found).values())
    of_classes = UnitsOfClasses(
        model=model,
        segmenter=segmenter,
        codes=model.sample(ABLATED, space, settings.seed + 1),
        learned_on=model.sample(LEARNED, space, settings.seed + 3),
        found=found,
        order=settings.order,
        most=settings.units,
    )
    samples = model.sample(settings.n, space, settings.seed + 2) if real else codes[:0]
    return Dissected(
        settings={**settings_dict(settings), "space": space},
        codes=len(codes),
        rows=[row for agreement in found.values() for row in agreement.rows()],
        rows_by_iou=[row for agreement in found.values() for row in agreement.rows_by_iou()],
        best=best,
        ablations=of_classes.ablate(settings.classes),
        gallery=top_images(model, codes, [row for row in best if row.interpretable]),
        insertions=[each for label in settings.insert or [] if (each := of_classes.insert(label))],
        cleaning=of_classes.remove(settings.artefact, samples, *real) if settings.artefact and real else None,
        missing=of_classes.notes,
    )


def settings_dict(settings: DissectionSettings) -> dict[str, object]:
    """Settings that are stored with the results."""
    names = ("source", "n", "scheme", "share", "order", "seed")
    return {name: getattr(settings, name) for name in names}


def check_layers(model: LatentModel, space: str, layers: list[str] | None) -> None:
    """Raise UserError, naming the known layers, unless the model has all of `layers`."""
    known = layers_of(model, space)
    for name in layers or []:
        if name not in known:
            raise UserError(f"--layers: there is no layer {name!r}; expected some of {', '.join(known)}")


def check_classes(settings: DissectionSettings, segmenter: Segmenter) -> None:
    """Raise UserError, naming the known classes, unless the segmenter has all that the settings name."""
    named = {
        "classes": settings.classes,
        "insert": settings.insert,
        "artefact": settings.artefact and [settings.artefact],
    }
    for setting, labels in named.items():
        for label in labels or []:
            if label not in segmenter.classes:
                raise UserError(
                    f"--{setting}: there is no class {label!r}; the segmenter has "
                    f"{', '.join(segmenter.classes)}"
                )


def codes_of(
    model: LatentModel, space: str, settings: DissectionSettings, data: ImageData | None
) -> tuple[Codes, Tensor | None]:
    """Codes to dissect, and the true masks of images; None for samples.

    Raises:
        UserError: The data set has no class masks, or there is none.
    """
    if settings.source == "samples":
        return model.sample(settings.n, space, settings.seed), None
    batch = given(data, NEEDED).first("test", settings.n)
    if batch.masks is None:
        raise UserError("--source images: the data set has no class masks; take --source samples")
    return model.encode_bytes(batch.images, space, batch.labels), batch.masks


def real_images(
    model: LatentModel, segmenter: Segmenter, artefact: str, data: ImageData | None
) -> tuple[Tensor, PooledFeatures]:
    """Test images without an artefact, and the features by which sets of images are compared.

    Raises:
        TooFew: Too few test images are without the artefact.
        DataMissing: The extra `metrics` is not installed.
    """
    features = PooledFeatures()
    test = reduce(given(data, NEEDED).first("test", REAL).images, model.bins)
    return without(test, segmenter, artefact, model), features
