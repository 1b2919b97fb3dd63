"""What every generative model of the project offers to the tools: spaces, codes, and files."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.errors import Unsupported, UserError
from flows.hooks import Hook, hooked
from flows.models.priors import Prior
from flows.numerics import Keys, draw_seed, exact_arithmetic
from flows.once import prepared
from flows.stored import StoredModule

Guarantee = Literal["exact", "exact-given-w", "learned", "none"]


@dataclass(frozen=True)
class Space:
    """A latent space of a model.

    Attributes:
        name: what tools and code files call it.
        shape: of one code.
        prior: density of the codes; None for an induced space.
        levels: name to slice of the code's last axis, coarse to fine; layer-wise tools work on these.
        doc: one line.
        maps: of levels whose part of the code lies over the image, their shape (C, height, width).
    """

    name: str
    shape: tuple[int, ...]
    prior: Prior | None
    levels: Mapping[str, slice]
    doc: str
    maps: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """A place in the generating direction that a forward hook can see and edit.

    Attributes:
        channels: units at that place.
        size: (height, width) of each unit's map.
    """

    channels: int
    size: tuple[int, int]


class LatentModel(StoredModule, library_name="flows"):
    """A model with latent codes. Images are floats (batch, C, H, W) in [0, 1]; codes are (batch, ...).

    To add one: new file in this folder; set the attributes in the constructor, whose arguments must be
    plain JSON values (they are stored in `config.json`); implement the abstract methods.

    Attributes:
        num_classes: of a class-conditional model, which needs labels; otherwise 0.
        normalises_z: every z is brought to one length first, so that a temperature of z changes nothing.
        sampling_space: where a temperature makes samples more typical; w of a StyleGAN, whose z has none.
        search_space: where codes of images are best looked for.
        spaces: name to space, prior space first.
        guarantee: per space, what encoding promises: "exact" (the inverse), "exact-given-w", "learned" (an
            encoder), "none".
    """

    num_classes: int = 0
    normalises_z: bool = False
    sampling_space: str = "z"
    search_space: str = "z"
    spaces: dict[str, Space]
    guarantee: dict[str, Guarantee]

    @abstractmethod
    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        """Images in [0, 1] to codes. Raises ValueError for another shape, range or an unknown space."""

    @abstractmethod
    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        """Codes to images; inside [0, 1] only as far as the model has learned it, never clamped."""

    def noise(self) -> list[Tensor]:
        """Stored noise inputs of the generator, (1, 1, height, width) each; most models have none."""
        return []

    def decode_with_noise(self, code: Tensor, noise: Sequence[Tensor], space: str = "z") -> Tensor:
        """`decode` with other noise than the stored one, (batch or 1, 1, height, width) each, or []."""
        if noise:
            raise Unsupported(f"{type(self).__name__} has no noise inputs, got {len(noise)}")
        return self.decode(code, space)

    def log_prob_code(self, code: Tensor, space: str = "z") -> Tensor:
        """Log-density of codes (batch, D) under the generator's prior: (batch,), nats.

        Raises:
            ValueError: it is not known for this space.
        """
        prior = self.check_space(space).prior
        if prior is None:
            raise Unsupported(f"{type(self).__name__} knows no density of space {space!r}")
        return prior.log_prob(code).sum(1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of a network of the model's own, by which images in [0, 1] may be compared.

        Raises:
            ValueError: it has none.
        """
        raise Unsupported(f"{type(self).__name__} has no network of its own to compare images by")

    def style_weights(self) -> dict[str, Tensor]:
        """Matrices (outputs, width of w) by which layers read w, by their level of w+.

        Raises:
            ValueError: it has no styles.
        """
        raise Unsupported(f"{type(self).__name__} has no styles that its layers read")

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        """Codes of one space to those of another. A model with one space returns them as they are."""
        for name in (source, target):
            self.check_space(name)
        if source != target:
            raise Unsupported(f"{type(self).__name__} has no map from space {source!r} to {target!r}")
        return code

    @abstractmethod
    def sample_codes(
        self,
        n: int,
        space: str = "z",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw n codes from the space's prior, scaled by `temperature`; row i does not depend on n."""

    @abstractmethod
    def units(self) -> dict[str, Unit]:
        """Hookable layers in the generating direction, by the name `get_submodule` knows them under."""

    def check_space(self, name: str) -> Space:
        """The space of that name. Raises ValueError naming those that exist."""
        if name not in self.spaces:
            known = ", ".join(self.spaces)
            raise UserError(f"{type(self).__name__} has no space {name!r}: expected one of {known}")
        return self.spaces[name]

    def check_code(self, code: Tensor, space: str) -> None:
        """Raise ValueError where codes have not the shape of their space, or there is no such space."""
        expected = self.check_space(space).shape
        if tuple(code.shape[1:]) != expected:
            shape = ", ".join(map(str, expected))
            raise UserError(
                f"expected codes of shape (batch, {shape}) for space {space!r}, got {tuple(code.shape)}"
            )

    def check_labels(self, labels: Tensor | None, batch: int) -> Tensor:
        """The labels of a class-conditional model. Raises ValueError unless each is in [0, num_classes)."""
        name = type(self).__name__
        expected = (
            f"{name} is class-conditional: expected labels 0 … {self.num_classes - 1}, int64 ({batch},)"
        )
        if labels is None:
            raise UserError(f"{expected}, got none")
        if labels.dtype != torch.int64 or tuple(labels.shape) != (batch,):
            raise UserError(f"{expected}, got {labels.dtype} of shape {tuple(labels.shape)}")
        # On an accelerator, looking at a value waits for it, and a table look-up checks by itself.
        if labels.device.type == "cpu" and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise UserError(f"{expected}, got {low} … {high}")
        return labels

    def first_class(self, n: int) -> Tensor | None:
        """The label 0 n times for a class-conditional model, where any will do; None for others."""
        return torch.zeros(n, dtype=torch.long, device=self.device) if self.num_classes else None

    @torch.no_grad()
    def encode_bytes(self, images: Tensor, space: str = "z", batch: int = 100) -> Tensor:
        """Codes (n, D) of uint8 images (n, C, H, W), with the first class where the model has some.

        Without gradients, with exact arithmetic, `batch` images at a time.
        """
        with prepared(), exact_arithmetic(self.device):
            codes = []
            for part in images.split(batch):
                x = pixels.to_unit(part, self.bins, self.dtype).to(self.device)
                codes.append(self.encode(x, space, self.first_class(len(part))))
        return torch.cat(codes)

    def classes_in_turn(self, n: int) -> Tensor | None:
        """Labels 0, 1, … over and over, n on the host, for a class-conditional model; None for others."""
        return torch.arange(n) % self.num_classes if self.num_classes else None

    def prior_codes(self, n: int, generator: torch.Generator | None, temperature: float = 1.0) -> Tensor:
        """n codes of the prior space, scaled; row i does not depend on n."""
        space = next(iter(self.spaces.values()))
        assert space.prior is not None
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return temperature * space.prior.sample(draw_seed(generator), torch.arange(n), space.shape, like)

    @torch.no_grad()
    def units_among(self, modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Unit]:
        """Those of the named modules that answer with image-shaped activations when codes are decoded.

        What makes weights (spectral norm's parametrisation) is none of them, and a scripted module takes no
        hooks.
        """
        found: dict[str, Unit] = {}

        def recorder(name: str) -> Hook:
            def record(output: Tensor) -> None:
                if isinstance(output, Tensor) and output.dim() == 4:
                    found[name] = Unit(output.shape[1], (output.shape[2], output.shape[3]))

            return record

        hooks = {
            name: recorder(name)
            for name, module in modules
            if ".parametrizations." not in name and not isinstance(module, torch.jit.ScriptModule)
        }
        with hooked(self, hooks):
            size = next(iter(self.spaces.values())).shape
            code = torch.zeros(1, *size, dtype=self.dtype, device=self.device)
            self.decode(code, labels=self.first_class(1))
        return found


class LikelihoodBound(NamedTuple):
    """A lower bound on the log-probability of 8-bit images, and what it is made of.

    Attributes:
        log_prob: (batch,), nats.
        terms: name to (batch,) nats; they sum to `log_prob`. `dequantisation` is −log q, `log_det` that of
            the bijection, `prior/<level>` the prior's log-density of that level's part of the code.
        code: (batch, D), the whitened code of the dequantised images.
        penalties: name to scalar, what a paper's recipe adds to the loss beside the likelihood; computed
            here because every loss must go through the wrapped model's forward.
    """

    log_prob: Tensor
    terms: dict[str, Tensor]
    code: Tensor
    penalties: dict[str, Tensor]


class LikelihoodModel(LatentModel):
    """A latent model that assigns every 8-bit image a probability, or a lower bound on one.

    Attributes:
        initialisation_images: from how many images data-dependent layers are set; 256 in Glow's released
            code.
    """

    initialisation_images: int = 256

    @abstractmethod
    def forward(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        keys: Keys | None = None,
    ) -> LikelihoodBound:
        """log P of uint8 images (batch, C, H, W), bounded below by dequantisation.

        Args:
            images: bytes.
            labels: int64 (batch,), for a class-conditional model.
            generator: where the seed of the dequantisation noise comes from.
            keys: identity of every image, integers or int64 (batch,); its noise depends on the seed and the
                key alone. Defaults to 0, 1, 2, ….
        """

    @abstractmethod
    def initialise(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        seed: int = 0,
        keys: Keys | None = None,
    ) -> None:
        """Set data-dependent layers from a batch of uint8 images; those that are set stay."""
