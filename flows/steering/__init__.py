"""Directions in latent spaces: methods that find them, moves along them, and scores of the moves."""

from flows.core.lazy import attach

__getattr__, __dir__ = attach(__name__)
