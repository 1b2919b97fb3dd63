"""Figures: likelihood, round trip, nearest neighbours."""
