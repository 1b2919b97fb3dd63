"""Directions in latent spaces: find them, move codes along them, score what that does."""
