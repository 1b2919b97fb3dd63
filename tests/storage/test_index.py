"""Index of models: true to its folders, loaded by name, downloaded once, and never from elsewhere."""

import functools
import hashlib
import json
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import flows
from flows.cli import main
from flows.commands.render import named_checkpoint
from flows.errors import CheckpointError, UserError
from flows.opening import bundled_model, find_bundled, with_tools
from flows.reports.index import entry_of, made_anew
from flows.storage import index as index_file
from flows.storage.index import INDEX_FILE, find_folder, folder_of, read_index, write_index
from flows.storage.places import find_here

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "checkpoints"
NAME = "digits-glow"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A reader that hangs up is no error here."""


@pytest.fixture(name="server")
def _server(tmp_path):
    """Folder that a server on this machine publishes, with one model, and its address."""
    published = tmp_path / "published"
    shutil.copytree(CHECKPOINTS / NAME, published / NAME)
    handler = functools.partial(Quiet, directory=str(published))
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield published, f"http://127.0.0.1:{server.server_port}/{NAME}", server
        server.shutdown()
        thread.join()


@pytest.fixture(name="elsewhere")
def _elsewhere(tmp_path, monkeypatch, server):
    """An installation whose one model is on the server alone; returns the cache folder."""
    place = tmp_path / "installed"
    place.mkdir()
    write_index({NAME: entry_of(CHECKPOINTS / NAME, url=server[1])}, place / INDEX_FILE)
    monkeypatch.setattr(index_file, "packaged", lambda name: place)
    monkeypatch.setenv("FLOWS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models"


def ends_with(capsys, words, *sentences):
    with pytest.raises(SystemExit) as ended:
        main(words)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 1, lines
    for sentence in sentences:
        assert sentence in lines[0], lines[0]


# The file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(read_index()))
def test_an_entry_is_what_its_folder_says(name):
    entry = read_index()[name]
    assert entry == entry_of(CHECKPOINTS / name, entry.licence, entry.url)
    for file, expected in entry.files.items():
        content = (CHECKPOINTS / name / file).read_bytes()
        assert expected.bytes == len(content) and expected.sha256 == hashlib.sha256(content).hexdigest()
    assert entry.bytes <= 8.2e6 and entry.figures


def test_every_shipped_folder_is_in_the_index():
    kept = {line[len("!checkpoints/") : -1] for line in (ROOT / ".gitignore").read_text().splitlines()
            if line.startswith("!checkpoints/") and line.endswith("/")}  # fmt: skip
    assert kept == set(read_index())
    assert sum(path.stat().st_size for name in kept for path in (CHECKPOINTS / name).rglob("*")) < 120e6


def test_the_index_is_written_anew_from_its_folders(tmp_path):
    for name in (NAME, "scenes-lia"):
        shutil.copytree(CHECKPOINTS / name, tmp_path / name)
    known, said = read_index(), []
    before = {NAME: replace(known[NAME], licence="MIT", url="https://x"), "gone": known["scenes-nice"]}
    found = made_anew(before, [tmp_path / "scenes-lia"], tmp_path, said.append)
    assert found == {NAME: before[NAME], "scenes-lia": known["scenes-lia"]}
    card = tmp_path / NAME / "README.md"
    card.write_text(card.read_text() + "\n")
    assert made_anew(before, [], tmp_path, said.append)[NAME].url == ""  # what is published is another one
    shutil.copy(CHECKPOINTS / NAME / "README.md", card)
    said.clear()
    made_anew(before, [], tmp_path, said.append)
    assert said == [f"gone is left out: there is no folder {tmp_path / 'gone'}"]
    write_index(found, tmp_path / "index.json")
    assert read_index(tmp_path / "index.json") == found


def stated(name="a", file="model.safetensors", url="", config="config.json") -> str:
    """Index with one model."""
    files = {each: {"bytes": 1, "sha256": "0"} for each in (config, file)}
    entry = {"model_type": "Glow", "kind": "flow", "image_shape": [1, 8, 8], "data": "x", "parameters": 1,
             "licence": "MIT", "figures": {}, "files": files, "url": url}  # fmt: skip
    return json.dumps({"format_version": 1, "models": {name: entry}})


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "was altered or cut off: not JSON"),
        ('{"format_version": 2, "models": {}}', "has format version 2, this release of flows reads 1"),
        ('{"format_version": 1, "models": {"a": {"kind": "flow"}}}', "was altered or cut off"),
        (stated(name="../a"), "expected a plain name without folders, got '../a'"),
        (stated(file="../../x"), "expected a plain name without folders, got '../../x'"),
        (stated(url="file:///etc"), "expected an address with https://, got 'file:///etc'"),
        (stated(url="x.org/a"), "expected an address with https://, got 'x.org/a'"),
        (stated(config="other.json"), "a has no config.json"),
    ],
)
def test_a_damaged_index_is_named(content, fault, tmp_path):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(CheckpointError, match=fault):
        read_index(tmp_path / "index.json")


# Names ---------------------------------------------------------------------------------------------


def test_models_and_semantic_models_come_from_the_index(monkeypatch, tmp_path):
    known = read_index()
    assert flows.list_models() == [name for name, entry in known.items() if entry.kind in
                                   ("flow", "autoencoder", "generator")]  # fmt: skip
    monkeypatch.chdir(ROOT)
    glow = flows.load("fashion-glow")
    assert find_bundled("predictor", glow) == "checkpoints/fashion-predictor"
    assert find_bundled("segmenter", glow) is None
    with pytest.raises(UserError, match="--segmenter: none is included for fashion-mnist"):
        bundled_model("segmenter", glow)
    first = with_tools()
    assert first[:2] == ["checkpoints/scenes64-glow", "checkpoints/scenes64-lia"] and len(first) == 10
    monkeypatch.chdir(tmp_path)
    assert with_tools()[0] == str(CHECKPOINTS / "scenes64-glow")


def test_the_page_has_models_without_a_segmenter(monkeypatch):
    """The models of a wheel, which has no rooms."""
    here = {"digits-glow", "fashion-glow", "fashion-predictor"}
    monkeypatch.setattr(
        "flows.opening.find_folder", lambda name: CHECKPOINTS / name if name in here else None
    )
    assert [Path(folder).name for folder in with_tools()] == ["fashion-glow"]
    here.remove("fashion-predictor")
    assert [Path(folder).name for folder in with_tools()] == ["fashion-glow", "digits-glow"]


def test_a_folder_that_differs_from_the_index_is_not_loaded_by_name(tmp_path, monkeypatch, capsys):
    shutil.copytree(CHECKPOINTS / NAME, tmp_path / NAME)
    shutil.copy(CHECKPOINTS / INDEX_FILE, tmp_path)
    monkeypatch.setattr(index_file, "packaged", lambda name: tmp_path)
    assert folder_of(NAME) == tmp_path / NAME
    config = json.loads((tmp_path / NAME / "config.json").read_text())
    (tmp_path / NAME / "config.json").write_text(json.dumps(config))  # the same model in another file
    own = f"{tmp_path / NAME} differs from the index; load it by its path"
    ends_with(capsys, ["sample", NAME], f"{NAME} is not in this installation: {own}")
    main(["models"])
    assert f"{tmp_path / NAME} differs from the index" in capsys.readouterr().out
    assert flows.load(tmp_path / NAME).fingerprint() == flows.load(CHECKPOINTS / NAME).fingerprint()


def test_nothing_that_looks_like_a_path_is_looked_up(monkeypatch, tmp_path, capsys):
    def never(*_, **__):
        raise AssertionError("a look-up")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.chdir(tmp_path)
    for given in ("somebody/something", "checkpoints/fashion-glw", "fashion-glw", "./a/b", "a/b/c", "x.pt"):
        ends_with(capsys, ["sample", given], f"there is no folder {given}")
    ends_with(capsys, ["sample", "fashion-glw"], "Did you mean 'fashion-glow'?")
    ends_with(
        capsys, ["sample", "somebody/something"], "for the Hugging Face hub write hf-hub:somebody/something"
    )


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch, capsys):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    said = ("hf-hub:somebody/nothing-of-this-name: the hub does not answer", "is not cached here")
    ends_with(capsys, ["sample", "hf-hub:somebody/nothing-of-this-name"], *said)
    with pytest.raises(CheckpointError, match="the hub does not answer"):
        flows.load("hf-hub:somebody/nothing-of-this-name")


# The verb ------------------------------------------------------------------------------------------


def test_the_list_says_what_each_is_and_where(capsys, tmp_path):
    main(["models", "--json", str(tmp_path / "models.json")])
    printed = capsys.readouterr().out.splitlines()
    known = read_index()
    assert printed[::3] == list(known)
    i = printed.index("fashion-glow")
    assert printed[i + 1] == "    Glow (flow, exact inverse) of fashion-mnist, 32×32×1: bits/dim 2.542"
    assert printed[i + 2] == f"    3.4 MB, Apache-2.0, {CHECKPOINTS / 'fashion-glow'}"
    listed = json.loads((tmp_path / "models.json").read_text())["models"]
    assert set(listed) == set(known) and listed[NAME]["folder"] == str(CHECKPOINTS / NAME)
    ends_with(capsys, ["models", "--download", "fashion-glo"], "Did you mean 'fashion-glow'?")


# Downloads -----------------------------------------------------------------------------------------


def test_a_published_model_is_downloaded_once(elsewhere, server, capsys):
    main(["models"])
    assert f"MB, Apache-2.0, {server[1]}" in capsys.readouterr().out
    assert find_folder(NAME) is None and flows.list_models() == [NAME]
    model = flows.load(NAME)
    assert model.fingerprint() == flows.load(CHECKPOINTS / NAME).fingerprint()
    assert sorted(path.name for path in elsewhere.iterdir()) == [NAME]
    shutil.rmtree(server[0])
    assert flows.load(NAME).fingerprint() == model.fingerprint()
    main(["models", "--download", NAME])
    assert capsys.readouterr().out == f"{NAME}: {elsewhere / NAME}\n"


@pytest.mark.parametrize("damage", ["altered", "cut", "longer", "gone"])
def test_a_file_that_differs_is_refused_and_nothing_is_kept(damage, elsewhere, server, capsys):
    path = server[0] / NAME / "model.safetensors"
    content = path.read_bytes()
    said = "model.safetensors is not the file of the index: its SHA-256 differs"
    if damage == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "longer":
        path.write_bytes(content + b"\0" * 10_000_000)
    else:
        path.unlink()
        said = "cannot be downloaded (HTTP Error 404"
    ends_with(capsys, ["sample", NAME, "--output", "s.png"], said)
    assert list(elsewhere.iterdir()) == [] and not Path("s.png").exists()


def test_without_a_network_or_an_address_it_is_one_line(elsewhere, server, capsys, monkeypatch):
    server[2].shutdown()
    server[2].server_close()
    ends_with(capsys, ["sample", NAME], "cannot be downloaded", "is not cached either")
    place = index_file.packaged("checkpoints") / INDEX_FILE
    write_index({NAME: entry_of(CHECKPOINTS / NAME)}, place)
    ends_with(capsys, ["sample", NAME], f"{NAME} is not in this installation, and not published yet")
    assert flows.list_models() == []


def test_a_cache_that_cannot_be_written_is_one_line(elsewhere, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", Path("/proc/flows")):
        monkeypatch.setenv("FLOWS_CACHE", str(place))
        ends_with(capsys, ["sample", NAME], f"{place}/models/{NAME} cannot be written (",
                  "FLOWS_CACHE names another folder")  # fmt: skip


def test_the_index_is_read_again_when_it_changes(elsewhere):
    assert list(read_index()) == [NAME]
    write_index({}, index_file.packaged("checkpoints") / INDEX_FILE)
    assert read_index() == {}


def test_processes_that_download_at_once_all_get_it(elsewhere):
    with ThreadPoolExecutor(6) as pool:
        folders = list(pool.map(lambda _: folder_of(NAME), range(12)))
    assert set(folders) == {elsewhere / NAME} and [path.name for path in elsewhere.iterdir()] == [NAME]
    assert flows.load(NAME).bins == 17 and (elsewhere / NAME).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("left", ["config.json", "model.safetensors"])
def test_a_folder_of_the_cache_that_lost_a_file_is_downloaded_again(left, elsewhere):
    flows.load(NAME)
    (elsewhere / NAME / left).unlink()
    assert flows.load(NAME).bins == 17


def test_an_older_model_in_the_cache_gives_way(elsewhere):
    flows.load(NAME)
    (elsewhere / NAME / "config.json").write_text("{}")
    assert flows.load(NAME).bins == 17


def test_what_is_optional_is_not_downloaded(elsewhere, server, monkeypatch):
    glow = flows.load(NAME)
    entry = replace(read_index()[NAME], kind="predictor")
    write_index({"its-predictor": entry}, index_file.packaged("checkpoints") / INDEX_FILE)
    assert find_bundled("predictor", glow) is None
    assert Path(bundled_model("predictor", glow)).name == "its-predictor"


def test_a_record_downloads_nothing(elsewhere):
    assert find_here(NAME) is None and not elsewhere.exists()
    with pytest.raises(UserError, match="names the checkpoint digits-glow, which is not here"):
        named_checkpoint(Path("record.safetensors"), NAME)


def test_one_model_given_by_name_and_by_path_is_one(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = [
        "--models",
        "fashion-glow",
        "checkpoints/fashion-glow",
        "--inverters",
        "exact",
        "--images",
        "ood",
    ]
    ends_with(capsys, ["compare", *given], "--models: one checkpoint is given twice")


def test_a_hub_repository_is_never_a_folder_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CHECKPOINTS / NAME, tmp_path / "owner" / "name")
    shutil.copytree(CHECKPOINTS / "fashion-glow", tmp_path / "snapshot")
    monkeypatch.setattr("flows.storage.places._silence", lambda *_: "")
    monkeypatch.setattr(
        "flows.storage.places.hf_hub_download", lambda repo, name, **_: str(tmp_path / "snapshot" / name)
    )
    assert flows.load("hf-hub:owner/name").image_shape == (1, 32, 32)
