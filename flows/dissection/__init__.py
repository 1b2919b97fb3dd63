"""Dissection of models: classes and effects of units, classes that a model omits, and painting."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
