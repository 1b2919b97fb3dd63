"""torch.compile takes whole models as one graph, and what it makes of them is the same."""

import shutil

import pytest
import torch

from flows.images import to_unit
from flows.models.glow import Glow
from flows.models.nice import NICE
from flows.models.realnvp import RealNVP

SHAPE = (3, 8, 8)
MODELS = {
    "glow": lambda: Glow(SHAPE, levels=2, depth=1, width=8),
    "nice": lambda: NICE(SHAPE, width=16, hidden_layers=1),
    "realnvp": lambda: RealNVP(SHAPE, levels=2, width=4, blocks=1),
}

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def compare(name: str, function: str, backend: str, tolerance: float) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        images = torch.randint(256, (2, *SHAPE), dtype=torch.uint8)
        unit = to_unit(images)
        inputs = {"log_prob": images, "encode": unit, "decode": model.encode(unit)}
    eager = getattr(model, function)
    torch._dynamo.reset()
    compiled = torch.compile(eager, fullgraph=True, backend=backend)
    # The graph has the noise of `torch.manual_seed`, as the model itself has.
    expected = (lambda images: model(images).log_prob) if function == "log_prob" else eager
    results = []
    for each in (expected, compiled):
        torch.manual_seed(1)  # of the dequantisation noise
        results.append(each(inputs[function]).detach())
    scale = max(1.0, float(results[0].abs().max()))
    assert float((results[0] - results[1]).abs().max()) <= tolerance * scale


@pytest.mark.long
@pytest.mark.parametrize("function", ["log_prob", "encode", "decode"])
@pytest.mark.parametrize("name", MODELS)
def test_one_graph_without_breaks(name, function):
    compare(name, function, "aot_eager", 1e-5)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on CPUs")
@pytest.mark.parametrize("function", ["log_prob", "decode"])
def test_generated_code_computes_the_same(function):
    compare("glow", function, "inductor", 1e-4)
