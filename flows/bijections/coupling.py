"""Couplings, which change one part of the input by a function of the other (NICE §3.2, RealNVP §3.2)."""

import inspect

import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection, Example, Mapped, PulledBack, as_leaf, pull
from flows.bijections.forms import AdditiveForm, AffineForm, CouplingForm, Terms
from flows.bijections.partition import Checkerboard, Halves, OddEven, Partition
from flows.bijections.scales import LearnedTanh, Scale, SigmoidScale, TwoSided
from flows.core.numerics import sum_per_example, zero_log_det
from flows.errors import UserError

__all__ = ["AdditiveCoupling", "AffineCoupling", "Coupling"]


class Coupling(Bijection):
    """Coupling: kept' = kept, changed' = form(changed; t(kept), log s(kept)); log|det| = Σ log s.

    Args:
        partition: Partition of the input into a kept and a changed part.
        network: Network; takes (kept, context) or (kept) and returns a tensor of the shape of `changed`, or
            twice its channels if the form has a scale.
        form: Equation of the changed part.
        scale: Map from the raw half of the network's output to log s, if the form has one.
        interleaved: Whether shift and raw scale are the even and odd output channels (Glow's released code);
            otherwise they are the first and the second half.

    Raises:
        UserError: The form has a scale and none is given, or the other way round.
    """

    def __init__(
        self,
        partition: Partition,
        network: nn.Module,
        form: CouplingForm,
        scale: Scale | None = None,
        interleaved: bool = False,
    ):
        super().__init__()
        if form.scaled != (scale is not None):
            raise UserError(
                f"scale: expected {'one' if form.scaled else 'none'} for {type(form).__name__}, got {scale}"
            )
        self.partition = partition
        self.network = conditioner(network)
        self.form = form
        self.scale = scale
        self.interleaved = interleaved

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        kept, changed = self.partition.split(x)
        terms = self.terms(kept, changed, context)
        return self.partition.merge(kept, self.form.forward(changed, terms)), log_det_of(terms, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        kept, changed = self.partition.split(z)
        terms = self.terms(kept, changed, context)
        return self.partition.merge(kept, self.form.inverse(changed, terms)), -log_det_of(terms, z)

    def terms(self, kept: Tensor, changed: Tensor, context: Tensor | None) -> Terms:
        """Compute (t, log s), in the dtype of `kept` even if the network runs in bf16.

        Raises:
            UserError: The network returns another shape than that of the changed part.
        """
        shift, raw = self.split_output(self.network(kept, context).to(kept.dtype))
        restrict = self.partition.restrict
        if raw is None or self.scale is None:
            return Terms(same_shape(restrict(shift), changed))
        return Terms(restrict(shift), same_shape(restrict(self.scale(raw)), changed))

    def split_output(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Shift and raw scale as views of a network's output (batch, channels, ...); None without a scale."""
        if self.scale is None:
            return output, None
        if self.interleaved:
            return output[:, 0::2], output[:, 1::2]
        shift, raw = output.chunk(2, 1)
        return shift, raw

    def pull_back(
        self, z: Tensor, context: Tensor | None, grad_z: Tensor, grad_log_det: Tensor
    ) -> PulledBack:
        """Reconstruct and backpropagate with one network evaluation, as x and z have the same kept part."""
        kept, changed = self.partition.split(z)
        with torch.enable_grad():
            kept_leaf, context = kept.detach().requires_grad_(), as_leaf(context)
            terms = self.terms(kept_leaf, changed, context)
        values = terms.detach()
        x = self.partition.merge(kept, self.form.inverse(changed, values))
        grad_kept, grad_changed = self.partition.split(grad_z)
        per_example = grad_log_det.view(-1, *[1] * (changed.dim() - 1))
        grad_before, grad_terms = self.form.pull_back(changed, values, grad_changed, per_example)
        results = [
            (value, grad)
            for value, grad in zip(terms, grad_terms, strict=True)
            if value is not None and grad is not None
        ]
        leaves = [kept_leaf, context, *self.tensors()]
        through, grad_context, *grads = pull(results, leaves)
        grad_x = _with_network(self.partition, grad_kept, through, grad_before)
        return PulledBack(x, grad_x, grad_context, grads)

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"a form of its own": Example(cls(OddEven(), _Toy(3, 3), AdditiveForm()), (6,))}


class AdditiveCoupling(Coupling):
    """Additive coupling: kept' = kept, changed' = changed + t(kept); log|det| = 0 (NICE equation 9).

    Args:
        partition: Partition of the input into a kept and a changed part.
        network: Network t; takes (kept, context) or (kept) and returns a tensor of the shape of `changed`.
    """

    constant_log_det = True

    def __init__(self, partition: Partition, network: nn.Module):
        super().__init__(partition, network, AdditiveForm())

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {
            "vector, odd–even": Example(cls(OddEven(), _Toy(3, 3)), (6,)),
            "vector, even kept": Example(cls(OddEven(keep_odd=False), _Toy(4, 3)), (7,)),
            "image, first half": Example(cls(Halves(), _Toy(1, 2)), (3, 2, 2)),
            "image, second half": Example(cls(Halves(keep_first=False), _Toy(2, 1)), (3, 2, 2)),
            "with context": Example(cls(Halves(), _Toy(3, 2)), (4, 2, 2), context_shape=(1, 2, 2)),
        }


class AffineCoupling(Coupling):
    """Affine coupling: kept' = kept, changed' = changed·s(kept) + t(kept); log|det| = Σ log s.

    RealNVP equations 7, 8. With `shift_first`, changed' = (changed + t)·s, as in the released code of Glow
    and RealNVP.

    Args:
        partition: Partition of the input into a kept and a changed part.
        network: Network; takes (kept, context) or (kept) and returns twice the channels of `changed`.
        scale: Map from the raw half of the network's output to log s.
        shift_first: Whether the shift is added before scaling.
        interleaved: Whether shift and raw scale are the even and odd output channels (Glow's released code);
            otherwise they are the first and the second half.
    """

    scale: Scale

    def __init__(
        self,
        partition: Partition,
        network: nn.Module,
        scale: Scale,
        shift_first: bool = False,
        interleaved: bool = False,
    ):
        super().__init__(partition, network, AffineForm(shift_first), scale, interleaved)

    @classmethod
    def examples(cls) -> dict[str, Example]:
        board = Checkerboard((2, 4), keep_even=False)
        halves, second = Halves(), Halves(keep_first=False)
        return {
            "vector, two-sided": Example(cls(OddEven(), _Toy(2, 6), TwoSided()), (5,)),
            "image, sigmoid, shift first, interleaved": Example(
                cls(halves, _Toy(2, 4), SigmoidScale(), shift_first=True, interleaved=True), (4, 2, 2)
            ),
            "image, second half, tanh": Example(cls(second, _Toy(2, 2), LearnedTanh(0.7)), (3, 2, 2)),
            "checkerboard": Example(cls(board, _Toy(2, 4), TwoSided(), shift_first=True), (2, 2, 4)),
            "with context": Example(cls(halves, _Toy(3, 4), TwoSided()), (4, 2, 2), context_shape=(1, 2, 2)),
        }


class Unconditional(nn.Module):
    """Network that takes no context, called as a conditioner.

    Args:
        network: Module whose `forward` takes the kept part alone, for example an `nn.Sequential`.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, kept: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            raise UserError(
                f"{type(self.network).__name__} takes no context, but one was given: expected a network with "
                "forward(kept, context), or a coupling that is called without a context"
            )
        output: Tensor = self.network(kept)
        return output


def conditioner(network: nn.Module) -> nn.Module:
    """The network itself if its `forward` takes a context, otherwise an `Unconditional` around it."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return network  # compiled or scripted: nothing is known about its arguments
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return network
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return network if len(positional) > 1 else Unconditional(network)


def log_det_of(terms: Terms, like: Tensor) -> Tensor:
    """Sum of log s for every example, (batch,); zeros without a scale."""
    return zero_log_det(like) if terms.log_scale is None else sum_per_example(terms.log_scale)


def _with_network(
    partition: Partition, grad_kept: Tensor, through: Tensor | None, grad_changed: Tensor
) -> Tensor:
    """Gradient of x; `through` is the gradient of the kept part through the network, or None."""
    if through is not None:
        grad_kept = grad_kept + partition.restrict_kept(through)
    return partition.merge(grad_kept, grad_changed)


def same_shape(output: Tensor, changed: Tensor) -> Tensor:
    """Return `output` if it has the shape of `changed`: broadcasting would hide a wrong log-determinant.

    Raises:
        UserError: The shapes differ.
    """
    if output.shape != changed.shape:
        raise UserError(
            f"a coupling's network returned a shift or scale of shape {tuple(output.shape)} for a changed "
            f"part of shape {tuple(changed.shape)}: expected the same shape, that is, a network output with "
            "the channels of the changed part, or twice as many for an affine coupling"
        )
    return output


class _Toy(nn.Module):
    """Conditioner for the examples: a linear map across channels and a tanh, far from the identity.

    The image's mean is added to every pixel, because the pixels that a checkerboard changes are zero.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, kept: Tensor, context: Tensor | None) -> Tensor:
        if context is not None:
            kept = torch.cat([kept, context], 1)
        if kept.dim() == 4:
            kept = kept + kept.mean((2, 3), keepdim=True)
        mixed = torch.einsum("oi,bi...->bo...", self.weight, kept)
        return torch.tanh(mixed + self.bias.view(-1, *[1] * (kept.dim() - 2)))
