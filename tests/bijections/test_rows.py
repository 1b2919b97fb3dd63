"""Glow's steps in rows, as one node of the graph, against the same steps as torch operations."""

import copy

import pytest
import torch

from flows.bijections.chain import Chain
from flows.bijections.coupling import Coupling
from flows.bijections.execution import rows
from flows.bijections.execution.rows import Rows
from flows.bijections.forms import AdditiveForm, AffineForm, CouplingForm, Terms
from flows.bijections.linear import InvertibleConv1x1
from flows.bijections.partition import Halves
from flows.bijections.scales import TwoSided
from flows.bijections.scaling import ActNorm
from flows.core.data_dependent import DataDependent
from flows.errors import UserError
from flows.memory import set_memory
from flows.models.glow import Glow
from flows.networks.glow import GlowNetwork

SHAPE = (3, 8, 12)
FORMS = {
    "official": {},
    "paper, exp": {"flavour": "paper", "scale": "exp"},
    "sigmoid, unbounded": {"scale": "sigmoid", "input_bound": None},
    "additive, lu": {"coupling": "additive", "permutation": "lu"},
    "additive, paper": {"coupling": "additive", "flavour": "paper"},
}


def build(form: str, depth: int = 10, dtype: torch.dtype = torch.float64) -> Glow:
    """Ten steps: more than are made ready together."""
    torch.manual_seed(0)
    model = Glow(SHAPE, levels=2, depth=depth, width=12, **FORMS[form])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def points(n: int = 3) -> torch.Tensor:
    return torch.rand(n, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def step_by_step(monkeypatch):
    """A function that runs another without rows."""

    def run(function, *inputs):
        with monkeypatch.context() as patch:
            patch.setattr(rows, "why_not", lambda x: "a test runs without")
            return function(*inputs)

    return run


def derivatives(model: Glow, x: torch.Tensor, second: bool = False) -> list[torch.Tensor]:
    """log-density and code, and the derivatives by x and all parameters; of the code, where second."""
    x = x.clone().requires_grad_()
    code, log_det = model.bijection(x)
    weights = torch.linspace(-1, 1, code.numel(), dtype=code.dtype).view_as(code)
    scalar = (code * weights).sum() + log_det.square().sum()
    variables = [x, *model.parameters()]
    if not second:
        return [code, log_det, *torch.autograd.grad(scalar, variables)]
    first = torch.autograd.grad(scalar, variables, create_graph=True)
    return [*first, *torch.autograd.grad(sum(g.square().sum() for g in first), variables)]


def assert_equal(found, expected):
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(other.detach().abs().amax()))


def rows_of(model: Glow, x: torch.Tensor) -> list[Rows]:
    """Name of the code path of the first level."""
    return [part for part in model.bijection.levels[0].plan(x).executors if isinstance(part, Rows)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["plain", "checkpoint", "reversible", "anchored"])
def test_values_and_gradients(form, mode, step_by_step):
    model = build(form)
    set_memory(model, mode, every=3)
    assert len(rows_of(model, points())) == 1
    found = derivatives(model, points())
    set_memory(model, "plain")
    assert_equal(found, step_by_step(derivatives, model, points()))


@pytest.mark.parametrize("form", ["official", "paper, exp", "additive, lu"])
def test_second_derivatives(form, step_by_step):
    model = build(form, depth=2)
    assert_equal(derivatives(model, points(), True), step_by_step(derivatives, model, points(), True))


@pytest.mark.parametrize("form", FORMS)
def test_codes_and_images_without_gradients(form, step_by_step):
    model, x = build(form), points()
    with torch.no_grad():
        for batch in (x, x[:1], x):  # sizes change, memory is written over
            code, log_det = model.bijection(batch)
            image, back = model.bijection.inverse(code)
            expected = step_by_step(model.bijection, batch)
            assert_equal([code, log_det], expected)
            assert_equal([image, back], step_by_step(model.bijection.inverse, expected[0]))


def test_the_graph_of_the_inverse(step_by_step):
    model = build("official", depth=2)

    def gradients():
        code = model.bijection(points())[0].detach().requires_grad_()
        image, log_det = model.bijection.inverse(code)
        return torch.autograd.grad(image.square().sum() + log_det.sum(), [code, *model.parameters()])

    assert_equal(gradients(), step_by_step(gradients))


