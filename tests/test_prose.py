"""The language of the glossary: docstrings that start with the noun, and one term for one thing.

`python tests/test_prose.py [CHECKOUT] [FILTER]` prints the counts of a checkout, this one or another.
"""

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FRAGMENT = re.compile(
    r"^(of|its|their|theirs|by|with|in|at|from|for|to|on|as|where|what|whose|how|see|likewise"
    r"|the same( (as|of)\b.*)?[.;,]?$|the same as|above|below)\b",
    re.I,
)
"""An entry's text that starts so is a fragment: the noun is missing, or it points to another place."""

OPENING = re.compile(
    r"^(of|by|with|for|in(?!-)|at(?! most)|from|to|on|as|how|where|what|see|likewise|the same"
    r"|whose|their|theirs|its)\b",
    re.I,
)
"""A docstring's first sentence that starts so has no verb and no noun of its own."""

RETIRED = {
    r"judge[sd]?": "predictor, segmenter or semantic model",
    r"foreign": "out-of-distribution",
    r"(comes?|came|coming) back": "reconstruction",
    r"(brings?|brought|bringing) back": "reconstruct",
    r"not a number": "NaN",
    r"lest": "so that … not",
    r"dear": "expensive",
    r"shaken|shakes?": "noise",
    r"makes? do": "plain words",
    r"whoever": "the caller, the user",
    r"heard": "hook",
    r"sittings?|desks?|workbench(es)?": "session, studio, editor",
    r"likewise|see above|the same of": "the sentence itself",
    r"spreads?": "std",
    r"told|tells?|telling": "metadata, label, prediction, statement",
}
"""Words that are not used, as regular expressions, and what stands in their place."""

RULE = re.compile(rf"\b({'|'.join(RETIRED)})\b", re.I)

STORED = {
    "foreign": "an older word of `flows compare --images`, still accepted",
    "^--images foreign is deprecated; use --images ood$": "the warning of that word",
    "told": "a key of record files",
}
"""Strings that are stored or compared, whatever the words."""

STANDARD = {"tell"}
"""Names of Python's library."""

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields)(?: of [^:]*)?:\s*$")
ENTRY = re.compile(r"^    (?P<name>\*{0,2}[\w, *`/+]+?): (?P<text>.+)$")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


# Docstrings ---------------------------------------------------------------------------------------


