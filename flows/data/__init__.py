"""Data sets of 8-bit images; base.py holds the contract."""
