"""Memory modes: the same gradients as autograd's, whatever is kept for them."""

import copy

import pytest
import torch
from torch import nn

from flows.bijections.chain import Chain
from flows.bijections.coupling import AffineCoupling
from flows.bijections.partition import Halves
from flows.bijections.scales import TwoSided
from flows.data.base import Batch
from flows.memory import chains_of, memory_of, set_memory
from flows.models.base import LikelihoodBound
from flows.models.flow import Flow
from flows.models.glow import Glow
from flows.models.nice import NICE
from flows.models.realnvp import RealNVP
from flows.training import guard
from flows.training.loop import make_accelerator

SHAPE = (3, 8, 8)
MODELS = {
    "nice": lambda: NICE(SHAPE, width=16, hidden_layers=2, whiten=0.01),
    "nice, released order": lambda: NICE(SHAPE, width=16, hidden_layers=2, order="reversed"),
    "glow": lambda: Glow(SHAPE, levels=2, depth=5, width=12),
    "glow, additive, lu, paper": lambda: Glow(
        SHAPE, levels=2, depth=3, width=12, coupling="additive", permutation="lu", flavour="paper"
    ),
    "glow, exp, permutations": lambda: Glow(
        SHAPE, levels=1, depth=3, width=12, scale="exp", permutation="random", flavour="paper"
    ),
    "glow, by class, variational": lambda: Glow(
        SHAPE, levels=2, depth=2, width=12, num_classes=3, classifier_weight=0.1, dequantisation="variational"
    ),
    "realnvp": lambda: RealNVP(SHAPE, levels=2, width=4, blocks=1),
}
REBUILDING = ("reversible", "anchored")


def build(name: str, dtype: torch.dtype = torch.float64) -> Flow:
    """A model in training mode, away from its special starting values."""
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    model.to(dtype).train().initialise(images(16), labels(model, 16))
    return model


def images(n: int = 3) -> torch.Tensor:
    return torch.randint(256, (n, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def labels(model: Flow, n: int = 3) -> torch.Tensor | None:
    return torch.arange(n) % model.num_classes if model.num_classes else None


def likelihood(model: nn.Module, n: int = 3) -> LikelihoodBound:
    of = getattr(model, "_orig_mod", model)
    return model(images(n), labels(of, n), torch.Generator().manual_seed(0))


def gradients(model: nn.Module, n: int = 3) -> dict[str, torch.Tensor]:
    model.zero_grad()
    found = likelihood(model, n)
    (-found.log_prob.mean() + sum(found.penalties.values())).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """|found − expected| / |expected| over all parameters."""
    assert found.keys() == expected.keys()
    off = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (off / sum(float(value.square().sum()) for value in expected.values())) ** 0.5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["checkpoint", *REBUILDING])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_gradients_are_those_of_plain(name, mode, dtype, tolerance):
    model = build(name, dtype)
    other = copy.deepcopy(model)
    if name == "realnvp" and mode in REBUILDING:
        with pytest.raises(ValueError, match=r"normalises by the batch.*use 'checkpoint' or 'plain'"):
            set_memory(model, mode)
        return
    set_memory(other, mode, every=2)
    assert relative(gradients(other), gradients(model)) <= tolerance
    for (key, value), twin in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, twin), f"{key} moved: statistics were updated twice"


@pytest.mark.parametrize("mode", ["checkpoint", *REBUILDING])
def test_under_autocast_a_second_computation_is_the_first_again(mode):
    """Gradients in bf16 are coarse; recomputed outside autocast they would be others."""
    model = build("glow", torch.float32)
    other = copy.deepcopy(model)
    set_memory(other, mode, every=2)
    found = {}
    for key, flow in {"plain": model, mode: other}.items():
        flow.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = -likelihood(flow).log_prob.mean()
        loss.backward()  # outside, as training loops do
        found[key] = {name: p.grad for name, p in flow.named_parameters()}
    assert relative(found[mode], found["plain"]) <= 1e-3
    assert relative(found["plain"], gradients(model)) > 1e-3


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own look
@pytest.mark.parametrize("mode", REBUILDING)
def test_compiled_it_gives_the_same_gradients(mode):
    model = build("glow")
    other = copy.deepcopy(model)
    set_memory(other, mode, every=2)
    compiled = torch.compile(other, backend="aot_eager")
    found = {name.removeprefix("_orig_mod."): value for name, value in gradients(compiled).items()}
    assert relative(found, gradients(model)) <= 1e-10


