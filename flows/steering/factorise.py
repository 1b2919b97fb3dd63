"""Directions without samples or labels: of the weights that read a style, or of the decoder's Jacobian."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows.errors import Unsupported, UserError
from flows.models.base import HasStyles, LatentModel
from flows.models.codes import Codes
from flows.numerics import exact_arithmetic
from flows.steering.base import Direction
from flows.steering.method import Method, Task

OVERSAMPLING = 8
"""Vectors more than are wanted, with which the last of them converge, too (Halko et al. 2011)."""


@dataclass
class Factorise(Method):
    """SeFa: eigenvectors of AᵀA, A the weights by which the layers read the style (Shen and Zhou 2021).

    Rows of A are normalised, as in the released code; eigenvectors come from a symmetric solver, the largest
    first, which the released code does not see to.

    Args:
        components: how many.
        levels: layers of w+ whose weights are taken; None takes all.
    """

    components: int = 10
    levels: list[str] | None = None

    def find(self, task: Task) -> list[Direction]:
        """Directions `sefa0`, `sefa1`, … of w.

        Raises:
            ValueError: the model has no styles, the space is not w, or there is no such level.
        """
        if not isinstance(task.model, HasStyles):
            raise Unsupported(f"{type(task.model).__name__} has no styles that its layers read")
        weights = task.model.style_weights()
        if task.space != "w":
            raise UserError(f"styles are read from w: set --space w, not {task.space}")
        for name in self.levels or []:
            if name not in weights:
                raise UserError(f"there is no layer {name!r}; expected some of {', '.join(weights)}")
        chosen = [matrix for name, matrix in weights.items() if self.levels is None or name in self.levels]
        read = torch.cat(chosen).detach().double().cpu()
        read = read / read.norm(dim=1, keepdim=True).clamp(min=1e-12)
        values, vectors = torch.linalg.eigh(read.T @ read)
        return principal(task, values.flip(0), vectors.flip(1), self.components, "sefa")


@dataclass
class JacobianDirections(Method):
    """Directions of largest change of the image: eigenvectors of the mean of JᵀJ, J = ∂x/∂z, over codes.

    By subspace iteration with products of the Jacobian with vectors, forwards and backwards; J itself is
    never formed. For one code these are its leading right-singular vectors.

    Args:
        components: how many.
        codes: over how many the mean is taken.
        iterations: of the subspace.
    """

    components: int = 10
    codes: int = 16
    iterations: int = 8

    def find(self, task: Task) -> list[Direction]:
        """Directions `jacobian0`, `jacobian1`, …, with the share of the image's change that each makes."""
        random = torch.Generator().manual_seed(task.seed)
        codes = task.sample(self.codes)
        size = codes.values.shape[1]
        wide = min(size, self.components + OVERSAMPLING)
        basis, _ = torch.linalg.qr(torch.randn(size, wide, generator=random).to(codes.values))
        for _ in range(self.iterations):
            basis, _ = torch.linalg.qr(gram_product(task.model, codes, basis))
        # Rayleigh–Ritz: within the subspace, the eigenvectors themselves, in order.
        image = gram_product(task.model, codes, basis)
        values, rotation = torch.linalg.eigh((basis.T @ image).double())
        vectors = basis.double() @ rotation
        return principal(
            task, values.flip(0).cpu(), vectors.flip(1).cpu(), self.components, "jacobian",
            trace(task.model, codes, random),
        )  # fmt: skip


def gram_product(model: LatentModel, codes: Codes, vectors: Tensor) -> Tensor:
    """Mean over codes of JᵀJ v for each column v of (D, k): (D, k)."""
    total = torch.zeros_like(vectors)
    with exact_arithmetic(model.device):
        for code in codes.split(1):
            many = code.repeat(vectors.shape[1])

            def decode(values: Tensor, many: Codes = many) -> Tensor:
                return model.decode_codes(many.with_values(values))

            _, change = torch.autograd.functional.jvp(decode, many.values, vectors.T.contiguous())
            _, back = torch.autograd.functional.vjp(decode, many.values, change)
            total = total + back.T
    return total / len(codes)


def trace(model: LatentModel, codes: Codes, random: torch.Generator, probes: int = 32) -> float:
    """Hutchinson's estimate of the trace of the mean JᵀJ."""
    signs = torch.randint(2, (codes.values.shape[1], probes), generator=random).to(codes.values) * 2 - 1
    return float((signs * gram_product(model, codes, signs)).sum() / probes)


def principal(
    task: Task, values: Tensor, vectors: Tensor, components: int, name: str, total: float | None = None
) -> list[Direction]:
    """Directions of the first columns of `vectors`; `sigma` is the spread of codes along them."""
    codes = task.sample(1000).values.double().cpu()
    whole = float(values.sum()) if total is None else total
    found = []
    for i in range(min(components, vectors.shape[1])):
        along = codes @ vectors[:, i]
        found.append(Direction(
            f"{name}{i}", vectors[:, i].float(), -float(along.mean()), task.space, float(along.std()), name,
            fingerprint=task.model.fingerprint(), evidence={"share": float(values[i]) / whole},
        ))  # fmt: skip
    return found
