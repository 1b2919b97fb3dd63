"""What every generative model of the project offers to the tools: spaces, codes, and files."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.errors import Unsupported, UserError
from flows.hooks import Hook, hooked
from flows.models.codes import Codes
from flows.models.priors import Prior
from flows.numerics import Keys, draw_seed, exact_arithmetic
from flows.once import prepared
from flows.stored import StoredModule

Guarantee = Literal["exact", "exact-given-w", "learned", "none"]
BATCH = 100
"""Number of images that tools encode or decode at a time; results do not depend on it."""


@dataclass(frozen=True)
class Space:
    """A latent space of a model, and what can be done in it.

    Attributes:
        name: Name in tools and in files.
        shape: Shape of one code.
        prior: Density of the codes; None for an induced space.
        levels: Name to slice of the code's last axis, coarse to fine; layer-wise tools work on these.
        doc: One line of description.
        maps: Shapes (C, height, width) of the levels whose part of the code lies over the image, by name.
        guarantee: Promise of encoding into the space: "exact" (the inverse), "exact-given-w", "learned" (an
            encoder), "none" (there is no encoder).
        density: Whether `log_prob_code` knows the density of its codes.
        conversions: Names of the spaces that every code of this one can be converted to.
        tempered: Whether a temperature changes samples; not if the model normalises every z.
        labelled: Whether a class-conditional model needs labels to decode a code of this space.
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

    @property
    def exact(self) -> bool:
        """Whether encoding is the exact inverse of decoding."""
        return self.guarantee == "exact"

    @property
    def encodes(self) -> bool:
        """Whether images can be encoded into the space, exactly or by a learned encoder."""
        return self.guarantee != "none"


@dataclass(frozen=True)
class Unit:
    """A place in the generating direction that a forward hook can see and edit.

    Attributes:
        channels: Number of units at that place.
        size: (height, width) of each unit's map.
    """

    channels: int
    size: tuple[int, int]


# Capabilities that some models have: ask with isinstance, or by `Space`, never by calling and catching.


