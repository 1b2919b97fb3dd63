"""Data sets of 8-bit images; `base` defines their contract."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
