"""Numerics, hooks, checks, typed options and other foundations that every other package may use."""
