"""Find the units that draw a class."""

from collections.abc import Sequence
from typing import Literal

from flows.dissection.causal import class_means
from flows.dissection.dissect import best_layer, dissect, samples
from flows.dissection.intervention import learned_order
from flows.dissection.paint import Brush
from flows.models.base import LatentModel
from flows.semantics.base import Segmenter

UNITS, CODES = 20, 400


def find_brush(
    model: LatentModel,
    segmenter: Segmenter,
    space: str,
    label: str,
    layers: Sequence[str],
    units: int = UNITS,
    order: Literal["agreement", "learned"] = "agreement",
    n: int = CODES,
    seed: int = 0,
) -> Brush:
    """The units that agree best with a class, of the layer in which one agrees best of all.

    Args:
        model: in eval mode.
        segmenter: of the classes.
        space: of the codes.
        label: name of the class.
        layers: among which.
        units: how many; about twenty (GANPaint).
        order: by agreement, or by how much the class needs them, see `learned_order`.
        n: samples.
        seed: of samples.

    Raises:
        ValueError: there is no such class, or no sample has it, or no unit agrees with it.
    """
    if label not in segmenter.classes:
        raise ValueError(f"there is no class {label!r}; expected one of {', '.join(segmenter.classes)}")
    source = samples(model, n, space, seed)
    found = dissect(model, segmenter, source, layers)
    layer = best_layer(found, label, units)
    if layer is None:
        raise ValueError(
            f"no unit of {', '.join(found)} agrees with {label!r}: there is nothing to paint it with"
        )
    values = class_means(model, segmenter, source, layer, label)
    if order == "learned":
        ordered = learned_order(model, segmenter, source, found[layer], label, values)
    else:
        ordered = found[layer].order(label)
    return Brush(label, layer, tuple(ordered[:units]), values)
