"""Equations of couplings: how the changed part depends on the network's shift t and log-scale log s.

This is the one place where they stand. `coupling` applies them to the changed part of an input, the fused
execution on CPUs (`execution.rows`) to columns of a matrix, in place.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

__all__ = ["AdditiveForm", "AffineForm", "CouplingForm", "Terms"]


class Terms(NamedTuple):
    """Shift and log-scale that a coupling's network predicts for the changed part, or their gradients.

    Attributes:
        shift: t, of the shape of the changed part.
        log_scale: log s, of the same shape; None for a form without a scale.
    """

    shift: Tensor
    log_scale: Tensor | None = None

    def detach(self) -> "Terms":
        """Return the same values without a graph."""
        return Terms(self.shift.detach(), None if self.log_scale is None else self.log_scale.detach())


class CouplingForm(ABC):
    """Invertible map of the changed part, element by element, given `Terms`.

    Args of all methods:
        x, z: Changed part before and after the map.
        terms: Shift and log-scale.
        out: Tensor for the result, which may be the input itself; None allocates it. Gradients are recorded
            only without `out`.

    Attributes:
        scaled: Whether the form has a log-scale; log|det| is its sum.
        pulls_back_by_shift: Whether `pull_back` uses the shift, which has to be kept or computed again.
    """

    scaled: ClassVar[bool]

    @property
    def pulls_back_by_shift(self) -> bool:
        return False

    @abstractmethod
    def forward(self, x: Tensor, terms: Terms, out: Tensor | None = None) -> Tensor:
        """Map x to z."""

    @abstractmethod
    def inverse(self, z: Tensor, terms: Terms, out: Tensor | None = None) -> Tensor:
        """Map z to x."""

    @abstractmethod
    def pull_back(
        self, z: Tensor, terms: Terms, grad_z: Tensor, grad_log_det: Tensor
    ) -> tuple[Tensor, Terms]:
        """Gradients of x and of the terms, from those of z and of the log-determinant.

        Args:
            z: Changed part after the map.
            terms: Shift and log-scale.
            grad_z: ∂z.
            grad_log_det: Gradient of the log-determinant of each element's example; broadcasts to z.
        """


@dataclass(frozen=True)
class AdditiveForm(CouplingForm):
    """z = x + t; log|det| = 0 (NICE equation 9)."""

    scaled = False

    def forward(self, x: Tensor, terms: Terms, out: Tensor | None = None) -> Tensor:
        return torch.add(x, terms.shift, out=out)

    def inverse(self, z: Tensor, terms: Terms, out: Tensor | None = None) -> Tensor:
        return torch.sub(z, terms.shift, out=out)

    def pull_back(
        self, z: Tensor, terms: Terms, grad_z: Tensor, grad_log_det: Tensor
    ) -> tuple[Tensor, Terms]:
        return grad_z, Terms(grad_z)


@dataclass(frozen=True)
class AffineForm(CouplingForm):
    """z = x·s + t, or z = (x + t)·s with `shift_first`; log|det| = Σ log s (RealNVP equations 7, 8).

    Attributes:
        shift_first: Whether the shift is added before scaling, as in the released code of Glow and RealNVP.
    """

    shift_first: bool = False
    scaled = True

    @property
    def pulls_back_by_shift(self) -> bool:
        return not self.shift_first

    def forward(self, x: Tensor, terms: Terms, out: Tensor | None = None) -> Tensor:
        shift, log_scale = both(terms)
        if self.shift_first:
            return torch.mul(torch.add(x, shift, out=out), log_scale.exp(), out=out)
        return torch.add(torch.mul(x, log_scale.exp(), out=out), shift, out=out)

    def inverse(self, z: Tensor, terms: Terms, out: Tensor | None = None) -> Tensor:
        shift, log_scale = both(terms)
        if self.shift_first:
            return torch.sub(torch.mul(z, (-log_scale).exp(), out=out), shift, out=out)
        return torch.mul(torch.sub(z, shift, out=out), (-log_scale).exp(), out=out)

    def pull_back(
        self, z: Tensor, terms: Terms, grad_z: Tensor, grad_log_det: Tensor
    ) -> tuple[Tensor, Terms]:
        """Differentiate by hand.

        z = (x + t)·s: ∂x = ∂t = s·∂z, ∂log s = z·∂z + ∂log_det; z = x·s + t: ∂x = s·∂z, ∂t = ∂z,
        ∂log s = (z − t)·∂z + ∂log_det.
        """
        shift, log_scale = both(terms)
        grad_x = grad_z * log_scale.exp()
        if self.shift_first:
            return grad_x, Terms(grad_x, torch.addcmul(grad_log_det, grad_z, z))
        return grad_x, Terms(grad_z, torch.addcmul(grad_log_det, grad_z, z - shift))


def both(terms: Terms) -> tuple[Tensor, Tensor]:
    """Shift and log-scale, of a form that has both."""
    assert terms.log_scale is not None
    return terms.shift, terms.log_scale
