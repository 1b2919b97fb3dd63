"""Train invertible generative models and use their inverse."""

__version__ = "0.1.0"
