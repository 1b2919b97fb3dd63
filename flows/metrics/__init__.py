"""Metrics: likelihood, round trip, reconstruction, distances of sets of images, nearest neighbours."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
