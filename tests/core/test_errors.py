"""Exit codes: a user error is one line and 2, a planted bug is a traceback and 1, at every entry."""

import ast
import errno
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import train
from flows.cli import commands, main
from flows.errors import (
    CheckpointError,
    DataMissing,
    FlowsError,
    NonFinite,
    Unsupported,
    UserError,
    is_user_error,
    sentence_of,
)
from flows.storage.files import reading, write_atomically

ROOT = Path(__file__).parents[2]

BUGS = [
    ValueError("zip() argument 2 is longer than argument 1"), RuntimeError("shapes do not match"),
    KeyError("z"), TypeError("no such argument"), FloatingPointError("overflow"), OSError("no file is named"),
    AssertionError("never"),
]  # fmt: skip

# Arguments with which every verb comes to the function where the bug is planted.
LOADS = "flows.storage.stored.read_config"
ENTRIES = {
    "atlas": (["model", "--out", "out"], LOADS),
    "codes": (["model", "codes.safetensors", "--output", "out.npz"], LOADS),
    "compare": (["--models", "model", "--inverters", "exact", "--images", "ood"], LOADS),
    "completion": (["bash"], "flows.commands.completion.script"),
    "configs": ([], "flows.commands.configs.config_names"),
    "data": (["pictures"], "flows.commands.data.inspect"),
    "decode": (["model", "codes.safetensors"], LOADS),
    "dissect": (["model"], LOADS),
    "distances": (["model"], LOADS),
    "encode": (["model", "picture.png"], LOADS),
    "evaluate": (["model"], LOADS),
    "export": (["run", "out"], LOADS),
    "interpolate": (["model", "a.png", "b.png"], LOADS),
    "models": ([], "flows.commands.models.read_index"),
    "omissions": (["model"], LOADS),
    "paint": (["model", "--strokes", "erase bed"], LOADS),
    "render": (["record.safetensors", "--checkpoint", "model"], LOADS),
    "roundtrip": (["model"], LOADS),
    "sample": (["model"], LOADS),
    "steer apply": (["model", "directions.safetensors"], LOADS),
    "steer disentangle": (["model", "directions.safetensors"], LOADS),
    "steer find": (["model", "--method", "PrincipalComponents"], LOADS),
    "steer levels": (["model", "directions.safetensors"], LOADS),
    "steer rank": (["scores.json"], "flows.commands.steer.rank.read_scores"),
    "steer score": (["model", "directions.safetensors"], LOADS),
    "studio": (["--checkpoint", "model"], LOADS),
}


@pytest.fixture(name="place")
def _place(tmp_path, monkeypatch):
    """A folder with files of every name that the entries mention; none of them is read."""
    for name in ("model/config.json", "run/config.json", "run/config.yaml", "run/metrics.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("codes.safetensors", "directions.safetensors", "scores.json"):
        (tmp_path / name).touch()
    shutil.copy(ROOT / "tests/models/legacy/record-exact.safetensors", tmp_path / "record.safetensors")
    for name in ("picture.png", "a.png", "b.png"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWS_DEBUG", raising=False)
    return tmp_path


def plant(monkeypatch, where, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(where, broken)


def test_every_verb_has_an_entry():
    assert set(ENTRIES) == set(commands())


@pytest.mark.parametrize("verb", sorted(ENTRIES))
def test_a_bug_in_a_verb_is_no_mistake_of_the_user(verb, place, monkeypatch, capsys):
    arguments, where = ENTRIES[verb]
    for bug in BUGS:
        plant(monkeypatch, where, bug)
        with pytest.raises(type(bug)) as left:
            main([*verb.split(), *arguments])
        assert left.value is bug
    assert "error:" not in capsys.readouterr().err
    for mistake in (UserError("expected two, got one"), DataMissing("expected two, got one")):
        plant(monkeypatch, where, mistake)
        with pytest.raises(SystemExit) as ended:
            main([*verb.split(), *arguments])
        assert ended.value.code == 2
        assert capsys.readouterr().err == "error: expected two, got one\n"
    plant(monkeypatch, where, KeyboardInterrupt())
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), *arguments])
    assert ended.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    "where",
    [
        "flows.models.glow.make_scale",
        "flows.data.digits.Digits.split",
        "flows.run.fit",
        "flows.run.prepare_folder",
    ],
)
def test_a_bug_in_training_is_no_mistake_of_the_user(where, tmp_path, monkeypatch, capsys):
    """A bug in a constructor that the parser calls, in the data, in the loop, in the files of a run."""
    monkeypatch.chdir(ROOT)
    given = ["--config", "configs/digits/glow.yaml", "--variant", "tiny", "--folder", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    for bug in BUGS:
        plant(monkeypatch, where, bug)
        with pytest.raises(type(bug)) as left:
            train.main()
        assert left.value is bug
    assert "error:" not in capsys.readouterr().err
    plant(monkeypatch, where, NonFinite("the loss is infinite"))
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: the loss is infinite"


@pytest.mark.parametrize("entry", ["from train import main; main()", "import flows.cli; flows.cli.main()"])
def test_the_process_of_a_bug_ends_with_a_traceback_and_1(entry, tmp_path):
    (tmp_path / "model").mkdir()
    text = f"""
import sys, flows.storage.stored, flows.training.loop
def broken(*_, **__): raise ValueError("zip() argument 2 is longer than argument 1")
flows.storage.stored.read_config = broken
import train
train.fit = broken
{entry}
"""
    training = [
        "--config",
        "configs/digits/glow.yaml",
        "--variant",
        "tiny",
        "--folder",
        str(tmp_path / "run"),
    ]
    given = training if "train" in entry else ["sample", str(tmp_path / "model")]
    done = subprocess.run(
        [sys.executable, "-c", text, *given], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "Traceback" in done.stderr and "error: " not in done.stderr


def test_a_bug_behind_a_checkpoint_that_was_not_altered_is_a_bug(tmp_path, monkeypatch):
    """A constructor that fails: the checkpoint is at fault only where its files are not as written."""
    import flows
    from flows.models.nice import NICE

    NICE((1, 2, 2), couplings=2, hidden_layers=1, width=4).save_pretrained(tmp_path)
    with monkeypatch.context() as patch:
        plant(patch, "flows.models.nice.AdditiveCoupling", BUGS[0])
        with pytest.raises(ValueError, match="zip") as left:
            flows.load(tmp_path)
        assert left.value is BUGS[0]
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"width": 4', '"width": "x"'))
    with pytest.raises(CheckpointError, match="does not fit the weights"):
        flows.load(tmp_path)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--model.levels=0", "levels: expected a whole number above 0, got 0"),
        ("--model.levels=9", "cannot squeeze 1×1 pixels"),
        ("--training.batch=0", "--training.batch: expected a whole number above 0, got 0"),
        ("--training.lr=fast", "--training.lr: expected a number above 0, got 'fast'"),
        ("--model.levels=few", "levels: expected a whole number above 0, got 'few'"),
        (
            "--model.flavour=offical",
            "flavour: expected one of official, paper; got 'offical'. Did you mean",
        ),
    ],
)
def test_the_sentence_of_a_constructor_is_printed_alone(option, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        "sys.argv", ["train.py", "--config", "configs/digits/glow.yaml", "--folder", str(tmp_path), option]
    )
    with pytest.raises(SystemExit) as ended:
        train.main()
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and line.startswith("error: ") and sentence in line, line
    assert not any(word in line for word in ("Namespace", "Union", "<class", "Parser key")), line


