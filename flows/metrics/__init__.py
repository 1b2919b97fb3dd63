"""Metrics: likelihood, round trip, reconstruction, distances of sets of images, nearest neighbours."""
