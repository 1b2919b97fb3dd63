"""Invertible maps with log-determinants; `base.py` defines their interface."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
