"""Bytes that benchmarks/recipes.py counts are those that torch's profiler finds allocated after a loss."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from flows.config import parse_experiment
from flows.data.base import Batch

ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore")  # of the profiler, which looks for a GPU
@pytest.mark.parametrize("config", ["digits/glow", "digits/realnvp", "digits/nice"])
def test_what_is_counted_is_what_is_kept(config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from recipes import loss_of, map_by_map, saved_bytes

    parser, settings = parse_experiment(["--config", config, "--folder", str(tmp_path / "run")])
    experiment = parser.instantiate(settings)
    model, objective = experiment.model.train(), experiment.objective
    pixels = torch.randint(17, (64, 1, 8, 8)).to(torch.uint8) * 15
    batch = Batch(pixels, torch.zeros(64, dtype=torch.long), torch.arange(64))
    known = {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}
    (phase,) = objective.phases(model, objective.parts(model))
    with map_by_map(model):
        counted = saved_bytes(partial(loss_of, phase, batch), known)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
            value = loss_of(phase, batch)
        kept = sum(event.self_cpu_memory_usage for event in measured.key_averages())
    assert counted == pytest.approx(kept, rel=0.05) and counted > 1e5
    assert value.isfinite()
