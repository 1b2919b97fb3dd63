"""What every generative model of the project offers to the tools: spaces, codes, and files."""

import hashlib
import inspect
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flows.files import file_digest, write_atomically
from flows.models.priors import Prior
from flows.numerics import Keys, draw_seed

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"

Guarantee = Literal["exact", "exact-given-w", "learned", "none"]


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file and says what is wrong with it."""


@dataclass(frozen=True)
class Space:
    """A latent space of a model.

    Attributes:
        name: what tools and code files call it.
        shape: of one code.
        prior: density of the codes; None for an induced space.
        levels: name to slice of the code's last axis, coarse to fine; layer-wise tools work on these.
        doc: one line.
    """

    name: str
    shape: tuple[int, ...]
    prior: Prior | None
    levels: Mapping[str, slice]
    doc: str


@dataclass(frozen=True)
class Unit:
    """A place in the generating direction that a forward hook can see and edit.

    Attributes:
        channels: units at that place.
        size: (height, width) of each unit's map.
    """

    channels: int
    size: tuple[int, int]


class LatentModel(nn.Module, PyTorchModelHubMixin, ABC, library_name="flows"):
    """A model with latent codes. Images are floats (batch, C, H, W) in [0, 1]; codes are (batch, ...).

    To add one: new file in this folder; set the attributes in the constructor, whose arguments must be
    plain JSON values (they are stored in `config.json`); implement the abstract methods.

    Attributes:
        image_shape: (C, H, W).
        bins: grey levels of the images it was made for; see `flows.images`.
        num_classes: of a class-conditional model, which needs labels; otherwise 0.
        sampling_space: where a temperature makes samples more typical; w of a StyleGAN, whose z has none.
        search_space: where codes of images are best looked for.
        spaces: name to space, prior space first.
        guarantee: per space, what encoding promises: "exact" (the inverse), "exact-given-w", "learned" (an
            encoder), "none".
        description: what it was trained on, as stored beside the weights; empty before training.
    """

    image_shape: tuple[int, int, int]
    bins: int
    num_classes: int = 0
    sampling_space: str = "z"
    search_space: str = "z"
    spaces: dict[str, Space]
    guarantee: dict[str, Guarantee]
    description: dict[str, Any]

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
            raise ValueError(f"{type(self).__name__} has no noise inputs, got {len(noise)}")
        return self.decode(code, space)

    def log_prob_code(self, code: Tensor, space: str = "z") -> Tensor:
        """Log-density of codes (batch, D) under the generator's prior: (batch,), nats.

        Raises:
            ValueError: it is not known for this space.
        """
        prior = self.check_space(space).prior
        if prior is None:
            raise ValueError(f"{type(self).__name__} knows no density of space {space!r}")
        return prior.log_prob(code).sum(1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of a network of the model's own, by which images in [0, 1] may be compared.

        Raises:
            ValueError: it has none.
        """
        raise ValueError(f"{type(self).__name__} has no network of its own to compare images by")

    def convert(self, code: Tensor, source: str, target: str) -> Tensor:
        """Codes of one space to those of another. A model with one space returns them as they are."""
        for name in (source, target):
            self.check_space(name)
        if source != target:
            raise ValueError(f"{type(self).__name__} has no map from space {source!r} to {target!r}")
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
            raise ValueError(f"{type(self).__name__} has no space {name!r}: expected one of {known}")
        return self.spaces[name]

    def check_code(self, code: Tensor, space: str) -> None:
        """Raise ValueError where codes have not the shape of their space, or there is no such space."""
        expected = self.check_space(space).shape
        if tuple(code.shape[1:]) != expected:
            shape = ", ".join(map(str, expected))
            raise ValueError(
                f"expected codes of shape (batch, {shape}) for space {space!r}, got {tuple(code.shape)}"
            )

    def check_labels(self, labels: Tensor | None, batch: int) -> Tensor:
        """The labels of a class-conditional model. Raises ValueError unless each is in [0, num_classes)."""
        name = type(self).__name__
        expected = (
            f"{name} is class-conditional: expected labels 0 … {self.num_classes - 1}, int64 ({batch},)"
        )
        if labels is None:
            raise ValueError(f"{expected}, got none")
        if labels.dtype != torch.int64 or tuple(labels.shape) != (batch,):
            raise ValueError(f"{expected}, got {labels.dtype} of shape {tuple(labels.shape)}")
        # On an accelerator, looking at a value waits for it, and a table look-up checks by itself.
        if labels.device.type == "cpu" and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise ValueError(f"{expected}, got {low} … {high}")
        return labels

    def first_class(self, n: int) -> Tensor | None:
        """The label 0 n times for a class-conditional model, where any will do; None for others."""
        return torch.zeros(n, dtype=torch.long, device=self.device) if self.num_classes else None

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
        handles = []
        for name, module in modules:
            if ".parametrizations." in name or isinstance(module, torch.jit.ScriptModule):
                continue

            def record(_: nn.Module, __: object, output: object, name: str = name) -> None:
                if isinstance(output, Tensor) and output.dim() == 4:
                    found[name] = Unit(output.shape[1], (output.shape[2], output.shape[3]))

            handles.append(module.register_forward_hook(record))
        try:
            labels = self.first_class(1)
            size = next(iter(self.spaces.values())).shape
            code = torch.zeros(1, *size, dtype=self.dtype, device=self.device)
            self.decode(code, labels=labels)
        finally:
            for handle in handles:
                handle.remove()
        return found

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters."""
        return next(self.parameters()).dtype

    def fingerprint(self) -> str:
        """Sixteen hex digits that identify the function: class, arguments and weights.

        The same for a copy in fp64, which holds the same numbers. Arguments at their defaults are left out,
        so that an argument added later does not estrange older code files from their model.
        """
        digest = hashlib.sha256(json.dumps(self._telling_arguments(), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            value = value.double() if value.is_floating_point() else value
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def arguments(self) -> dict[str, Any]:
        """Class name and constructor arguments, as plain JSON values."""
        return {"model_type": type(self).__name__, **cast(dict[str, Any], self._hub_mixin_config or {})}

    def _telling_arguments(self) -> dict[str, Any]:
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        given = self.arguments().items()
        return {name: value for name, value in given if name not in defaults or value != defaults[name]}

    # Files: save_pretrained, from_pretrained and push_to_hub come from the mixin and call these two.

    def save_pretrained(self, save_directory: str | Path, **hub: Any) -> str | None:
        """Write weights, config and card to a folder; see the mixin for `push_to_hub` and its options.

        The mixin removes `config.json` first; here the folder holds the former model until the new files
        are whole, and they are renamed one after the other.
        """
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as name:
            result = super().save_pretrained(name, **hub)
            for file in (CARD_FILE, WEIGHTS_FILE, CONFIG_FILE):
                if file != CARD_FILE or not (target / file).exists():
                    (Path(name) / file).replace(target / file)
        return result

    def push_to_hub(self, repo_id: str, **hub: Any) -> str:
        """Publish the folder that `save_pretrained` writes; see the mixin for the options.

        Where the training data lay on this machine is left out.
        """
        described = self.description
        source = described.get("source") or {}
        if source.get("init_args"):
            self.description = {key: value for key, value in described.items() if key != "source"}
        try:
            return super().push_to_hub(repo_id, **hub)
        finally:
            self.description = described

    def _save_pretrained(self, save_directory: Path) -> None:
        state = _stored({name: value.detach().cpu() for name, value in self.state_dict().items()})
        metadata = {"format": "pt", "model_type": type(self).__name__}
        write_atomically(
            save_directory / WEIGHTS_FILE, lambda path: save_file(state, path, metadata=metadata)
        )
        config = {
            "format_version": FORMAT_VERSION,
            **self.arguments(),
            "description": self.description,
            "fingerprint": self.fingerprint(),
            "weights_sha256": file_digest(save_directory / WEIGHTS_FILE),
        }
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        write_atomically(save_directory / CONFIG_FILE, lambda path: path.write_text(text))
        card = save_directory / CARD_FILE
        if not card.exists():
            write_atomically(card, lambda path: path.write_text(self.plain_card()))

    @torch.no_grad()
    def round_to_half(self) -> None:
        """Round all weights to the nearest half-precision numbers; they keep their type, files halve.

        Raises:
            ValueError: a weight is out of their range.
        """
        for name, value in self.state_dict().items():
            if value.is_floating_point():
                rounded = value.half().to(value.dtype)
                if not rounded.isfinite().all():
                    raise ValueError(f"{name} has values out of the range of half precision, ±65504")
                value.copy_(rounded)

    def plain_card(self) -> str:
        """A model card that says what the config knows; `train.py` writes a fuller one."""
        name, data = type(self).__name__, self.description.get("name", "unknown data")
        return (
            "---\nlibrary_name: flows\ntags: [normalizing-flow]\n---\n\n"
            f"# {name} on {data}\n\n"
            '```python\nimport flows\n\nmodel = flows.load("path/to/this/folder")\n```\n'
        )

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **model_kwargs: Any,
    ) -> "LatentModel":
        def fetch(name: str) -> Path:
            if Path(model_id).is_dir():
                return Path(model_id) / name
            return Path(
                hf_hub_download(
                    model_id, name, revision=revision, cache_dir=cache_dir, token=token,
                    force_download=force_download, local_files_only=local_files_only,
                )
            )  # fmt: skip

        config = read_config(fetch(CONFIG_FILE))
        if config["model_type"] != cls.__name__:
            raise CheckpointError(
                f"{model_id} holds a {config['model_type']}, not a {cls.__name__}; flows.load takes any"
            )
        weights = fetch(WEIGHTS_FILE)
        check_digest(weights, config["weights_sha256"])
        try:
            model = cls(**model_kwargs)
            model.load_state_dict(load_file(weights), strict=strict)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise CheckpointError(f"{model_id}/{CONFIG_FILE} does not fit the weights: {reason}") from error
        model.description = config["description"]
        if model.fingerprint() != config["fingerprint"]:
            raise CheckpointError(
                f"{model_id}/{CONFIG_FILE} was altered: it describes another function than the one saved, "
                f"{model.fingerprint()} instead of {config['fingerprint']}"
            )
        return model.to(map_location).eval()


def _stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are written: in half precision where that loses nothing at all of any."""
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    lossless = all(torch.equal(halves[name].to(value.dtype), value) for name, value in state.items())
    return {name: value.contiguous() for name, value in (halves if lossless else state).items()}


class Likelihood(NamedTuple):
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
    ) -> Likelihood:
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


def read_config(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint's `config.json`.

    Raises:
        CheckpointError: missing, no JSON, or of another format version.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: expected a folder written by save_pretrained or train.py")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): the file was altered or cut off") from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this release of flows reads {FORMAT_VERSION}"
        )
    for key in ("model_type", "description", "fingerprint", "weights_sha256"):
        if key not in config:
            raise CheckpointError(f"{path} lacks {key!r}: the file was altered")
    return config


def check_digest(path: Path, expected: str) -> None:
    """Raise CheckpointError where `path` is missing or its SHA-256 is not `expected`."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if file_digest(path) != expected:
        raise CheckpointError(f"{path} was altered or cut off: its SHA-256 is not the recorded one")
