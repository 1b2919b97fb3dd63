"""Data sets of 8-bit images; `base` defines their contract."""
