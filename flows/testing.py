"""Laws that every bijection satisfies, as checks for built-in and user-defined bijections.

    from flows.testing import check_bijection

    check_bijection(lambda: MyCoupling(6), shape=(6,))

Where possible, a law is checked against an independent reference: log-determinants against the Jacobian
computed by autograd, a reloaded instance against the saved one. A round trip alone proves nothing about a
log-determinant, because both directions may share the same error.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from flows.bijections.base import Bijection, Example, Mapped
from flows.bijections.chain import Chain
from flows.bijections.coupling import AffineCoupling, Coupling
from flows.bijections.linear import InvertibleConv1x1
from flows.bijections.partition import Halves
from flows.bijections.scales import TwoSided
from flows.bijections.scaling import ActNorm
from flows.core.data_dependent import initialise
from flows.core.numerics import combine_seeds
from flows.memory import MEMORY_MODES, set_memory, why_not_twice
from flows.networks.glow import GlowNetwork

BATCH = 3


class LawBroken(AssertionError):
    """A bijection breaks at least one law; the message lists all of them."""


@dataclass
class Case:
    """Bijection under test.

    Attributes:
        build: Function that creates an instance; called several times under different seeds of torch.
        shape: Shape of one example of x.
        interval: (low, high) of the uniformly distributed x.
        num_classes: Number of classes; if positive, the context is labels in [0, num_classes).
        context_shape: Shape of one example of a real-valued context, or None.
        tolerance: Largest allowed error in fp64, relative to the compared values (at least 1).
    """

    build: Callable[[], Bijection]
    shape: tuple[int, ...]
    interval: tuple[float, float] = (-2.0, 2.0)
    num_classes: int = 0
    context_shape: tuple[int, ...] | None = None
    tolerance: float = 1e-8

    @classmethod
    def of_example(cls, make: Callable[[], Example]) -> "Case":
        """Case of one of a class's `examples`; `make` creates the example anew."""
        one = make()

        def build() -> Bijection:
            return make().bijection

        return cls(build, one.shape, one.interval, one.num_classes, one.context_shape)

    def instance(self, seed: int, dtype: torch.dtype = torch.float64) -> Bijection:
        """Create an instance in eval mode, with noise added to its initial parameters.

        Otherwise half of the laws would hold trivially for zero-initialised layers.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bijection = self.build().to(dtype).eval()
            with torch.no_grad():
                for parameter in bijection.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return bijection

    def inputs(self, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor | None]:
        """Create (x, context) for a small batch."""
        generator = torch.Generator().manual_seed(combine_seeds(seed, 1))
        low, high = self.interval
        u = torch.rand(BATCH, *self.shape, generator=generator, dtype=dtype)
        context = None
        if self.num_classes:
            context = torch.randint(self.num_classes, (BATCH,), generator=generator)
        elif self.context_shape is not None:
            context = torch.randn(BATCH, *self.context_shape, generator=generator, dtype=dtype)
        return low + (high - low) * u, context


Direction = Callable[[Tensor, Tensor | None], Mapped]
Law = Callable[[Case], Iterator[str]]
"""Generator of one message per violation; it yields nothing if the law holds."""


def check_bijection(
    build: Callable[[], Bijection],
    shape: tuple[int, ...],
    interval: tuple[float, float] = (-2.0, 2.0),
    num_classes: int = 0,
    context_shape: tuple[int, ...] | None = None,
    tolerance: float = 1e-8,
) -> None:
    """Check every law of a bijection on small random inputs.

    Args:
        build: Function that creates an instance; called several times under different seeds of torch.
        shape: Shape of one example of x, small, because the D × D Jacobian is computed.
        interval: (low, high) of the uniformly distributed x.
        num_classes: Number of classes; if positive, the context is labels in [0, num_classes).
        context_shape: Shape of one example of a real-valued context.
        tolerance: Largest allowed error in fp64, relative to the compared values (at least 1).

    Raises:
        LawBroken: A law does not hold; the message lists every broken law and its error.
    """
    case = Case(build, shape, interval, num_classes, context_shape, tolerance)
    broken = broken_laws(case)
    if broken:
        lines = [f"  {law}: {message}" for law, messages in broken.items() for message in messages]
        raise LawBroken("\n".join([f"{type(build()).__name__} breaks", *lines]))


def cases_of(cls: type[Bijection]) -> dict[str, Case]:
    """Cases of a class's `examples`, by name."""
    return {name: Case.of_example(lambda name=name: cls.examples()[name]) for name in cls.examples()}  # type: ignore[misc]


