"""Glow's coupling network as one operation, against the same network as torch operations."""

import pytest
import torch

from flows.networks import glow
from flows.networks.glow import GlowNetwork


def network(edge: bool, width: int = 7, inputs: int = 3, outputs: int = 4, context: int = 0) -> GlowNetwork:
    built = GlowNetwork(inputs, outputs, width, edge, context, input_bound=1.5)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return built.double()


def gradients(built, x, monkeypatch, fuse: bool):
    """Output, first and second derivatives of all of x and the parameters."""
    if not fuse:
        monkeypatch.setattr(glow, "can_fuse", lambda _: False)
    variables = [x.requires_grad_(), *built.parameters()]
    value = built(x, None)
    weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    first = torch.autograd.grad(value, variables, weights)
    value = built(x, None)
    again = torch.autograd.grad(value, variables, weights, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in again), variables)
    monkeypatch.undo()
    return [value.detach(), *first, *(g.detach() for g in again), *second]


@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 3, 2, 2), (3, 3, 1, 5)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_one_operation_equals_many(edge, shape, channels_last, monkeypatch):
    torch.manual_seed(0)
    built = network(edge)
    x = 2 * torch.randn(shape, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    fused = gradients(built, x.clone(), monkeypatch, fuse=True)
    plain = gradients(built, x.clone(), monkeypatch, fuse=False)
    assert len(fused) == len(plain) > 30
    for one, many in zip(fused, plain, strict=True):
        assert one.shape == many.shape
        assert torch.allclose(one, many, rtol=1e-10, atol=1e-10)


def test_without_gradients_the_same_values(monkeypatch):
    built, x = network(True), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        fused = built(x, None)
        monkeypatch.setattr(glow, "can_fuse", lambda _: False)
        assert torch.allclose(fused, built(x, None), rtol=1e-12)


def test_frozen_parameters_and_inputs_get_no_gradient():
    built, x = network(True), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    built.first.weight.requires_grad_(False)
    built(x, None).sum().backward()
    assert x.grad is None and built.first.weight.grad is None
    assert built.second.weight.grad.any()


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    built = network(True, width=3, inputs=2, outputs=2)
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: built(value, None), x)
