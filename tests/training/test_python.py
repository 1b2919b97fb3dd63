"""`flows.train` from Python: the run that `train.py` makes, of data and classes of one's own."""

import inspect
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
import yaml
from test_training import ENVIRONMENT, ROOT, losses
from torch.utils.data import Dataset

import flows
from flows.data import Digits, as_data
from flows.data.base import ImageData
from flows.data.source import instantiate_data
from flows.errors import Interrupted, NonFinite, UserError
from flows.models import DCGAN, LIA, NICE, Flow, Glow, StyleGAN
from flows.reports.run import write_report
from flows.run import main, training_of
from flows.semantics import AttributePredictor
from flows.training.checkpoint import states
from flows.training.loop import fit, make_accelerator
from flows.training.objectives.adversarial import Adversarial
from flows.training.objectives.lia import LIATraining
from flows.training.objectives.likelihood import Likelihood
from flows.training.objectives.natural import natural_objective
from flows.training.objectives.supervised import Supervised
from flows.training.settings import Training

SETTINGS = {
    "images": 256,
    "batch": 32,
    "log_every": 64,
    "validation_images": 16,
    "save_every": 128,
    "ema": 0.9,
}
WORDS = [f"--training.{name}={value}" for name, value in SETTINGS.items()]


def small(**arguments) -> Glow:
    torch.manual_seed(0)
    return Glow((1, 8, 8), bins=17, **{"levels": 2, "depth": 1, "width": 8, **arguments})


def on_the_command_line(folder, *more):
    given = ["--data=Digits", "--model=Glow", "--model.levels=2", "--model.depth=1", "--model.width=8"]
    words = ["--config", str(ROOT / "configs/digits/nice.yaml"), *given, "--training.decay=constant"]
    defaults = ["--training.betas=[0.9,0.999]", "--training.validate_every=32000", "--overwrite=false"]
    main([*words, *defaults, *WORDS, "--folder", str(folder), *more])


def digits(n=60):
    batch = Digits().split("train").first(n)
    return batch.images, batch.labels


# One core -----------------------------------------------------------------------------------------


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory):
    """Folder of a run of the command line."""
    folder = tmp_path_factory.mktemp("command") / "run"
    on_the_command_line(folder)
    return folder


def config(folder):
    read = yaml.safe_load((folder / "config.yaml").read_text())
    return {key: value for key, value in read.items() if key not in ("folder", "variants")}


@pytest.mark.long
def test_a_run_from_python_is_that_of_the_command_line(whole, tmp_path):
    run = flows.train(small(), Digits(), tmp_path / "run", **SETTINGS)
    for name in ("model.safetensors", "config.json", "data.json", "samples.png", "roundtrip.png"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name
    assert losses(tmp_path / "run") == losses(whole)
    assert config(tmp_path / "run") == config(whole)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in whole.iterdir()}
    reports = [json.loads((folder / "report.json").read_text()) for folder in (tmp_path / "run", whole)]
    assert reports[0]["likelihood"] == reports[1]["likelihood"] == run.report.values["likelihood"]


@pytest.mark.long
@pytest.mark.parametrize("first", ["python", "command"])
def test_each_continues_a_run_of_the_other(first, whole, tmp_path):
    less = {**SETTINGS, "images": 128}
    if first == "python":
        flows.train(small(), Digits(), tmp_path, **less)
        on_the_command_line(tmp_path, "--resume=latest", "--extend=true")
    else:
        on_the_command_line(tmp_path, "--training.images=128")
        flows.train(small(), Digits(), tmp_path, resume="latest", extend=True, **SETTINGS)
    assert flows.load(tmp_path).fingerprint() == flows.load(whole).fingerprint()


@pytest.mark.long
def test_the_model_ends_with_the_best_weights(whole, tmp_path):
    model = small()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    run = flows.train(model, Digits(), tmp_path, threads=1, **SETTINGS)
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert run.model is model and not model.training
    assert model.fingerprint() == flows.load(tmp_path).fingerprint() == flows.load(whole).fingerprint()
    assert model.description["name"] == "digits"
    assert "bits/dim" in repr(run) and len(repr(run).splitlines()) < 6
    shown = run._repr_html_()
    assert "<table>" in shown and "data:image/png;base64," in shown and "Glow on digits" in shown


