"""Pages of measured tables, from the JSON files that the tools wrote.

    python docs/results.py            # write the pages, and the tables in all other pages
    python docs/results.py --check    # exit with 1 if a page and its JSON differ

Every `docs/results/NAME.json` gives the page NAME.md and a line of the index. A page shows a table where it
has `<!-- result: NAME.TABLE -->` and `<!-- end -->`.
"""

import argparse
from pathlib import Path

from flows.display.results import Result, filled
from flows.display.table import Table
from flows.storage.index import read_index

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs/results")


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Text of every page that is made from JSON, or shows a table of it, by its path below `root`."""
    results = {path.stem: Result.load(path) for path in sorted((root / FOLDER).glob("*.json"))}
    found = {FOLDER / f"{name}.md": result.page(name) for name, result in results.items()}
    found[FOLDER / "index.md"] = index(results)
    found[FOLDER / "checkpoints.md"] = models_page()
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        if path.parent != root / FOLDER:
            found[path.relative_to(root)] = filled(path.read_text(encoding="utf-8"), results)
    return found


def models_page() -> str:
    """Page of the models that come with flows, from their index."""
    rows = [
        [
            f"`{name}`",
            f"{entry.model_type}, {entry.kind}",
            entry.data,
            "×".join(map(str, entry.image_shape[::-1])),
            f"{entry.parameters / 1e6:.2f} M",
            f"{entry.bytes / 1e6:.1f}",
            ", ".join(f"{figure} {value:.3f}" for figure, value in entry.figures.items()),
        ]
        for name, entry in read_index().items()
    ]
    head = ["name", "class, kind", "data", "images", "parameters", "MB", "figures on the test images"]
    return "\n".join([
        "# Models that come with flows",
        "",
        Table(head, rows).markdown(),
        "From `checkpoints/index.json`, which `python -m flows.reports.index` writes from the folders of the",
        "models and their reports. `flows models` lists them, `flows.load(name)` opens them.",
        "",
    ])  # fmt: skip


def index(results: dict[str, Result]) -> str:
    """Page with a line for every result."""
    lines = [f"- [{each.title}]({name}.md), {each.made.date}" for name, each in results.items()]
    return "\n".join([
        "# Results",
        "",
        "Every table is made from a JSON file by `python docs/results.py`. Most were written by a tool, with",
        "their raw figures; those that say \"copied\" have the cells that an earlier page printed.",
        "",
        "- [Models that come with flows](checkpoints.md)",
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
