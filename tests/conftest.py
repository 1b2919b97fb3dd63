"""Shared ground of the tests: imports every bijection, model and data set, and fixes the seed."""

import importlib
import os
import pkgutil
import signal

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker for each core, a thread for each worker: several threads each slow one another fivefold.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import flows.bijections
from flows.config import discover

for _module in pkgutil.iter_modules(flows.bijections.__path__, "flows.bijections."):
    importlib.import_module(_module.name)
discover()


@pytest.fixture(autouse=True)
def signals():
    """Handlers of signals are as before after every test: a program that has ended ignores SIGINT."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same seed of torch's global generator."""
    torch.manual_seed(0)