@pytest.mark.parametrize(
    ("name", "sentence"), [("empty", "no image files"), ("text.png", "expected a folder, a zip or a tar")]
)
def test_the_sentence_of_a_data_set_is_printed_alone(name, sentence, tmp_path, monkeypatch, capsys):
    """The attributes of a data set are an argument of the model, and are asked for by the parser."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").touch()
    data = ["--data", "Folder", f"--data.path={tmp_path / name}", "--folder", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "configs/digits/glow.yaml", *data])
    with pytest.raises(SystemExit) as ended:
        train.main()
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and line.startswith("error: ") and sentence in line, line
    assert "link" not in line and not (tmp_path / "run").exists()


def test_a_bug_in_what_the_parser_asks_a_data_set_is_a_bug(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plant(monkeypatch, "flows.config.json_attributes", BUGS[0])
    given = ["--config", "configs/digits/glow.yaml", "--variant", "tiny", "--folder", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    with pytest.raises(ValueError, match="zip") as left:
        train.main()
    assert left.value is BUGS[0]


def test_a_config_that_is_no_text_is_a_mistake(tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.yaml"
    config.write_bytes(b"\xff\xfe\x00a")
    monkeypatch.setattr("sys.argv", ["train.py", "--config", str(config)])
    for entry in (train.main, lambda: main(["sample", "scenes-glow", "--config", str(config)])):
        with pytest.raises(SystemExit) as ended:
            entry()
        assert ended.value.code == 2 and "expected a YAML file in UTF-8" in capsys.readouterr().err


def test_a_planted_bug_on_the_page_is_in_the_log_and_not_in_the_notice(capsys):
    gr = pytest.importorskip("gradio")
    from flows.studio.page import sentence

    def act(error):
        raise error

    def steps(error):
        yield 1
        raise error

    for call in (sentence(act), lambda error: list(sentence(steps)(error))):
        for bug in BUGS:
            with pytest.raises(gr.Error, match="bug") as shown:
                call(bug)
            assert shown.value.print_exception and shown.value.__cause__ is bug
        with pytest.raises(gr.Error, match="expected two") as shown:
            call(UserError("expected two, got one"))
        assert not shown.value.print_exception


# Types --------------------------------------------------------------------------------------------


def test_kinds_of_errors():
    for kind in (CheckpointError, DataMissing, Unsupported, NonFinite):
        assert issubclass(kind, UserError)
    assert issubclass(UserError, FlowsError) and issubclass(UserError, ValueError)
    assert issubclass(DataMissing, FileNotFoundError) and issubclass(NonFinite, FloatingPointError)
    assert str(DataMissing("no folder")) == "no folder"
    assert not any(map(is_user_error, BUGS))
    assert is_user_error(OSError(errno.ENOSPC, "No space left on device"))
    assert is_user_error(PermissionError(errno.EACCES, "Permission denied", "a file"))


def test_an_error_of_writing_names_the_file(tmp_path):
    def full(path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError) as failed:
        write_atomically(tmp_path / "weights", full)
    assert failed.value.filename == str(tmp_path / "weights") and is_user_error(failed.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_reading_names_the_file(tmp_path):
    with (
        pytest.raises(UserError, match="table.npz cannot be read as a npz file"),
        reading(tmp_path / "table.npz", "npz file"),
    ):
        raise KeyError("data")


# Deep bugs, behind every broad `except` -----------------------------------------------------------


@pytest.fixture(name="model")
def _model():
    import torch

    from flows.models.nice import NICE

    torch.manual_seed(0)
    return NICE((1, 8, 8), couplings=2, hidden_layers=1, width=4).eval()


@pytest.fixture(name="picture")
def _picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("L", (8, 8), 90).save(path)
    return path


def test_a_bug_while_edits_are_repeated_is_a_bug(model, tmp_path, monkeypatch):
    from flows.editing.history import Edit, History, Start
    from flows.editing.records import load_history, save_history

    codes = model.sample(1)
    start = Start(picture=model.decode_bytes(codes)[0], codes=codes, name="sample")
    history = History.of(start).then(model, Edit("a step", step=codes.values * 0.1))
    save_history(tmp_path / "record", history, model)
    assert load_history(tmp_path / "record", model)[1]
    for bug in BUGS:
        with monkeypatch.context() as patch:
            plant(patch, "flows.editing.history.History.again", bug)
            with pytest.raises(type(bug)) as left:
                load_history(tmp_path / "record", model)
            assert left.value is bug


@pytest.mark.parametrize("bug", [BUGS[0], BUGS[5]], ids=["ValueError", "OSError"])
def test_a_bug_in_what_follows_the_decoding_of_a_picture_is_a_bug(bug, picture, monkeypatch):
    from flows.data.folder import Folder
    from flows.data.shards import decode_sample
    from flows.opening import open_picture
    from flows.studio.uploads import open_upload

    sample = {"__url__": "a.tar", "__key__": "a", "png": picture.read_bytes()}

    def folder(in_memory):
        data = Folder(picture.parent, size=4, validation=0, test=0, in_memory=in_memory)
        return data.split("train").first(1)

    calls = {
        "opening": lambda: open_picture(picture, 1),
        "uploads": lambda: open_upload(picture),
        "folder": lambda: folder(True),
        "lazy folder": lambda: folder(False),
        "shards": lambda: decode_sample(sample, 4, 1),
    }
    for call in calls.values():
        call()
    for where in ("flows.images.flatten", "flows.studio.uploads.flatten"):
        plant(monkeypatch, where, bug)
    for name, call in calls.items():
        with pytest.raises(type(bug)) as left:
            call()
        assert left.value is bug, name


def test_a_bug_in_one_pair_of_a_comparison_keeps_the_report_and_ends_with_1(
    model, tmp_path, picture, monkeypatch, capsys
):
    model.save_pretrained(tmp_path / "model")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture.rename(pictures / "a.png")
    given = [
        "compare", "--models", str(tmp_path / "model"), "--inverters", "exact", "encoder", "--images",
        f"user:{pictures}", "--perceptual", "none", "--edits", "false", "--device", "cpu", "--out",
    ]  # fmt: skip
    main([*given, str(tmp_path / "fine")])
    plant(monkeypatch, "flows.inversion.encoder.Encoder.invert", Unsupported("no encoder"))
    main([*given, str(tmp_path / "unsupported")])
    assert "Traceback" not in capsys.readouterr().err
    plant(monkeypatch, "flows.inversion.encoder.Encoder.invert", BUGS[0])
    with pytest.raises(SystemExit) as ended:
        main([*given, str(tmp_path / "bug")])
    read = capsys.readouterr()
    assert ended.value.code == 1 and "Traceback" in read.err and "zip() argument 2" in read.err
    rows = json.loads((tmp_path / "bug" / "table.json").read_text())["rows"]
    assert [row["note"][:18] for row in rows] == ["", "failed: ValueError"]
    assert (tmp_path / "bug" / "index.html").is_file()


BROAD = {
    "BROKEN", "BaseException", "Exception", "OSError", "RuntimeError", "UserError", "ValueError",
}  # fmt: skip
ALLOWED = {
    "bijections/coupling.py conditioner": "inspect.signature alone: a compiled forward has no signature",
    "commands/common.py check_folder": "the file system alone: nothing can be written there",
    "training/checkpoint.py writing_in": "raises again unless the disk is full",
    "training/loader.py Answering.__getitems__": "UserError alone, raised in the main process",
    "core/checks.py check_device": "torch.empty alone: torch has no question for a device",
    "inversion/study.py choose_network": "the same error again, with the option's name",
    "core/parser.py ConfigFile.__call__": "find_config alone: the same error again, with the option's name",
    "core/parser.py linked.call": "raised again by Parser.instantiate",
    "commands/data.py propose": "UserError alone: a training for which there are too few pictures is named",
    "data/columns.py number_of": "float alone, of a cell of the user's table",
    "data/tables.py find_rows": "UserError alone: a table that is not of these pictures is named, and left",
    "data/tables.py read_lines": "json alone, on a line of the user's table",
    "semantics/files.py try_once": "the network of the user's file alone, on two grey images",
    "semantics/files.py of_torchvision": "torchvision alone, on a download",
    "semantics/files.py torchvision_weights": "load_state_dict alone, of the user's weights",
    "data/decode.py decoding": "Pillow or zipfile alone, on the user's file",
    "data/emoji.py open_font": "Pillow alone, on the user's font",
    "data/fashion.py Fashion._official": "torchvision alone, on files or a download",
    "data/hub.py HubData._table": "the package datasets alone, on a download",
    "data/shards.py decode_sample": "int alone, of a label in the user's file",
    "data/shards.py read_shard": "webdataset's gopen alone: an address of a kind that it does not know",
    "data/torchvision_sets.py find_files": "torchvision alone, on files or a download",
    "errors.py reported": "raises bugs again",
    "opening.py training_of": "UserError alone: a data set that cannot be made states no number of images",
    "storage/files.py expand": "Path.expanduser alone: ~ of an unknown user",
    "storage/files.py reading": "parsers of other packages, on the user's file",
    "storage/files.py write_atomically": "removes the temporary file and raises again",
    "inversion/by_name.py config_path": "find_config alone: the same error again, with the option's name",
    "inversion/by_name.py from_config": "the same error again, with the option's name",
    "core/plugins.py modules_of": "another package's import alone: it is left out with a warning",
    "inversion/comparison.py attempt": "keeps the rows of other pairs; prints the traceback, exit code 1",
    "storage/jobs.py digest_in": "UserError alone: a damaged marker means that the job runs again",
    "core/labels.py as_labels": "torch.as_tensor alone, on what the user gave",
    "data/own.py naming": "UserError alone, raised again with the place",
    "run.py in_python": "UserError alone, raised again with the names of Python's arguments",
    "models/codes.py as_rows": "torch.as_tensor alone, on what the user gave",
    "models/lia.py LIA.start_from": "the same error again, with the option's name",
    "display/drawing.py encode_picture": "Pillow's save alone: a picture that is too large for its format",
    "display/drawing.py save_animation": "Pillow's save alone: frames that are too large for their format",
    "core/schema.py _parse_union": "the same error again, of the first member",
    "core/schema.py read_json": "json alone, on the user's file",
    "core/schema.py unaltered": "UserError alone gets the name of the file; bugs are raised",
    "steering/ranking.py read_scores": "UserError alone gets the name of the file; bugs are raised",
    "storage/stored.py StoredModule._built": "raises bugs again: blames only an altered config",
    "storage/places.py from_hub": "the package huggingface_hub alone, on a download",
    "storage/places.py _silence": "the package huggingface_hub alone, on a look-up",
    "storage/index.py download_file": "urllib and one file alone, on a download",
    "storage/publish.py publish": "the package huggingface_hub alone, on an upload",
    "storage/index.py writing": "the file system alone, in the cache",
    "storage/stored.py read_description": "UserError alone: a file that cannot be read describes nothing",
    "studio/actions.py compare_on_model": "UserError alone is the note of one model's row; bugs are raised",
    "studio/actions.py search.work": "raised again by the consumer, in its thread",
    "studio/address.py bind_error": "bind of a socket alone: its number is the answer",
    "studio/address.py resolve.look_up": "getaddrinfo alone: there is no such host",
    "studio/uploads.py json_object": "the user's file states no model then",
    "studio/uploads.py naming": "the same error again, without the folder of the server",
    "studio/page.py sentence.call": "prints the traceback of a bug in the log",
    "studio/page.py sentence.iterate": "prints the traceback of a bug in the log",
    "studio/serve.py serve": "gradio's launch alone: the port is taken",
    "data/source.py remember": "OSError of one file alone: a home that cannot be written to",
    "data/archive.py walk": "OSError of a folder alone, which is named",
    "storage/files.py load_yaml": "PyYAML alone parses there, whose exceptions for odd values are many",
    "storage/files.py read_yaml": "UserError alone, raised again with the path",
    "core/parser.py config_fault": "UserError alone, which becomes a sentence",
    "data/source.py is_known": "RuntimeError of expanduser alone: there is no home",
    "training/lock.py _is_own": "OSError of one file alone: the lock is gone",
    "training/data_record.py read_record": "a file for information alone, missing or damaged",
    "training/lock.py _holder": "UserError alone: a lock that was cut off names no process",
    "training/lock.py _touch": "OSError of one system call: the next beat comes",
    "training/threads.py _quota": "the kernel's file alone: there is none, or it has no number",
    "testing.py broken_laws": "any exception of a bijection breaks the law, and is in the message",
}  # fmt: skip
"""Every broad `except` of the package, with the reason why it hides no bug."""


def broad_excepts(tree, name=""):
    """Names of the functions of a module with an `except` for one of `BROAD`, or for everything."""
    for node in ast.iter_child_nodes(tree):
        inner = name
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{name}.{node.name}" if name else node.name
        if isinstance(node, ast.ExceptHandler):
            parts = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(part is None or ast.unparse(part) in BROAD for part in parts):
                yield name
        yield from broad_excepts(node, inner)


def test_every_broad_except_has_a_reason():
    package = ROOT / "flows"
    found = {
        f"{path.relative_to(package).as_posix()} {name}"
        for path in sorted(package.rglob("*.py"))
        for name in broad_excepts(ast.parse(path.read_text()))
    }
    assert found == set(ALLOWED)


# Mistakes of the user -----------------------------------------------------------------------------


def ends_with(capsys, given, *words):
    """Run a verb that must end with one line and exit code 2; the line has the words."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in given])
    written = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(written) == 1, written
    assert all(str(word) in written[0] for word in words), written[0]
    assert "Errno" not in written[0]


