"""Interface of generative models: latent spaces, codes, hookable layers and files."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.core.checks import check_memory, check_positive, check_seed
from flows.core.hooks import Hook, hooked
from flows.core.numerics import Keys, exact_arithmetic, seed_from
from flows.core.once import prepared
from flows.errors import Unsupported, UserError
from flows.models.codes import Codes, LabelsLike, as_labels, check_codes
from flows.models.priors import Prior
from flows.storage.stored import StoredModule

__all__ = [
    "HasFeatures",
    "HasNoise",
    "HasStyles",
    "LatentModel",
    "LayerShape",
    "LikelihoodBound",
    "LikelihoodModel",
    "Space",
]

Guarantee = Literal["exact", "exact-given-w", "learned", "none"]
BATCH = 100
"""Number of images per batch when encoding or decoding; results do not depend on it."""
SAMPLING_BYTES = 12
"""Bytes for each number of a code that is sampled: in single precision, with two copies on the way."""


@dataclass(frozen=True)
class Space:
    """Latent space of a model and its capabilities.

    Attributes:
        name: Name in tools and files.
        shape: Shape of one code.
        prior: Prior density of the codes; None for an induced space.
        levels: Name to slice of the code's last axis, coarse to fine; layer-wise tools operate on these.
        doc: One-line description.
        maps: Name to shape (C, height, width) of each level whose part of the code is spatial.
        guarantee: Guarantee of encoding into the space: "exact" (inverse), "exact-given-w", "learned"
            (encoder) or "none" (no encoder).
        density: Whether `log_prob_code` is available.
        conversions: Names of the spaces that every code of this space can be converted to, with or without a
            label.
        tempered: Whether a temperature affects samples; False if the model normalises z.
        labelled: Whether decoding a code of this space requires a label (class-conditional models).
    """

    name: str
    shape: tuple[int, ...]
    prior: Prior | None
    levels: Mapping[str, slice]
    doc: str
    maps: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    guarantee: Guarantee = "none"
    density: bool = False
    conversions: frozenset[str] = frozenset()
    tempered: bool = True
    labelled: bool = False

    def __post_init__(self) -> None:
        if self.prior is not None:
            object.__setattr__(self, "density", True)

    def slices_of(self, levels: Sequence[str]) -> tuple[slice, ...]:
        """Slices of the code's last axis of some levels. Raises UserError if there is no such level."""
        for name in levels:
            if name not in self.levels:
                known = ", ".join(self.levels)
                wide = (
                    "" if len(self.levels) > 1 else "; other spaces have more (--space of `flows steer find`)"
                )
                raise UserError(f"space {self.name!r} has no level {name!r}; it has {known}{wide}")
        return tuple(self.levels[name] for name in levels)

    @property
    def exact(self) -> bool:
        """Whether encoding is the exact inverse of decoding."""
        return self.guarantee == "exact"

    @property
    def encodes(self) -> bool:
        """Whether images can be encoded into the space, exactly or by a learned encoder."""
        return self.guarantee != "none"


@dataclass(frozen=True)
class LayerShape:
    """Shape of a layer of the decoder, whose output, one map per unit, forward hooks can read and edit.

    Attributes:
        channels: Number of units.
        size: Height and width of each unit's map.
    """

    channels: int
    size: tuple[int, int]


# Optional capabilities: test with isinstance or the fields of `Space`, not by calling and catching.


@runtime_checkable
class HasNoise(Protocol):
    """Generator with noise inputs that are stored with the weights."""

    def noise(self) -> list[Tensor]:
        """Return the stored noise inputs, each (1, 1, height, width)."""
        ...

    def decode_with_noise(self, code: Tensor, noise: Sequence[Tensor], space: str = "z") -> Tensor:
        """Decode with given noise inputs, each (batch or 1, 1, height, width), instead of the stored ones."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """Model with its own feature network for comparing images, such as a GAN's critic."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the activations for images (batch, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class HasStyles(Protocol):
    """Generator whose layers are modulated by styles."""

    def style_weights(self) -> dict[str, Tensor]:
        """Return, by level of w+, the matrix (outputs, width of w) from w to the layer's style."""
        ...


