"""Fixed permutations of the channels, or of the entries of a vector."""

import torch
from torch import Tensor

from flows.bijections.base import Bijection, Example, Mapped
from flows.core.numerics import zero_log_det
from flows.errors import UserError

__all__ = ["Permutation", "Reverse"]


class Reverse(Bijection):
    """Reversal of the channel order, its own inverse."""

    constant_log_det = True

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return x.flip(1), zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return z.flip(1), zero_log_det(z)

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"vector": Example(cls(), (5,)), "image": Example(cls(), (3, 2, 2))}


class Permutation(Bijection):
    """Permutation of the channels: z[:, i] = x[:, order[i]].

    Args:
        order: Permutation of 0 … channels − 1; a buffer, so that it is saved.
    """

    constant_log_det = True
    order: Tensor

    def __init__(self, order: Tensor):
        super().__init__()
        if not order.is_meta and not torch.equal(order.sort().values, torch.arange(len(order))):
            raise UserError(f"expected a permutation of 0 … {len(order) - 1}, got {order.tolist()}")
        self.register_buffer("order", order.clone())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return x[:, self.order], zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return z[:, self.order.argsort()], zero_log_det(z)

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"cycle": Example(cls(torch.tensor([1, 2, 0])), (3, 2, 2))}


def random_permutation(channels: int) -> Permutation:
    """Permutation sampled once from torch's global generator."""
    return Permutation(torch.randperm(channels))


def odd_even_permutation(size: int) -> Permutation:
    """Permutation to the order 1, 3, 5, …, 0, 2, 4, … (NICE's interleaved partition)."""
    return Permutation(torch.cat([torch.arange(1, size, 2), torch.arange(0, size, 2)]))
