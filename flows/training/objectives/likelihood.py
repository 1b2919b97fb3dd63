"""Maximum likelihood, the objective of flows, with a single phase."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from flows.data.base import Batch, Split
from flows.errors import NonFinite
from flows.metrics.likelihood import bits_per_dim, labels_if_conditional
from flows.models.base import LikelihoodModel
from flows.storage.stored import StoredModule
from flows.training.phase import Evaluation, Objective, Phase
from flows.training.validation import sample_sheet, validate


class Likelihood(Objective):
    """Objective that minimises the mean bits/dim of the batch, plus the penalties of the model."""

    trains = LikelihoodModel

    def initialise(self, model: StoredModule, first: Batch, seed: int) -> None:
        likelihood_model = cast(LikelihoodModel, model)
        likelihood_model.initialise(
            first.images, labels_if_conditional(likelihood_model, first), seed, first.keys.tolist()
        )

    def initialisation_images(self, model: StoredModule) -> int:
        return cast(LikelihoodModel, model).initialisation_images

    def parts(self, model: StoredModule) -> list[nn.Module]:
        return [model]

    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        (wrapped,) = parts

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            bound = wrapped(batch.images, batch.labels, generator, batch.keys.tolist())
            dimensions = math.prod(batch.images.shape[1:])
            bits = bits_per_dim(bound.log_prob, dimensions).mean()
            logs = {"bits_per_dim": bits}
            for name, value in bound.terms.items():
                logs[f"terms/{name}"] = bits_per_dim(value, dimensions).mean()
            logs |= {f"penalties/{name}": value for name, value in bound.penalties.items()}
            return sum(bound.penalties.values(), start=bits), logs

        return [Phase("likelihood", list(model.parameters()), loss, wrapped)]

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        flow = cast(LikelihoodModel, model)
        pictures = {"samples": sample_sheet(flow)}
        try:
            values = validate(flow, held_out, images)
        except NonFinite as error:  # one odd picture; there are samples all the same
            name, line = "validation/bits_per_dim", f"validation is unknown: {error}"
            return Evaluation({name: math.nan}, math.nan, line, pictures, {name: str(error)})
        bits = values["validation/bits_per_dim"]
        line = (
            f"validation {bits:.4f} bits/dim  round trip {values['roundtrip/data']:.1e} on data, "
            f"{values['roundtrip/noise']:.1e} on noise"
        )
        return Evaluation(values, bits, line, pictures)