def test_the_plan_says_which_executor_runs_and_why_the_others_do_not():
    model, x = build("official", depth=2), points()
    level = model.bijection.levels[0]
    text = level.explain(x)
    assert (
        "fused rows: 2 folded channel maps, 2 AffineCoupling" in text and "plain: 1 Centre, 1 Squeeze" in text
    )
    assert "not reversible: the memory mode is 'plain'" in text and "not one by one: no hook" in text
    set_memory(model, "reversible")
    assert "fused rows, reversible: 2 folded" in level.explain(x)
    assert level.explain(x[:0]).startswith("reversible: 1 Centre, 1 Squeeze, 2 folded channel maps")
    with torch.no_grad():
        assert "not reversible: gradients are not recorded" in level.explain(x[:0])
    handle = level.taps[0].register_forward_hook(lambda *_: None)
    text = model.explain(images=2)
    assert text.splitlines()[:2] == [
        "bijection.levels.0",
        "  one by one: 1 Centre, 1 Squeeze, 2 Chain, 1 AffineCoupling",
    ]
    assert "not fused rows: a module has a hook" in text and "not plain: folding would bypass a hook" in text
    handle.remove()
    assert "one by one" not in model.explain().replace("not one by one", "")


def test_frozen_parameters_and_inputs_get_no_gradient():
    model = build("official", depth=2)
    network = model.bijection.levels[0].steps[2].steps[2].network
    network.first.weight.requires_grad_(False)
    x = points()
    model.bijection(x)[0].sum().backward()
    assert x.grad is None and network.first.weight.grad is None
    assert network.second.weight.grad.any()


def test_gradients_lie_in_memory_as_the_parameters_do():
    """Else the optimiser, or autograd, copies them."""
    model = build("official", depth=2)
    model.bijection(points())[0].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.stride() == parameter.stride(), name


def test_a_hook_in_a_network_is_called_and_every_layer_is_set_from_the_first_batch():
    images = torch.randint(256, (16, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    model = Glow(SHAPE, levels=2, depth=2, width=12)
    model.initialise(images)
    layers = [part for part in model.modules() if isinstance(part, DataDependent)]
    assert len(layers) == 12 and all(layer.initialised for layer in layers)
    second = model.bijection.levels[1].steps[1].steps[2].network.second
    calls = []
    handle = second.register_forward_hook(lambda *_: calls.append(1))
    model.bijection(images / 255)
    model.bijection.inverse(torch.zeros(1, 288))
    assert len(calls) == 2
    handle.remove()
    model.bijection(images / 255)
    assert len(calls) == 2
    assert any(name.endswith("network.second") for name in model.layers())


def test_a_frozen_copy_and_other_precisions_agree():
    model, x = build("official"), points()
    single = copy.deepcopy(model).float()
    with torch.no_grad():
        code, coarse = model.bijection(x)[0], single.bijection(x.float())[0]
    assert float((code - coarse).abs().max()) < 1e-4


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    model = Glow((1, 4, 4), levels=1, depth=2, width=3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.bijection, x)


class Reflected(CouplingForm):
    """z = t − x, whose gradient is −∂z: nothing that other forms share holds by chance."""

    scaled = False

    def forward(self, x, terms, out=None):
        return torch.sub(terms.shift, x, out=out)

    inverse = forward

    def pull_back(self, z, terms, grad_z, grad_log_det):
        return -grad_z, Terms(grad_z)


@pytest.mark.parametrize("mode", ["plain", "reversible"])
def test_a_form_of_ones_own_runs_in_rows(mode):
    def level():
        torch.manual_seed(0)
        network = GlowNetwork(2, 2, width=6)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        steps = ActNorm(4), InvertibleConv1x1(4), Coupling(Halves(), network, Reflected())
        return Chain(*steps).double()

    x, own, other = torch.randn(2, 4, 3, 5, dtype=torch.float64), level(), level()
    set_memory(own, mode)
    assert "fused rows" in own.explain(x).splitlines()[0]
    results = []
    for chain, run in ((own, own.forward), (other, other.one_by_one)):
        start = x.clone().requires_grad_()
        z, log_det = run(start)
        loss = (z * torch.linspace(0, 1, z.numel()).view_as(z)).sum() + log_det.sum()
        results.append([z, log_det, *torch.autograd.grad(loss, [start, *chain.parameters()])])
    assert_equal(*results)


def test_a_scale_belongs_to_a_form_that_has_one():
    with pytest.raises(UserError, match="scale: expected none for AdditiveForm"):
        Coupling(Halves(), GlowNetwork(2, 2, width=4), AdditiveForm(), TwoSided())
    with pytest.raises(UserError, match="scale: expected one for AffineForm, got None"):
        Coupling(Halves(), GlowNetwork(2, 4, width=4), AffineForm())
