"""Imports point down only: the table of CONTRIBUTING.md, held by parsing them."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "flows"

GROUND = {"core", "storage", "display", "errors", "images", "memory"}
"""Small shared ground: everything may use it."""

TOOLS = {"models", "metrics", "data", "semantics", "inversion", "dissection", "steering"}
MAY_IMPORT = {
    **{name: GROUND for name in GROUND},
    "bijections": GROUND,
    "networks": GROUND,
    "data": GROUND,
    "models": GROUND | {"bijections", "networks"},
    "metrics": GROUND | {"models", "data"},
    "inversion": GROUND | {"models", "metrics"},
    "semantics": GROUND | {"networks", "data"},
    "dissection": GROUND | {"models", "metrics", "data", "semantics"},
    "steering": GROUND | {"models", "metrics", "data", "semantics"},
    "training": GROUND | {"models", "metrics", "data", "semantics", "steering"},
    "reports": GROUND | (TOOLS - {"inversion", "dissection"}) | {"opening", "training"},
    "testing": GROUND | {"bijections", "networks"},
    "config": GROUND | {"models", "data", "semantics", "training"},
    "opening": GROUND | {"models", "data", "semantics", "inversion"},
    "atlas": GROUND | (TOOLS - {"inversion", "metrics"}),
    "run": GROUND | {"data", "config", "opening", "reports", "training"},
    "editing": GROUND | TOOLS | {"opening"},
    "studio": GROUND | (TOOLS - {"steering"}) | {"opening", "editing"},
    "commands": GROUND | TOOLS | {"atlas", "reports", "opening", "editing", "studio", "training", "config"},
    "help": GROUND | {"cli", "commands"},
    "cli": GROUND | {"commands", "help", "run", "config"},
    "__main__": {"cli", "errors"},
    # Names only: they are imported when they are first used.
    "__init__": TOOLS | {"bijections", "core", "editing", "errors", "images", "run", "testing"},
}
PAPERS = {"nice", "realnvp", "glow"}


def imports(path: Path) -> set[str]:
    """Dotted names under `flows` that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("flows.") for name in found if name.startswith("flows.")}


def part(name: str) -> str:
    """The folder or file of the package that a dotted name or path belongs to."""
    return name.split(".")[0]


def test_imports_point_down():
    wrong = []
    for path in ROOT.rglob("*.py"):
        here = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in imports(path):
            there = part(name)
            if there != here and there not in MAY_IMPORT[here] and there != "__version__":
                wrong.append(f"{path.relative_to(ROOT)} imports flows.{name}")
    assert wrong == []


STOREYS = (
    GROUND,
    {"bijections", "networks", "models", "data", "semantics", "metrics", "training", "testing"},
    {"inversion", "steering", "dissection", "editing"},
    {"opening", "config", "reports", "atlas", "run", "commands", "studio", "cli", "help", "__main__"},
)
"""Ground, library, tools and apps; imports go to the same storey or a lower one."""
UPWARDS = {
    ("training", "steering"): "objectives/steerable.py trains walks, a steering method, with the generator",
    ("editing", "opening"): "editing/editor.py opens the models that it edits with",
}


def test_every_permission_is_used():
    used = {
        (part(".".join(path.relative_to(ROOT).with_suffix("").parts)), part(name))
        for path in ROOT.rglob("*.py")
        for name in imports(path)
    }
    idle = [
        f"{here} may import {there}"
        for here, others in MAY_IMPORT.items()
        for there in sorted(others - GROUND - {here})
        if here != "__init__" and (here, there) not in used
    ]
    assert idle == []


def test_three_storeys_stand_on_the_ground():
    floor = {name: i for i, names in enumerate(STOREYS) for name in names}
    assert floor.keys() == MAY_IMPORT.keys() - {"__init__"}
    up = {
        (here, there)
        for here, others in MAY_IMPORT.items()
        for there in others
        if here != "__init__" and floor[there] > floor[here]
    }
    assert up == set(UPWARDS)
    tools = {"inversion", "steering", "dissection"}
    assert not any(MAY_IMPORT[one] & (tools - {one}) for one in tools)


def test_a_paper_does_not_import_another():
    for paper in PAPERS:
        named = {
            name.split(".")[1] for name in imports(ROOT / "models" / f"{paper}.py") if part(name) == "models"
        }
        assert not named & (PAPERS - {paper})


def test_tools_name_no_paper():
    """Tools and training know models through models.base, codes and load only, but for objectives."""
    for folder in ("metrics", "inversion", "steering", "dissection", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.parent.name == "objectives":
                continue
            named = {name for name in imports(path) if part(name) == "models"}
            allowed = ("models.base", "models.codes", "models.load")
            assert all(name.startswith(allowed) for name in named), f"{path.name}: {named}"


TABLES = (
    ast.Attribute, ast.Constant, ast.Dict, ast.List, ast.Load, ast.Name, ast.Set, ast.Tuple, ast.UnaryOp,
    ast.unaryop,
)  # fmt: skip


def test_the_formatter_formats_everything_but_tables():
    """`fmt: skip` stands behind assigned tables of literals and names only: no call, signature or branch."""
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text()
        tables = {
            node.end_lineno
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Assign | ast.AnnAssign)
            and isinstance(node.value, ast.Dict | ast.List | ast.Set | ast.Tuple)
            and all(isinstance(part, TABLES) for part in ast.walk(node.value))
        }
        skipped = [i for i, line in enumerate(text.splitlines(), 1) if "# fmt: skip" in line]
        wrong += [f"{path.relative_to(ROOT)}:{i}" for i in skipped if i not in tables]
    assert wrong == []


LONGEST = 40
LONG = {
    "models/glow.py Glow.__init__": "the recipe of the paper, in the order of its layers",
    "models/realnvp.py RealNVP.__init__": "the recipe of the paper, in the order of its layers",
    "models/nice.py NICE.__init__": "the recipe of the paper, in the order of its layers",
    "models/lia.py LIA.__init__": "the recipe of the paper, in the order of its parts",
    "bijections/execution/rows_graph.py _InGraph.backward": "one pass over the steps, timed as a whole",
    "networks/glow_rows.py GlowRows.__init__": "names for the weights of three layers, prepared together",
    "studio/page.py Page.left": "the layout of a column of the page, from top to bottom",
}
"""Functions of more than `LONGEST` lines without docstring, with the reason."""


def functions(tree: ast.AST, path: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions below a node, with their names behind those of their classes."""
    for node in ast.iter_child_nodes(tree):
        name = getattr(node, "name", "")
        inner = f"{path}.{name}".strip(".") if isinstance(node, ast.ClassDef | ast.FunctionDef) else path
        if isinstance(node, ast.FunctionDef):
            yield inner, node
        yield from functions(node, inner)


def lines_of(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    has = ast.get_docstring(function) is not None
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if has else 0)


def test_long_functions_have_a_reason():
    found = {
        f"{path.relative_to(ROOT).as_posix()} {name}"
        for path in ROOT.rglob("*.py")
        for name, node in functions(ast.parse(path.read_text()))
        if lines_of(node) > LONGEST
    }
    assert found == set(LONG)


@pytest.mark.parametrize(
    "path", sorted((ROOT.parent / "benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_benchmarks_import_what_there_is(path):
    """Benchmarks run by hand; what they import from the package is looked up at least."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flows"):
            module = importlib.import_module(node.module)
            missing = [each.name for each in node.names if not hasattr(module, each.name)]
            submodules = {each.name for each in pkgutil.iter_modules(getattr(module, "__path__", []))}
            assert not set(missing) - submodules, f"{path.name} imports {missing} from {node.module}"
