"""Data set of rendered scenes."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.core.bounds import PositiveInt, Seed
from flows.data.base import ArraySplit, Batch, ImageData, SplitName
from flows.data.scenes.canvas import CLASSES
from flows.data.scenes.factors import (
    CATEGORIES,
    COLUMN,
    FACTORS,
    UNSEEN,
    Correlations,
    fulfils,
    matters,
    parse_condition,
    sample_factors,
)
from flows.data.scenes.render import Rendered, render
from flows.errors import UserError
from flows.storage.files import StrPath, expand, reading, write_atomically

RENDERER = 1
"""Version of the renderer, increased whenever the same factors give different images."""
FIRST: dict[SplitName, int] = {"train": 0, "validation": 2**40, "test": 2**41}
"""Number of the first scene of each split."""
ATTEMPTS = 1000


class ScenesSplit(ArraySplit):
    """Split of rendered scenes with their masks and factors.

    Attributes:
        masks: uint8 (n, size, size), class of every pixel, an index of `canvas.CLASSES`.
        factors: float32 (n, number of factors), columns of `factors.FACTORS`, visible or not.
    """

    def __init__(self, rendered: Rendered):
        self.factors = torch.from_numpy(rendered.factors)
        labels = self.factors[:, COLUMN["category"]].long()
        attributes, masks = visible_attributes(rendered.factors), torch.from_numpy(rendered.masks)
        super().__init__(torch.from_numpy(rendered.images), labels, attributes, masks=masks)


SEEN = [i for i, factor in enumerate(FACTORS) if factor.name not in UNSEEN]


def visible_attributes(factors: NDArray[np.float32]) -> Tensor:
    """Select attributes (n, number of attributes) from factors (n, number of factors); NaN if not visible."""
    return torch.from_numpy(np.where(matters(factors), factors, np.float32(np.nan))[:, SEEN])


class Scenes(ImageData):
    """Rendered bedrooms, living rooms, kitchens and churches with true factors and class masks.

    Claims about a direction, a unit or an omission can be checked against the true factors, or by rendering
    a scene again with one factor changed (`render`). Scene i of a split does not depend on the number of
    scenes. The label is the category; the attributes are the factors, where they are visible.

    Args:
        size: Side of the square images in pixels.
        images: Number of scenes in the training split.
        validation: Number of scenes in the validation split.
        test: Number of scenes in the test split.
        categories: Categories to render, equally often; None for all.
        withhold: Contents excluded from the training split: a category or an object (`plant`), or a
            combination (`bedroom+lamp_on`). The other splits have them, to test how a model treats them.
        correlated: Pairs of factors in all splits, for example `daylight,lamp_on: -0.8`, with the
            correlation of the normal scores from which both are computed.
        seed: Seed of all factors.
        cache: Folder for rendered splits; None renders them each time.

    Raises:
        UserError: An option names no factor or category, or a correlation is beyond ±1.
    """

    name = "scenes"
    attributes = tuple(FACTORS[i] for i in SEEN)
    mask_classes = CLASSES
    can_rerender = True
    menu = (
        "daylight", "lamp_on", "wood", "wall_hue cos", "warmth", "ageing", "window", "banner",
        "category: church",
    )  # fmt: skip
    menu_classes = (
        "window", "door", "bed", "lamp", "plant", "picture", "tree", "person", "vehicle", "banner",
    )  # fmt: skip
    menu_groups: ClassVar[Mapping[str, str]] = {each.name: "colour" for each in FACTORS if "hue" in each.name}
    artefacts = ("banner",)
    path_arguments = ("cache",)

    def __init__(
        self,
        size: Literal[32, 64] = 32,
        images: PositiveInt = 50_000,
        validation: PositiveInt = 2_000,
        test: PositiveInt = 5_000,
        categories: list[str] | None = None,
        withhold: list[str] | None = None,
        correlated: dict[str, float] | None = None,
        seed: Seed = 0,
        cache: StrPath | None = Path("~/.cache/flows/scenes"),
    ):
        self.size, self.seed = size, seed
        self.counts: dict[SplitName, int] = {"train": images, "validation": validation, "test": test}
        self.training_images = images
        self.categories = tuple(categories or CATEGORIES)
        for category in self.categories:
            if category not in CATEGORIES:
                raise UserError(f"categories: there is no {category!r}; choose from {', '.join(CATEGORIES)}")
        self.withhold = [parse_condition(text) for text in withhold or []]
        self.correlated = parse_correlations(correlated or {})
        self.cache = None if cache is None else expand(cache)
        self.image_shape = (3, size, size)
        self.class_names = CATEGORIES
        self.transform = _transform(withhold, correlated)

    def split(self, name: SplitName) -> ScenesSplit:
        count = self.counts[name]
        if self.cache is None:
            return ScenesSplit(self.render_first(name, count))
        path = self.cache / self._file(name)
        if not path.is_file():
            save(self.render_first(name, count), path)
        with reading(path, "cache of scenes; remove it"), np.load(path) as stored:
            images, masks, factors = stored["images"], stored["masks"], stored["factors"]
        return ScenesSplit(Rendered(images, masks, factors))

    def first(self, name: SplitName, n: int) -> Batch:
        n = min(n, self.counts[name])
        if self.cache is not None and (self.cache / self._file(name)).is_file():
            return super().first(name, n)
        return ScenesSplit(self.render_first(name, n)).first(n)

    def render_first(self, name: SplitName, count: int) -> Rendered:
        """Render the first `count` scenes of a split."""
        return render(self.first_factors(name, count), self.size)

    def rerender(self, name: SplitName, attribute: str, values: Tensor) -> Tensor:
        if attribute not in COLUMN:
            raise UserError(f"scenes has no factor {attribute!r}; choose from {', '.join(COLUMN)}")
        factors = self.first_factors(name, len(values))
        column, wanted = COLUMN[attribute], values.cpu().numpy()
        factors[:, column] = np.where(np.isnan(wanted), factors[:, column], wanted)
        return torch.from_numpy(render(factors, self.size).images)

    def first_factors(self, name: SplitName, count: int) -> NDArray[np.float32]:
        """Return the factors of the first `count` scenes of a split."""
        indices = [FIRST[name] + i for i in range(count)]
        return self.factors(indices, self.withhold if name == "train" else [])

    def factors(self, indices: list[int], withhold: list[dict[str, float]]) -> NDArray[np.float32]:
        """Sample the factors of these scenes; scenes that fulfil a withheld condition are sampled again."""
        factors = sample_factors(self.seed, indices, self.categories, self.correlated)
        for attempt in range(1, ATTEMPTS):
            rejected = np.zeros(len(factors), dtype=bool)
            for condition in withhold:
                rejected |= fulfils(factors, condition)
            if not rejected.any():
                return factors
            again = [indices[i] for i in np.flatnonzero(rejected)]
            factors[rejected] = sample_factors(self.seed, again, self.categories, self.correlated, attempt)
        raise UserError("withhold: no scene is left, because every scene has what is withheld; withhold less")

    def _file(self, name: SplitName) -> str:
        return f"{name}-{self._digest(name, self.counts[name])}.npz"

    def _digest(self, name: SplitName, count: int) -> str:
        """Hash of everything that the images of a split depend on."""
        options = [
            RENDERER,
            PIL.__version__,
            self.size,
            count,
            self.categories,
            self.seed,
            self.withhold if name == "train" else [],
            sorted(map(str, self.correlated.items())),
        ]
        return hashlib.sha256(json.dumps(options).encode()).hexdigest()[:16]


def save(rendered: Rendered, path: Path) -> None:
    """Write images, masks and factors as an npz file; the same scenes give the same bytes."""
    content = io.BytesIO()
    np.savez(content, images=rendered.images, masks=rendered.masks, factors=rendered.factors)
    write_atomically(path, lambda place: place.write_bytes(content.getvalue()))


def parse_correlations(given: dict[str, float]) -> Correlations:
    """Parse `{"daylight,lamp_on": -0.8}` to pairs of factors, of which the second follows the first.

    Raises:
        UserError: A key does not name two factors, or a correlation is beyond ±1.
    """
    pairs: dict[tuple[str, str], float] = {}
    for text, rho in given.items():
        names = tuple(word.strip() for word in text.split(","))
        if len(names) != 2 or not all(name in COLUMN and name != "category" for name in names):
            raise UserError(f"correlated: expected two factors as in `daylight,lamp_on`, got {text!r}")
        if not -1 <= rho <= 1:
            raise UserError(f"correlated: {text}: expected −1 to 1, got {rho}")
        pairs[names[0], names[1]] = rho
    return pairs


def _transform(withhold: list[str] | None, correlated: dict[str, float] | None) -> str:
    text = f"rendered (renderer {RENDERER})"
    if withhold:
        text += f"; withheld: {', '.join(withhold)}"
    if correlated:
        text += f"; correlated: {', '.join(f'{pair} {rho:+g}' for pair, rho in correlated.items())}"
    return text


def with_factor(factors: Tensor, **values: float) -> Tensor:
    """Return a copy of factors (n, number of factors) with some of them set, for `render`.

    Raises:
        UserError: There is no factor of that name.
    """
    result = factors.clone()
    for name, value in values.items():
        if name not in COLUMN:
            raise UserError(f"there is no factor {name!r}; choose from {', '.join(COLUMN)}")
        result[:, COLUMN[name]] = value
    return result