def test_an_objective_of_another_kind_of_model_is_a_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for objective in ("Adversarial", "Steerable"):
        given = ["--config", "configs/digits/glow.yaml", "--variant", "tiny", "--objective", objective]
        monkeypatch.setattr("sys.argv", ["train.py", *given, "--folder", str(tmp_path / "run")])
        with pytest.raises(SystemExit) as ended:
            train.main()
        line = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2 and "got Glow; set another objective" in line
    assert not (tmp_path / "run").exists()


def test_a_seed_of_training_that_torch_does_not_take_is_a_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    given = ["--config", "configs/digits/glow.yaml", "--training.seed", "99999999999999999999"]
    monkeypatch.setattr("sys.argv", ["train.py", *given, "--folder", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 2 and "training.seed: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("sample", "--output"), ("interpolate", "--output"), ("paint", "--output"),
        ("steer apply", "--output"), ("roundtrip", "--picture"),
    ],
)  # fmt: skip
def test_an_unknown_kind_of_picture_is_refused_before_the_work(verb, option, place, capsys):
    given = [*verb.split(), *ENTRIES[verb][0]]
    ends_with(capsys, [*given, option, "x.foo"], f"{option} x.foo: expected a picture file", ".png", ".foo")
    if option == "--picture":
        ends_with(capsys, [*given, option, "x"], "expected a picture file", "no suffix")
    (place / "folder.png").mkdir()
    ends_with(capsys, [*given, option, "folder.png"], "expected a file, found a folder")


