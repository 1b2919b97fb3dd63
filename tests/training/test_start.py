"""Training that starts from other weights: the same function, or the same at twice the side."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

import flows
from flows.models.glow import Glow
from flows.models.lia import LIA
from train import main

ROOT = Path(__file__).parents[2]


def lia(side, extra=(), **options):
    torch.manual_seed(side)
    given = {
        "size": 64, "channels": [8, 6, 4, *extra], "critic_channels": [8, 6, 4, *extra],
        "encoder_channels": [*reversed(extra), 4, 6, 8], "hidden": 8, "start": "map", "depth": 1,
        "critic_blocks": "plain", "refinements": 2, "multiplier": 0.1,
    }  # fmt: skip
    model = LIA((3, side, side), **{**given, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def test_a_lia_of_twice_the_side_begins_as_the_smaller_one():
    small, large = lia(16), lia(32, extra=(7,))
    large.start_from(small)
    images = 2 * torch.rand(5, 3, 32, 32) - 1
    means = avg_pool2d(images, 2)
    torch.testing.assert_close(large.encoder(images), small.encoder(means), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(large.critic(images), small.critic(means), atol=1e-5, rtol=1e-5)
    z = small.sample_codes(5, generator=torch.Generator().manual_seed(0))
    enlarged = interpolate(2 * small.decode(z) - 1, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(2 * large.decode(z) - 1, enlarged, atol=1e-5, rtol=1e-5)
    assert torch.equal(large.convert(z, "z", "w"), small.convert(z, "z", "w"))
    assert all(
        torch.equal(a, b) for a, b in zip(large.refiner.parameters(), small.refiner.parameters(), strict=True)
    )


def test_what_does_not_fit_is_named():
    small = lia(16)
    with pytest.raises(ValueError, match="the refiner of the smaller LIA has different sizes"):
        lia(32, extra=(7,), refinements=0).start_from(small)
    with pytest.raises(ValueError, match="an entry of at least 6 channels"):
        lia(32, extra=(5,)).start_from(small)
    with pytest.raises(ValueError, match="layers of this one except those of its last size"):
        lia(32, extra=(7,), channels=[8, 7, 4, 4]).start_from(small)
    with pytest.raises(ValueError, match="only networks of plain blocks"):
        lia(32, extra=(7,), critic_blocks="residual").start_from(small)
    with pytest.raises(ValueError, match="weights have other sizes in the checkpoint"):
        lia(64, extra=(7, 6)).start_from(small)
    with pytest.raises(ValueError, match="expected a Glow, the checkpoint holds a LIA"):
        Glow((3, 16, 16), levels=2, depth=1, width=8).start_from(small)


def test_a_run_starts_where_the_checkpoint_is(tmp_path, monkeypatch, capsys):
    """A learning rate near zero leaves the weights as they were: no layer is initialised from data again."""
    monkeypatch.chdir(ROOT)
    common = ["train.py", "--config", "configs/digits/glow.yaml", "--variant", "tiny", "--training.ema", "0"]
    monkeypatch.setattr("sys.argv", [*common, "--folder", str(tmp_path / "first")])
    main()
    first = flows.load(tmp_path / "first")
    again = [
        *common,
        "--folder",
        str(tmp_path / "again"),
        "--init",
        str(tmp_path / "first"),
        "--training.seed",
        "9",
    ]
    monkeypatch.setattr("sys.argv", [*again, "--training.lr", "1e-12"])
    main()
    second = flows.load(tmp_path / "again")
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6, msg=name)
    monkeypatch.setattr("sys.argv", [*again, "--model.width", "24", "--overwrite", "true"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2 and "--init: " in capsys.readouterr().err