class LatentModel(StoredModule, library_name="flows"):
    """Generative model with latent codes. Images are floats (batch, C, H, W) in [0, 1]; codes (batch, D).

    To add one: create a file in this folder; set the attributes in the constructor, whose arguments must be
    plain JSON values (they are stored in `config.json`); implement the abstract methods. `convert`,
    `can_convert`, `values_in` and `log_prob_code` have defaults for a model whose only space is that of its
    prior; a model with more spaces overrides them. A subclass may add spaces after `assemble`. Tools call
    `encode_bytes`, `decode_bytes` and `sample`, which take or return `Codes` with their space and labels.

    Attributes:
        num_classes: Number of classes of a class-conditional model; otherwise 0.
        sampling_space: Default space for sampling, in which a temperature has an effect; `w` for StyleGAN,
            because its z is normalised.
        search_space: Default space for encoding and inversion.
        spaces: Name to space; the first is the prior space.
    """

    num_classes: int = 0
    sampling_space: str = "z"
    search_space: str = "z"
    spaces: dict[str, Space]

    @abstractmethod
    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        """Encode images in [0, 1], differentiably.

        Raises:
            UserError: The shape or range of the images is wrong, or the space does not exist.
            Unsupported: The model has no encoder for the space.
        """

    @abstractmethod
    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        """Decode codes, differentiably; images are not clamped to [0, 1]."""

    @abstractmethod
    def layers(self) -> dict[str, LayerShape]:
        """Return the shapes of the decoder's hookable layers by module name, as in `get_submodule`."""

    def __repr__(self) -> str:
        """One line: that of every stored module, and the spaces."""
        spaces = [f"{name} ({space.shape[0]}, {space.guarantee})" for name, space in self.spaces.items()]
        return ", ".join([super().__repr__(), *spaces])

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, as the data set of the training gives them; empty if it gives none."""
        return list(self.description.get("class_names") or ())[: self.num_classes]

    # Bytes and codes ------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_bytes(
        self,
        images: pixels.ImageLike,
        space: str | None = None,
        labels: LabelsLike | None = None,
        batch: int = BATCH,
    ) -> Codes:
        """Encode uint8 images in the model's precision and on its device.

        Args:
            images: uint8 (n, C, H, W), an array, or Pillow images; see `flows.images.as_bytes`.
            space: Latent space; None selects `search_space`.
            labels: n integers, classes of the images, for a class-conditional model; other models leave them
                out. If they are None or −1, a model that infers labels (`infers_labels`) uses the most likely
                class.
            batch: Number of images per batch.

        Raises:
            Unsupported: The model has no encoder for the space.
            UserError: Labels are missing and cannot be inferred, or the images do not fit the model.
        """
        chosen = self.check_space(space or self.search_space)
        check_positive(batch=batch)
        images = pixels.as_bytes(images, self.image_shape)
        known = None if labels is None else as_labels(labels)
        if known is not None and len(known) != len(images):
            raise UserError(f"labels: expected one per image, {len(images)}, got {len(known)}")
        classes = self.labels_to_encode(images, known, chosen.name)
        parts = []
        with prepared(), exact_arithmetic(self.device):
            for start in range(0, len(images), batch):
                rows = slice(start, start + batch)
                x = pixels.to_unit(images[rows], self.bins, self.dtype).to(self.device)
                parts.append(self.encode(x, chosen.name, None if classes is None else classes[rows]))
        values = torch.cat(parts) if parts else torch.empty(0, *chosen.shape)
        return Codes(values.to(self.device, self.dtype), chosen.name, classes)

    @torch.no_grad()
    def decode_bytes(self, codes: Codes, batch: int = BATCH) -> Tensor:
        """Decode codes to uint8 images (n, C, H, W) on the host.

        Raises:
            UserError: The argument is not `Codes`, or the codes do not fit the model.
        """
        check_codes(codes)
        if not len(codes):
            return torch.empty(0, *self.image_shape, dtype=torch.uint8)
        return self.map_images(codes, lambda images: pixels.to_bytes(images, self.bins), batch)

    @torch.no_grad()
    def map_images(self, codes: Codes, function: Callable[[Tensor], Tensor], batch: int = BATCH) -> Tensor:
        """Apply a function to the images of codes, batch by batch; results are on the host.

        Args:
            codes: n codes.
            function: Function of images (batch, C, H, W), clamped to [0, 1]; its result has a batch axis.
            batch: Number of images per batch.
        """
        check_codes(codes)
        check_positive(batch=batch)
        with prepared(), exact_arithmetic(self.device):
            results = [function(self.decode_codes(part).clamp(0, 1)).cpu() for part in codes.split(batch)]
        return torch.cat(results) if results else torch.empty(0)

    def decode_codes(self, codes: Codes) -> Tensor:
        """Decode codes with their labels, on the model's device and in its precision, as `decode` does.

        Raises:
            UserError: The argument is not `Codes`, or it has labels and the model is not class-conditional.
        """
        check_codes(codes)
        if codes.labels is not None and not self.num_classes:
            raise UserError(f"{type(self).__name__} is not class-conditional: expected codes without labels")
        here = codes.to(self)
        return self.decode(here.values, here.space, here.labels)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        space: str | None = None,
        seed: int | torch.Generator = 0,
        temperature: float = 1.0,
        labels: LabelsLike | None = None,
    ) -> Codes:
        """Generate n codes; code i does not depend on n.

        Args:
            n: Number of codes.
            space: Latent space; None selects `sampling_space`.
            seed: Seed of the random numbers, or a generator on the host.
            temperature: Factor on the deviation of the codes from the mean of the space.
            labels: n integers, classes for a class-conditional model. None cycles through all classes or, in
                a space whose codes include their class, samples classes.

        Raises:
            UserError: The space does not exist, the temperature has no effect in it, the labels are not n
                classes, or the model is not class-conditional.
            Unsupported: The model cannot sample the space by class.
        """
        chosen = self.check_space(space or self.sampling_space)
        if n < 0:
            raise UserError(f"n: expected a number of codes, got {n}")
        check_memory(SAMPLING_BYTES * n * math.prod(chosen.shape), f"n: {n:,} codes")
        if isinstance(seed, int):
            check_seed(seed)
            seed = torch.Generator().manual_seed(seed)
        classes = self.classes_in_turn(n) if chosen.labelled else None
        if labels is not None:
            if not self.num_classes:
                raise UserError(f"labels: {type(self).__name__} is not class-conditional; leave them out")
            classes = self.check_labels(as_labels(labels), n)
            if not chosen.labelled:
                prior = self.prior_space.name
                start = self.sample_codes(n, prior, seed, temperature)
                return self.convert_codes(Codes(start, prior, classes), chosen.name)
        return Codes(self.sample_codes(n, chosen.name, seed, temperature), chosen.name, classes)

    def generate(
        self,
        n: int,
        space: str | None = None,
        seed: int | torch.Generator = 0,
        temperature: float = 1.0,
        labels: LabelsLike | None = None,
    ) -> pixels.Images:
        """Generate n images, which a notebook shows as a picture: those of the codes of `sample`.

        `decode_bytes(sample(n))` has the same pixels as a tensor.
        """
        return pixels.Images(self.decode_bytes(self.sample(n, space, seed, temperature, labels)))

    def sample_codes(
        self,
        n: int,
        space: str = "z",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Sample n codes (n, D) of a space with random numbers of `generator`; row i does not depend on n.

        Raises:
            UserError: The space does not exist, or a temperature other than 1 has no effect in it.
        """
        chosen, prior = self.check_space(space), self.prior_space
        if not 0 <= temperature < math.inf:
            raise UserError(f"temperature: expected a finite number of at least 0, got {temperature:g}")
        if temperature != 1 and not chosen.tempered:
            name, other = type(self).__name__, self.sampling_space
            way_out = f"sample in {other}" if other != space else "use temperature 1"
            raise UserError(
                f"{name} normalises {space}, so a temperature of {temperature:g} has no effect there; "
                f"{way_out}"
            )
        if space == prior.name:
            return self.prior_codes(n, generator, temperature)
        return self.induced_codes(n, space, generator, temperature)

    def induced_codes(
        self, n: int, space: str, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        """Sample codes of an induced space; by default, codes of the prior, scaled and converted."""
        return self.convert(self.prior_codes(n, generator, temperature), self.prior_space.name, space)

    def prior_codes(self, n: int, generator: torch.Generator | None, temperature: float = 1.0) -> Tensor:
        """Sample n codes of the prior space times the temperature; row i does not depend on n."""
        space = self.prior_space
        assert space.prior is not None
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return temperature * space.prior.sample(seed_from(generator), torch.arange(n), space.shape, like)

    # Spaces ---------------------------------------------------------------------------------------

    @property
    def prior_space(self) -> Space:
        """Space with the prior, the first of `spaces`."""
        return next(iter(self.spaces.values()))

    @property
    def is_exact(self) -> bool:
        """Whether encoding into the prior space is the exact inverse of decoding."""
        return self.prior_space.exact

    def can_convert(self, codes: Codes, target: str) -> bool:
        """Whether `convert_codes` maps these codes to the target space."""
        return codes.space == target or target in self.check_space(codes.space).conversions

    def convert_codes(self, codes: Codes, target: str) -> Codes:
        """Convert codes to another space, with their labels if that space needs them.

        Raises:
            Unsupported: The model has no map between the spaces, or the results would lack their class.
        """
        check_codes(codes)
        values = self.convert(codes.to(self).values, codes.space, target)
        labelled = self.check_space(target).labelled
        if labelled and codes.labels is None and not self.spaces[codes.space].labelled:
            raise Unsupported(
                f"codes of space {target!r} need a class each, which codes of {codes.space!r} do not give; "
                "`values_in` maps the values without classes"
            )
        return Codes(values, target, codes.labels if labelled else None)

    def values_in(self, codes: Codes, target: str) -> Tensor | None:
        """Map the values of codes to another space without regard to their classes; None without a map.

        The result (n, D) is for comparisons and lengths of codes; decoding it may need a class.
        """
        if not self.can_convert(replace(codes, labels=None), target):
            return None
        return self.convert(codes.to(self).values, codes.space, target)

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        """Convert codes of one space to another, differentiably.

        Raises:
            Unsupported: The model has no map between the spaces.
        """
        for name in (source, target):
            self.check_space(name)
        if source != target:
            raise Unsupported(f"{type(self).__name__} has no map from space {source!r} to {target!r}")
        return code

    def log_prob_code(self, code: Tensor, space: str = "z") -> Tensor:
        """Compute the log-density of codes (batch, D) under the generator's prior: (batch,), nats.

        Raises:
            Unsupported: The density of the space is not known (`Space.density`).
        """
        prior = self.check_space(space).prior
        if prior is None:
            raise Unsupported(f"{type(self).__name__} has no density for space {space!r}")
        return prior.log_prob(code).sum(1)

    # Checks ---------------------------------------------------------------------------------------

    def check_space(self, name: str) -> Space:
        """Return the space with this name; raise UserError, which lists the spaces, if it does not exist."""
        if name not in self.spaces:
            known = ", ".join(self.spaces)
            raise UserError(f"{type(self).__name__} has no space {name!r}: expected one of {known}")
        return self.spaces[name]

    def check_code(self, code: Tensor, space: str) -> None:
        """Raise UserError unless the space exists and the codes have its shape."""
        expected = self.check_space(space).shape
        if tuple(code.shape[1:]) != expected:
            shape = ", ".join(map(str, expected))
            raise UserError(
                f"expected codes of shape (batch, {shape}) for space {space!r}, got {tuple(code.shape)}"
            )

    # Labels ---------------------------------------------------------------------------------------

    def check_labels(self, labels: Tensor | None, batch: int) -> Tensor:
        """Return the labels; raise UserError unless they are int64 (batch,) in [0, num_classes)."""
        name = type(self).__name__
        expected = (
            f"{name} is class-conditional: expected labels 0 … {self.num_classes - 1}, int64 ({batch},)"
        )
        if labels is None:
            raise UserError(f"{expected}, got none")
        if labels.dtype != torch.int64 or tuple(labels.shape) != (batch,):
            raise UserError(f"{expected}, got {labels.dtype} of shape {tuple(labels.shape)}")
        # Reading a value on an accelerator would synchronise, and an embedding checks its indices there.
        if labels.device.type == "cpu" and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise UserError(f"{expected}, got {low} … {high}")
        return labels

    def classes_in_turn(self, n: int) -> Tensor | None:
        """Return n labels that cycle through the classes, on the host; None unless class-conditional."""
        return torch.arange(n) % self.num_classes if self.num_classes else None

    @property
    def infers_labels(self) -> bool:
        """Whether `infer_labels` classifies images; False unless a model overrides both."""
        return False

    def infer_labels(self, images: pixels.ImageLike, batch: int = BATCH) -> Tensor:
        """Classify images: most likely classes, int64 (n,), on the model's device.

        Args:
            images: uint8 (n, C, H, W), or other images that `flows.images.as_bytes` accepts.
            batch: Number of images per batch.

        Raises:
            Unsupported: The model does not infer labels (`infers_labels`).
        """
        raise Unsupported(f"{type(self).__name__} infers no labels")

    def needs_labels(self, space: str, labels: Tensor | None = None) -> bool:
        """Whether inversion into a space needs labels that are neither given nor inferable."""
        if not self.check_space(space).labelled or self.infers_labels:
            return False
        return labels is None or bool((labels < 0).any())

    def labels_to_encode(self, images: Tensor, labels: Tensor | None, space: str) -> Tensor | None:
        """Return the labels for encoding uint8 images: the given ones, else the most likely classes.

        Args:
            images: uint8 (n, C, H, W).
            labels: int64 (n,), −1 for unknown classes; None if all are unknown.
            space: Name of the latent space.

        Returns:
            int64 (n,) on the model's device; None if the space needs no labels.

        Raises:
            UserError: Labels are required, missing, and cannot be inferred.
        """
        if not self.check_space(space).labelled:
            return None
        if labels is not None and not (labels < 0).any():
            return self.check_labels(labels.cpu(), len(images)).to(self.device)
        if not self.infers_labels:
            raise UserError(
                f"{type(self).__name__} is class-conditional, and codes of {space!r} need the class of each "
                f"image, which it does not infer: pass labels 0 … {self.num_classes - 1}"
            )
        if labels is None:
            return self.infer_labels(images)
        known = self.check_labels(labels.cpu().clamp(min=0), len(images)).to(self.device)
        return torch.where(labels.to(self.device) < 0, self.infer_labels(images), known)

    # Layers ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def layers_among(self, modules: Iterable[tuple[str, nn.Module]]) -> dict[str, LayerShape]:
        """Return the shapes of those named modules whose output during decoding has four axes.

        Modules that compute weights (spectral norm's parametrisation) and scripted modules, which accept no
        hooks, are left out.
        """
        layers: dict[str, LayerShape] = {}

        def recorder(name: str) -> Hook:
            def record(output: Tensor) -> None:
                if isinstance(output, Tensor) and output.dim() == 4:
                    layers[name] = LayerShape(output.shape[1], (output.shape[2], output.shape[3]))

            return record

        hooks = {
            name: recorder(name)
            for name, module in modules
            if ".parametrizations." not in name and not isinstance(module, torch.jit.ScriptModule)
        }
        with hooked(self, hooks):
            code = torch.zeros(1, *self.prior_space.shape, dtype=self.dtype, device=self.device)
            labels = self.classes_in_turn(1)
            self.decode(code, labels=None if labels is None else labels.to(self.device))
        return layers


class LikelihoodBound(NamedTuple):
    """Lower bound on the log-probability of 8-bit images, with its terms.

    Attributes:
        log_prob: (batch,), nats.
        terms: Name to (batch,), nats; they sum to `log_prob`. `dequantisation` is −log q, `log_det` that of
            the bijection, `prior/<level>` the log-density of that level's part of the code.
        code: (batch, D), code of the dequantised images.
        penalties: Name to scalar, terms that a paper adds to the loss besides the likelihood; computed here
            because every loss must use the wrapped model's `forward`.
    """

    log_prob: Tensor
    terms: dict[str, Tensor]
    code: Tensor
    penalties: dict[str, Tensor]


class LikelihoodModel(LatentModel):
    """Latent model that assigns each 8-bit image a probability, or a lower bound on it.

    Attributes:
        initialisation_images: Number of images that initialise data-dependent layers; 256 in Glow's released
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
        """Compute a lower bound on log P of uint8 images by dequantisation.

        Args:
            images: uint8 (batch, C, H, W).
            labels: int64 (batch,), for a class-conditional model.
            generator: Generator of the seed of the dequantisation noise.
            keys: Identity of each image, integers or int64 (batch,); the noise depends only on the seed and
                the key. Defaults to 0, 1, 2, ….
        """

    @abstractmethod
    def initialise(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        seed: int = 0,
        keys: Keys | None = None,
    ) -> None:
        """Initialise data-dependent layers from uint8 images; layers already initialised stay unchanged."""