def broken_laws(case: Case) -> dict[str, list[str]]:
    """Return the broken laws by name, with a message per violation; a law that raises is broken too."""
    broken = {}
    for name, law in LAWS.items():
        try:
            messages = list(law(case))
        except Exception as error:  # any exception of a bijection breaks the law
            messages = [f"raised {type(error).__name__}: {error}"]
        if messages:
            broken[name] = messages
    return broken


# The laws ---------------------------------------------------------------------------------------------


def round_trip(case: Case) -> Iterator[str]:
    """Round trips reproduce the input: inverse(forward(x)) = x and forward(inverse(z)) = z, in fp64."""
    bijection = case.instance(0)
    x, context = case.inputs(0)
    z, _ = bijection(x, context)
    back, _ = bijection.inverse(z, context)
    yield from differs(back, x, case.tolerance, "inverse(forward(x)) differs from x")
    again, _ = bijection(back, context)
    yield from differs(again, z, case.tolerance, "forward(inverse(z)) differs from z")


def log_det(case: Case) -> Iterator[str]:
    """log_det equals log|det| of the autograd Jacobian, in both directions, for every example.

    Its gradient is compared too: a log_det detached from the graph has the right value but trains nothing.
    """
    bijection = case.instance(0)
    x, context = case.inputs(0)
    z, forward = bijection(x, context)
    _, inverse = bijection.inverse(z.detach(), context)
    oracle = jacobian_log_det(bijection.forward, x, context)
    yield from differs(forward, oracle, case.tolerance, "log_det of forward differs from autograd's")
    oracle = jacobian_log_det(bijection.inverse, z.detach(), context)
    yield from differs(inverse, oracle, case.tolerance, "log_det of inverse differs from autograd's")
    for name, start in {"forward": x, "inverse": z.detach()}.items():
        direction = getattr(bijection, name)
        variables = [start[:1].clone().requires_grad_(), *bijection.parameters()]
        one = None if context is None else context[:1]
        ours = gradients_of(direction(variables[0], one)[1], variables)
        theirs = gradients_of(jacobian_log_det(direction, variables[0], one, graph=True), variables)
        for mine, oracle in zip(ours, theirs, strict=True):
            what = f"the gradient of log_det of {name} differs from autograd's"
            yield from differs(mine, oracle, 100 * case.tolerance, what)


def shapes(case: Case) -> Iterator[str]:
    """log_det is (batch,) in the dtype of the input; shapes agree with output_shape and input_shape."""
    bijection = case.instance(0)
    x, context = case.inputs(0)
    z, forward = bijection(x, context)
    back, inverse = bijection.inverse(z, context)
    for name, value in {"forward": forward, "inverse": inverse}.items():
        if tuple(value.shape) != (BATCH,):
            yield f"log_det of {name} has shape {tuple(value.shape)}, expected ({BATCH},)"
        if value.dtype != x.dtype:
            yield f"log_det of {name} has dtype {value.dtype}, expected {x.dtype}"
    if tuple(z.shape[1:]) != tuple(bijection.output_shape(case.shape)):
        yield f"output_shape gives {bijection.output_shape(case.shape)}, forward gives {tuple(z.shape[1:])}"
    if tuple(bijection.input_shape(tuple(z.shape[1:]))) != tuple(case.shape):
        yield f"input_shape gives {bijection.input_shape(tuple(z.shape[1:]))}, expected {case.shape}"
    if back.dtype != x.dtype:
        yield f"inverse gives {back.dtype}, expected {x.dtype}"


