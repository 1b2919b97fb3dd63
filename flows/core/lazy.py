"""Public names of a package, imported when they are first used.

The names of a package are those that its files list in `__all__`; adding a file edits nothing else. For type
checkers and editors, `python -m flows.core.lazy` writes them to an `__init__.pyi` in each package.
"""

import ast
import importlib
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = (
    "bijections", "data", "dissection", "editing", "inversion", "metrics", "models", "semantics", "steering",
)  # fmt: skip
"""Packages of `flows` with public names."""

_LISTED = re.compile(r"^__all__ = (\[[^\]]*\])", re.M)


@cache
def names_of(folder: Path) -> dict[str, str]:
    """Public name to the file of a package that defines it, in the order of the names."""
    names: dict[str, str] = {}
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
        listed = _LISTED.search(path.read_text(encoding="utf-8"))
        if listed:
            module = path.parent.name if path.name == "__init__.py" else path.stem
            names |= dict.fromkeys(ast.literal_eval(listed[1]), module)
    return dict(sorted(names.items()))


def attach(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Create `__getattr__` and `__dir__` of a package; both know the names in `__all__` of its files."""
    folder = Path(str(sys.modules[package].__file__)).parent

    def get(name: str) -> Any:
        if name == "__all__":
            return list(names_of(folder))
        if name not in names_of(folder):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{names_of(folder)[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *names_of(folder)})


def stub(folder: Path) -> str:
    """Contents of the `__init__.pyi` of a package: the same names, imported in the ordinary way."""
    package = f"flows.{folder.name}"
    lines = [f"from {package}.{file} import {name} as {name}" for name, file in names_of(folder).items()]
    listed = "\n".join(f"    {name!r}," for name in names_of(folder)).replace("'", '"')
    head = "# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it."
    return "\n".join([head, "", *sorted(lines), "", "__all__ = [", listed, "]", ""])


def main() -> None:
    """Write the stubs of all packages."""
    for name in PACKAGES:
        folder = Path(__file__).parents[1] / name
        (folder / "__init__.pyi").write_text(stub(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
