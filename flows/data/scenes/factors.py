"""Factors of a scene: their distributions, sampling and visibility."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from flows.data.base import Attribute
from flows.errors import UserError

CATEGORIES = ("bedroom", "living room", "kitchen", "church")

PRESENCE: dict[str, tuple[float, float, float, float]] = {
    "window": (0.7, 0.7, 0.75, 0.0),
    "door": (0.4, 0.4, 0.4, 0.8),
    "bed": (0.97, 0.0, 0.0, 0.0),
    "sofa": (0.0, 0.97, 0.0, 0.0),
    "table": (0.0, 0.6, 0.85, 0.0),
    "lamp": (0.6, 0.6, 0.6, 0.0),
    "picture": (0.5, 0.5, 0.0, 0.0),
    "plant": (0.4, 0.5, 0.35, 0.0),
    "rug": (0.5, 0.5, 0.25, 0.0),
    "tower": (0.0, 0.0, 0.0, 0.7),
    "tree": (0.0, 0.0, 0.0, 0.6),
    "cloud": (0.0, 0.0, 0.0, 0.6),
    "person": (0.0, 0.0, 0.0, 0.5),
    "vehicle": (0.0, 0.0, 0.0, 0.4),
}
"""Probability that an object is present, for each of CATEGORIES."""
OBJECTS = tuple(PRESENCE)


def _objects() -> list[Attribute]:
    columns = []
    for name in OBJECTS:
        columns.append(Attribute(name, "binary", "object"))
        columns += [Attribute(f"{name}_{part}", "real", "object") for part in ("place", "size")]
        columns.append(Attribute(f"{name}_hue", "circular", "object"))
    return columns


FACTORS: tuple[Attribute, ...] = (
    Attribute("yaw", "real", "layout", low=-1.0),
    Attribute("depth", "real", "layout"),
    Attribute("vanishing", "real", "layout"),
    Attribute("category", "category", "category", CATEGORIES),
    *_objects(),
    Attribute("daylight", "real"),
    Attribute("lamp_on", "binary"),
    Attribute("wood", "binary"),
    Attribute("wall_hue", "circular"),
    Attribute("warmth", "real", low=-1.0),
    Attribute("ageing", "real"),
    Attribute("foliage", "real"),
    Attribute("banner", "binary", "artefact"),
    Attribute("banner_place", "real", "artefact"),
)
"""Columns of the factors. For an object such as a lamp, `lamp` is its presence, and `lamp_place`, `lamp_size`
and `lamp_hue` are its properties. Groups are HiGAN's levels, and `artefact` for the banner."""
NAMES = tuple(factor.name for factor in FACTORS)
COLUMN = {name: i for i, name in enumerate(NAMES)}
BANNER_SHARE = 0.25
UNSEEN = ("tree_hue", "cloud_hue", "plant_hue")
"""Factors without effect on the image: foliage and daylight determine these colours."""

Correlations = Mapping[tuple[str, str], float]
"""Mapping from (factor, factor) to the correlation of the normal scores from which both are computed."""


def sample_factors(
    seed: int,
    indices: Sequence[int],
    categories: Sequence[str] = CATEGORIES,
    correlated: Correlations | None = None,
    attempt: int = 0,
) -> NDArray[np.float32]:
    """Sample the factors of the scenes with these indices, (n, number of factors).

    The factors of scene i depend on the seed, i and the options alone, not on the other scenes of the call.

    Args:
        seed: Seed of the data set.
        indices: Indices of the scenes, ≥ 0.
        categories: Categories to sample from, equally often.
        correlated: Correlated pairs of factors; see `Correlations`.
        attempt: Number of the sample for the same scene, increased while the scene is withheld.
    """
    uniform = np.empty((len(indices), len(FACTORS)))
    for row, index in zip(uniform, indices, strict=True):
        key = np.array([seed, index], dtype=np.uint64)
        philox = np.random.Philox(key=key, counter=[0, 0, 0, attempt])
        np.random.Generator(philox).random(out=row)
    for (cause, effect), rho in (correlated or {}).items():
        scores = torch.special.ndtri(torch.from_numpy(uniform[:, [COLUMN[cause], COLUMN[effect]]]))
        joined = rho * scores[:, 0] + (1 - rho**2) ** 0.5 * scores[:, 1]
        uniform[:, COLUMN[effect]] = torch.special.ndtr(joined).numpy()
    return from_uniform(uniform, categories)