@pytest.mark.long
def test_a_report_needs_no_config(tmp_path):
    model, data = small(), as_data(digits(), (1, 8, 8), bins=17)
    model.description = {**vars(data.description())}
    fit(model, data, Training(**SETTINGS), tmp_path, Likelihood(), make_accelerator())
    assert not (tmp_path / "config.yaml").exists()
    report = write_report(tmp_path, data, Likelihood())
    card = (tmp_path / "README.md").read_text()
    assert report.values["training"]["images"] == 256
    assert "256 images in 0 minutes" in card and "config.yaml" not in card and "The weights with" in card


# Signals and threads ------------------------------------------------------------------------------


class Stopping(Dataset):
    """Digits that press Ctrl-C when an item has been read a number of times."""

    def __init__(self, after):
        self.images, self.labels = digits()
        self.after = after

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return self.images[index], self.labels[index]


@pytest.mark.long
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    flows.train(small(), Stopping(-1), tmp_path / "whole", **SETTINGS)
    with pytest.raises(KeyboardInterrupt) as stopped:
        flows.train(small(), Stopping(150), tmp_path / "run", **SETTINGS)
    assert isinstance(stopped.value, Interrupted)
    assert str(stopped.value).startswith(f"stopped by SIGINT, saved {tmp_path}")
    assert str(stopped.value).endswith('; resume="latest" continues')
    assert states(tmp_path / "run") and not (tmp_path / "run" / ".running.json").exists()
    before = signal.getsignal(signal.SIGINT)
    run = flows.train(small(), Stopping(-1), tmp_path / "run", resume="latest", **SETTINGS)
    assert signal.getsignal(signal.SIGINT) is before
    assert run.model.fingerprint() == flows.load(tmp_path / "whole").fingerprint()


@pytest.mark.long
def test_a_thread_may_train(tmp_path):
    found = []
    work = threading.Thread(
        target=lambda: found.append(flows.train(small(), digits(), tmp_path, **SETTINGS).report)
    )
    work.start()
    work.join()
    assert found[0].values["training"]["images"] == 256


# Classes of one's own -----------------------------------------------------------------------------

SCRIPT = """
import sys

import torch

import flows
from flows.bijections import AdditiveCoupling, Chain, Flatten, Halves, UniformDequantiser
from flows.data.base import ArraySplit, ImageData
from flows.models import Flow, make_prior
from flows.networks.mlp import ReluMLP


class MyFlow(Flow):
    def __init__(self, image_shape, bins=256, couplings=4):
        super().__init__()
        steps = [Flatten(tuple(image_shape))]
        for i in range(couplings):
            steps.append(AdditiveCoupling(Halves(keep_first=i % 2 == 0), ReluMLP(32, 32, 16, 1)))
        self.assemble(image_shape, Chain(*steps), UniformDequantiser(bins), make_prior("logistic"))


class MyData(ImageData):
    name, image_shape = "stripes", (1, 8, 8)

    def __init__(self, n: int = 40):
        self.n = n

    def split(self, name):
        rows = torch.arange(self.n)[:, None, None, None] * 5 + torch.arange(8)[:, None]
        return ArraySplit((rows % 256).to(torch.uint8).expand(-1, 1, 8, 8).contiguous())


folder = sys.argv[1]
run = flows.train(MyFlow((1, 8, 8)), MyData(n=50), folder, images=128, batch=16, validation_images=8)
again = flows.load(folder, classes=[MyFlow])
assert type(again) is MyFlow and again.fingerprint() == run.model.fingerprint()
assert MyFlow.from_pretrained(folder).fingerprint() == run.model.fingerprint()
assert again.description["source"] == {"class_path": "__main__.MyData", "init_args": {"n": 50}}
data = flows.data.instantiate_data(again.description["source"], classes=[MyData])
images = data.split("test").images
assert type(data) is MyData and len(images) == 50
assert (again.decode_bytes(again.encode_bytes(images)) == images).all()
more = {"init": folder, "images": 64, "batch": 16, "validation_images": 8}
flows.train(MyFlow((1, 8, 8)), MyData(n=50), folder + "2", **more)
"""


