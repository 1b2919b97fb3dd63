"""The notebooks: valid, small, without outputs, and every cell runs and shows what it ends with."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import ROOT
from test_docs import environment

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
RUN = """
import ast
import json
import sys

names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    if cell["cell_type"] != "code":
        continue
    place, tree = f"cell {number}", ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, place, "exec"), names)
    if last is None or (value := eval(compile(ast.Expression(last.value), place, "eval"), names)) is None:
        continue
    methods = {kind: getattr(value, f"_repr_{kind}_", lambda: None) for kind in ("png", "html")}
    print("SHOWN", number, *(kind for kind in methods if methods[kind]()), repr(value).splitlines()[0])
"""
"""Program that runs the cells of a notebook as a kernel does, and says what each shows."""


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {"images", "vectors"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_has_no_outputs(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    identifiers = [cell["id"] for cell in content["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    for cell in content["cells"]:
        assert cell["cell_type"] in ("markdown", "code") and isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), path.name, "exec")
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert re.match(r"[a-z]+:", target) or (path.parent / target).exists(), target


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run(path, tmp_path):
    """The cells assert their own figures."""
    (tmp_path / "run.py").write_text(RUN)
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(path)],
        cwd=tmp_path,
        env={**environment(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    shown = [line for line in done.stdout.splitlines() if line.startswith("SHOWN")]
    assert sum("png Images(" in line for line in shown) >= (2 if path.stem == "images" else 1), shown
    assert all(len(line) < 200 for line in shown)
    assert Path(tmp_path / "runs/digits/report.json").is_file() == (path.stem == "images")
