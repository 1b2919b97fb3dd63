"""Configs that come with flows: by name in any folder, in the clone and in the wheel."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from flows.cli import main
from flows.config import parse_experiment
from flows.errors import UserError
from flows.inversion.by_name import make_inverter
from flows.storage.configs import config_names, find_config, header

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))


def test_a_config_is_found_by_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(config_names()) == len(FILES) > 30
    for given in ("digits/glow", "digits/glow.yaml", "configs/digits/glow.yaml", Path("digits/glow")):
        assert find_config(given).read_text() == (ROOT / "configs/digits/glow.yaml").read_text()


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "digits" / "glow.yaml"
    mine.parent.mkdir()
    mine.write_text("training: {images: 7}\n")
    assert find_config("digits/glow.yaml").read_text() == mine.read_text()
    assert "levels" in find_config("digits/glow").read_text()


@pytest.mark.parametrize(
    ("given", "near"), [("digits/glo", "digits/glow"), ("configs/fashion/nise.yaml", "fashion/nice")]
)
def test_an_unknown_config_names_the_nearest(given, near, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"does not exist.*Did you mean '{near}'"):
        find_config(given)
    for words in (["train", "--config", given], ["sample", "scenes-glow", "--config", given]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        line = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2 and line.startswith(f"error: --config: {given} does not exist")
        assert f"Did you mean '{near}'?" in line
    assert not list(tmp_path.iterdir())


def test_a_folder_does_not_hide_a_config(tmp_path, monkeypatch, capsys):
    (tmp_path / "digits" / "glow").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "levels" in find_config("digits/glow").read_text()
    main(["configs"])
    assert "digits/glow\n" in capsys.readouterr().out
    (tmp_path / "a.png").write_bytes(b"\xff\xfe")
    for words, said in (
        (["--show", "a.png"], "--show a.png: expected a name of `flows configs`"),
        (["--show", "digits/glo"], "Did you mean 'digits/glow'?"),
        (["--show", "digits/glow", "--json", "x.json"], "give one of both"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["configs", *words])
        assert ended.value.code == 2 and said in capsys.readouterr().err


def test_inverters_are_found_by_the_name_of_their_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("inversion/projector", "configs/inversion/projector.yaml"):
        assert type(make_inverter(given)).__name__ == "Optimise"
    with pytest.raises(UserError, match="Did you mean 'inversion/projector'"):
        make_inverter("inversion/projectr.yaml")


def test_a_config_may_be_typed(tmp_path):
    words = [
        "--config",
        "digits/glow",
        "--config",
        "{training: {images: 77}}",
        "--folder",
        str(tmp_path / "run"),
    ]
    assert parse_experiment(words)[1].training.images == 77


def test_the_list_has_every_config_and_its_figures(capsys):
    main(["configs"])
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if not line.startswith(" ")] == [
        path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in FILES
    ]
    assert "    Measured: 2.3 bits/dim with 17 grey levels, in 23 seconds on one core.\n" in printed
    assert max(map(len, printed.splitlines())) <= 100
    main(["configs", "--show", "digits/glow"])
    assert capsys.readouterr().out == (ROOT / "configs/digits/glow.yaml").read_text()


def test_paragraphs_of_a_header(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("# One\n# paragraph.\n#\n#\n# Another.\nfolder: x  # no header\n# nor this\n")
    assert header(config) == ["One paragraph.", "Another."]
    config.write_text("folder: x\n")
    assert header(config) == []


def test_train_in_an_empty_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["train", "--config", "digits/nice", "--variant", "tiny", "--folder", "run"])
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert 0 < report["likelihood"]["bits_per_dim"] < 20
    assert "bit for bit" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_version_is_that_of_the_distribution():
    done = subprocess.run([sys.executable, "-m", "flows", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == f"flows {version('exact-flows')}\n"
