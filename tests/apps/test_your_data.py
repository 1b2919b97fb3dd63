"""docs/guides/your-data.md: from a folder with labels, values and masks to a moved photograph on the page."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from blocks import ROOT, blocks_of
from PIL import Image
from served import serving

import flows

GUIDE = ROOT / "docs/guides/your-data.md"
BLOCKS = [block for block in blocks_of(GUIDE) if block.mark.startswith("elsewhere")]
# Networks of a few thousand weights, which see drawn pictures of day and night a hundred times.
SMALL = {
    "folder/glow": "--variant tiny --training.images 6400 --training.warmup 320 --training.patience null",
    "folder/predictor": "--variant tiny --training.images 1600 --training.warmup 160 --training.ema 0.9",
    "folder/segmenter": "--variant tiny --training.images 1600 --training.warmup 160 --training.ema 0.9",
}


def draw(folder: Path, n: int = 240) -> None:
    """Pictures of a sky and ground, bright by day and dark by night, with table and masks."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(n):
        night, age = i % 2, random.uniform(18, 80)
        name = f"{'night' if night else 'day'}/{i:03d}.jpg"
        horizon = 16 + round(20 * random.uniform())
        pixels = np.empty((48, 64, 3))
        pixels[:horizon] = (30, 30, 60) if night else (130, 180, 230)
        pixels[horizon:] = (10 + age, 40, 20) if night else (100 + age, 120, 90)
        pixels += random.normal(scale=6, size=pixels.shape)
        for part, content in (("images", pixels), ("masks", None)):
            target = folder / part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                Image.fromarray(content.clip(0, 255).astype(np.uint8)).save(target, quality=95)
                continue
            mask = np.zeros((48, 64), dtype=np.uint8)
            mask[horizon:] = 1
            Image.fromarray(mask).save(target.with_suffix(".png"))
        rows.append(
            {"file_name": f"images/{name}", "age": round(age, 1), "weight": round(random.uniform(), 3)}
        )
    with open(folder / "metadata.csv", "w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "classes.txt").write_text("sky\nground\n")


class Person:
    """Somebody who types the commands of the guide in a folder of their own."""

    def __init__(self, place: Path):
        self.place = place
        self.said = ""

    def types(self, command: str, code: int = 0) -> str:
        """Run a command, trainings with small networks; returns what it printed."""
        for config, options in SMALL.items():
            command = command.replace(f"--config {config}", f"--config {config} {options}")
        command = command.replace("~/pictures", str(self.place / "pictures"))
        words = [sys.executable, "-m", *shlex.split(command)]
        threads = {"OMP_NUM_THREADS": "1", "HOME": str(self.place)}
        done = subprocess.run(
            words, cwd=self.place, capture_output=True, text=True, env={**os.environ, **threads}
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        self.said = done.stdout + done.stderr
        return self.said


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    place = tmp_path_factory.mktemp("person")
    draw(place / "pictures")
    pixels = np.full((300, 400, 3), 90, dtype=np.uint8)
    Image.fromarray(pixels).save(place / "photo.jpg")
    return Person(place)


@pytest.mark.long
def test_the_guide_leads_from_a_folder_to_a_moved_photograph(person):
    commands = BLOCKS[0].commands()
    assert len(commands) == 6 and commands[-1].startswith("flows studio")
    said = person.types(commands[0])
    found = json.loads((person.place / "data-report/data.json").read_text())
    assert found["pictures"] == 240 and found["classes"] == {"day": 120, "night": 120}
    assert set(found["attributes"]) == {"class", "age", "weight"} and set(found["mask_classes"]) == {
        "sky",
        "ground",
    }
    assert [each["config"] for each in found["proposals"]] == [
        "folder/glow",
        "folder/predictor",
        "folder/segmenter",
    ]
    assert (
        all(each["minutes"] > 0 for each in found["proposals"]) and "240 of 240 pictures have a mask" in said
    )
    person.types(commands[1])
    said = person.types(commands[2])
    assert "by 2-fold cross-validation: " in said and "class accuracy 1.00" in said
    assert "not learnt: weight; permuted labels would agree as well" in said
    assert "1 directions in space" in person.types(commands[3])
    person.types(commands[4])
    with Image.open(person.place / "moved.png") as moved:
        assert moved.width > moved.height
    glow = flows.load(person.place / "runs/glow")
    words = shlex.split(commands[5])[2:]
    words = [str(person.place / word) if word.startswith("runs/") else word for word in words]
    with serving(*words) as (address, _):
        from gradio_client import Client, handle_file

        from flows.studio.page import GROUPS, POOL

        client = Client(address, verbose=False)
        client.predict("glow", handle_file(person.place / "photo.jpg"), api_name="/open")
        # every slider of the page; there is one direction
        answer = client.predict([], [], 0, *[2.0] * (POOL * len(GROUPS)), api_name="/steer")
        client.close()
    assert "+2 σ" in answer[1] and Path(answer[0][1]).is_file()
    assert glow.image_shape == (3, 32, 32)


@pytest.mark.long
def test_masks_values_and_networks_of_ones_own_run_in_every_tool(person):
    for command in [*BLOCKS[0].commands()[1:2], *BLOCKS[1].commands(), *BLOCKS[2].commands()]:
        folder = re.search(r"--folder (\S+)", command)
        if folder and (person.place / folder[1] / "report.json").is_file():
            continue  # by the test before
        person.types(command)
    report = json.loads((person.place / "runs/segmenter/report.json").read_text())
    assert report["test"]["ground"]["iou"] > 0.8
    from flows.steering import load_directions

    glow = flows.load(person.place / "runs/glow")
    (age,) = load_directions(person.place / "age.safetensors", glow)
    both = {each.name: each for each in load_directions(person.place / "both.safetensors", glow)}
    assert age.evidence["r2"] > 0.3 and age.evidence["p_value"] == 0.001
    assert abs(float(both["age"].vector @ both["weight"].vector)) < 0.2
    assert "weight: shuffled labels would give such a direction as well" in person.types(
        "flows steer find runs/glow --source images --scores weight --method Ridge --output w.safetensors"
    )
    segmenter = "--segmenter runs/segmenter --n 60"
    person.types(f"flows dissect runs/glow {segmenter} --layers code/level2 --out units")
    person.types(f"flows omissions runs/glow {segmenter} --images 20 --out omissions")
    person.types(
        "flows paint runs/glow --segmenter runs/segmenter --images photo.jpg --resize true --exemplars 40 "
        "--strokes 'draw ground 8 16 24 30' --output painted.png"
    )
    person.types(
        "flows atlas runs/glow --predictor runs/predictor --segmenter runs/segmenter --n 200 --out atlas"
    )
    assert (person.place / "atlas/index.html").is_file()
    person.types("flows steer score runs/glow age.safetensors --predictor runs/predictor --n 40 --out scored")
    person.types(
        "flows steer disentangle runs/glow age.safetensors --predictor runs/predictor --n 40 "
        "--output other.safetensors"
    )


class Brightness(torch.nn.Module):
    """Classifier by the mean of the pixels: day above, night below."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


class Halves(torch.nn.Module):
    """Segmenter by the row: the upper half is the first class."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        heights = torch.linspace(4, -4, images.shape[2])[:, None]
        rows = torch.zeros_like(images[:, :1]) + heights
        return torch.cat([rows, -rows], 1)


@pytest.mark.long
def test_the_guides_networks_of_other_projects(person):
    if not (person.place / "runs/glow/report.json").is_file():
        person.types(BLOCKS[0].commands()[1])
    images = torch.zeros(2, 3, 32, 32)
    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    for name, network, classes in (
        ("mine", Brightness(), "day\nnight\n"),
        ("masks", Halves(), "sky\nground\n"),
    ):
        program = torch.export.export(network, (images,), dynamic_shapes=(batch,))
        torch.export.save(program, person.place / f"{name}.pt2")
        (person.place / ("names.txt" if name == "mine" else "parts.txt")).write_text(classes)
    find, dissect = BLOCKS[3].commands()
    person.types(f"{find} --n 200 --output mine.safetensors")
    person.types(f"{dissect} --n 60 --layers code/level2 --out parts")
    assert json.loads((person.place / "parts/units.json").read_text())["segmenter"] == "masks.pt2"