def test_pictures_are_written_in_the_format_of_their_suffix(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    for suffix, form in {".png": "PNG", ".JPG": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}.items():
        path = tmp_path / f"x{suffix}"
        main(["sample", str(tmp_path / "model"), "--n", "2", "--device", "cpu", "--output", str(path)])
        with Image.open(path) as opened:
            assert opened.format == form


@pytest.mark.parametrize("verb", [verb for verb in sorted(ENTRIES) if verb not in ("studio", "completion")])
def test_a_file_in_place_of_a_folder_is_refused_before_the_work(verb, place, capsys):
    given, words = verb.split(), ENTRIES[verb][0]
    parameters = inspect.signature(commands()[verb]).parameters
    if verb == "export":
        ends_with(capsys, ["export", "run", "picture.png"], "picture.png: expected a folder, found a file")
        return
    if "--out" in words:
        words = words[: words.index("--out")]
    if "out" in parameters:
        for wrong in ("picture.png", "picture.png/below"):
            ends_with(capsys, [*given, *words, "--out", wrong], f"--out {wrong}: expected a folder")
    elif verb in ("decode", "evaluate", "render"):
        ends_with(capsys, [*given, *words, "--output", "picture.png"], "expected a folder, found a file")
    ends_with(capsys, [*given, *words, "--json", "picture.png/x.json"], "--json", "found a file")
    ends_with(capsys, [*given, *words, "--json", "model"], "--json model: expected a file, found a folder")


@pytest.mark.parametrize("verb", [verb for verb in sorted(ENTRIES)])
def test_seeds_are_those_of_torch(verb, place, capsys):
    if "seed" in inspect.signature(commands()[verb]).parameters:
        for seed in ("99999999999999999999", str(2**63), "-1"):
            ends_with(capsys, [*verb.split(), *ENTRIES[verb][0], "--seed", seed], "seed: expected")


def test_seeds_in_python(model):
    for seed in (-1, 2**64):
        with pytest.raises(UserError, match="seed: expected a whole number"):
            model.sample(1, seed=seed)
    model.sample(1, seed=2**63 + 3)


def test_devices_that_hold_no_data_are_refused(model, tmp_path, capsys):
    import torch

    import flows

    model.save_pretrained(tmp_path / "model")
    ends_with(capsys, ["sample", tmp_path / "model", "--device", "meta"], "--device meta: expected a device")
    ends_with(capsys, ["sample", tmp_path / "model", "--device", "gpu"], "--device gpu: torch cannot use it")
    missing = "cuda:99" if torch.cuda.is_available() else "cuda"
    for device in (missing, "meta", "gpu"):
        with pytest.raises(UserError, match=f"map_location {device}"):
            flows.load(tmp_path / "model", map_location=device)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping of options to values, got an empty file"),
        ("- a", "expected a mapping of options to values, got a list"),
        ("some words", "expected a mapping of options to values, got text"),
        ("a: [1,\nb: 2", "expected a YAML file, line 2, column 5: expected ',' or ']'"),
        ("a: \x07", "expected a YAML file"),
    ],
)
def test_a_config_without_options_is_named(text, words, tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    ends_with(capsys, ["sample", "scenes-glow", "--config", config], f"--config {config}: ", words)
    monkeypatch.setattr("sys.argv", ["train.py", "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--data", "Fashion", "--data.path", "/x"],
            "Fashion has no option 'path'; expected root, download.",
        ),
        (["--model.widht", "3"], "Glow has no option 'widht'; expected image_shape, bins, levels,"),
        (["--model.widht", "3"], "Did you mean 'width'?"),
        (["--objective.weight", "3"], "Likelihood has no option 'weight'; it has none."),
    ],
)
def test_an_unknown_option_of_a_class_names_the_class_and_its_options(
    options, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    given = ["--config", "configs/digits/glow.yaml", "--folder", str(tmp_path / "run"), *options]
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


def test_numbers_out_of_range_are_refused_by_the_parser(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    for verb in ("sample", "evaluate"):
        for value in ("nan", "inf", "-1"):
            ends_with(capsys, [verb, tmp_path / "model", "--temperature", value], "a number of at least 0")
    zoom = "--zoom: expected a whole number of at least 1 and at most 64, got 99999"
    ends_with(capsys, ["sample", tmp_path / "model", "--zoom", 99999], zoom)


def test_out_of_memory_is_one_line(place, monkeypatch, capsys):
    import torch

    for error, size in {
        MemoryError(): "out of memory: take fewer images",
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."): "allocate 2.00 gib): take",
    }.items():
        plant(monkeypatch, LOADS, error)
        ends_with(capsys, ["sample", "model"], size)
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**56)
    assert is_user_error(failed.value) and "tried to allocate 2882303" in sentence_of(failed.value)


