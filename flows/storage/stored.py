"""Modules stored in a folder: constructor arguments, weights, description of the data, and model card."""

import hashlib
import importlib
import inspect
import json
import pkgutil
import tempfile
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any, Self, cast

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file
from torch import Tensor, nn

from flows.core.arguments import Recorded, is_plain
from flows.core.building import Excess, build_within
from flows.core.checks import check_device
from flows.core.plugins import classes_of
from flows.core.schema import check_version, parse, read_json, unaltered
from flows.errors import CheckpointError, UserError
from flows.storage.files import file_digest, make_folder, reading, will_write, write_text
from flows.storage.index import CONFIG_FILE
from flows.storage.places import config_file, from_hub, hub_repository, locate
from flows.storage.tensor_files import save_tensors

FORMAT_VERSION = 1
EXPORTING = ".export-"
"""Beginning of the name of the folder in which an export is completed."""
LARGEST_CONFIG = 2**24
"""Maximum size of a `config.json` in bytes."""
WEIGHTS_FILE, CARD_FILE = "model.safetensors", "README.md"


class StoredModule(Recorded, nn.Module, PyTorchModelHubMixin, ABC, library_name="flows"):
    """Module that can be saved to a folder and loaded again as a bit-exact copy.

    The constructor's arguments must be plain JSON values, because they are stored in `config.json`.

    Attributes:
        image_shape: (C, H, W) of the images.
        bins: Number of grey levels of the images, as defined in `flows.images`.
        description: Description of the training data, stored with the weights; empty before training.
    """

    image_shape: tuple[int, int, int]
    bins: int
    description: dict[str, Any]

    def __repr__(self) -> str:
        """One line: class, arguments that differ from their defaults, and the number of parameters.

        `flows.core.hooks.tree(model)` prints the modules.
        """
        arguments = self.arguments()
        given = [
            f"{name}={shorten(repr(arguments[name]), width=60, placeholder=' …')}"
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if name in arguments and arguments[name] != parameter.default
        ]
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"{type(self).__name__}({', '.join(given)}): {count:,} parameters"

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        return next(self.parameters()).dtype

    def start_from(self, other: "StoredModule") -> None:
        """Copy the weights of another module of the same class and sizes, to start training from them.

        Raises:
            UserError: The class differs, or weights have other names or shapes.
        """
        if type(other) is not type(self):
            raise UserError(
                f"--init: expected a {type(self).__name__}, the checkpoint holds a {type(other).__name__}"
            )
        own, given = self.state_dict(), other.state_dict()
        wrong = sorted(
            name
            for name in own.keys() | given.keys()
            if name not in own or name not in given or own[name].shape != given[name].shape
        )
        if wrong:
            raise UserError(
                f"--init: {len(wrong)} weights have other sizes in the checkpoint, for example {wrong[0]}; "
                "give the model the options that it was trained with"
            )
        self.load_state_dict(given)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify class, arguments and weights.

        A copy in fp64 has the same fingerprint, because its numbers are the same. Arguments at their defaults
        are left out, so that code files stay valid when an argument is added to the class.
        """
        return self._fingerprint(self.arguments(), self.state_dict())

    @classmethod
    def _fingerprint(cls, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
        """Fingerprint of `model_type`, constructor arguments and weights; other keys are ignored."""
        parameters = inspect.signature(cls).parameters
        relevant = {
            name: value
            for name, value in arguments.items()
            if name == "model_type" or (name in parameters and value != parameters[name].default)
        }
        digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode())
        for name, value in sorted(state.items()):
            value = value.double() if value.is_floating_point() else value
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def arguments(self) -> dict[str, Any]:
        """Class name and constructor arguments, as plain JSON values."""
        return {"model_type": type(self).__name__, **cast(dict[str, Any], self._hub_mixin_config or {})}

    # Files: the mixin's save_pretrained, from_pretrained and push_to_hub call _save_pretrained and
    # _from_pretrained.

    def save_pretrained(self, save_directory: str | Path, **hub: Any) -> str | None:
        """Write weights, config and card to a folder; the mixin documents `push_to_hub` and its options.

        The mixin removes `config.json` first. Here the folder keeps the previous model until the new files
        are complete; then they are renamed one after the other.
        """
        target = Path(save_directory)
        make_folder(target)
        with tempfile.TemporaryDirectory(prefix=EXPORTING, dir=target) as name:
            result = super().save_pretrained(name, **hub)
            for file in (CARD_FILE, WEIGHTS_FILE, CONFIG_FILE):
                if file != CARD_FILE or not (target / file).exists():
                    will_write(target / file)
                    (Path(name) / file).replace(target / file)
        return result

    def push_to_hub(self, repo_id: str, **hub: Any) -> str:
        """Publish the folder that `save_pretrained` writes; the mixin documents the options.

        The path of the training data on this machine is left out.
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
        save_tensors(save_directory / WEIGHTS_FILE, state, metadata)
        config = {
            "format_version": FORMAT_VERSION,
            **self.arguments(),
            "description": self.description,
            "fingerprint": self.fingerprint(),
            "weights_sha256": file_digest(save_directory / WEIGHTS_FILE),
        }
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        write_text(save_directory / CONFIG_FILE, text)
        card = save_directory / CARD_FILE
        if not card.exists():
            write_text(card, self.plain_card())

    @torch.no_grad()
    def round_to_half(self) -> None:
        """Round all weights to half-precision numbers, keeping their dtype, so that files are half as large.

        Raises:
            UserError: A weight is out of the range of half precision.
        """
        for name, value in self.state_dict().items():
            if value.is_floating_point():
                rounded = value.half().to(value.dtype)
                if not rounded.isfinite().all():
                    raise UserError(f"{name} has values out of the range of half precision, ±65504")
                value.copy_(rounded)

    def plain_card(self) -> str:
        """Minimal model card with the contents of the config; `train.py` writes a more detailed one."""
        name, data = type(self).__name__, self.description.get("name", "unknown data")
        return (
            "---\nlibrary_name: flows\ntags: [normalizing-flow]\n---\n\n"
            f"# {name} on {data}\n\n"
            '```python\nimport flows\n\nmodel = flows.load("path/to/this/folder")\n```\n'
        )

    @classmethod
    def _built(
        cls, name: str, config: Mapping[str, Any], state: Mapping[str, Tensor], arguments: Any, strict: bool
    ) -> Self:
        """Build a module from a stored config, called `name` in messages, and load its weights."""
        try:
            check_arguments(cls, arguments)
            model = build_within(state, lambda: cls(**arguments))
            check_weights(model, state)
            model.load_state_dict(state, strict=strict)
        except (Excess, Misfit) as error:
            raise CheckpointError(f"{name} does not fit the weights: {error}") from error
        except Exception as error:
            if cls._fingerprint(config, state) == config["fingerprint"]:
                raise  # the files are unaltered, so this is a bug
            reason = str(error).split("\n")[0]
            raise CheckpointError(f"{name} does not fit the weights: {reason}") from error
        return model

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
    ) -> Self:
        hub = {"revision": revision, "cache_dir": cache_dir, "token": token, "force_download": force_download}

        def fetch(name: str) -> Path:
            if Path(model_id).is_dir():
                return Path(model_id) / name
            return from_hub(model_id, name, local_files_only, **hub)

        config = read_config(fetch(CONFIG_FILE))
        if config["model_type"] != cls.__name__:
            raise CheckpointError(
                f"{model_id} holds a {config['model_type']}, not a {cls.__name__}; flows.load loads any model"
            )
        weights = fetch(WEIGHTS_FILE)
        check_digest(weights, config["weights_sha256"])
        with reading(weights, "safetensors file"):
            state = load_file(weights)
        model = cls._built(f"{model_id}/{CONFIG_FILE}", config, state, model_kwargs, strict)
        model.description = config["description"]
        if model.fingerprint() != config["fingerprint"]:
            raise CheckpointError(
                f"{model_id}/{CONFIG_FILE} was altered: expected fingerprint {config['fingerprint']}, got "
                f"{model.fingerprint()}"
            )
        return model.to(map_location).eval()


