"""Rendered rooms and churches with known factors: data set `Scenes`, and `render` for any factors."""

from flows.data.scenes.canvas import CLASSES as CLASSES
from flows.data.scenes.dataset import Scenes as Scenes
from flows.data.scenes.dataset import ScenesSplit as ScenesSplit
from flows.data.scenes.dataset import with_factor as with_factor
from flows.data.scenes.factors import FACTORS as FACTORS
from flows.data.scenes.render import render as render

__all__ = ["Scenes"]
