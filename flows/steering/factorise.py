"""Directions without samples or labels: from weights that read a style, or from the decoder's Jacobian."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.bounds import PositiveInt
from flows.core.numerics import exact_arithmetic
from flows.errors import Unsupported, UserError
from flows.models.base import HasStyles, LatentModel
from flows.models.codes import Codes
from flows.steering.base import Direction
from flows.steering.method import Method, Task

__all__ = ["Factorise", "JacobianDirections"]

OVERSAMPLING = 8
"""Number of extra vectors, with which the last wanted ones converge as well (Halko et al. 2011)."""


@dataclass
class Factorise(Method):
    """SeFa: eigenvectors of AᵀA, with A the weights by which layers read the style (Shen and Zhou 2021).

    Rows of A are normalised, as in the released code. Eigenvectors come from a symmetric solver, largest
    eigenvalue first, which the released code does not ensure.

    Args:
        components: Number of directions.
        levels: Layers of w+ whose weights are used; None uses all.
    """

    components: PositiveInt = 10
    levels: list[str] | None = None

    def find(self, task: Task) -> list[Direction]:
        """Compute directions `sefa0`, `sefa1`, … of w.

        Raises:
            Unsupported: The model has no styles.
            UserError: The space is not w, or there is no such level.
        """
        if not isinstance(task.model, HasStyles):
            raise Unsupported(f"{type(task.model).__name__} has no styles that its layers read")
        weights = task.model.style_weights()
        if task.space != "w":
            raise UserError(f"SeFa finds directions of w: expected --space w, got {task.space}")
        for name in self.levels or []:
            if name not in weights:
                raise UserError(f"there is no layer {name!r}; expected some of {', '.join(weights)}")
        if self.levels == []:
            raise UserError(f"levels: expected some of {', '.join(weights)}, or null for all; got none")
        chosen = [matrix for name, matrix in weights.items() if self.levels is None or name in self.levels]
        read = torch.cat(chosen).detach().double().cpu()
        read = read / read.norm(dim=1, keepdim=True).clamp(min=1e-12)
        values, vectors = torch.linalg.eigh(read.T @ read)
        return principal(task, values.flip(0), vectors.flip(1), self.components, "sefa")


@dataclass
class JacobianDirections(Method):
    """Directions of largest image change: eigenvectors of the mean of JᵀJ over codes, with J = ∂x/∂z.

    Subspace iteration uses products of the Jacobian and its transpose with vectors; J itself is never formed.
    For a single code the result is the leading right-singular vectors of J.

    Args:
        components: Number of directions.
        codes: Number of codes that the mean is taken over.
        iterations: Number of subspace iterations.
    """

    components: PositiveInt = 10
    codes: PositiveInt = 16
    iterations: PositiveInt = 8

    def find(self, task: Task) -> list[Direction]:
        """Compute directions `jacobian0`, `jacobian1`, …, each with its share of the image's change."""
        random = torch.Generator().manual_seed(task.seed)
        codes = task.sample(self.codes)
        size = codes.values.shape[1]
        wide = min(size, self.components + OVERSAMPLING)
        basis, _ = torch.linalg.qr(torch.randn(size, wide, generator=random).to(codes.values))
        for _ in range(self.iterations):
            basis, _ = torch.linalg.qr(gram_product(task.model, codes, basis))
        # Rayleigh–Ritz: eigenvectors within the subspace, in order of their eigenvalues.
        image = gram_product(task.model, codes, basis)
        values, rotation = torch.linalg.eigh((basis.T @ image).double())
        vectors = basis.double() @ rotation
        return principal(
            task,
            values.flip(0).cpu(),
            vectors.flip(1).cpu(),
            self.components,
            "jacobian",
            trace(task.model, codes, random),
        )


def gram_product(model: LatentModel, codes: Codes, vectors: Tensor) -> Tensor:
    """Mean over codes of JᵀJ v for each column v of `vectors` (D, k): (D, k)."""
    total = torch.zeros_like(vectors)
    with exact_arithmetic(model.device):
        for code in codes.split(1):
            repeated = code.repeat(vectors.shape[1])

            def decode(values: Tensor, repeated: Codes = repeated) -> Tensor:
                return model.decode_codes(repeated.with_values(values))

            _, change = torch.autograd.functional.jvp(decode, repeated.values, vectors.T.contiguous())
            _, product = torch.autograd.functional.vjp(decode, repeated.values, change)
            total = total + product.T
    return total / len(codes)


def trace(model: LatentModel, codes: Codes, random: torch.Generator, probes: int = 32) -> float:
    """Hutchinson estimate of the trace of the mean of JᵀJ."""
    signs = torch.randint(2, (codes.values.shape[1], probes), generator=random).to(codes.values) * 2 - 1
    return float((signs * gram_product(model, codes, signs)).sum() / probes)


def principal(
    task: Task, values: Tensor, vectors: Tensor, components: int, name: str, total: float | None = None
) -> list[Direction]:
    """Directions along the first columns of `vectors`; sigma is the std of 1,000 samples along them.

    The evidence `share` is the eigenvalue in `values` relative to `total`, by default to the sum of all.
    """
    codes = task.sample(1000).values.double().cpu()
    total_value = float(values.sum()) if total is None else total
    directions = []
    for i in range(min(components, vectors.shape[1])):
        along = codes @ vectors[:, i]
        directions.append(
            Direction(
                name=f"{name}{i}",
                vector=vectors[:, i].float(),
                bias=-float(along.mean()),
                space=task.space,
                sigma=float(along.std()),
                method=name,
                fingerprint=task.model.fingerprint(),
                evidence={"share": float(values[i]) / total_value},
            )
        )
    return directions
