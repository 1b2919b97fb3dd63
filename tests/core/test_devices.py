"""Devices and systems that are not here are simulated: one without double precision, one without SIGHUP."""

import copy
import signal
import warnings

import pytest
import torch
from torch import Tensor, nn

from flows.bijections.linear import Whitening
from flows.core import numerics
from flows.data.digits import Digits
from flows.inversion import invert_exactly
from flows.metrics.frechet import frechet
from flows.metrics.likelihood import evaluate_likelihood
from flows.metrics.roundtrip import in_precision, round_trip_table
from flows.models.glow import Glow
from flows.models.nice import NICE
from flows.models.realnvp import RealNVP
from flows.training.ema import WeightAverage
from flows.training.interrupt import Interrupt


class OnDevice(torch.Tensor):
    """Tensor on a simulated device without double precision, as MPS is; `cpu` brings it to the host."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = super().__torch_function__(function, types, args, kwargs)
        to_host = function is torch.Tensor.cpu or (
            function is torch.Tensor.to and any(str(each) == "cpu" for each in (*args[1:], *kwargs.values()))
        )
        if to_host:
            return result.as_subclass(Tensor)
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, OnDevice) and each.dtype == torch.float64:
                raise TypeError(f"{function.__name__}: the simulated device has no float64")
        return result

    def __deepcopy__(self, memo):
        copied = self.detach().clone()
        return nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied


def put(module):
    """Copy of a module with its parameters and buffers on the simulated device."""
    module = copy.deepcopy(module)
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(value.detach().as_subclass(OnDevice), value.requires_grad))
        for name, value in list(part.named_buffers(recurse=False)):
            part._buffers[name] = value.as_subclass(OnDevice)
    return module


@pytest.fixture
def without_double(monkeypatch):
    """Torch's host counts as a device without double precision, in whatever the package asks."""
    monkeypatch.setattr(numerics, "has_double", lambda device: False)
    for module in ("ema",):
        monkeypatch.setattr(f"flows.training.{module}.has_double", lambda device: False)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    numerics._say_host.cache_clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "cpu has no double precision")
        yield
    torch.__future__.set_overwrite_module_params_on_conversion(before)


def models():
    torch.manual_seed(0)
    images = Digits().split("train").first(256)
    made = {
        "glow": Glow((1, 8, 8), 17, levels=2, depth=2, width=8),
        "glow, LU": Glow((1, 8, 8), 17, levels=2, depth=2, width=8, permutation="lu"),
        "nice": NICE((1, 8, 8), 17, width=16),
        "realnvp": RealNVP((1, 8, 8), 17, levels=2, width=8, blocks=1),
    }
    for model in made.values():
        model.initialise(images.images, None, 0, images.keys.tolist())
    return made


def test_the_simulated_device_refuses_double_precision():
    x = torch.ones(2).as_subclass(OnDevice)
    assert type(x + torch.ones(2)) is OnDevice and type(x.cpu().double()) is Tensor
    for wrong in (lambda: x.double(), lambda: x.to(torch.float64), lambda: x + torch.ones(2).double()):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize("name", ["glow", "glow, LU", "nice", "realnvp"])
def test_measures_and_inverses_run_without_double_precision(name, without_double):
    model = models()[name].eval()
    device, test = put(model), Digits().split("test")
    expected, found = (evaluate_likelihood(each, test, 16) for each in (model, device))
    assert found.bits_per_dim == pytest.approx(expected.bits_per_dim, abs=1e-5)
    images = test.first(6).images
    inversion = invert_exactly(device, images)
    assert torch.equal(inversion.reconstruction, images) and all(c.certified for c in inversion.certificates)
    assert in_precision(device, "fp64").dtype == torch.float64
    rows = list(round_trip_table(device, {"test": (images, None)}, {"fp32": None, "fp64": None}))
    assert [row.precision for row in rows] == ["fp32", "fp64"] and rows[1].max_error < 1e-10


def test_training_runs_without_double_precision(without_double):
    model = put(models()["glow"]).train()
    average = WeightAverage(model, 0.9)
    batch = Digits().split("train").first(8)
    loss = -model(batch.images, None, torch.Generator().manual_seed(0), batch.keys.tolist()).log_prob.mean()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    average.update_parameters(model)
    whitening = put(Whitening(4))
    whitening.set_from(torch.randn(64, 4).as_subclass(OnDevice))
    z, _ = whitening(torch.randn(3, 4).as_subclass(OnDevice))
    assert whitening.inverse(z)[0].shape == (3, 4)
    x, y = torch.randn(2, 50, 3).as_subclass(OnDevice)
    assert frechet(x, y).total > 0


def test_the_fallback_is_said_once(monkeypatch):
    monkeypatch.setattr(numerics, "has_double", lambda device: False)
    numerics._say_host.cache_clear()
    with pytest.warns(UserWarning, match="cpu has no double precision: what needs it is computed on the CPU"):
        numerics.to_double(torch.ones(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numerics.to_double(torch.ones(2)).dtype == torch.float64
    numerics._say_host.cache_clear()


# Windows ------------------------------------------------------------------------------------------


def test_signals_that_a_system_lacks_are_left_out(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    former = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # another test may have it ignored
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGTERM)
            assert interrupt.received == "SIGTERM"
    finally:
        signal.signal(signal.SIGTERM, former)
