"""Pages of measured tables, from the JSON files that the tools wrote.

    python docs/results.py            # write the pages, and the tables in all other pages
    python docs/results.py --check    # exit with 1 if a page and its JSON differ

Every `docs/results/NAME.json` gives the page NAME.md and a line of the index. A page shows a table where it
has `<!-- result: NAME.TABLE -->` and `<!-- end -->`.
"""

import argparse
from pathlib import Path

from flows.display.results import Result, filled

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs/results")


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Text of every page that is made from JSON, or shows a table of it, by its path below `root`."""
    results = {path.stem: Result.load(path) for path in sorted((root / FOLDER).glob("*.json"))}
    found = {FOLDER / f"{name}.md": result.page(name) for name, result in results.items()}
    found[FOLDER / "index.md"] = index(results)
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        if path.parent != root / FOLDER:
            found[path.relative_to(root)] = filled(path.read_text(encoding="utf-8"), results)
    return found


def index(results: dict[str, Result]) -> str:
    """Page with a line for every result."""
    lines = [f"- [{each.title}]({name}.md), {each.made.date}" for name, each in results.items()]
    return "\n".join([
        "# Results",
        "",
        "Every table is made from a JSON file that a tool wrote, by `python docs/results.py`.",
        "",
        *sorted(lines),
        "",
    ])  # fmt: skip


def main() -> None:
    """Write the pages, or name those that differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md and docs/")
    given = parser.parse_args()
    made = pages(given.root)
    differ = [
        path
        for path, text in made.items()
        if not (given.root / path).is_file() or (given.root / path).read_text(encoding="utf-8") != text
    ]
    left = sorted({path.relative_to(given.root) for path in (given.root / FOLDER).glob("*.md")} - made.keys())
    if given.check:
        for path in [*differ, *left]:
            print(f"{path} differs from its JSON: run `python docs/results.py`")
        raise SystemExit(1 if differ or left else 0)
    for path in differ:
        (given.root / path).write_text(made[path], encoding="utf-8")
    for path in left:
        (given.root / path).unlink()
    print(f"{len(made)} pages, {len(differ)} written, {len(left)} removed")


if __name__ == "__main__":
    main()