def test_a_space_or_layer_that_no_model_has_is_a_mistake(model, tmp_path, picture, capsys):
    model.save_pretrained(tmp_path / "model")
    given = ["compare", "--models", tmp_path / "model", "--images", "ood", "--inverters"]
    ends_with(
        capsys, [*given, "optimise:foo"], "optimise:foo: no model has the space 'foo'; expected one of z"
    )
    ends_with(capsys, [*given, "exact", "encoder:w"], "encoder:w: no model has the space 'w'")
    ends_with(capsys, [*given, "layer:foo"], "layer:foo: no model has the layer 'foo'; expected one of ")


def test_codes_are_floating_point_rows_and_have_labels_for_classes_only(model):
    import numpy as np
    import torch

    from flows import Codes

    for values in (
        [1, 2],
        torch.zeros(2, dtype=torch.long),
        torch.zeros(2, 3, dtype=torch.uint8),
        "ab",
        None,
    ):
        with pytest.raises(UserError, match="codes: expected a floating-point tensor"):
            Codes(values, "z")
    codes = model.sample(2)
    assert (
        Codes(codes.values.numpy(), "z") == codes
        and Codes(np.zeros((1, 64)), "z").values.dtype == torch.float64
    )
    with pytest.raises(UserError, match="NICE is not class-conditional: expected codes without labels"):
        model.decode_bytes(Codes(codes.values, "z", [0, 1]))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda m: m.encode_bytes([]),
            "expected a uint8 tensor or array, or pictures of Pillow, got an empty list",
        ),
        (lambda m: m.encode_bytes("a.png"), "or pictures of Pillow, got str"),
        (lambda m: m.encode_bytes([None]), "or pictures of Pillow, got NoneType"),
        (
            lambda m: m.encode_bytes([Image.new("L", (8, 8)), Image.new("L", (9, 8))]),
            "of 8×8 pixels, got 9×8",
        ),
    ],
)
def test_images_of_other_kinds_are_refused(call, sentence, model):
    with pytest.raises(UserError, match=sentence):
        call(model)