def from_uniform(uniform: NDArray[np.float64], categories: Sequence[str]) -> NDArray[np.float32]:
    """Map uniform numbers to factors of the same shape by the quantile functions of the factors."""
    numbers = np.array([CATEGORIES.index(name) for name in categories])
    place = np.minimum((uniform[:, COLUMN["category"]] * len(numbers)).astype(int), len(numbers) - 1)
    category = numbers[place]
    factors = np.empty(uniform.shape, dtype=np.float32)
    for i, factor in enumerate(FACTORS):
        u = uniform[:, i]
        if factor.kind == "category":
            factors[:, i] = category
        elif factor.kind in ("real", "circular"):
            factors[:, i] = factor.low + (factor.high - factor.low) * u
        else:
            # Present for large u, so that correlations have the expected sign.
            factors[:, i] = u > 1 - _share(factor.name, category)
    factors[:, COLUMN["lamp_on"]] *= factors[:, COLUMN["lamp"]]
    return factors


def _share(name: str, category: NDArray[np.int64]) -> NDArray[np.float64]:
    if name in PRESENCE:
        return np.array(PRESENCE[name])[category]
    return np.full(len(category), {"banner": BANNER_SHARE}.get(name, 0.5))


def matters(factors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which factors are visible in each scene, (n, number of factors).

    The hue of an absent lamp, for example, and the wood of a church's floor are not visible: they are not
    valid targets of a predictor, and changing them does not change the image.
    """
    church = factors[:, COLUMN["category"]] == CATEGORIES.index("church")
    seen = np.ones(factors.shape, dtype=bool)
    for name in OBJECTS:
        for part in ("place", "size", "hue"):
            seen[:, COLUMN[f"{name}_{part}"]] = factors[:, COLUMN[name]] > 0
    for name in UNSEEN:
        seen[:, COLUMN[name]] = False
    seen[:, COLUMN["lamp_on"]] = factors[:, COLUMN["lamp"]] > 0
    seen[:, COLUMN["wood"]] = ~church
    seen[:, COLUMN["foliage"]] = church | (factors[:, COLUMN["plant"]] > 0)
    seen[:, COLUMN["banner_place"]] = factors[:, COLUMN["banner"]] > 0
    return seen


def parse_condition(text: str) -> dict[str, float]:
    """Parse an entry of `withhold`: `plant`, `kitchen`, or several joined by +, as in `bedroom+lamp_on`.

    Raises:
        UserError: A name is neither a category nor a binary factor.
    """
    condition: dict[str, float] = {}
    for word in text.split("+"):
        word = word.strip().replace("_room", " room")
        if word in CATEGORIES:
            condition["category"] = CATEGORIES.index(word)
        elif word in COLUMN and FACTORS[COLUMN[word]].kind == "binary":
            condition[word] = 1.0
        else:
            binary = [factor.name for factor in FACTORS if factor.kind == "binary"]
            raise UserError(
                f"withhold: {word!r} is neither a category ({', '.join(CATEGORIES)}) nor a binary "
                f"factor ({', '.join(binary)}); join several by +"
            )
    return condition


def fulfils(factors: NDArray[np.float32], condition: Mapping[str, float]) -> NDArray[np.bool_]:
    """Return which scenes fulfil every part of a condition, (n,)."""
    met = np.ones(len(factors), dtype=bool)
    for name, value in condition.items():
        met &= factors[:, COLUMN[name]] == value
    return met
