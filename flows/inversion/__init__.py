"""Inversion: codes for given images."""

from flows.lazy import attach

__getattr__, __dir__ = attach(__name__)
