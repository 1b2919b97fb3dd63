"""Pages of reference from the docstrings and the help: `python docs/reference.py`, before the site is built.

They are written to `docs/reference/api/` and `docs/reference/commands.md`, which git does not keep.
"""

import json
import pkgutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
LEFT_OUT = {"commands", "studio"}
"""Packages left out: `commands.md` documents the one; the other is an application."""


def packages() -> dict[str, list[str]]:
    """Package to the dotted names of its modules; the package `flows` contains the top-level modules."""
    found: dict[str, list[str]] = {"flows": []}
    for module in pkgutil.iter_modules([str(ROOT / "flows")]):
        if module.name in LEFT_OUT or module.name.startswith("_"):
            continue
        if not module.ispkg:
            found["flows"].append(f"flows.{module.name}")
            continue
        inner = pkgutil.walk_packages([str(ROOT / "flows" / module.name)], f"flows.{module.name}.")
        found[f"flows.{module.name}"] = [each.name for each in inner if not each.ispkg]
    return found


def python_pages() -> dict[Path, str]:
    """Page of every package, and their index."""
    names = packages()
    lines = [f"- [{name}]({name}.md): {len(modules)} modules" for name, modules in names.items()]
    index = "# Python\n\nFrom the docstrings, a page for each package.\n\n" + "\n".join(lines) + "\n"
    return {FOLDER / "api" / "index.md": index} | {
        FOLDER / "api" / f"{name}.md": f"# {name}\n\n" + "\n\n".join(f"::: {each}" for each in modules) + "\n"
        for name, modules in names.items()
    }


def commands_page() -> str:
    """Page with the help of every verb."""
    texts = json.loads((ROOT / "flows" / "commands" / "help.json").read_text(encoding="utf-8"))
    parts = ["# Command line\n\nThe help of every verb; `python train.py` is `flows train`.\n"]
    parts += [f"## flows {name}\n\n```text\n{text.strip()}\n```\n" for name, text in sorted(texts.items())]
    return "\n".join(parts).replace("\b", "")


def main() -> None:
    """Write the pages."""
    pages = {FOLDER / "commands.md": commands_page(), **python_pages()}
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(pages)} pages in {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
