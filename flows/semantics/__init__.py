"""Judges: attribute predictors and segmenters, by which tools see what is in an image."""
