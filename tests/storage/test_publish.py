"""Publishing of models: what is sent is what the index says, and a dry run sends and writes nothing."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from flows.errors import UserError
from flows.storage import publish as publishing
from flows.storage.index import INDEX_FILE, read_index, write_index

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
NAMES = ["digits-glow", "fashion-glow"]


@pytest.fixture(name="place")
def _place(tmp_path, monkeypatch):
    """A clone's checkpoints with two models."""
    for name in NAMES:
        shutil.copytree(CHECKPOINTS / name, tmp_path / name)
    known = read_index(CHECKPOINTS / INDEX_FILE)
    write_index({name: known[name] for name in NAMES}, tmp_path / INDEX_FILE)
    for module in ("index", "publish"):
        monkeypatch.setattr(f"flows.storage.{module}.packaged", lambda name: tmp_path)
    return tmp_path


def test_a_dry_run_says_everything_and_sends_nothing(place, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("a look-up")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    before = (place / INDEX_FILE).read_bytes()
    publishing.main(["somebody/flows", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    of_cards = ["config.yaml", "curves.png", "report.json", "roundtrip.png", "samples.png"]
    assert [line.split()[1] for line in lines[:-1]] == [
        f"{name}/{file}"
        for name in NAMES
        for file in ("config.json", "README.md", "model.safetensors", *of_cards)
    ]
    sizes = [(place / line.split()[1]).stat().st_size for line in lines[:-1]]
    assert lines[-1] == f"16 files, {sum(sizes):,} bytes to somebody/flows; nothing was sent or written"
    assert (place / INDEX_FILE).read_bytes() == before


def test_what_is_sent_is_what_the_index_says(place, monkeypatch):
    sent = {}

    def create_commit(self, repo_id, operations, **_):
        for each in operations:
            given = each.path_or_fileobj
            sent[each.path_in_repo] = given if isinstance(given, bytes) else Path(given).read_bytes()
        return SimpleNamespace(oid="c0ffee")

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: None)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    publishing.main(["somebody/flows", "--model", NAMES[0]])
    assert b"- [digits-glow](digits-glow): Glow of digits, Apache-2.0" in sent.pop("README.md")
    own = [path for path in (place / NAMES[0]).iterdir() if path.name != "metrics.jsonl"]
    assert set(sent) == {f"{NAMES[0]}/{path.name}" for path in own}
    assert all(content == (place / name).read_bytes() for name, content in sent.items())
    address = "https://huggingface.co/somebody/flows/resolve/c0ffee/digits-glow"
    assert read_index()[NAMES[0]].url == address and read_index()[NAMES[1]].url == ""


def test_mistakes_are_one_line_and_change_nothing(place, monkeypatch):
    def refused(self, repo_id, **_):
        raise OSError("no token")

    before = (place / INDEX_FILE).read_bytes()
    monkeypatch.setattr(HfApi, "create_repo", refused)
    for words, said in (
        (["somebody/flows", "--model", "digits-glo"], "Did you mean 'digits-glow'"),
        (["some body", "--dry-run"], "expected owner/name, got 'some body'"),
        (["somebody/flows"], "the hub refuses"),
    ):
        with pytest.raises(UserError, match=said):
            publishing.main(words)
    (place / NAMES[0] / "README.md").write_text("another card")
    with pytest.raises(UserError, match="README.md is not the file of the index"):
        publishing.main(["somebody/flows", "--dry-run"])
    assert (place / INDEX_FILE).read_bytes() == before
