"""Couplings, which change one part of the input by a function of the other (NICE §3.2, RealNVP §3.2)."""

import inspect

import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection, Example, Mapped, PulledBack, as_leaf, pull
from flows.bijections.partition import Checkerboard, Halves, OddEven, Partition
from flows.bijections.scales import LearnedTanh, Scale, SigmoidScale, TwoSided
from flows.errors import UserError
from flows.numerics import sum_per_example, zero_log_det

__all__ = ["AdditiveCoupling", "AffineCoupling"]


class AdditiveCoupling(Bijection):
    """Additive coupling: kept' = kept, changed' = changed + t(kept); log|det| = 0 (NICE equation 9).

    Args:
        partition: Partition of the input into a kept and a changed part.
        network: Network t; takes (kept, context) or (kept) and returns a tensor of the shape of `changed`.
    """

    constant_log_det = True

    def __init__(self, partition: Partition, network: nn.Module):
        super().__init__()
        self.partition = partition
        self.network = conditioner(network)

    def shift(self, kept: Tensor, context: Tensor | None) -> Tensor:
        """Compute t(kept), in the dtype of `kept` even if the network runs in bf16."""
        return self.partition.restrict(self.network(kept, context).to(kept.dtype))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        kept, changed = self.partition.split(x)
        shift = same_shape(self.shift(kept, context), changed)
        return self.partition.merge(kept, changed + shift), zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        kept, changed = self.partition.split(z)
        shift = same_shape(self.shift(kept, context), changed)
        return self.partition.merge(kept, changed - shift), zero_log_det(z)

    def pull_back(
        self, z: Tensor, context: Tensor | None, grad_z: Tensor, grad_log_det: Tensor
    ) -> PulledBack:
        """Reconstruct and backpropagate with one network evaluation, as x and z have the same kept part."""
        kept, changed = self.partition.split(z)
        with torch.enable_grad():
            kept_leaf, context = kept.detach().requires_grad_(), as_leaf(context)
            shift = self.shift(kept_leaf, context)
        x = self.partition.merge(kept, changed - shift.detach())
        grad_kept, grad_changed = self.partition.split(grad_z)
        leaves = [kept_leaf, context, *self.tensors()]
        through, grad_context, *grads = pull([(shift, grad_changed)], leaves)
        grad_x = _with_network(self.partition, grad_kept, through, grad_changed)
        return PulledBack(x, grad_x, grad_context, grads)

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {
            "vector, odd–even": Example(cls(OddEven(), _Toy(3, 3)), (6,)),
            "vector, even kept": Example(cls(OddEven(keep_odd=False), _Toy(4, 3)), (7,)),
            "image, first half": Example(cls(Halves(), _Toy(1, 2)), (3, 2, 2)),
            "image, second half": Example(cls(Halves(keep_first=False), _Toy(2, 1)), (3, 2, 2)),
            "with context": Example(cls(Halves(), _Toy(3, 2)), (4, 2, 2), context_shape=(1, 2, 2)),
        }


class AffineCoupling(Bijection):
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

    def __init__(
        self,
        partition: Partition,
        network: nn.Module,
        scale: Scale,
        shift_first: bool = False,
        interleaved: bool = False,
    ):
        super().__init__()
        self.partition = partition
        self.network = conditioner(network)
        self.scale = scale
        self.shift_first = shift_first
        self.interleaved = interleaved

    def shift_and_log_scale(self, kept: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute (t, log s), in the dtype of `kept` even if the network runs in bf16."""
        output = self.network(kept, context).to(kept.dtype)
        shift, raw = (output[:, 0::2], output[:, 1::2]) if self.interleaved else output.chunk(2, 1)
        return self.partition.restrict(shift), self.partition.restrict(self.scale(raw))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        kept, changed = self.partition.split(x)
        shift, log_scale = self.shift_and_log_scale(kept, context)
        same_shape(log_scale, changed)
        if self.shift_first:
            changed = (changed + shift) * log_scale.exp()
        else:
            changed = changed * log_scale.exp() + shift
        return self.partition.merge(kept, changed), sum_per_example(log_scale)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        kept, changed = self.partition.split(z)
        shift, log_scale = self.shift_and_log_scale(kept, context)
        same_shape(log_scale, changed)
        if self.shift_first:
            changed = changed * (-log_scale).exp() - shift
        else:
            changed = (changed - shift) * (-log_scale).exp()
        return self.partition.merge(kept, changed), -sum_per_example(log_scale)

    def pull_back(
        self, z: Tensor, context: Tensor | None, grad_z: Tensor, grad_log_det: Tensor
    ) -> PulledBack:
        """Reconstruct and backpropagate with one network evaluation, as x and z have the same kept part.

        z = (x + t)·s: ∂x = ∂t = s·∂z, ∂log s = z·∂z + ∂log_det; z = x·s + t: ∂x = s·∂z, ∂t = ∂z,
        ∂log s = (z − t)·∂z + ∂log_det.
        """
        kept, changed = self.partition.split(z)
        with torch.enable_grad():
            kept_leaf, context = kept.detach().requires_grad_(), as_leaf(context)
            shift, log_scale = self.shift_and_log_scale(kept_leaf, context)
        t, scale = shift.detach(), log_scale.detach().exp()
        grad_kept, grad_changed = self.partition.split(grad_z)
        grad_before = grad_changed * scale
        if self.shift_first:
            before = changed / scale - t
            grad_shift, grad_log_scale = grad_before, grad_changed * changed
        else:
            scaled = changed - t
            before = scaled / scale
            grad_shift, grad_log_scale = grad_changed, grad_changed * scaled
        grad_log_scale = grad_log_scale + grad_log_det.view(-1, *[1] * (changed.dim() - 1))
        leaves = [kept_leaf, context, *self.tensors()]
        results = [(shift, grad_shift), (log_scale, grad_log_scale)]
        through, grad_context, *grads = pull(results, leaves)
        x = self.partition.merge(kept, before)
        grad_x = _with_network(self.partition, grad_kept, through, grad_before)
        return PulledBack(x, grad_x, grad_context, grads)

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
    except UserError:
        return network  # compiled or scripted: nothing is known about its arguments
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return network
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return network if len(positional) > 1 else Unconditional(network)


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