def kept_bytes(depth: int, mode: str) -> int:
    """Bytes that autograd keeps for the backward pass, without parameters, counted by its hooks."""
    torch.manual_seed(0)
    model = Glow(SHAPE, levels=2, depth=depth, width=12)
    set_memory(model, mode, every=4)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.dim() > 0 and len(tensor) % 64 == 0:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = likelihood(model, 64)
    assert kept.log_prob.requires_grad
    return sum(seen.values())


def test_what_is_kept_does_not_grow_with_the_depth():
    assert kept_bytes(16, "plain") > 3 * kept_bytes(4, "plain")
    assert kept_bytes(16, "reversible") == kept_bytes(4, "reversible")
    anchors = kept_bytes(16, "anchored") - kept_bytes(16, "reversible")
    step = (kept_bytes(16, "plain") - kept_bytes(4, "plain")) / 12
    assert 0 < anchors <= 16 / 4 * step


def test_hidden_states_reach_hooks_in_every_mode():
    """A hook at a place that folding and inversion pass over makes the chain go step by step."""
    model = build("glow")
    expected = gradients(model)
    set_memory(model, "reversible")
    seen = []
    handle = model.bijection.levels[0].steps[2].taps[0].register_forward_hook(lambda *_: seen.append(1))
    assert relative(gradients(model), expected) <= 1e-10 and seen
    handle.remove()
    seen.clear()
    assert relative(gradients(model), expected) <= 1e-10 and not seen


def test_second_derivatives_are_refused_with_the_way_out():
    model = build("glow")
    set_memory(model, "reversible")
    with pytest.raises(RuntimeError, match=r"set_memory\(model, 'plain'\)"):
        torch.autograd.grad(likelihood(model).log_prob.sum(), list(model.parameters()), create_graph=True)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Dropout(0.1), "uses random numbers"),
        (nn.BatchNorm2d(2), "updates running statistics"),
    ],
)
def test_what_cannot_be_computed_twice_is_refused(layer, reason):
    class Conditioner(nn.Sequential):
        def forward(self, kept, context):
            return super().forward(kept)

    network = Conditioner(nn.Conv2d(2, 4, 1), layer)
    chain = Chain(AffineCoupling(Halves(), network, TwoSided()))
    for mode in ("checkpoint", *REBUILDING):
        with pytest.raises(ValueError, match=rf"steps\.0\.network\.1 \(\w+\) {reason}"):
            set_memory(chain, mode)
    assert memory_of(chain).mode == "plain"


def test_changed_weights_between_the_passes_are_noticed():
    model = build("glow")
    set_memory(model, "reversible")
    loss = likelihood(model).log_prob.sum()
    with torch.no_grad():
        model.bijection.levels[0].steps[2].steps[2].network.first.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_guard_distinguishes_a_sound_flow_from_one_without_an_inverse():
    model = build("glow", torch.float32)
    set_memory(model, "reversible")
    batch = Batch(images(), torch.full((3,), -1), torch.arange(3))
    accelerator = make_accelerator()
    sound = guard.measure(model, batch, accelerator)
    assert sound.is_sound and sound.reconstruction < 1e-4 and sound.cosine > 0.9999
    with torch.no_grad():
        mixing = model.bijection.levels[0].steps[2].steps[1].weight
        mixing.mul_(1e-6).add_(1)  # of rank one, nearly
    broken = guard.measure(model, batch, accelerator)
    assert not broken.is_sound and memory_of(model).mode == "reversible"
    assert len(chains_of(model)) == 2
