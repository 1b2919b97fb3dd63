"""Editing of one picture: moves of its code, strokes on layers, undo, and reproducible records."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
