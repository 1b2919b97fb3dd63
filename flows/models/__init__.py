"""Generative models, one paper a file; base.py and flow.py hold the contract."""