def test_images_of_every_kind_are_the_same(model):
    import numpy as np
    import torch

    pictures = [Image.new("L", (8, 8), 30), Image.new("L", (8, 8), 90)]
    arrays = [np.asarray(each) for each in pictures]
    tensors = [torch.from_numpy(each.copy())[None] for each in arrays]
    expected = model.encode_bytes(torch.stack(tensors))
    for given in (pictures, arrays, tensors, np.stack(arrays), [pictures[0], arrays[1]]):
        assert model.encode_bytes(given) == expected


def test_units_layers_and_classes_that_do_not_exist_are_refused():
    from flows.dissection import ablate, class_means
    from flows.models.dcgan import DCGAN

    class Halves:
        classes = ("left", "right")

        def segment(self, images):
            left = images.new_zeros(len(images), 1, *images.shape[2:]).bool()
            left[..., :8] = True
            return __import__("torch").cat([left, ~left], 1)

    model = DCGAN((1, 16, 16), size=4, channels=[8, 8]).eval()
    codes, layer = model.sample(2), next(iter(model.layers()))
    for wrong, sentence in (
        (
            lambda: ablate(model, Halves(), codes, layer, "unicorn", [0]),
            "no class 'unicorn'; expected one of left",
        ),
        (lambda: class_means(model, Halves(), codes, layer, "unicorn"), "no class 'unicorn'"),
        (
            lambda: ablate(model, Halves(), codes, "layer9", "left", [0]),
            "no layer 'layer9'; expected one of ",
        ),
        (
            lambda: ablate(model, Halves(), codes, layer, "left", [9999]),
            "units: expected channels of the layer, 0",
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            wrong()


def test_codes_of_two_spaces_do_not_mix(model):
    from flows import Codes
    from flows.metrics.typicality import limit_typicality

    start = model.sample(2)
    for other in (Codes(start.values, "w"), model.sample(3), Codes(start.values[:, :5], "z")):
        with pytest.raises(UserError, match="expected codes of "):
            start.check_alongside(other)
        with pytest.raises(UserError, match="expected codes of "):
            limit_typicality(model, start, other, 0.1)
    start.check_alongside(model.sample(1))


def test_strokes_with_other_signs_than_numbers_are_refused():
    from types import SimpleNamespace

    from flows.commands.paint import parse_stroke

    for place in ("--5 6 7 8", "² 1 2 3", "1 2 3"):
        with pytest.raises(UserError, match="--strokes: expected"):
            parse_stroke(f"draw window {place}", SimpleNamespace(classes=("window",)), 8, 8)


def test_a_metrics_file_that_was_altered_is_named(tmp_path):
    from flows.training.log import read_metrics

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"images": 64, "loss": NaN}\n{"images": 128}\n{"ima')
    assert [line["images"] for line in read_metrics(path)] == [64, 128]
    for line in ("[]", "3", "{}", '{"images": null}', "{"):
        path.write_text(line + "\n")
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl was altered or cut off"):
            read_metrics(path)


def test_a_damaged_marker_runs_the_job_again(tmp_path):
    from flows.storage.jobs import run_once

    ran = []
    assert run_once(tmp_path, {"n": 1}, lambda: ran.append(1))
    assert not run_once(tmp_path, {"n": 1}, lambda: ran.append(1))
    for text in ("", "[]", "{", '{"digest": 3}'):
        (tmp_path / "done.json").write_text(text)
        assert run_once(tmp_path, {"n": 1}, lambda: ran.append(1))
    assert len(ran) == 5


def test_ports_that_do_not_exist_are_refused(place, capsys):
    pytest.importorskip("gradio")
    ends_with(capsys, ["studio", "--checkpoint", "model", "--port", 99999], "--port: expected", "65535")


def test_scores_that_are_a_picture_are_refused(picture, capsys):
    ends_with(capsys, ["steer", "rank", picture], "is not a scores.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", 5), ("names", [7]), ("names", None), ("labels", ["a"]), ("labels", [1.5]), ("labels", "a"),
        ("labels", [10**30]), ("labels", [-1]), ("certificates", 3), ("code", None),
        ("certificates", [{"bit_exact": True, "error": 0.0, "precision": "fp8", "certified": True}]),
    ],
)  # fmt: skip
def test_an_altered_code_file_is_named(key, value, model, picture, tmp_path):
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    from flows.inversion.codes import load_codes

    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "codes.safetensors"
    main(["encode", str(tmp_path / "model"), str(picture), "--device", "cpu", "--output", str(path)])
    with safe_open(path, framework="pt") as opened:
        metadata, tensors = opened.metadata(), {"code": opened.get_tensor("code")}
    assert load_codes(path, model).names == ["picture.png"]
    if key == "code":
        tensors = {"code": torch.tensor(1.0)}
    else:
        metadata[key] = json.dumps(value)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="altered"):
        load_codes(path, model)


