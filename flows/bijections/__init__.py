"""Invertible maps with log-determinants; base.py holds the contract."""