def examples_are_independent(case: Case) -> Iterator[str]:
    """An example gives the same result alone as within a batch, in both directions."""
    bijection = case.instance(0)
    x, context = case.inputs(0)
    for name, direction in {"forward": bijection.forward, "inverse": bijection.inverse}.items():
        whole, log_dets = direction(x, context)
        for i in range(BATCH):
            one = None if context is None else context[i : i + 1]
            value, one_log_det = direction(x[i : i + 1], one)
            yield from differs(value, whole[i : i + 1], case.tolerance, f"{name} mixes examples")
            yield from differs(
                one_log_det, log_dets[i : i + 1], case.tolerance, f"log_det of {name} mixes examples"
            )
        x = whole.detach()


def is_pure(case: Case) -> Iterator[str]:
    """Both directions are deterministic, leave their inputs unmodified, and change no state in eval mode.

    Only a map that declares `uses_batch_statistics` may give a different result in training mode.
    """
    bijection = case.instance(0)
    x, context = case.inputs(0)
    if not uses_batch_statistics(bijection):
        value, value_log_det = bijection(x, context)
        bijection.train()
        trained, trained_log_det = bijection(x, context)
        bijection.eval()
        if not (torch.equal(value, trained) and torch.equal(value_log_det, trained_log_det)):
            yield "forward gives a different result in training mode"
    before = copy.deepcopy(bijection.state_dict())
    before_context = None if context is None else context.clone()
    for name, direction in {"forward": bijection.forward, "inverse": bijection.inverse}.items():
        kept = x.clone()
        first, first_log_det = direction(x, context)
        second, second_log_det = direction(x, context)
        if not torch.equal(x, kept):
            yield f"{name} changes its input"
        if not (torch.equal(first, second) and torch.equal(first_log_det, second_log_det)):
            yield f"two calls of {name} differ"
        if context is not None and before_context is not None and not torch.equal(context, before_context):
            yield f"{name} changes its context"
        x = first.detach()
    changed = [key for key, value in bijection.state_dict().items() if not same(value, before[key])]
    if changed:
        yield f"calls in eval mode change {', '.join(changed)}"


def gradients(case: Case) -> Iterator[str]:
    """Finite gradients reach the input and every parameter through both directions."""
    for name in ("forward", "inverse"):
        bijection = case.instance(0)
        x, context = case.inputs(0)
        if name == "inverse":
            x = bijection(x, context)[0].detach()
        x.requires_grad_()
        value, value_log_det = getattr(bijection, name)(x, context)
        weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)
        loss = (weights * (value + 0.3 * value.square())).sum() + value_log_det.square().sum()
        if not loss.requires_grad:
            yield f"the result of {name} is detached from the graph"
            continue
        loss.backward()
        for parameter_name, tensor in {"the input": x, **dict(bijection.named_parameters())}.items():
            if tensor.grad is None or not tensor.grad.any():
                yield f"no gradient reaches {parameter_name} through {name}"
            elif not tensor.grad.isfinite().all():
                yield f"the gradient of {parameter_name} through {name} is not finite"


def saved_is_loaded(case: Case) -> Iterator[str]:
    """A state dict loaded into another instance gives the same function, also after a training batch."""
    saved, other = case.instance(0), case.instance(1)
    x, context = case.inputs(0)
    initialise(saved, x, context)
    expected, expected_log_det = saved(x, context)
    other.load_state_dict(copy.deepcopy(saved.state_dict()))
    for when in ("after loading", "after loading and a training batch"):
        value, value_log_det = other(x, context)
        yield from differs(value, expected, 0.0, f"forward differs {when}")
        yield from differs(value_log_det, expected_log_det, 0.0, f"log_det differs {when}")
        parameters = copy.deepcopy(dict(other.named_parameters()))
        more, more_context = case.inputs(5)
        other.train()
        initialise(other, more, more_context)
        other(more, more_context)
        other.eval()
        for name, parameter in other.named_parameters():
            if not same(parameter, parameters[name]):
                yield f"a forward pass after loading changes the parameter {name}"
        if uses_batch_statistics(other):
            break  # running statistics were updated, so the function has rightly changed


