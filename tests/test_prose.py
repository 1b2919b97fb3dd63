"""The language of docs/glossary.md: docstrings that start with the noun, and one term for one thing.

`python tests/test_prose.py [CHECKOUT]` prints the counts of a checkout, this one or another.
"""

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

FRAGMENT = re.compile(
    r"^(of|its|their|theirs|by|with|in|at|from|for|to|on|as|where|what|whose|how|see|likewise)\b", re.I
)
"""An argument's text that starts so is a fragment: the noun is missing, or it points to another place."""

OPENING = re.compile(r"^(of|by|with|where|what|see|likewise|the same|whose|their|its)\b", re.I)
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

STORED = {
    '"foreign"': "an older word of `flows compare --images`, still accepted",
    '"told"': "a key of record files, and the id of an element of the page",
}
"""Strings that are stored or compared, whatever the words."""

FSTRING = getattr(tokenize, "FSTRING_MIDDLE", -1)
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields)(?: of [^:]*)?:\s*$")
ENTRY = re.compile(r"^    (?P<name>\*{0,2}[\w, *`/+]+?): (?P<text>.+)$")


def python_files(root: Path) -> list[Path]:
    """Every file of the package, and the training script."""
    return [*sorted((root / "flows").rglob("*.py")), root / "train.py"]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring, those of constants and attributes included."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    if isinstance(statement.value.value, str):
                        yield statement.lineno, inspect.cleandoc(statement.value.value)


def entries(text: str) -> Iterator[tuple[str, str]]:
    """(name, text) of every line of the sections Args and Attributes."""
    inside = False
    for line in text.splitlines():
        if SECTION.match(line):
            inside = line.startswith(("Args", "Attributes"))
        elif line and not line.startswith(" "):
            inside = False
        elif inside and (found := ENTRY.match(line)):
            yield found["name"], found["text"]


def fragments(root: Path) -> list[str]:
    """Arguments and attributes whose text starts with no noun."""
    return [
        f"{path.relative_to(root)}:{line}: {name}: {said}"
        for path in python_files(root)
        for line, text in docstrings(path)
        for name, said in entries(text)
        if FRAGMENT.match(said)
    ]


def openings(root: Path) -> list[str]:
    """Docstrings whose first sentence has neither verb nor noun of its own."""
    return [
        f"{path.relative_to(root)}:{line}: {text.splitlines()[0]}"
        for path in python_files(root)
        for line, text in docstrings(path)
        if OPENING.match(text)
    ]


def prose(root: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of everything that people read: strings, comments, documentation; but README."""
    for path in python_files(root):
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        for token in tokens:
            if token.type in (tokenize.COMMENT, tokenize.STRING, FSTRING) and token.string not in STORED:
                yield f"{path.relative_to(root)}:{token.start[0]}", token.string
    pages = [*(root / "docs").rglob("*.md"), root / "CONTRIBUTING.md", root / "CHANGELOG.md"]
    pages += [*(root / "configs").rglob("*.yaml"), *(root / "checkpoints").glob("*/README.md")]
    for path in pages:
        if path.name != "glossary.md":
            for i, line in enumerate(path.read_text().splitlines(), 1):
                yield f"{path.relative_to(root)}:{i}", line


def retired(root: Path) -> list[str]:
    """Places where a retired word stands."""
    rule = re.compile(rf"\b({'|'.join(RETIRED)})\b", re.I)
    found = []
    for place, text in prose(root):
        for match in rule.finditer(text):
            around = " ".join(text[max(0, match.start() - 12) : match.end() + 12].split())
            found.append(f"{place}: {match[0]!r} in {around!r}")
    return found


def names(root: Path) -> list[str]:
    """Variables, arguments and functions with a name that says nothing: `told`."""
    found = []
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "name", None)
            if isinstance(name, str) and re.fullmatch(r"_?told(_.*)?", name):
                found.append(f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}: {name}")
    return found


def test_an_argument_starts_with_its_noun():
    assert fragments(ROOT) == []


def test_a_docstring_starts_with_a_verb_or_a_noun():
    assert openings(ROOT) == []


def test_retired_words_are_not_used():
    assert retired(ROOT) == []


def test_no_variable_is_called_told():
    assert names(ROOT) == []


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    for check in (fragments, openings, retired, names):
        places = [place for place in check(checkout) if only in place]
        print(f"{check.__name__}: {len(places)}")
        if only:
            print("\n".join(f"  {place}" for place in places))
