"""Shared ground of the tests: imports every bijection, model and data set, and fixes the seed."""

import importlib
import pkgutil

import pytest
import torch

import flows.bijections
from flows.config import discover

for _module in pkgutil.iter_modules(flows.bijections.__path__, "flows.bijections."):
    importlib.import_module(_module.name)
discover()


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same seed of torch's global generator."""
    torch.manual_seed(0)