def python_files(root: Path) -> list[Path]:
    """Every file of the package with its stubs, the scripts beside it, and all tests but this one."""
    folders = [root / "flows", root / "benchmarks", root / "docs", root / "tests"]
    found = [path for folder in folders for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi")]
    return [*sorted(path for path in found if path.name != "test_prose.py"), root / "train.py"]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring, those of constants and attributes included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    if isinstance(statement.value.value, str):
                        yield statement.lineno, inspect.cleandoc(statement.value.value)


def entries(text: str) -> Iterator[tuple[str, str]]:
    """(name, text) of every entry of the sections; a section of one sentence has its title as a name."""
    title = ""
    for line in text.splitlines():
        if section := SECTION.match(line):
            title, first = section[1], True
        elif line and not line.startswith(" "):
            title = ""
        elif title and (found := ENTRY.match(line)):
            yield found["name"], found["text"]
            first = False
        elif title in ("Returns", "Yields") and line.strip() and first:
            yield title, line.strip()
            first = False


def fragments(root: Path) -> list[str]:
    """Arguments, attributes, results and errors whose text starts with no noun."""
    return [
        f"{path.relative_to(root)}:{line}: {name}: {said}"
        for path in python_files(root)
        for line, text in docstrings(path)
        for name, said in entries(text)
        if FRAGMENT.match(said) and name.split(",")[0] not in ("UserError", "ValueError")
    ]


def openings(root: Path) -> list[str]:
    """Docstrings whose first sentence has neither verb nor noun of its own."""
    return [
        f"{path.relative_to(root)}:{line}: {text.splitlines()[0]}"
        for path in python_files(root)
        for line, text in docstrings(path)
        if OPENING.match(text)
    ]


# Words --------------------------------------------------------------------------------------------


def prose(root: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of all that people read but README: strings, comments, documentation, configs."""
    for path in python_files(root):
        for line, text in (*strings(path), *comments(path)):
            yield f"{path.relative_to(root)}:{line}", text
    pages = [*(root / "docs").rglob("*.*"), root / "CONTRIBUTING.md", root / "CHANGELOG.md"]
    pages += [*(root / "configs").rglob("*.yaml"), *(root / "checkpoints").rglob("README.md")]
    pages += [root / "pyproject.toml", root / ".ci" / "run"]
    for path in pages:
        if path.suffix in (".md", ".yaml", ".toml", ".sbatch", "") and path.name != "glossary.md":
            for line, text in paragraphs(path.read_text()):
                yield f"{path.relative_to(root)}:{line}", re.sub(r"`[^`]*`", "`code`", text)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string, its pieces joined; `{}` stands for the values of an f-string."""
    tree = ast.parse(path.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            if node.value not in STORED:
                yield node.lineno, node.value


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every comment; comments on successive lines are one."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    found = [
        (token.start[0], token.string.lstrip("# ")) for token in tokens if token.type == tokenize.COMMENT
    ]
    for _, run in groupby(enumerate(found), lambda pair: pair[1][0] - pair[0]):
        lines = [each for _, each in run]
        yield lines[0][0], " ".join(text for _, text in lines)


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every run of lines without an empty one between them, without signs of a comment."""
    for empty, run in groupby(enumerate(text.splitlines(), 1), lambda pair: not pair[1].strip("# ")):
        lines = list(run)
        if not empty:
            yield lines[0][0], " ".join(line.strip().lstrip("# ") for _, line in lines)


def retired(root: Path) -> list[str]:
    """Places where a retired word stands, on one line or across two."""
    found = []
    for place, text in prose(root):
        text = " ".join(text.split())
        for match in RULE.finditer(text):
            found.append(f"{place}: {match[0]!r} in {text[max(0, match.start() - 30) : match.end() + 30]!r}")
    return found


def names(root: Path) -> list[str]:
    """Variables, arguments, attributes, functions and classes with a retired word in the name."""
    found = []
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text())):
            for name in {getattr(node, key, None) for key in ("id", "arg", "attr", "name")}:
                if (
                    isinstance(name, str)
                    and name not in STANDARD
                    and RULE.search(" ".join(WORD.findall(name)))
                ):
                    found.append(f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}: {name}")
    return found


# Tests --------------------------------------------------------------------------------------------

CHECKS = (fragments, openings, retired, names)


@pytest.mark.parametrize("check", CHECKS)
def test_the_rules_hold(check):
    assert check(ROOT) == []


PLANTED = {
    "fragments": [
        'def f(x):\n    """Add.\n\n    Args:\n        x: By default, one.\n    """',
        'def f(x):\n    """Add.\n\n    Args:\n        x: The same as above.\n    """',
        'def f(x):\n    """Add.\n\n    Returns:\n        Of the image, theirs.\n    """',
        'class A:\n    """Sum.\n\n    Attributes:\n        x: Theirs.\n    """',
    ],
    "openings": [
        'def f():\n    """For a search: the start."""',
        'x = 1\n"""Of a map, its size."""',
        '"""Where the maps are."""',
    ],
    "retired": [
        'x = "an image that comes " "back"',
        'def f():\n    """An image that was brought\n    back."""',
        "x = 1  # the images that come\n# back",
        'x = f"{1} judges"',
    ],
    "names": [
        "def write_judge_report(): ...",
        "came_back = 1",
        "x.z_spread = 1",
        "def f(told_of): ...",
        "class JudgeOfImages: ...",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "code"), [(name, each) for name in PLANTED for each in PLANTED[name]])
def test_a_planted_sentence_is_found(name, code, tmp_path):
    (tmp_path / "flows").mkdir()
    for file in ("CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", "train.py"):
        (tmp_path / file).touch()
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").touch()
    (tmp_path / "flows" / "a.py").write_text(code + "\n")
    check = next(check for check in CHECKS if check.__name__ == name)
    assert len(check(tmp_path)) == 1


def test_a_page_is_read_across_its_lines():
    assert list(paragraphs("# the image that comes\n# back\n\nnext")) == [
        (1, "the image that comes back"), (4, "next"),
    ]  # fmt: skip


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    for check in CHECKS:
        places = [place for place in check(checkout) if only in place]
        print(f"{check.__name__}: {len(places)}")
        if only:
            print("\n".join(f"  {place}" for place in places))
