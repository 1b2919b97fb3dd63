"""Folders of 5, 60, 300 and 2,000 real photographs in every layout: train, steer, compare, inspect."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from blocks import ROOT
from PIL import Image

from flows.cli import main

WALLPAPERS = Path("/usr/share/backgrounds/mate/nature/Garden.jpg")
LAYOUTS = ("flat", "classes", "splits", "csv", "jsonl", "celeba", "masks", "zip", "tar.gz")
CASES = [
    *(pytest.param(layout, 60, marks=pytest.mark.long) for layout in LAYOUTS),
    *(pytest.param(layout, 5, marks=pytest.mark.long) for layout in ("flat", "csv", "masks")),
    *(pytest.param(layout, n, marks=pytest.mark.hours) for n in (300, 2000) for layout in LAYOUTS),
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Function from a number to a list of as many photographs."""
    if not WALLPAPERS.is_file():
        assert not os.environ.get("FLOWS_REQUIRE_ALL"), "Debian's wallpapers are missing; see .ci/run"
        pytest.skip("needs photographs: the wallpapers that .ci/run installs")
    made: dict[int, list[Path]] = {}

    def of(n: int) -> list[Path]:
        if n not in made:
            place = tmp_path_factory.mktemp(f"photographs{n}") / "set"
            tool = [sys.executable, str(ROOT / "benchmarks/photographs.py"), str(place), "--pictures", str(n)]
            subprocess.run(tool, check=True, cwd=ROOT, capture_output=True)
            made[n] = sorted((place / "train").rglob("*.jpg"))
        return made[n]

    return of


def arranged(pictures: list[Path], layout: str, target: Path) -> Path:
    """Copy pictures in a layout, with labels or values of what is seen; returns the folder or archive."""
    target.mkdir(parents=True)
    rows = []
    for i, path in enumerate(pictures):
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(float)
        bright, warm = float(pixels.mean()), int(pixels[..., 0].mean() > pixels[..., 2].mean())
        name = f"{i:04d}.jpg"
        if layout == "classes":
            name = f"{path.parent.name}/{name}"
        elif layout == "splits":
            name = f"{('train', 'train', 'train', 'val', 'test')[i % 5]}/{name}"
        elif layout == "masks":
            name = f"images/{name}"
            (target / "masks").mkdir(exist_ok=True)
            mask = (pixels.mean(2) > pixels.mean()).astype(np.uint8)
            Image.fromarray(mask).save(target / "masks" / f"{i:04d}.png")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / name)
        rows.append({"file_name": name, "bright": round(bright, 1), "kind": path.parent.name, "warm": warm})
    if layout in ("csv", "zip", "tar.gz"):
        with open(target / "metadata.csv", "w", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif layout == "jsonl":
        (target / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    elif layout == "celeba":
        lines = [f"{row['file_name']} {2 * row['warm'] - 1}" for row in rows]
        (target / "list_attr_celeba.txt").write_text(f"{len(rows)}\nWarm\n" + "\n".join(lines) + "\n")
    elif layout == "masks":
        (target / "classes.txt").write_text("dark\nlight\n")
    return packed(target, layout)


def packed(folder: Path, layout: str) -> Path:
    """Archive of a folder, if that is the layout."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    archive = folder.with_name(f"{folder.name}.{layout}")
    if layout == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for path in files:
                opened.write(path, path.relative_to(folder))
    elif layout == "tar.gz":
        with tarfile.open(archive, "w:gz") as opened:
            opened.add(folder, "set")
    return archive if archive.is_file() else folder


@pytest.mark.parametrize(("layout", "n"), CASES)
def test_every_layout_trains_steers_compares(photographs, layout, n, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = str(arranged(photographs(n), layout, tmp_path / "mine"))
    main(["data", place, "--measure", "false", "--out", "report"])
    report = json.loads((tmp_path / "report/data.json").read_text())
    assert report["pictures"] == n and report["unreadable"] == []
    small = ["--variant", "tiny", "--training.images", "320", "--training.validate_every", "320"]
    given = ["--data.path", place]
    main(["train", "--config", "folder/glow", *given, *small, "--folder", "glow"])
    assert (tmp_path / "glow/report.json").is_file()
    configs = [each["config"] for each in report["proposals"]]
    assert ("folder/segmenter" in configs) == (layout == "masks")
    labelled = layout in ("classes", "csv", "jsonl", "celeba", "zip", "tar.gz")
    assert ("folder/predictor" in configs) == (
        labelled and (layout != "classes" or len(report["classes"]) > 1)
    )
    for config in configs[1:]:
        main(["train", "--config", config, *given, *small, "--folder", config.partition("/")[2]])
        assert "cross-validation" in capsys.readouterr().out
    if labelled and n >= 60:
        score = {"classes": "class: flower", "celeba": "Warm"}.get(layout, "warm")
        find = [
            "steer",
            "find",
            "glow",
            "--source",
            "images",
            "--scores",
            score,
            "--method",
            "MeanDifference",
        ]
        main([*find, "--output", "glow/directions.safetensors"])
    compare = [
        "compare",
        "--models",
        "glow",
        "--inverters",
        "exact",
        "--perceptual",
        "none",
        "--edits",
        "false",
    ]
    main([*compare, "--images", f"user:{photographs(n)[0].parent}", "test:3", "--out", "compared"])
    assert "bit_exact" in (tmp_path / "compared/table.csv").read_text()
