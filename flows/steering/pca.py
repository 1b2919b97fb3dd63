"""GANSpace: the principal components of w, or of a layer's activations (Härkönen et al. 2020)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flows.errors import UserError
from flows.hooks import hooked
from flows.models.base import LatentModel
from flows.models.codes import Codes, concatenate
from flows.numerics import exact_arithmetic
from flows.once import prepared
from flows.steering.base import Direction
from flows.steering.method import Method, Task


@dataclass
class PrincipalComponents(Method):
    """Components of codes of an induced space, or directions that move along those of a layer's activations.

    Codes with a white prior have no components: there a layer is needed. Its components u_k get the codes'
    directions by least squares, v = argmin Σ|c − v·xᵀ|², x the activation's coordinates (arXiv 2004.02546,
    section 2.2).

    Args:
        components: how many.
        layer: one of the model's units, by name; None takes the codes themselves.
        n: codes.
        batch: codes at a time; at least `components`.
    """

    components: int = 10
    layer: str | None = None
    n: int = 4000
    batch: int = 200

    def find(self, task: Task) -> list[Direction]:
        """Directions `pc0`, `pc1`, …, with the share of the variance that each explains.

        Raises:
            ValueError: no such layer; or a space with a prior and no layer.
        """
        model, space = task.model, task.model.check_space(task.space)
        if self.layer is None and space.prior is not None:
            units = ", ".join(list(model.units())[:8])
            raise UserError(
                f"codes of {task.space!r} are white, every direction is as good: name a layer with "
                f"--method.layer, as {units} …"
            )
        if self.layer is not None and self.layer not in model.units():
            raise UserError(f"there is no layer {self.layer!r}; expected one of {', '.join(model.units())}")
        if self.batch < self.components:
            raise UserError(f"--method.batch: expected at least {self.components}, got {self.batch}")
        parts = list(task.sample(self.n).split(self.batch))
        parts = parts if len(parts[-1]) >= self.components else parts[:-1]
        from sklearn.decomposition import IncrementalPCA  # takes a second

        machine = IncrementalPCA(self.components)
        for part in parts:
            machine.partial_fit(self.seen(model, part).numpy())
        vectors = torch.tensor(machine.components_, dtype=torch.float64)
        if self.layer is not None:
            vectors = self.regressed(machine, parts, task)
        found = []
        for i, (vector, share) in enumerate(zip(vectors, machine.explained_variance_ratio_, strict=True)):
            unit = vector / vector.norm()
            along = concatenate(parts).values.double().cpu() @ unit
            found.append(Direction(
                f"pc{i}", unit.float(), -float(along.mean()), task.space, float(along.std()), "pca",
                fingerprint=model.fingerprint(), evidence={"variance": float(share)},
            ))  # fmt: skip
        return found

    @torch.no_grad()
    def seen(self, model: LatentModel, codes: Codes) -> Tensor:
        """The codes, or the layer's activations for them: (batch, size) on the host."""
        if self.layer is None:
            return codes.values.float().cpu()
        kept: list[Tensor] = []
        with hooked(model, {self.layer: kept.append}), prepared(), exact_arithmetic(model.device):
            model.decode_codes(codes)
        return kept[-1].flatten(1).float().cpu()

    def regressed(self, machine: Any, parts: list[Codes], task: Task) -> Tensor:
        """Directions of the codes, (components, D), that go with a step along each component."""
        left = right = None
        for part in parts:
            x = torch.tensor(machine.transform(self.seen(task.model, part).numpy()))
            x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
            c = part.values.double().cpu()
            left = x.T @ x if left is None else left + x.T @ x
            right = x.T @ c if right is None else right + x.T @ c
        assert left is not None and right is not None
        return torch.linalg.solve(left, right)[:-1]
