"""Training reaches the figures in the headers of configs: `pytest -m hours -n 0`, two hours on two cores."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOLERANCE = 0.03
"""Bits/dim by which a run on another machine, with other rounding, may miss the figure."""
CONFIGS = {
    "digits/glow": "long",  # 23 seconds
    "fashion/nice": "hours",  # 5 minutes
    "scenes/nice": "hours",  # 7
    "fashion/realnvp": "hours",  # 36
    "fashion/glow": "hours",  # 62
}


def most(config: Path) -> float:
    """Largest bits/dim that agree with the header of a config: its rounded figure, and the tolerance."""
    header = "".join(line for line in config.read_text().splitlines() if line.startswith("#"))
    found = re.search(r"Measured: (\d+\.(\d+)) bits/dim", header)
    assert found, f"{config} states no figure"
    return float(found[1]) + 0.5 * 10 ** -len(found[2]) + TOLERANCE


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, tier)) for name, tier in CONFIGS.items()]
)
def test_a_config_reaches_the_figure_of_its_header(name, tmp_path):
    config = ROOT / f"configs/{name}.yaml"
    command = [sys.executable, "train.py", "--config", str(config), "--folder", str(tmp_path / "run")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["likelihood"]["bits_per_dim"] < most(config)