class Misfit(UserError):
    """A config and the weights beside it do not belong to each other."""


def check_arguments(cls: type[StoredModule], arguments: Mapping[str, Any]) -> None:
    """Raise Misfit unless a constructor has these arguments and needs no others."""
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        raise Misfit(f"{cls.__name__}: {error}") from error


def check_stored_arguments(model: StoredModule) -> None:
    """Raise UserError unless all arguments that a module was built with are plain values of JSON."""
    names = [name for name, value in Recorded.arguments(model).items() if not is_plain(value)]
    if names:
        raise UserError(
            f"{type(model).__name__}: expected constructor arguments that are plain JSON values, because a "
            f"checkpoint stores them, got others for {', '.join(names)}; build these in the constructor"
        )


def check_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise Misfit unless weights have the names and shapes of a model's."""
    own = model.state_dict()
    for name in sorted(own.keys() | state.keys()):
        shapes = [tuple(part[name].shape) if name in part else None for part in (own, state)]
        if shapes[0] != shapes[1]:
            expected, got = ("no such weight" if shape is None else str(shape) for shape in shapes)
            raise Misfit(f"{name}: expected {expected}, got {got}")


def _stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors to save, in half precision if that is lossless for every weight."""
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    lossless = all(torch.equal(halves[name].to(value.dtype), value) for name, value in state.items())
    return {name: value.contiguous() for name, value in (halves if lossless else state).items()}


@dataclass(frozen=True)
class Header:
    """Keys of every `config.json`; the constructor's arguments stand beside them."""

    model_type: str
    description: dict[str, Any]
    fingerprint: str
    weights_sha256: str