@pytest.mark.long
def test_classes_of_a_script_train_and_load_again(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "run")]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        yaml.safe_load((tmp_path / "run/config.yaml").read_text())["model"]["class_path"] == "__main__.MyFlow"
    )
    card = (tmp_path / "run/README.md").read_text()
    assert 'model = flows.load("path/to/this/folder", classes=[MyFlow])' in card
    with pytest.raises(flows.CheckpointError, match=r"flows.load\(…, classes=\[MyFlow\]\)"):
        flows.load(tmp_path / "run")
    with pytest.raises(flows.CheckpointError, match="holds a 'MyFlow'"):
        flows.load(tmp_path / "run", classes=[Glow])


def test_a_checkpoint_imports_nothing_of_its_own_choice(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = small()
    model.description = {"source": {"class_path": "planted.Data", "init_args": {}}}
    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(path.read_text().replace('"model_type": "Glow"', '"model_type": "planted.Glow"'))
    for classes in ([], [Glow]):
        with pytest.raises(flows.CheckpointError, match="planted.Glow"):
            flows.load(tmp_path / "model", classes=classes)
    with pytest.raises(UserError, match="planted.Data"):
        instantiate_data(model.description["source"], classes=[Digits])
    assert "planted" not in sys.modules


@pytest.mark.parametrize("wrong", [Flow.assemble, dict, Digits, AttributePredictor, flows.LatentModel])
def test_classes_are_models(wrong, tmp_path):
    small().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="classes: expected subclasses of LatentModel"):
        flows.load(tmp_path, classes=[wrong])


# Objectives ---------------------------------------------------------------------------------------

LABELLED = [{"name": "class", "kind": "category", "classes": list("0123456789")}]
KINDS = {
    "flow": (lambda: NICE((1, 8, 8), bins=17, width=4), Likelihood),
    "GAN": (lambda: DCGAN((1, 8, 8), bins=17, size=4, channels=[4]), Adversarial),
    "LIA": (
        lambda: LIA((1, 8, 8), bins=17, size=8, channels=[4, 4], critic_channels=[4, 4],
                    encoder_channels=[4, 4], hidden=8, steps=2),
        LIATraining,
    ),
    "predictor": (lambda: AttributePredictor((1, 8, 8), LABELLED, bins=17), Supervised),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_has_an_objective(kind):
    make, objective = KINDS[kind]
    model = make()
    training = training_of(model, {"images": 320, "batch": 32})
    found = natural_objective(model, training)
    found.check(model, training.images)
    assert type(found) is objective
    assert training.betas == ((0.5, 0.999) if kind in ("GAN", "LIA") else (0.9, 0.999))
    assert training_of(model, {"betas": [0.1, 0.2]}).betas == (0.1, 0.2)
    if kind == "LIA":
        assert found.stage1_images == 256


@pytest.mark.long
@pytest.mark.parametrize("kind", ["GAN", "LIA", "predictor"])
def test_every_kind_of_model_trains(kind, tmp_path):
    settings = {**SETTINGS, "images": 320}
    run = flows.train(KINDS[kind][0](), digits(400), tmp_path, **settings)
    assert run.report.values["training"]["images"] == 320
    assert (tmp_path / "README.md").is_file() and not run.model.training
    if kind == "predictor":
        assert run.report.values["test"]["class"]["accuracy"] >= 0
        assert "flows.semantics" in (tmp_path / "README.md").read_text()
    else:
        assert run.model.generate(3).pixels.shape == (3, 1, 8, 8)


@pytest.mark.long
def test_weights_may_come_from_a_model(whole, tmp_path):
    begin = flows.load(whole)
    run = flows.train(
        small(), Digits(), tmp_path, init=begin, **{**SETTINGS, "images": 32, "lr": 1e-30, "ema": 0}
    )
    given = begin.state_dict()
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, given[name], atol=1e-6, rtol=0)


