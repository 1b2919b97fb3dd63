"""A hook of mkdocs: a page of reference for every package of flows, from its docstrings."""

import pkgutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LEFT_OUT = {"commands", "studio"}
"""Packages left out of the reference: `flows --help` documents `commands`; `studio` is an application."""


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


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference pages and their index."""
    names = packages()
    lines = [f"- [{name}]({name}.md): {len(modules)} modules" for name, modules in names.items()]
    pages = {"index": "# Reference\n\nFrom the docstrings, a page for each package.\n\n" + "\n".join(lines)}
    for name, modules in names.items():
        pages[name] = f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules)
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files
