"""Configs that come with flows: found by name, in the clone or in the installed package."""

from collections.abc import Iterator
from pathlib import Path

from flows.core.checks import did_you_mean
from flows.errors import UserError
from flows.storage.package import packaged

SUFFIX = ".yaml"


def config_names() -> list[str]:
    """Names of all configs, such as `digits/glow`."""
    folder = packaged("configs")
    paths = sorted(folder.rglob(f"*{SUFFIX}"))
    return [path.relative_to(folder).with_suffix("").as_posix() for path in paths]


def find_config(given: str | Path) -> Path:
    """Find a config: a file, or a config of flows by its name or by its path in the clone.

    Args:
        given: Path of a file, `digits/glow` or `configs/digits/glow.yaml`. A file comes before a name.

    Raises:
        UserError: If there is neither; the message names the nearest config.
    """
    path = Path(given)
    if path.exists() and not path.is_dir():
        return path
    name = path.as_posix().removeprefix("configs/").removesuffix(SUFFIX)
    known = config_names()
    if name in known:
        return packaged_config(name)
    raise UserError(
        f"{given} does not exist, here or among the configs of flows (`flows configs` lists them)."
        f"{did_you_mean(name, known)}"
    )


def packaged_config(name: str) -> Path:
    """Path of a config of flows, by its name."""
    return packaged("configs") / f"{name}{SUFFIX}"


def header(path: Path) -> list[str]:
    """Paragraphs of the comment at the beginning of a config, each on one line."""
    paragraphs: list[list[str]] = [[]]
    for line in _comment(path):
        if line:
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return [" ".join(lines) for lines in paragraphs if lines]


def _comment(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()