# What is wrong is said at once --------------------------------------------------------------------


class Unstored(Glow):
    """A model whose constructor takes what no file can hold."""

    def __init__(self, image_shape, bins=256, network=None):
        super().__init__(image_shape, bins=bins, levels=1, depth=1, width=4)


WRONG = {
    "misspelt": ({"imges": 3}, "there is no setting 'imges'. Did you mean 'images'"),
    "misspelt argument": ({"overwrit": True}, "Did you mean 'overwrite'"),
    "below its bound": ({"lr": 0}, "lr: expected a number above 0, got 0"),
    "no word of the list": ({"optimiser": "adan"}, "optimiser: expected one of .* Did you mean 'adam'"),
    "no objective": ({"objective": "Likelihood"}, "objective: expected an Objective, got str"),
    "another objective": ({"objective": Supervised()}, "expected a model of class SemanticModel"),
    "another shape": ({"data": Digits(), "model": Glow((3, 8, 8), levels=1, depth=1)}, "Digits has images"),
    "no model": (
        {"model": torch.nn.Linear(2, 2)},
        "model: expected a model of flows or a subclass, got Linear",
    ),
    "no data": ({"data": None}, "got NoneType"),
    "an argument of no file": (
        {"model": Unstored((1, 8, 8), bins=17, network=torch.nn.Linear(2, 2))},
        "Unstored: expected constructor arguments that are plain JSON values.* for network",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_mistake_costs_a_sentence_and_no_folder(kind, tmp_path):
    given, sentence = WRONG[kind]
    arguments = {"model": small(), "data": digits(), "folder": tmp_path / "run", **given}
    with pytest.raises(UserError, match=sentence) as refused:
        flows.train(**arguments)
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_folder_with_a_run_is_kept(tmp_path):
    flows.train(small(), digits(), tmp_path, **SETTINGS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r'resume="latest" continues it.*overwrite=True starts anew'
    ) as refused:
        flows.train(small(), digits(), tmp_path, **SETTINGS)
    assert "--" not in str(refused.value)
    with pytest.raises(UserError, match="data.given was 'arrays'"):
        flows.train(small(), Digits(), tmp_path, resume="latest", **SETTINGS)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    flows.train(small(), digits(), tmp_path, overwrite=True, **{**SETTINGS, "images": 32})


@pytest.mark.long
def test_data_that_differ_are_named_when_a_run_goes_on(tmp_path, capsys):
    images, labels = digits()
    flows.train(small(), (images, labels), tmp_path, **SETTINGS)
    flows.train(
        small(), (255 - images, labels), tmp_path, resume="latest", extend=True, **{**SETTINGS, "images": 288}
    )
    assert "the data are not those of the run so far: the train images are others" in capsys.readouterr().out


def test_a_run_that_diverges_raises(tmp_path):
    with pytest.raises(NonFinite, match="likelihood"):
        flows.train(small(scale="sigmoid", input_bound=None), digits(), tmp_path, **{**SETTINGS, "lr": 1e6})


def test_objects_know_the_arguments_that_they_were_built_with():
    class Base(ImageData):
        name, image_shape = "base", (1, 8, 8)

        def __init__(self, first: int, second: str = "b"):
            self.anything = first

        def split(self, name):
            raise NotImplementedError

    class Below(Base):
        def __init__(self, *, third: float = 3.0):
            super().__init__(1, second="c")

    assert Base(4).arguments() == {"first": 4, "second": "b"}
    assert Below(third=2.0).arguments() == {"third": 2.0}
    assert Digits().arguments() == {}
    assert Adversarial(loss="hinge").arguments()["loss"] == "hinge"
    assert list(inspect.signature(Base).parameters) == ["first", "second"]
    with pytest.raises(TypeError, match="first"):
        Base()


def test_a_style_model_is_no_lia():
    model = StyleGAN((1, 8, 8), bins=17, size=8, channels=[4, 4], critic_channels=[4, 4])
    assert type(natural_objective(model, Training())) is Adversarial
