"""Fenced blocks of the documentation, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md"))
      if path.parent != ROOT / "docs" / "results" and "api" not in path.parts and path.name != "commands.md"),
]  # fmt: skip
"""Pages that are written by hand."""
FENCED = re.compile(
    r"(?:^(?P<mark><!-- (?:not run|elsewhere).*? -->)\n\n?)?(?:^(?P<file>`[\w./]+`:)\n\n)?"
    r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
MARK = re.compile(r"<!-- (not run|elsewhere)(?: lines? ([\d ]+))?: (.+) -->")
"""`<!-- not run: reason -->` or `not run line 2: reason`; `elsewhere: tests/test_x.py` names another test."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: Path of its page, below the clone.
        kind: Language.
        text: Contents.
        file: Whether it shows a file, which another test compares.
        mark: Reason why it is not run here; empty if it is.
        skipped: Numbers of the commands that the reason is for, from 1; empty for all.
    """

    page: str
    kind: str
    text: str
    file: bool
    mark: str
    skipped: tuple[int, ...]

    def commands(self) -> list[str]:
        """Commands of a bash block: its lines, with continuations joined."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]

    def runs(self, i: int) -> bool:
        """Whether command i, from 0, is run here."""
        return not self.mark or bool(self.skipped and i + 1 not in self.skipped)


def blocks_of(page: Path) -> list[Block]:
    """Blocks of a page."""
    found = []
    for match in FENCED.finditer(page.read_text(encoding="utf-8")):
        stated = MARK.fullmatch(match["mark"]) if match["mark"] else None
        assert match["mark"] is None or stated, f"{page}: {match['mark']}"
        found.append(
            Block(
                page.relative_to(ROOT).as_posix(),
                match["kind"],
                match["text"],
                bool(match["file"]),
                f"{stated[1]}: {stated[3]}" if stated else "",
                tuple(int(number) for number in (stated[2] or "").split()) if stated else (),
            )
        )
    return found


def words_of_command(command: str) -> list[str]:
    """Words of a command line, without its comment."""
    return shlex.split(re.sub(r"\s#.*$", "", command))
