"""Invertible maps with log-determinants; `base.py` defines their interface."""