def constant_log_det(case: Case) -> Iterator[str]:
    """The log-determinant is the same for every input if the class declares so."""
    bijection = case.instance(0)
    if not bijection.constant_log_det:
        return
    first = bijection(*case.inputs(0))[1]
    second = bijection(*case.inputs(5))[1]
    yield from differs(first, second, case.tolerance, "log_det is declared constant but differs")


def autocast(case: Case) -> Iterator[str]:
    """Under bf16 autocast values and log-dets stay fp32, with a round-trip error within 10 × that of fp32.

    A map without a conditioner gives the same numbers as without autocast: no part of it may run in bf16.
    """
    bijection = case.instance(0, torch.float32)
    x, context = case.inputs(0, torch.float32)

    def error() -> float:
        z, forward = bijection(x, context)
        back, inverse = bijection.inverse(z, context)
        kept_dtype.extend(value.dtype == torch.float32 for value in (z, forward, back, inverse))
        return float((back - x).detach().abs().max())

    kept_dtype: list[bool] = []
    plain = error()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = error()
        value, value_log_det = bijection(x, context)
    if not any(name.endswith("network") for name, _ in bijection.named_modules()):
        expected, expected_log_det = bijection(x, context)
        yield from differs(value, expected, 1e-6, "forward differs under autocast")
        yield from differs(value_log_det, expected_log_det, 1e-6, "log_det differs under autocast")
    if not all(kept_dtype):
        yield "a value or log_det is not fp32"
    allowed = 10 * max(plain, 1e-6)
    if not mixed <= allowed:
        yield f"round-trip error is {mixed:.1e} under bf16 autocast, {plain:.1e} in fp32"


def execution(case: Case) -> Iterator[str]:
    """Every executor of a chain gives what its definition gives, `Chain.one_by_one`, in every memory mode.

    Values, log-dets and gradients are compared, in both directions, with and without fused rows; see
    `chain_of`.
    """
    x, context = case.inputs(0)
    chain = chain_of(case)
    expected = results_of(chain, chain.one_by_one, chain.one_by_one_inversely, x, context)
    for mode, fused in product(MEMORY_MODES, (True, False)):
        chain = chain_of(case)
        if why_not_twice(chain, mode):
            continue
        set_memory(chain, mode, every=2)
        if not fused:
            as_modules(chain)
        found = results_of(chain, chain.forward, chain.inverse, x, context)
        with torch.no_grad():
            z, forward = chain(x, context)
            found |= {"forward without gradients": z, "log_det without gradients": forward}
            back, inverse = chain.inverse(z, context)
            found |= {"inverse without gradients": back, "log_det of inverse without gradients": inverse}
        where = f"memory mode {mode!r}{'' if fused else ' without rows'}"
        for name, value in found.items():
            oracle = expected[name.removesuffix(" without gradients")]
            yield from differs(value, oracle, 100 * case.tolerance, f"{name} differs in {where}")


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        round_trip,
        log_det,
        shapes,
        examples_are_independent,
        is_pure,
        gradients,
        saved_is_loaded,
        constant_log_det,
        autocast,
        execution,
    )
}


# Execution ---------------------------------------------------------------------------------------------


def chain_of(case: Case) -> Chain:
    """Chain of the map, behind maps that a chain folds and fuses if its inputs are images.

    These are a scaling, a 1×1 convolution and a coupling with Glow's network, which runs in rows on a CPU.
    """
    bijection = case.instance(0)
    steps = list(bijection.flat()) if isinstance(bijection, Chain) else [bijection]
    if len(case.shape) == 3 and case.shape[0] > 1 and case.interval == Case.interval:
        channels, kept = case.shape[0], case.shape[0] // 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = GlowNetwork(kept, 2 * (channels - kept), width=4)
            first = [
                ActNorm(channels),
                InvertibleConv1x1(channels),
                AffineCoupling(Halves(), network, TwoSided(), shift_first=True, interleaved=True),
            ]
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        for part in first:
            part.to(torch.float64).eval()
        steps = [*first, *steps]
    return Chain(*steps).eval()


