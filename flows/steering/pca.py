"""GANSpace: principal components of w, or of a layer's activations (Härkönen et al. 2020)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flows.core.bounds import PositiveInt
from flows.core.extras import optional
from flows.core.hooks import hooked
from flows.core.numerics import exact_arithmetic
from flows.core.once import prepared
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes, concatenate
from flows.steering.base import Direction
from flows.steering.method import Method, Task

__all__ = ["PrincipalComponents"]


@dataclass
class PrincipalComponents(Method):
    """Principal components of codes of an induced space, or of a layer's activations, mapped to codes.

    Codes with a white prior have no principal components; for them a layer is needed. Each component u_k of
    its activations has a direction of the codes, found by least squares: v = argmin Σ|c − v·xᵀ|², with x the
    coordinates of the activation (arXiv 2004.02546, section 2.2).

    Args:
        components: Number of components.
        layer: Name of one of the model's layers; None uses the codes themselves.
        n: Number of codes.
        batch: Number of codes at a time; at least `components`.
    """

    components: PositiveInt = 10
    layer: str | None = None
    n: PositiveInt = 4000
    batch: PositiveInt = 200

    def find(self, task: Task) -> list[Direction]:
        """Compute directions `pc0`, `pc1`, …, each with the share of the variance that it explains.

        Raises:
            UserError: There is no such layer, the space has a prior and no layer is named, or `batch` is
                smaller than `components`.
        """
        self.check(task.model, task.space)
        parts = list(task.sample(self.n).split(self.batch))
        parts = parts if len(parts[-1]) >= self.components else parts[:-1]
        if not parts or self.components > parts[0].values.shape[1]:
            dimension = task.model.check_space(task.space).shape[-1]
            raise UserError(
                f"--method.components: expected at most the number of codes, {self.n}, and the dimension of "
                f"{task.space}, {dimension}; got {self.components}"
            )
        pca = optional("sklearn.decomposition").IncrementalPCA(self.components)  # importing takes a second
        for part in parts:
            pca.partial_fit(self.seen(task.model, part).numpy())
        vectors = torch.tensor(pca.components_, dtype=torch.float64)
        if self.layer is not None:
            vectors = self.regressed(pca, parts, task)
        directions = []
        for i, (vector, share) in enumerate(zip(vectors, pca.explained_variance_ratio_, strict=True)):
            normalised = vector / vector.norm()
            along = concatenate(parts).values.double().cpu() @ normalised
            directions.append(
                Direction(
                    name=f"pc{i}",
                    vector=normalised.float(),
                    bias=-float(along.mean()),
                    space=task.space,
                    sigma=float(along.std()),
                    method="pca",
                    fingerprint=task.model.fingerprint(),
                    evidence={"variance": float(share)},
                )
            )
        return directions

    def check(self, model: LatentModel, space: str) -> None:
        """Raise UserError if the codes are white and no layer is named, or there is no such layer."""
        if self.layer is None and model.check_space(space).prior is not None:
            layers = ", ".join(list(model.layers())[:8])
            raise UserError(
                f"codes of {space!r} are white and have no principal components: name a layer with "
                f"--method.layer, as {layers} …"
            )
        if self.layer is not None and self.layer not in model.layers():
            raise UserError(f"there is no layer {self.layer!r}; expected one of {', '.join(model.layers())}")
        if self.batch < self.components:
            raise UserError(f"--method.batch: expected at least {self.components}, got {self.batch}")

    @torch.no_grad()
    def seen(self, model: LatentModel, codes: Codes) -> Tensor:
        """Codes, or the layer's activations for them: (batch, size), on the host."""
        if self.layer is None:
            return codes.values.float().cpu()
        kept: list[Tensor] = []
        with hooked(model, {self.layer: kept.append}), prepared(), exact_arithmetic(model.device):
            model.decode_codes(codes)
        return kept[-1].flatten(1).float().cpu()

    def regressed(self, pca: Any, parts: list[Codes], task: Task) -> Tensor:
        """Directions of the codes (components, D) that correspond to a step along each component."""
        gram = product = None
        for part in parts:
            x = torch.tensor(pca.transform(self.seen(task.model, part).numpy()))
            x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
            c = part.values.double().cpu()
            gram = x.T @ x if gram is None else gram + x.T @ x
            product = x.T @ c if product is None else product + x.T @ c
        assert gram is not None and product is not None
        return torch.linalg.solve(gram, product)[:-1]
