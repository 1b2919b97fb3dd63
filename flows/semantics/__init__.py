"""Semantic models: attribute predictors and segmenters, with which tools measure what images show."""
