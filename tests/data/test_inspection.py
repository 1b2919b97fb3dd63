"""`flows data`: what is in a folder is found, duplicates and leaks among it, and said before a training."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from flows.cli import main
from flows.data.duplicates import exact_groups, joined, near_pairs
from flows.data.folder import Folder
from flows.reports.data import inspect

pytest.importorskip("imagehash")


def photograph(seed: int, side: int = 96) -> Image.Image:
    """Picture with structure at all scales, like a photograph: smoothed noise and an edge."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (6, 6, 3)).astype(np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).astype(float) + random.normal(scale=8, size=(side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    for i in range(60):
        target = tmp_path / ("train" if i < 40 else "test") / ("cat" if i % 2 else "dog") / f"{i:02d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        photograph(i).save(target)
    return tmp_path


def test_planted_duplicates_are_found_and_no_others(folder):
    shutil.copy(folder / "train/dog/00.png", folder / "test/dog/copy.png")  # exact, across splits
    photograph(2).save(folder / "train/dog/small.jpg", quality=70)  # another compression
    photograph(3).resize((64, 64), Image.Resampling.LANCZOS).save(folder / "test/cat/shrunk.png")  # and size
    found = inspect(Folder(folder, size=32))
    groups = [{found.names[i] for i in group} for group in found.exact]
    assert groups == [{"train/dog/00.png", "test/dog/copy.png"}]
    assert {frozenset(found.names[i] for i in pair) for pair in found.near} == {
        frozenset({"train/dog/02.png", "train/dog/small.jpg"}),
        frozenset({"train/cat/03.png", "test/cat/shrunk.png"}),
    }
    assert len(found.leaks) == 2
    said = " ".join(found.notes)
    assert (
        "duplicates: 1 exact, 2 near (" in said
        and "in two splits, so that held-out figures are too good: 2" in said
    )
    written = found.save(folder / "report", "Mine")
    assert "splits.csv" in written
    shutil.copy(folder / "report/splits.csv", folder)
    shutil.rmtree(folder / "report")
    again = inspect(Folder(folder, size=32))
    assert again.leaks == [] and min(again.splits.count(name) for name in ("validation", "test")) >= 6
    family = joined(len(found.names), found.near, found.exact)
    assert len(family.unique()) == 60


def test_plain_pictures_are_no_duplicates_of_each_other():
    plain = (
        torch.arange(0, 250, 10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    )
    pairs = near_pairs(plain)
    assert all(abs(int(plain[i, 0, 0, 0]) - int(plain[j, 0, 0, 0])) <= 10 for i, j in pairs)
    assert exact_groups(plain) == [] and exact_groups(torch.cat([plain, plain[:2]])) == [[0, 25], [1, 26]]


def test_the_verb_writes_what_it_says(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "train/cat/bad.png").write_bytes(b"no")
    (folder / "train/cat/photo.psd").write_bytes(b"x")
    rows = [
        f"train/{'cat' if i % 2 else 'dog'}/{i:02d}.png,{2 * i},{'' if i < 5 else i % 3}" for i in range(40)
    ]
    (folder / "metadata.csv").write_text("file_name,age,stars\n" + "\n".join(rows))
    with pytest.warns(UserWarning, match="1 of 61 image files cannot be read"):
        main(["data", str(folder), "--measure", "false", "--out", "report", "--json", "all.json"])
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "report/data.json").read_text())
    assert report["pictures"] == 60 and report["splits"] == {"train": 39, "validation": 1, "test": 20}
    assert report["classes"] == {"cat": 30, "dog": 30} and report["unreadable"][0].startswith(
        "train/cat/bad.png"
    )
    assert report["attributes"]["stars"]["missing"] == 25 and report["attributes"]["age"][
        "values"
    ].startswith("0 … 78")
    assert report["sizes"]["median"] == [96, 96] and json.loads((tmp_path / "all.json").read_text()) == report
    assert [each["config"] for each in report["proposals"]] == ["folder/glow", "folder/predictor"]
    assert report["proposals"][0]["command"] == f"flows train --config folder/glow --data.path {folder}"
    for text in (
        "1 .psd",
        "pictures without a row, whose values are missing: 21",
        "folder/predictor: 12,000 images: ",
    ):
        assert text in printed
    for name in ("pictures", "sizes", "values"):
        with Image.open(tmp_path / f"report/{name}.png") as opened:
            assert min(opened.size) > 100


@pytest.mark.long
def test_the_minutes_are_right_within_a_factor_of_one_and_a_half(folder, tmp_path, capsys, monkeypatch):
    """The training takes half a minute; its steps are measured on the same machine right before it."""
    import time

    monkeypatch.chdir(tmp_path)
    options = ["--data.path", str(folder), "--model.depth", "2", "--model.width", "32", "--recipe", "0"]
    from flows.config import parse_experiment
    from flows.training.estimate import estimate

    settings = [
        "--training.images",
        "3000",
        "--training.validate_every",
        "600",
        "--training.patience",
        "null",
    ]
    parser, parsed = parse_experiment(["--config", "folder/glow", *options, *settings])
    made = parser.instantiate(parsed)
    said = estimate(made.model, made.data, made.training, made.objective).seconds
    from flows.run import main as train

    began = time.monotonic()
    train(["--config", "folder/glow", *options, *settings, "--folder", "run"])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    took = max(line["seconds"] for line in lines if "seconds" in line)
    assert time.monotonic() - began > took
    assert 1 / 1.5 < said / took < 1.5, f"{said:.1f} s were said, {took:.1f} s it took"