def read_config(path: Path) -> dict[str, Any]:
    """Read a checkpoint's `config.json`.

    Raises:
        CheckpointError: The file is missing, altered, not JSON, or of another format version.
    """
    if not path.is_file():
        state = (path.parent / "manifest.json").is_file()
        found = "; this is a training state, which --resume reads" if state else ""
        raise CheckpointError(
            f"{path} is missing: expected a folder written by save_pretrained or train.py{found}"
        )
    if path.stat().st_size > LARGEST_CONFIG:
        raise CheckpointError(
            f"{path} has {path.stat().st_size:,} bytes, expected at most {LARGEST_CONFIG:,}"
        )
    with unaltered(path):
        config: dict[str, Any] = parse(dict[str, Any], read_json(path.read_bytes()))
    check_version(path, "format", config.get("format_version"), FORMAT_VERSION)
    with unaltered(path):
        parse(Header, {name: config[name] for name in Header.__annotations__ if name in config})
    return config


def check_digest(path: Path, expected: str) -> None:
    """Raise CheckpointError if `path` is missing or its SHA-256 is not `expected`."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if file_digest(path) != expected:
        raise CheckpointError(f"{path} was altered or cut off: its SHA-256 is not the recorded one")


def types_in(package: ModuleType, base: type[StoredModule]) -> dict[str, type[StoredModule]]:
    """All concrete classes of type `base` in a package and in the packages that add to it, by name."""
    classes: dict[str, type[StoredModule]] = {}
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for cls in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls):
                classes[cls.__name__] = cls
    offered = classes_of(package.__name__, base)
    if clash := sorted(offered.keys() & classes.keys()):
        raise UserError(
            f"an installed package offers {', '.join(clash)} under {package.__name__}, which are classes of "
            "flows: remove the package, or rename its classes"
        )
    return {**offered, **classes}


def with_own(
    types: Mapping[str, type[StoredModule]], own: Sequence[type[StoredModule]], base: type[StoredModule]
) -> dict[str, type[StoredModule]]:
    """Classes by name, with those that a caller passes: passing a class is the permission to build it.

    Raises:
        UserError: A value is not a concrete class of type `base`.
    """
    for cls in own:
        if not inspect.isclass(cls) or not issubclass(cls, base) or inspect.isabstract(cls):
            got = cls.__name__ if inspect.isclass(cls) else type(cls).__name__
            raise UserError(
                f"classes: expected subclasses of {base.__name__} without abstract methods, got {got}"
            )
    return {**types, **{cls.__name__: cls for cls in own}}


def load_stored(
    path_or_repo: str | Path, types: Mapping[str, type[StoredModule]], map_location: str = "cpu"
) -> StoredModule:
    """Load the module in a folder or hub repository; its class must be one of `types`, given by name.

    A checkpoint names its class and never a module: nothing is imported because a file says so.

    Raises:
        CheckpointError: The folder or a file is missing, a file was altered, or the format version or the
            class is not supported.
        UserError: Torch cannot use the device here.
    """
    check_device(str(map_location))
    source = locate(path_or_repo)
    config = read_arguments(source)
    if config["model_type"] not in types:
        known = ", ".join(sorted(types))
        raise CheckpointError(
            f"{path_or_repo} holds a {config['model_type']!r}, which this release of flows cannot load "
            f"here; expected one of {known}, or a class of your own that is passed: "
            f"flows.load(…, classes=[{config['model_type']}])"
        )
    if repository := hub_repository(source):
        from_hub(repository, WEIGHTS_FILE)
        source = from_hub(repository, CONFIG_FILE).parent  # never a folder here that is called so, too
    return types[config["model_type"]].from_pretrained(source, map_location=str(map_location))


def read_arguments(path_or_repo: str | Path) -> dict[str, Any]:
    """Contents of the `config.json` of a checkpoint, in a folder, bundled or on a hub.

    Raises:
        CheckpointError: There is no such checkpoint, or its config was altered.
    """
    return read_config(config_file(locate(path_or_repo)))


def read_description(checkpoint: str | Path) -> dict[str, Any]:
    """Contents of a checkpoint's `config.json`, not verified; empty where there is none."""
    try:
        path = Path(locate(checkpoint)) / CONFIG_FILE
        found: dict[str, Any] = parse(dict[str, Any], read_json(path.read_bytes())) if path.is_file() else {}
    except UserError:
        return {}
    return found
