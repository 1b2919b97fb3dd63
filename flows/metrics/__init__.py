"""Metrics: likelihood, round trip, reconstruction, distances of sets of images, nearest neighbours."""

from flows.lazy import attach

__getattr__, __dir__ = attach(__name__)
