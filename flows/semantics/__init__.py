"""Semantic models: attribute predictors and segmenters, which measure the content of images."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