def as_modules(chain: Chain) -> None:
    """Register a hook that changes nothing on every coupling's network, so that none runs in rows."""
    for step in chain.steps:
        if isinstance(step, Coupling):
            step.network.register_forward_hook(lambda *_: None)


def results_of(
    chain: Chain, forward: Direction, inverse: Direction, x: Tensor, context: Tensor | None
) -> dict[str, Tensor]:
    """Value, log-det and gradients of input and parameters, by name, in two directions of a chain."""
    found: dict[str, Tensor] = {}
    for name, direction in {"forward": forward, "inverse": inverse}.items():
        start = x.detach().requires_grad_()
        value, log_det = direction(start, context)
        of = "" if name == "forward" else " of inverse"
        found |= {name: value, f"log_det{of}": log_det}
        weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)
        loss = (weights * (value + 0.3 * value.square())).sum() + log_det.square().sum()
        variables = {"the input": start, **dict(chain.named_parameters())}
        grads = torch.autograd.grad(loss, list(variables.values()), allow_unused=True)
        for key, variable, grad in zip(variables, variables.values(), grads, strict=True):
            found[f"gradient of {key}{of}"] = torch.zeros_like(variable) if grad is None else grad
        x = value.detach()
    return found


# Oracles ----------------------------------------------------------------------------------------------


def jacobian_log_det(
    direction: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    context: Tensor | None,
    graph: bool = False,
) -> Tensor:
    """Compute log|det| of the Jacobian of `direction` at every example of x with autograd: (batch,).

    With `graph`, the result can be differentiated.
    """
    values = []
    for i in range(len(x)):
        one = None if context is None else context[i : i + 1]

        def of_vector(flat: Tensor, i: int = i, one: Tensor | None = one) -> Tensor:
            return direction(flat.view_as(x[i : i + 1]), one)[0].flatten()

        jacobian = torch.autograd.functional.jacobian(of_vector, x[i].flatten(), create_graph=graph)
        values.append(torch.linalg.slogdet(jacobian).logabsdet)
    return torch.stack(values)


def gradients_of(value: Tensor, variables: list[Tensor]) -> list[Tensor]:
    """Gradients of the sum of `value`; zeros for variables that it does not depend on."""
    if not value.requires_grad:
        return [torch.zeros_like(variable) for variable in variables]
    grads = torch.autograd.grad(value.sum(), variables, allow_unused=True)
    return [
        torch.zeros_like(variable) if gradient is None else gradient
        for variable, gradient in zip(variables, grads, strict=True)
    ]


def uses_batch_statistics(bijection: Bijection) -> bool:
    """Whether any submodule declares that it normalises by the batch in training mode."""
    return any(getattr(part, "uses_batch_statistics", False) for part in bijection.modules())


def differs(value: Tensor, expected: Tensor, tolerance: float, message: str) -> Iterator[str]:
    """Yield `message` with the difference if it exceeds `tolerance` × max(1, |expected|).

    Non-finite values always differ.
    """
    if value.shape != expected.shape:
        yield f"{message}: shape {tuple(value.shape)}, expected {tuple(expected.shape)}"
        return
    value, expected = value.detach(), expected.detach()
    if not (value.isfinite().all() and expected.isfinite().all()):
        yield f"{message}: not finite"
        return
    difference = float((value - expected).abs().max()) if value.numel() else 0.0
    scale = max(1.0, float(expected.abs().max()) if value.numel() else 1.0)
    if not difference <= tolerance * scale:
        yield f"{message}: by {difference:.1e}"


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and values; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    both_nan = a.isnan() & b.isnan() if a.is_floating_point() else torch.zeros_like(a, dtype=torch.bool)
    return bool(((a == b) | both_nan).all())