@runtime_checkable
class HasNoise(Protocol):
    """A generator with noise inputs that are stored with the weights."""

    def noise(self) -> list[Tensor]:
        """Stored noise inputs, (1, 1, height, width) each."""
        ...

    def decode_with_noise(self, code: Tensor, noise: Sequence[Tensor], space: str = "z") -> Tensor:
        """Decode with other noise than the stored one, (batch or 1, 1, height, width) each."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A model with a network of its own by whose activations images can be compared, as a GAN's critic."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations for images (batch, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class HasStyles(Protocol):
    """A generator whose layers read a style."""

    def style_weights(self) -> dict[str, Tensor]:
        """Matrices (outputs, width of w) by which layers read w, by their level of w+."""
        ...


@runtime_checkable
class InfersLabels(Protocol):
    """A class-conditional model that can classify images by their likelihood."""

    def infer_labels(self, images: Tensor) -> Tensor:
        """Most likely classes, int64 (n,), of uint8 images (n, C, H, W)."""
        ...


class LatentModel(StoredModule, library_name="flows"):
    """A model with latent codes. Images are floats (batch, C, H, W) in [0, 1]; codes are (batch, D).

    To add one: new file in this folder; set the attributes in the constructor, whose arguments must be
    plain JSON values (they are stored in `config.json`); implement the abstract methods. Tools call
    `encode_bytes`, `decode_bytes` and `sample`, whose codes carry their space and labels.

    Attributes:
        num_classes: Number of classes of a class-conditional model, which needs labels; otherwise 0.
        sampling_space: Space in which a temperature makes samples more typical; w of a StyleGAN, whose z has
            none.
        search_space: Space in which codes of images are best searched.
        spaces: Name to space, prior space first.
    """

    num_classes: int = 0
    sampling_space: str = "z"
    search_space: str = "z"
    spaces: dict[str, Space]

    @abstractmethod
    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        """Encode images in [0, 1], differentiably.

        Raises:
            UserError: The shape or range of the images is wrong, or there is no such space.
            Unsupported: The model has no encoder for the space.
        """

    @abstractmethod
    def decode(self, code: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        """Decode codes, differentiably; images are not clamped to [0, 1]."""

    @abstractmethod
    def units(self) -> dict[str, Unit]:
        """Hookable layers in the generating direction, by the name `get_submodule` knows them under."""

    # Bytes and codes ------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_bytes(
        self, images: Tensor, space: str | None = None, labels: Tensor | None = None, batch: int = BATCH
    ) -> Codes:
        """Codes of uint8 images (n, C, H, W), in the model's precision and on its device.

        Args:
            images: uint8 (n, C, H, W).
            space: Latent space; None takes `search_space`.
            labels: int64 (n,), classes of the images, for a class-conditional model. Where they are None or
                −1, a model with a likelihood takes the most likely class.
            batch: Number of images at a time.

        Raises:
            Unsupported: The model has no encoder for the space.
            UserError: The labels are missing and cannot be inferred, or the images do not fit the model.
        """
        chosen = self.check_space(space or self.search_space)
        pixels.check_bytes(images, self.image_shape)
        labels = self.labels_of(images, labels, chosen.name)
        parts = []
        with prepared(), exact_arithmetic(self.device):
            for start in range(0, len(images), batch):
                rows = slice(start, start + batch)
                x = pixels.to_unit(images[rows], self.bins, self.dtype).to(self.device)
                parts.append(self.encode(x, chosen.name, None if labels is None else labels[rows]))
        values = torch.cat(parts) if parts else torch.empty(0, *chosen.shape)
        return Codes(values.to(self.device, self.dtype), chosen.name, labels)

    @torch.no_grad()
    def decode_bytes(self, codes: Codes, batch: int = BATCH) -> Tensor:
        """Images of codes: uint8 (n, C, H, W), on the host."""
        return self.map_images(codes, lambda images: pixels.to_bytes(images, self.bins), batch)

    @torch.no_grad()
    def map_images(self, codes: Codes, function: Callable[[Tensor], Tensor], batch: int = BATCH) -> Tensor:
        """Results of a function of the images that codes decode to, on the host.

        Args:
            codes: n codes.
            function: Function of images (batch, C, H, W) in [0, 1], clamped; its result has a batch axis.
            batch: Number of images at a time.
        """
        results = [torch.empty(0)]
        with prepared(), exact_arithmetic(self.device):
            results = [function(self.decode_codes(part).clamp(0, 1)).cpu() for part in codes.split(batch)]
        return torch.cat(results)

    def decode_codes(self, codes: Codes) -> Tensor:
        """Decode codes with their labels, on the model's device and in its precision; see `decode`."""
        here = codes.to(self)
        return self.decode(here.values, here.space, here.labels)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        space: str | None = None,
        seed: int | torch.Generator = 0,
        temperature: float = 1.0,
        labels: Tensor | None = None,
    ) -> Codes:
        """Generate n codes; code i does not depend on n.

        Args:
            n: Number of codes.
            space: Latent space; None takes `sampling_space`.
            seed: Seed of the codes, or a generator on the host.
            temperature: Factor on the distance from the mean of the space.
            labels: int64 (n,), classes for a class-conditional model; None takes all classes in turn.
        """
        chosen = self.check_space(space or self.sampling_space)
        random = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
        values = self.sample_codes(n, chosen.name, random, temperature)
        if labels is None and chosen.labelled:
            labels = self.classes_in_turn(n)
        return Codes(values, chosen.name, labels if chosen.labelled else None)

    def sample_codes(
        self,
        n: int,
        space: str = "z",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw n codes (n, D) of a space from `generator`; row i does not depend on n.

        Raises:
            UserError: There is no such space, or a temperature changes nothing in it.
        """
        chosen, prior = self.check_space(space), self.prior_space
        if temperature != 1 and not chosen.tempered:
            name, other = type(self).__name__, self.sampling_space
            way_out = f"sample in {other}" if other != space else "take 1"
            raise UserError(
                f"{name} normalises every {space}, so that a temperature of {temperature:g} changes nothing; "
                f"{way_out}"
            )
        if space == prior.name:
            return self.prior_codes(n, generator, temperature)
        return self.induced_codes(n, space, generator, temperature)

    def induced_codes(
        self, n: int, space: str, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        """Draw codes of an induced space; by default codes of the prior, scaled and converted."""
        return self.convert(self.prior_codes(n, generator, temperature), self.prior_space.name, space)

    def prior_codes(self, n: int, generator: torch.Generator | None, temperature: float = 1.0) -> Tensor:
        """Draw n codes of the prior space, scaled; row i does not depend on n."""
        space = self.prior_space
        assert space.prior is not None
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return temperature * space.prior.sample(draw_seed(generator), torch.arange(n), space.shape, like)

    # Spaces ---------------------------------------------------------------------------------------

    @property
    def prior_space(self) -> Space:
        """The space with the prior, which is the first one."""
        return next(iter(self.spaces.values()))

    @property
    def is_exact(self) -> bool:
        """Whether encoding into the prior space is the exact inverse of decoding."""
        return self.prior_space.exact

    def can_convert(self, codes: Codes, target: str) -> bool:
        """Whether `convert` maps these codes to the target space."""
        return codes.space == target or target in self.check_space(codes.space).conversions

    def convert_codes(self, codes: Codes, target: str) -> Codes:
        """The same images' codes in another space; see `convert`."""
        values = self.convert(codes.to(self).values, codes.space, target)
        return Codes(values, target, codes.labels if self.check_space(target).labelled else None)

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        """Convert codes of one space to another, differentiably.

        Raises:
            Unsupported: There is no such map.
        """
        for name in (source, target):
            self.check_space(name)
        if source != target:
            raise Unsupported(f"{type(self).__name__} has no map from space {source!r} to {target!r}")
        return code

    def log_prob_code(self, code: Tensor, space: str = "z") -> Tensor:
        """Log-density of codes (batch, D) under the generator's prior: (batch,), nats.

        Raises:
            Unsupported: The density of this space is not known (`Space.density`).
        """
        prior = self.check_space(space).prior
        if prior is None:
            raise Unsupported(f"{type(self).__name__} knows no density of space {space!r}")
        return prior.log_prob(code).sum(1)

    # Checks ---------------------------------------------------------------------------------------

    def check_space(self, name: str) -> Space:
        """The space of that name. Raises UserError, naming those that exist, if there is none."""
        if name not in self.spaces:
            known = ", ".join(self.spaces)
            raise UserError(f"{type(self).__name__} has no space {name!r}: expected one of {known}")
        return self.spaces[name]

    def check_code(self, code: Tensor, space: str) -> None:
        """Raise UserError unless codes have the shape of their space, and the space exists."""
        expected = self.check_space(space).shape
        if tuple(code.shape[1:]) != expected:
            shape = ", ".join(map(str, expected))
            raise UserError(
                f"expected codes of shape (batch, {shape}) for space {space!r}, got {tuple(code.shape)}"
            )

    # Labels ---------------------------------------------------------------------------------------

    def check_labels(self, labels: Tensor | None, batch: int) -> Tensor:
        """The labels of a class-conditional model. Raises UserError unless each is in [0, num_classes)."""
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

    def classes_in_turn(self, n: int) -> Tensor | None:
        """Labels 0, 1, … over and over, n on the host, for a class-conditional model; None for others."""
        return torch.arange(n) % self.num_classes if self.num_classes else None

    def needs_labels(self, space: str, labels: Tensor | None = None) -> bool:
        """Whether images cannot be encoded or searched in a space without more labels than these."""
        if not self.check_space(space).labelled or isinstance(self, InfersLabels):
            return False
        return labels is None or bool((labels < 0).any())

    def labels_of(self, images: Tensor, labels: Tensor | None, space: str) -> Tensor | None:
        """Labels with which uint8 images are encoded: those given, else the most likely ones.

        Args:
            images: uint8 (n, C, H, W).
            labels: int64 (n,); −1 where the class is not known. None where no class is.
            space: Name of the latent space.

        Returns:
            int64 (n,) on the model's device; None where the space needs no labels.

        Raises:
            UserError: Labels are needed, missing, and cannot be inferred.
        """
        if not self.check_space(space).labelled:
            return None
        if labels is not None and not (labels < 0).any():
            return self.check_labels(labels.cpu(), len(images)).to(self.device)
        if not isinstance(self, InfersLabels):
            raise UserError(
                f"{type(self).__name__} is class-conditional, and codes of {space!r} need the class of each "
                f"image: give labels 0 … {self.num_classes - 1}"
            )
        inferred = self.infer_labels(images)
        if labels is None:
            return inferred
        known = labels.to(self.device)
        return torch.where(known < 0, inferred, known)

    # Units ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def units_among(self, modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Unit]:
        """Named modules whose output is image-shaped when codes are decoded.

        Modules that compute weights (spectral norm's parametrisation) and scripted modules, which take no
        hooks, are left out.
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
            code = torch.zeros(1, *self.prior_space.shape, dtype=self.dtype, device=self.device)
            labels = self.classes_in_turn(1)
            self.decode(code, labels=None if labels is None else labels.to(self.device))
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
