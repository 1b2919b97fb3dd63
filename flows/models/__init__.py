"""Generative models, one paper per file; base.py and flow.py define the interface."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