@pytest.mark.parametrize("key", ["model_type", "fingerprint", "weights_sha256", "description"])
def test_a_config_of_other_types_is_named(key, model, tmp_path):
    import flows

    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: ["x"]}))
    with pytest.raises(CheckpointError, match=f"altered or cut off: {key}: expected a"):
        flows.load(tmp_path)


def test_messages_of_the_system_are_sentences_about_the_users_path(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    def named(path, error):
        raise type(error)(error.errno, error.strerror, str(path))

    denied = PermissionError(errno.EACCES, "Permission denied")
    cases = {
        tmp_path / "file" / "x.png": (lambda path: None, f"{tmp_path / 'file'}: expected a folder"),
        tmp_path / "file" / "a" / "x.png": (lambda path: None, f"{tmp_path / 'file'}: expected a folder"),
        tmp_path / "folder": (lambda path: None, f"{tmp_path / 'folder'}: expected a file, found a folder"),
        tmp_path / "y.png": (lambda path: named(path, denied), f"{tmp_path / 'y.png'}: Permission denied"),
    }
    for path, (write, message) in cases.items():
        with pytest.raises(OSError) as failed:
            write_atomically(path, write)
        assert is_user_error(failed.value) and sentence_of(failed.value).startswith(message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


# Capabilities -------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_data_set_is_not_taken_for_its_absence(model, monkeypatch):
    from flows.editing.editor import Editor
    from flows.opening import data_known

    def editor(source):
        model.description = {} if source is None else {"name": "x", "source": source}
        return Editor("x", model, None, None, [], 0)

    paths = (
        "elsewhere.Data",
        "flows.data.base.x.Data",
        "flows.data.digits.Nothing",
        "flows.data.shards.Shards",
    )
    for source in (None, [], "Digits", *({"class_path": path} for path in paths)):
        assert editor(source).data is None and not data_known(model)
    assert data_known(editor({"class_path": "flows.data.digits.Digits"}).model)
    with pytest.raises(UserError, match="the model expects"):
        assert editor({"class_path": "flows.data.digits.Digits"}).data
    with pytest.raises(UserError, match="no argument flavour"):
        assert editor({"class_path": "flows.data.digits.Digits", "init_args": {"flavour": 1}}).data
    plant(monkeypatch, "flows.editing.editor.data_of", DataMissing("no files"))
    assert editor({"class_path": "flows.data.digits.Digits"}).data is None


def test_a_network_that_is_not_installed_is_asked_for(monkeypatch, capsys):
    from flows.inversion.study import choose_network

    monkeypatch.setattr("flows.metrics.perceptual.find_spec", lambda name: None)
    assert choose_network("auto") is None
    assert "no perceptual distance: EfficientNet-Lite0 needs its packages" in capsys.readouterr().out
    with pytest.raises(DataMissing, match="--perceptual: EfficientNet-Lite0 needs"):
        choose_network("efficientnet-lite0")


def test_atlas_ablates_nothing_without_data_and_raises_what_is_wrong(model, monkeypatch, capsys):
    from types import SimpleNamespace

    from flows.atlas import Atlas, AtlasSettings
    from flows.data.digits import Digits
    from flows.dissection.artefacts import TooFew

    def ablated(label, data=None):
        return Atlas(
            name="x",
            model=model,
            predictor=None,
            segmenter=SimpleNamespace(classes=("banner",)),
            data=data,
            settings=AtlasSettings(artefact=label),
            reconstruct=None,
            show=None,
            say=print,
        ).artefact

    assert ablated("window") is None and ablated("banner") is None and ablated("auto") is None
    assert "data set of this model is unknown" in capsys.readouterr().out
    for absent in (DataMissing("no files"), TooFew("3 of 4")):
        plant(monkeypatch, "flows.atlas.real_images", absent)
        assert ablated("banner", Digits()) is None
    plant(monkeypatch, "flows.atlas.real_images", CheckpointError("altered"))
    with pytest.raises(CheckpointError):
        ablated("banner", Digits())


def test_steer_score_does_not_take_a_wrong_data_set_for_none(model, monkeypatch):
    from types import SimpleNamespace

    from flows.opening import data_if_needed
    from flows.steering.scoring import Costs, ScoreSettings

    predictor = SimpleNamespace(scores=[])
    plain, moved = ScoreSettings(), ScoreSettings(test=5)
    assert data_if_needed(model, None, plain.needs_data) is None
    assert Costs(model, predictor, plain).data is None
    with pytest.raises(UserError, match="expected a data set"):
        Costs(model, predictor, moved)
    with pytest.raises(CheckpointError, match="does not record its data set"):
        data_if_needed(model, None, moved.needs_data)
    model.description = {"name": "x", "source": {"class_path": "flows.data.digits.Digits"}}
    with pytest.raises(UserError, match="the model expects"):
        data_if_needed(model, None, plain.needs_data)
    data = SimpleNamespace(split=None, can_rerender=False)
    data.split = lambda name: (_ for _ in ()).throw(DataMissing("no files"))
    assert len(Costs(model, predictor, plain, data).real) == 0
    with pytest.raises(DataMissing):
        Costs(model, predictor, moved, data)


# Doors of Python ----------------------------------------------------------------------------------


def test_metrics_do_not_broadcast():
    import torch

    from flows.metrics.reconstruction import psnr, structural_similarity

    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    for wrong in (images[:1], images[:, :1], images[0]):
        for metric in (psnr, structural_similarity):
            with pytest.raises(UserError, match="expected pairs of images"):
                metric(images, wrong)


def test_codes_of_another_model_are_refused(model):
    import torch

    from flows import Codes
    from flows.models.codes import concatenate
    from flows.steering import Direction, place, shift

    codes = model.sample(2)
    other = Codes(torch.zeros(2, 5), "z")
    direction = Direction(name="a", vector=torch.eye(64)[0], bias=0.0, space="z", sigma=1.0, method="m")
    for move in (shift, place):
        with pytest.raises(UserError, match=r"expected codes \(n, 64\), got \(2, 5\)"):
            move(other, direction, 1.0)
        for alpha in (float("nan"), float("inf"), torch.zeros(3)):
            with pytest.raises(UserError, match="alpha: expected one finite number or 2 of them"):
                move(codes, direction, alpha)
    with pytest.raises(UserError, match="expected codes of one model"):
        concatenate([codes, other])
    with pytest.raises(UserError, match="size: expected at least 1"):
        next(codes.split(0))


def test_writers_refuse_what_readers_would(model, tmp_path):
    from flows.inversion import CodeFile, Exact, save_codes
    from flows.inversion.exact import invert_exactly

    inverted = invert_exactly(model, model.decode_bytes(model.sample(2)))
    for wrong in (
        CodeFile(inverted.codes, ["a"], inverted.certificates),
        CodeFile(inverted.codes, ["a", "b"], inverted.certificates[:1]),
        CodeFile(inverted.codes[:0], ["a", "b"], inverted.certificates),
    ):
        with pytest.raises(UserError, match="expected one name and one certificate per code"):
            save_codes(tmp_path / "codes", wrong, model)
    with pytest.raises(UserError, match="images: expected at least one, got none"):
        Exact().invert(model, model.decode_bytes(model.sample(2))[:0])
    assert list(tmp_path.iterdir()) == []
