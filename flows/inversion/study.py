"""One comparison: inverters on models, with the same images, seed and measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from flows import images as pixels
from flows.core.bounds import Seed
from flows.core.checks import did_you_mean
from flows.core.options import Options
from flows.errors import UserError
from flows.inversion.base import Inverter
from flows.inversion.by_name import is_config, make_inverter, title_of
from flows.inversion.comparison import Group, Groups, Measures, compare, likelihood_of
from flows.inversion.distance import Distance
from flows.inversion.facts import ModelFacts
from flows.inversion.records import ImageSource
from flows.inversion.report import Comparison
from flows.inversion.search import Search, SearchSettings
from flows.inversion.summary import Distances
from flows.metrics.identity import Identity
from flows.metrics.perceptual import EfficientNetLite0, FeatureNetwork, make_network
from flows.models.base import LatentModel
from flows.storage.trained import TrainingFacts

__all__ = ["MeasureSettings", "compare_models"]


@dataclass(frozen=True, kw_only=True)
class MeasureSettings(Options):
    """Settings of what a comparison measures.

    Attributes:
        edits: Whether to measure how well an edit can be undone, which inverts four more images per row.
        perceptual: Network of the perceptual distance: efficientnet-lite0, lpips-vgg, lpips-alex,
            lpips-squeeze, none, or auto, which takes efficientnet-lite0 if it is installed. LPIPS takes the
            weights of its backbone from torch's hub folder, or from a file, `lpips-vgg:FILE`.
        identity: File of a network that recognises faces, exported by torch.export, for the identity score;
            see `flows.metrics.Identity`. None measures none.
        seed: Seed of the inverters and of the edits.
    """

    edits: bool = True
    perceptual: str = "auto"
    identity: Path | None = None
    seed: Seed = 0


Inverters = Sequence[str | Inverter] | Mapping[str, str | Inverter]


def compare_models(
    models: Mapping[str, LatentModel],
    inverters: Inverters,
    images: Mapping[str, pixels.ImageLike | Group],
    search: SearchSettings = SearchSettings(),
    measure: MeasureSettings = MeasureSettings(),
    trained: Mapping[str, TrainingFacts] | None = None,
) -> Comparison:
    """Invert images by several methods on several models.

        result = compare_models({"glow": model}, ["exact", "optimise"], {"test": images})
        result.save(Path("comparison"))

    Args:
        models: Models by name, with one image shape and one number of grey levels; set to eval mode.
        inverters: Inverters, or what `make_inverter` accepts; in a mapping, by the names in tables.
        images: Name of a group to uint8 images (n, C, H, W), or to a `Group` with labels and sources.
        search: Settings of the searches of inverters by short names.
        measure: Settings of the measures.
        trained: Facts of the trainings by the names of the models, as `flows.storage.trained.read_training`
            reads them from checkpoints; a model without any has only its size in the table of models.

    Raises:
        UserError: The models differ in their images, there is no such inverter, or the images do not fit.
    """
    prepared = prepare(models, inverters, search, measure)
    shape = next(iter(models.values())).image_shape
    groups = {
        name: each if isinstance(each, Group) else group_of(pixels.as_bytes(each, shape))
        for name, each in images.items()
    }
    results = compare(models, prepared.inverters, groups, measure.seed, prepared.measures)
    facts = {name: ModelFacts.of(model, (trained or {}).get(name)) for name, model in models.items()}
    return Comparison(results, groups, prepared.distances, likelihoods(models, groups), models=facts)


@dataclass(frozen=True)
class Prepared:
    """Inverters and measures of a comparison, made and checked before any image is read.

    Attributes:
        inverters: Inverters by the names of tables.
        measures: Measures of each pair, without edits along directions.
        distances: Names of the distances.
    """

    inverters: Mapping[str, Inverter]
    measures: Measures
    distances: Distances


def prepare(
    models: Mapping[str, LatentModel], inverters: Inverters, search: SearchSettings, measure: MeasureSettings
) -> Prepared:
    """Make the inverters and measures of a comparison; see `compare_models`."""
    check_alike(models)
    measures, distance = measures_of(measure, search)
    made = make_all(inverters, Search(search, distance), models)
    return Prepared(made, measures, distances_of(measures, distance, inverters))


def group_of(images: Tensor) -> Group:
    """Group of uint8 images (n, C, H, W) that are named after their numbers."""
    return Group(images, [ImageSource(str(i)) for i in range(len(images))])


def check_alike(models: Mapping[str, LatentModel]) -> None:
    """Raise UserError unless all models have one image shape and one number of grey levels."""
    for title, attribute in {"image shape": "image_shape", "number of grey levels": "bins"}.items():
        values = {name: getattr(model, attribute) for name, model in models.items()}
        if len(set(values.values())) > 1:
            raise UserError(f"--models: expected models with the same {title}, got {values}")


def measures_of(measure: MeasureSettings, search: SearchSettings) -> tuple[Measures, Distance]:
    """Measures of each pair, without edits along directions, and the loss of the searches.

    Raises:
        UserError: The loss needs a perceptual network, and there is none.
    """
    network, weight = choose_network(measure.perceptual), search.perceptual_weight
    if weight and network is None:
        raise UserError("--perceptual_weight: there is no perceptual network; choose one by --perceptual")
    identity = None if measure.identity is None else Identity(measure.identity)
    distance = Distance(perceptual=weight, network=network if weight else None)
    return Measures(network, measure.edits, identity=identity), distance


def distances_of(measures: Measures, distance: Distance, inverters: Inverters) -> Distances:
    """Names of the measured distance and of the loss of the searches; config files have their own."""
    given = inverters.values() if isinstance(inverters, Mapping) else inverters
    own = any(not isinstance(each, str) or is_config(each) for each in given)
    loss = f"{distance.text}; of config files and objects, their own" if own else distance.text
    return Distances("no network" if measures.network is None else measures.network.name, loss)


def likelihoods(models: Mapping[str, LatentModel], groups: Groups) -> dict[str, dict[str, float]]:
    """Bits/dim by model and group."""
    return {
        name: {
            group: likelihood_of(model, members.images, members.labels_counted_by(model))
            for group, members in groups.items()
        }
        for name, model in models.items()
    }


def make_all(given: Inverters, search: Search, models: Mapping[str, LatentModel]) -> dict[str, Inverter]:
    """Inverters by the names of tables.

    Raises:
        UserError: There is no such inverter, two have one name, or no model has a part that one names.
    """
    made: dict[str, Inverter] = {}
    named = given.items() if isinstance(given, Mapping) else ((None, each) for each in given)
    for name, each in named:
        inverter = make_inverter(each, search) if isinstance(each, str) else each
        title = name or (title_of(each) if isinstance(each, str) else each.name)
        if title in made:
            raise UserError(
                f"--inverters: two are named {title!r}; rename a file, or give a mapping of names"
            )
        for kind, part in inverter.parts().items():
            check_part(title, kind, part, models)
        made[title] = inverter
    return made


def check_part(text: str, kind: str, part: str, models: Mapping[str, LatentModel]) -> None:
    """Raise UserError if no model has the space or the layer that an inverter names."""
    known = dict.fromkeys(
        each for model in models.values() for each in (model.layers() if kind == "layer" else model.spaces)
    )
    if part not in known:
        raise UserError(
            f"--inverters {text}: no model has the {kind} {part!r}; expected one of "
            f"{', '.join(known) or 'none, because no model has any'}."
            f"{did_you_mean(part, known)}"
        )


def choose_network(name: str) -> FeatureNetwork | None:
    """Network of a name: `auto` gives EfficientNet-Lite0 if it is installed, `none` gives None.

    Raises:
        UserError: There is no such network, or it is not installed.
    """
    if name == "none":
        return None
    if name == "auto" and not EfficientNetLite0.is_installed():
        print(f"no perceptual distance: {EfficientNetLite0.missing()}")
        return None
    try:
        return make_network("efficientnet-lite0" if name == "auto" else name)
    except UserError as error:
        raise type(error)(f"--perceptual: {error}") from error
