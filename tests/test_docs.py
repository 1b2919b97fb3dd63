"""The documentation: tables are those of the JSON, links lead somewhere, commands and code run."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blocks import PAGES, ROOT, blocks_of, words_of_command
from PIL import Image

from flows.cli import make_parser
from flows.config import parse_experiment
from flows.core.parser import raising
from flows.display.results import Made, Result, Shown, as_json, filled

RESULTS = ROOT / "docs" / "results"
BLOCKS = [block for page in PAGES for block in blocks_of(page)]

# Tables --------------------------------------------------------------------------------------------


def check(root: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "docs" / "results.py"), "--check", "--root", str(root)]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture(name="copy")
def _copy(tmp_path):
    """Copy of README and documentation, without pictures."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.png", "*.py", "api"))
    return tmp_path


def test_every_table_is_that_of_its_json():
    done = check(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/guides/numerics.md", "docs/results/attack.md"])
def test_a_page_that_differs_from_its_json_is_named(page, copy):
    text = (copy / page).read_text()
    figure = next(re.finditer(r"(?<=\| )\d[\d.]+", text))
    (copy / page).write_text(text[: figure.start()] + "7" + text[figure.start() :])
    done = check(copy)
    assert done.returncode == 1 and f"{page} differs from its JSON" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_figure_that_changes_in_json_changes_every_page(copy):
    path = copy / "docs" / "results" / "attack.json"
    path.write_text(path.read_text().replace("96 of 96", "95 of 96", 1))
    named = {line.split()[0] for line in check(copy).stdout.splitlines()}
    assert named == {"docs/results/attack.md", "docs/guides/numerics.md"}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_says_how_it_was_made(path):
    result = Result.load(path)
    made = result.made
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", made.date) and made.version and made.machine
    assert made.command or made.note
    assert result.tables and all(shown.rows for shown in result.tables.values())
    assert all(len(row) == len(shown.columns) for shown in result.tables.values() for row in shown.rows)
    assert all((RESULTS / file).resolve().is_file() for file in result.pictures)
    assert not re.search(r"/(work|home|root|tmp)/", path.read_text())


@pytest.mark.parametrize("name", ["race", "libraries"])
def test_a_plot_belongs_to_its_json(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from saving import digest_of

    result = Result.load(RESULTS / f"{name}.json")
    assert len(result.pictures) == 1
    for picture in result.pictures:
        with Image.open(RESULTS / picture) as opened:
            assert opened.text["Source"] == digest_of(result.data), "--again of the tool draws it anew"


@pytest.mark.parametrize(
    ("tool", "names"),
    [("attack", ["attack"]), ("planes", ["planes"]), ("omissions", ["omissions"]), ("painting", ["painting"]),
     ("steering", ["boundaries"]), ("race", ["race"]), ("compare", ["libraries", "memory"])],
)  # fmt: skip
def test_tables_are_made_again_from_the_figures(tool, names, tmp_path):
    for name in names:
        shutil.copy(RESULTS / f"{name}.json", tmp_path)
    words = [f"benchmarks/{tool}.py", "--again", "--output", str(tmp_path)]
    needed = {"omissions": ["a-run"]}.get(tool, [])
    done = subprocess.run([sys.executable, *words, *needed], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert (tmp_path / f"{name}.json").read_bytes() == (RESULTS / f"{name}.json").read_bytes(), name


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_form_of_a_file_is_that_of_a_tool(path, tmp_path):
    Result.load(path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == path.read_text()


def test_brackets_and_quotes_in_texts_are_texts():
    value = {"a": ['[x](y) {"b": [1]}', "\\"], "c": [[1, 2], {}], "d": [], "e": "x" * 500, "f": ["y" * 500]}
    text = as_json(value)
    assert json.loads(text) == value and '"a": ["[x]' in text and " [1, 2],\n" in text


def test_a_result_is_saved_and_read_again(tmp_path):
    made = Made.now("python benchmarks/mine.py")
    table = Shown(["name", "dB"], [["a", "1.0"], ["b", "2.0"]], note="Two.")
    result = Result("Mine", made, {"table": table}, "Measured.", {}, {"a": [1.0, float("inf")]})
    result.save(tmp_path / "mine.json")
    again = Result.load(tmp_path / "mine.json")
    assert again.made == made and again.tables == result.tables and again.data["a"] == [1.0, None]
    page = "<!-- result: mine -->\nold\n<!-- end -->"
    assert filled(page, {"mine": again}) == (
        "<!-- result: mine -->\n\n| name | dB |\n| --- | --: |\n| a | 1.0 |\n| b | 2.0 |\n\n<!-- end -->"
    )
    assert "Measured by `python benchmarks/mine.py` on " in again.page("mine")
    with pytest.raises(KeyError):
        filled("<!-- result: other -->\n<!-- end -->", {"mine": again})


# Links ---------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Anchors of the headings of a page, as they are on the site and in the clone's web view."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.S), re.M)
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", head).lower() for head in heads)
    return {re.sub(r"[^\w\- ]", "", head).strip().replace(" ", "-") for head in plain}


GENERATED = ("reference/api", "reference/commands.md")
WITH_LINKS = [*PAGES, *sorted(RESULTS.glob("*.md")), ROOT / "CHANGELOG.md", ROOT / "checkpoints/README.md"]


@pytest.mark.parametrize("page", WITH_LINKS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if any(each in to.as_posix() for each in GENERATED):
            continue
        assert to.exists(), target
        if anchor and to.suffix == ".md":
            assert anchor in anchors(to), f"{target}: {sorted(anchors(to))}"


# Commands and code ---------------------------------------------------------------------------------

STANDARD = {"bash", "python"}


def test_every_block_is_run_or_says_why_not():
    run = [block for block in BLOCKS if block.kind in STANDARD and not block.file]
    assert len(run) > 30
    for block in run:
        if block.mark.startswith("elsewhere: "):
            name = block.mark.removeprefix("elsewhere: ")
            assert Path(block.page).name in (ROOT / name).read_text(), f"{name} does not mention {block.page}"
        assert not block.mark or len(block.mark) > 20
    marked = [block for block in run if block.mark.startswith("not run") and not block.skipped]
    assert len(marked) <= len(run) / 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_have_options_that_exist(page, monkeypatch):
    """Every command of `flows` and `train.py` of a page, whether it is run or not."""
    monkeypatch.chdir(ROOT)
    for block in blocks_of(page):
        there = block.mark.startswith("elsewhere")  # another folder, where the other test runs it
        for command in block.commands() if block.kind == "bash" and not there else ():
            for part in re.split(r" && ", command):
                words = words_of_command(part)
                if words[:2] == ["flows", "train"] or "train.py" in words:
                    given = words[words.index("train" if words[0] == "flows" else "train.py") + 1 :]
                    with raising():
                        parse_experiment(given)
                    continue
                if words[:1] == ["flows"] and not any("…" in word for word in words):
                    with raising():
                        make_parser(words[1:]).parse_args([word.replace("$R", "r") for word in words[1:]])


SERVES = ("flows studio", "tensorboard", "zensical serve")
"""Commands that serve a page until they are stopped."""
READY = re.compile(r"https?://[\w.]+:\d+")


@pytest.fixture(name="place")
def _place(tmp_path, monkeypatch):
    """Folder like a clone, with pictures of one's own in `~/pictures` and `my-room.png`."""
    clone, home = tmp_path / "clone", tmp_path / "home"
    (clone / "checkpoints").mkdir(parents=True)
    for folder in (ROOT / "checkpoints").iterdir():
        (clone / "checkpoints" / folder.name).symlink_to(folder)
    for name in ("configs", "train.py", "docs", "zensical.toml", "flows", "benchmarks", "README.md"):
        (clone / name).symlink_to(ROOT / name)
    runpy.run_path(str(ROOT / "tests/support/own_pictures.py"))["draw"](clone, home)
    return clone, home


def environment(home: Path) -> dict[str, str]:
    """Variables of a user whose home is `home`, but for the data sets that are found in the real one."""
    cache = Path.home() / ".cache"
    if cache.is_dir() and not (home / ".cache").exists():
        (home / ".cache").symlink_to(cache)
    programs = Path(sys.executable).parent
    return {**os.environ, "HOME": str(home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def run_bash(command: str, clone: Path, home: Path) -> None:
    """Run one command as it is written; installations are those of this environment."""
    command = re.sub(r'pip install (-\w+ )?"?[\w.\[\],-]+"?', "true", command)
    if any(each in command for each in SERVES):
        serve(command, clone, home)
        return
    done = subprocess.run(
        ["bash", "-ec", command], cwd=clone, env=environment(home), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"


def serve(command: str, clone: Path, home: Path) -> None:
    """Start a command that serves a page, wait until it says its address, and stop it."""
    log = clone / "server.log"
    with log.open("w") as output:
        words = ["bash", "-ec", command]
        streams = {"stdout": output, "stderr": subprocess.STDOUT}
        server = subprocess.Popen(words, cwd=clone, env=environment(home), start_new_session=True, **streams)
        try:
            for _ in range(240):
                time.sleep(0.5)
                if READY.search(log.read_text()) or server.poll() is not None:
                    break
        finally:
            os.killpg(server.pid, 15)
            server.wait(60)
    assert READY.search(log.read_text()), f"{command}\n{log.read_text()}"


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(page, place):
    clone, home = place
    prepared = runpy.run_path(str(ROOT / "tests/support/own_pictures.py"))
    name = page.relative_to(ROOT).as_posix()
    for command in prepared["COMMANDS"].get(name, ()):
        run_bash(command, clone, home)
    before, code, variables = list(prepared["CODE"].get(name, ())), "", ""
    for block in (block for block in blocks_of(page) if not block.file):
        for i, command in enumerate(block.commands() if block.kind == "bash" else ()):
            if re.match(r"\w+=", command):
                variables += f"{command}\n"
            elif block.runs(i):
                run_bash(variables + command, clone, home)
        if block.kind == "python" and not block.mark:
            code += f"{before.pop(0) if before else ''}{block.text}\n"
            (clone / "block.py").write_text(code)
            run_bash("python block.py", clone, home)
