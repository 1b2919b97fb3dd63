"""Inversion: codes for given images."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
