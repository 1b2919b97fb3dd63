"""Exit codes: a mistake of the user is one line and 2, a planted bug is a traceback and 1, at every entry."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

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
)
from flows.files import reading, write_atomically

ROOT = Path(__file__).parents[1]

BUGS = [
    ValueError("zip() argument 2 is longer than argument 1"), RuntimeError("shapes do not match"),
    KeyError("z"), TypeError("no such argument"), FloatingPointError("overflow"), OSError("no file is named"),
    AssertionError("never"),
]  # fmt: skip

# Arguments with which every verb comes to the function where the bug is planted.
LOADS = "flows.stored.read_config"
ENTRIES = {
    "atlas": (["model", "--out", "out"], LOADS),
    "compare": (["--models", "model", "--inverters", "exact", "--images", "foreign"], LOADS),
    "decode": (["model", "codes.safetensors"], LOADS),
    "dissect": (["model"], LOADS),
    "encode": (["model", "picture.png"], LOADS),
    "evaluate": (["model"], LOADS),
    "export": (["run", "out"], LOADS),
    "interpolate": (["model", "a.png", "b.png"], LOADS),
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
    for name in ("codes.safetensors", "directions.safetensors", "record.safetensors", "scores.json"):
        (tmp_path / name).touch()
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
    ["flows.models.glow.make_scale", "flows.data.digits.Digits.split", "train.fit", "train.prepare_folder"],
)
def test_a_bug_in_training_is_no_mistake_of_the_user(where, tmp_path, monkeypatch, capsys):
    """In a constructor that the parser calls, in the data, in the loop, in the files of a run."""
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
import sys, flows.stored, flows.training.loop
def broken(*_, **__): raise ValueError("zip() argument 2 is longer than argument 1")
flows.stored.read_config = broken
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
        ("--model.levels=0", "levels: expected at least 1, got 0"),
        ("--model.levels=9", "cannot squeeze 1×1 pixels"),
        ("--training.batch=0", "training.batch: expected v>0, got 0"),
        ("--training.lr=fast", "training.lr: expected a number, got 'fast'"),
        ("--model.levels=few", "levels: expected int, got few"),
        ("--model.flavour=offical", "flavour: expected one of 'official', 'paper', got offical"),
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
