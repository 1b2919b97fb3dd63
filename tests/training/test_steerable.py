"""Generator and walks together: against a generator in which an edit is a step, and the operators."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from flows.commands.export import export
from flows.config import parse_experiment, resolve
from flows.data.base import Batch
from flows.models.biggan import BigGAN
from flows.models.dcgan import DCGAN
from flows.models.gan import GAN
from flows.models.load import load
from flows.models.pggan import PGGAN
from flows.models.stylegan import StyleGAN
from flows.reports.run import write_report
from flows.steering.base import load_directions
from flows.steering.operators import OPERATORS
from flows.training.folder import write_receipt
from flows.training.loop import fit, make_accelerator
from flows.training.objectives.steerable import Steerable, walk_direction

ROOT = Path(__file__).parents[2]


class Lamp(GAN):
    """Codes whose first number is how bright a picture is: a step along it is the edit `brightness`."""

    def __init__(self):
        super().__init__()
        self.assemble((3, 8, 8), 256, torch.nn.Linear(4, 1), torch.nn.Conv2d(3, 1, 8), 4)

    def synthesise(self, code, space, labels):
        pattern = 0.01 * code[:, 1:2] * torch.linspace(-1, 1, 64)
        return (0.04 * code[:, :1] + pattern)[:, None].expand(-1, 3, -1).unflatten(2, (8, 8))


def batch(n=12):
    return Batch(torch.zeros(n, 3, 8, 8, dtype=torch.uint8), torch.zeros(n), torch.arange(n))


def test_the_loss_is_nothing_where_a_step_is_the_edit():
    objective, model = Steerable(edits=("brightness",)), Lamp().eval()
    parts = objective.parts(model)
    critic, generator = objective.phases(model, parts)
    assert objective.steerable is not None
    still = generator.loss(batch(), torch.Generator().manual_seed(0), 0)[1]["edit"].detach()
    with torch.no_grad():
        # An amount of 1 is + 0.4 in [0, 1], 0.8 in [−1, 1], twenty steps of 0.04; nothing is clamped.
        objective.steerable.walks[0, 0] = 20.0
    exact = generator.loss(batch(), torch.Generator().manual_seed(0), 0)[1]["edit"].detach()
    assert float(still) > 0.05 and float(exact) < 1e-12
    assert any(each is objective.steerable.walks for each in generator.params)
    assert all(each is not objective.steerable.walks for each in critic.params)
    found = walk_direction(model, "z", OPERATORS["brightness"], objective.steerable.walks[0].detach())
    assert found.evidence["explained"] == pytest.approx(1, abs=1e-6) and found.sigma == pytest.approx(20)


def test_every_picture_has_its_own_edit():
    objective = Steerable(edits=("zoom", "shift x", "brightness"))
    images = batch(40)
    which, strength, amount = objective.sample_edits(images, 5, torch.zeros(40, 4))
    assert set(which.tolist()) == {0, 1, 2}
    generated = 2 * torch.rand(40, 3, 8, 8) - 1
    target, known = objective.edited(generated, which, strength)
    for i in range(40):
        operator = objective.edits[int(which[i])]
        moved, mask = operator((generated[i : i + 1] + 1) / 2, strength[i : i + 1])
        torch.testing.assert_close(target[i : i + 1], 2 * moved - 1)
        assert torch.equal(known[i : i + 1], mask)
        assert float(amount[i]) == pytest.approx(float(operator.amount(strength[i : i + 1])))
        assert operator.low <= float(strength[i]) <= operator.high
    again = objective.sample_edits(images, 5, torch.zeros(40, 4))
    assert all(torch.equal(a, b) for a, b in zip(again, (which, strength, amount), strict=True))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="there is no edit 'sideways'"):
        Steerable(edits=("sideways",))
    with pytest.raises(ValueError, match="no space 'w'"):
        Steerable(space="w").check(DCGAN((3, 16, 16), size=6, channels=(8, 4)), 1000)


@pytest.mark.parametrize(
    ("make", "space"),
    [
        (lambda: StyleGAN((3, 16, 16), size=8, channels=(8, 8, 6)), "w"),
        (lambda: PGGAN((3, 16, 16), size=8, channels=(8, 8, 6)), "z"),
        (lambda: BigGAN((3, 16, 16), 3, size=6, width=4, channels=(8, 8, 6), attention=8), "z"),
    ],
)
def test_every_gan_learns_its_walks(make, space):
    """Both phases have gradients; the average of walks follows them; half of what is real is edited."""
    torch.manual_seed(0)
    model = make()
    objective = Steerable(edits=("brightness", "shift x"))
    objective.check(model, 1000)
    objective.advance(model, 0)
    parts = objective.parts(model)
    assert objective.steerable is not None and objective.steerable.space == space
    images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    given = Batch(images, torch.arange(8) % 3, torch.arange(8))
    for phase in objective.phases(model, parts):
        loss, _ = phase.loss(given, torch.Generator().manual_seed(0), 0)
        loss.backward()
        model.zero_grad()
    assert objective.steerable.walks.grad.abs().sum() > 0
    with torch.no_grad():
        objective.steerable.walks.fill_(1.0)
    objective.phases(model, parts)[1].loss(given, torch.Generator().manual_seed(0), 0)
    assert float(objective.steerable.averaged.mean()) == pytest.approx(0.001, rel=1e-3)
    plain = Steerable.__mro__[1].real_images(objective, model, given, 3)
    same = (objective.real_images(model, given, 3) == plain).flatten(1).all(1)
    assert 0 < int(same.sum()) < 8


def test_a_run_leaves_its_walks_as_directions(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    parser, settings = parse_experiment([
        "--config", "configs/scenes/dcgan-steerable.yaml", "--variant", "tiny", "--folder", str(tmp_path)
    ])  # fmt: skip
    experiment = parser.instantiate(settings)
    model, data = experiment.model, experiment.data
    model.description = {**asdict(data.description()), "source": None}
    fit(model, data, experiment.training, tmp_path, experiment.objective, make_accelerator())
    write_receipt(tmp_path, resolve(parser, settings))
    report = write_report(tmp_path, data, experiment.objective).values
    found = load_directions(tmp_path / "directions.safetensors", load(tmp_path))
    assert [each.name for each in found] == ["zoom", "shift x", "shift y", "brightness"]
    assert all(each.method == "joint walk" and each.sigma > 0 for each in found)
    assert report["walks"].keys() == {each.name for each in found}
    card = (tmp_path / "README.md").read_text()
    assert "explained by its walk in z, learned with the generator (directions.safetensors)" in card
    export(tmp_path, tmp_path / "exported", half=True)
    carried = load_directions(tmp_path / "exported" / "directions.safetensors", load(tmp_path / "exported"))
    for before, after in zip(found, carried, strict=True):
        torch.testing.assert_close(before.vector, after.vector, atol=1e-6, rtol=1e-5)
        assert after.method == "joint walk" and after.fingerprint != before.fingerprint
