"""Invertible maps with log-determinants; `base.py` defines their interface."""

from flows.lazy import attach

__getattr__, __dir__ = attach(__name__)
