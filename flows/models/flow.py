"""Normalising flows as latent models: a dequantiser, a bijection to a flat code, and a standard prior."""

from collections.abc import Sequence
from textwrap import indent
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.bijections.base import Bijection
from flows.bijections.chain import Tap
from flows.bijections.dequantise import Dequantiser
from flows.bijections.execution.plan import recorded_plans
from flows.core.checks import check_seed
from flows.core.data_dependent import initialise
from flows.core.numerics import Keys, digests, evaluating, exact_arithmetic, seed_from
from flows.core.once import prepared
from flows.errors import Unsupported, UserError
from flows.models.base import BATCH, LayerShape, LikelihoodBound, LikelihoodModel, Space
from flows.models.codes import LabelsLike, as_labels
from flows.models.priors import Prior

__all__ = ["Flow"]


class Flow(LikelihoodModel):
    """Normalising flow with one latent space `z`, the flat, whitened code.

    The model of a paper is a subclass that builds the three parts and passes them to `assemble`.

    Attributes:
        bijection: Bijection from images in [0, 1] to codes (batch, D).
        dequantiser: Map from bytes to points in their bins, for likelihoods only; encoding uses bin centres.
        prior: Standard prior of the code.
    """

    bijection: Bijection
    dequantiser: Dequantiser
    prior: Prior

    def assemble(
        self,
        image_shape: Sequence[int],
        bijection: Bijection,
        dequantiser: Dequantiser,
        prior: Prior,
        levels: dict[str, slice] | None = None,
        num_classes: int = 0,
        maps: dict[str, tuple[int, int, int]] | None = None,
    ) -> None:
        """Set the parts; raise UserError if the output of the bijection is not a flat code."""
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.bins = dequantiser.bins
        self.bijection, self.dequantiser, self.prior = bijection, dequantiser, prior
        self.num_classes = num_classes
        size = channels * height * width
        if bijection.output_shape(self.image_shape) != (size,):
            got = bijection.output_shape(self.image_shape)
            raise UserError(f"expected a bijection from {self.image_shape} to ({size},), got output {got}")
        levels = levels or {"level1": slice(0, size)}
        doc = "whitened code of the whole image, exact in both directions"
        self.spaces = {
            "z": Space(
                "z",
                (size,),
                prior,
                levels,
                doc,
                maps or {},
                guarantee="exact",
                labelled=bool(num_classes),
            )
        }
        self.description: dict[str, Any] = {}

    # Likelihood -----------------------------------------------------------------------------------

    def forward(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        keys: Keys | None = None,
    ) -> LikelihoodBound:
        pixels.check_bytes(images, self.image_shape)
        keys = torch.arange(len(images)) if keys is None else keys
        x, log_q = self.dequantiser(images, seed_from(generator), keys, self.dtype)
        code, log_det = self.bijection(x, self._context(labels, len(x)))
        log_prior = self.prior.log_prob(code)
        terms = {"dequantisation": -log_q, "log_det": log_det}
        for name, part in self.spaces["z"].levels.items():
            terms[f"prior/{name}"] = log_prior[:, part].sum(1)
        log_prob = torch.stack(list(terms.values())).sum(0)
        return LikelihoodBound(log_prob, terms, code, self.penalties(code, labels))

    def penalties(self, code: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Return the terms, name to scalar, that the paper adds to the loss; none unless overridden."""
        return {}

    def log_prob(
        self,
        images: pixels.ImageLike,
        labels: LabelsLike | None = None,
        seed: int | torch.Generator = 0,
        keys: Keys | None = None,
    ) -> Tensor:
        """Compute a lower bound on log P of images as in `encode_bytes`, by dequantisation: (batch,), nats.

        An image has the same bound in every call and at every place of a batch: the noise in its bins is that
        of `seed` and of its own pixels. Other seeds give other samples of the bound. The density at the bin
        centres, without noise, is `log_density(flows.images.to_unit(images, model.bins))`. A loss needs new
        noise in every step: it calls the model itself, `model(images).log_prob`. So does the graph of
        `torch.compile(model.log_prob)`, whose noise is that of `torch.manual_seed`.

        Args:
            images: uint8 (batch, C, H, W), an array, or Pillow images; see `flows.images.as_bytes`.
            labels: Integers (batch,), for a class-conditional flow.
            seed: Seed of the noise, or a generator that it is drawn from.
            keys: Identity of each image, as in `forward`; None takes a digest of its pixels.

        Raises:
            UserError: The images do not fit the model, or a class-conditional flow gets no labels; they are
                not inferred here, as in training.
        """
        given = pixels.as_bytes(images, self.image_shape)
        classes = None if labels is None else as_labels(labels).to(self.device)
        if torch.compiler.is_compiling():  # a graph can neither make a generator nor a digest
            return self(given.to(self.device), classes).log_prob
        if isinstance(seed, int):
            check_seed(seed)
            seed = torch.Generator().manual_seed(seed)
        keys = digests(given) if keys is None else keys
        return self(given.to(self.device), classes, seed, keys).log_prob

    def log_density(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the exact log-density at points x (batch, C, H, W) in [0, 1]: (batch,), nats."""
        pixels.check_unit(x, self.image_shape)
        with evaluating(self):
            code, log_det = self.bijection(x, self._context(labels, len(x)))
        return self.prior.log_prob(code).sum(1) + log_det

    @property
    def infers_labels(self) -> bool:
        """Whether the flow is class-conditional, so that its likelihood classifies images."""
        return self.num_classes > 0

    @torch.no_grad()
    def infer_labels(self, images: pixels.ImageLike, batch: int = BATCH) -> Tensor:
        """Classify images, as in `encode_bytes`, by argmax_y log p(x | y) at the bin centres x.

        Returns:
            Most likely classes, int64 (n,), on the model's device.

        Raises:
            Unsupported: The flow is not class-conditional.
        """
        if not self.num_classes:
            raise Unsupported(f"{type(self).__name__} was built without classes: it has no labels to infer")
        images = pixels.as_bytes(images, self.image_shape)
        parts = [torch.empty(0, dtype=torch.long, device=self.device)]
        with prepared(), exact_arithmetic(self.device):
            for start in range(0, len(images), batch):
                x = pixels.to_unit(images[start : start + batch], self.bins, self.dtype).to(self.device)
                classes = [torch.full((len(x),), i, device=self.device) for i in range(self.num_classes)]
                parts.append(torch.stack([self.log_density(x, label) for label in classes]).argmax(0))
        return torch.cat(parts)

    def initialise(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        seed: int = 0,
        keys: Keys | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        initialise(self, images, labels, generator, keys)

    # Codes ----------------------------------------------------------------------------------------

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        self.check_space(space)
        pixels.check_unit(images, self.image_shape)
        with prepared(), evaluating(self):
            return self.bijection(images.to(self.dtype), self._context(labels, len(images)))[0]

    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        self.check_code(code, space)
        with prepared(), evaluating(self):
            return self.bijection.inverse(code.to(self.dtype), self._context(labels, len(code)))[0]

    # Execution ------------------------------------------------------------------------------------

    def explain(self, images: int = 1, gradients: bool = False) -> str:
        """Describe how the bijection runs: the executors of every chain, and why the others run nothing.

        Args:
            images: Number of images in the batch.
            gradients: Whether gradients are recorded, as in training.
        """
        x = torch.full((images, *self.image_shape), 0.5, dtype=self.dtype, device=self.device)
        labels = torch.zeros(images, dtype=torch.long, device=self.device) if self.num_classes else None
        with recorded_plans() as plans, evaluating(self), torch.set_grad_enabled(gradients):
            self.bijection(x, labels)
        names = {module: name for name, module in self.named_modules()}
        return "\n".join(f"{names[chain]}\n{indent(plan.explain(), '  ')}" for chain, plan in plans)

    def layers(self) -> dict[str, LayerShape]:
        # Bijections are excluded: they return a pair, and their hooks run in the forward direction only.
        return self.layers_among(
            (name, module)
            for name, module in self.bijection.named_modules(prefix="bijection")
            if not isinstance(module, Bijection) and (isinstance(module, Tap) or not list(module.children()))
        )

    def _context(self, labels: Tensor | None, batch: int) -> Tensor | None:
        return self.check_labels(labels, batch) if self.num_classes else None
