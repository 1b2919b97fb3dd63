"""Settings that are options, inverters by name, and tables: one statement for Python and the command line."""

import inspect
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from flows import UserError
from flows.cli import commands, find_verbs, main
from flows.core.bounds import PositiveInt
from flows.core.options import Options, flattened, options_in
from flows.display.table import Table, without_figures
from flows.inversion import Encoder, Exact, Hybrid, Layer, Optimise, Tune
from flows.inversion.by_name import inverter_classes, make_inverter, short_names, title_of
from flows.inversion.distance import Distance
from flows.inversion.search import Search, SearchSettings

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Cooking(Options):
    """Settings of cooking.

    Attributes:
        minutes: Time on the stove,
            in minutes.
        lid: Whether the pot has a lid.
    """

    minutes: PositiveInt = 8
    lid: bool = True


def cook(dish: str, settings: Cooking = Cooking(minutes=9), out: Path = Path("plate")) -> None:
    """Cook a dish.

    Args:
        dish: Name of the dish.
        settings: Settings of the stove.
        out: Plate.
    """
    cooked.append((dish, settings, out))


cooked: list = []


def test_fields_of_settings_are_parameters_with_their_texts():
    flat = flattened(cook)
    parameters = inspect.signature(flat).parameters
    assert list(parameters) == ["dish", "minutes", "lid", "out"]
    assert parameters["minutes"].default == 9 and parameters["minutes"].annotation is PositiveInt
    assert "minutes: Time on the stove,\n" in flat.__doc__ and "settings" not in flat.__doc__
    cooked.clear()
    flat("rice", minutes=12)
    flat(dish="soup", lid=False, out=Path("bowl"))
    assert cooked == [
        ("rice", Cooking(minutes=12), Path("plate")),
        ("soup", Cooking(minutes=9, lid=False), Path("bowl")),
    ]
    with pytest.raises(TypeError, match="settings"):
        flat("rice", settings=Cooking())


def test_every_field_of_every_verbs_settings_has_a_text_and_no_other_option_has_its_name():
    for name, verb in find_verbs().items():
        function = commands()[name]
        original = getattr(__import__(verb.module, fromlist=["x"]), verb.module.rsplit(".", 1)[-1])
        own = set(inspect.signature(original).parameters) - set(options_in(original))
        for kind in options_in(original).values():
            for field in fields(kind):
                assert f"    {field.name}: " in kind.__doc__, f"{name}: {field.name} has no text"
                assert field.name not in own, f"{name}: {field.name} is an option twice"
                own.add(field.name)
        assert own == set(inspect.signature(function).parameters)


# Inverters by name --------------------------------------------------------------------------------


def settings_of(inverter) -> dict:
    return {name: value for name, value in vars(inverter).items() if not isinstance(value, Optimise)}


def test_short_names_are_those_of_the_classes():
    names = short_names()
    assert {"exact", "encoder:SPACE", "optimise:SPACE:ALGORITHM", "tune:no-locality"} <= names.keys()
    assert {cls.__name__ for cls in inverter_classes()} >= {"Exact", "Encoder", "Optimise", "Tune", "Layer"}
    search = Search(SearchSettings(steps=200, starts=3, lr=0.2, noise=True, seconds=5.0), Distance(pixel=2.0))
    for text, expected in {
        "exact": Exact(),
        "exact-z": Encoder("z"),
        "encoder": Encoder(),
        "encoder:w+": Encoder("w+"),
        "optimise:w": Optimise("w", 200, 0.2, "adam", 3, search.distance, True, seconds=5.0),
        "optimise:z:lbfgs": Optimise("z", 200, 0.2, "lbfgs", 3, search.distance, True),
        "hybrid": Hybrid(None, 100, domain="none", distance=search.distance, noise=True, seconds=5.0),
        "in-domain:likelihood": Hybrid(
            None, 100, domain="likelihood", distance=search.distance, noise=True, seconds=5.0
        ),
        "layer:g.3": Layer(Exact(), "g.3", 200, distance=search.distance),
        "tune": Tune(Exact(), 200, distance=search.distance),
        "tune:no-locality": Tune(Exact(), 200, distance=search.distance, locality=0.0),
    }.items():
        made = make_inverter(text, search)
        assert type(made) is type(expected)
        known = {name: value for name, value in settings_of(expected).items() if not isinstance(value, Exact)}
        assert {name: settings_of(made)[name] for name in known} == known, text
    assert make_inverter("tune", search).pivot.steps == 200 and make_inverter("tune").pivot.steps == 450
    assert make_inverter("layer", search).first.starts == 1


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "inversion").glob("*.yaml")), ids=lambda p: p.stem
)
def test_configs_of_inverters_are_made_and_name_their_command(path):
    made = make_inverter(str(path))
    assert f"class_path: {type(made).__name__}" in path.read_text()
    assert f"--inverters {path.relative_to(ROOT)}" in path.read_text()
    assert title_of(str(path)) == path.stem


def test_what_is_no_inverter_is_named(tmp_path, capsys):
    for text, message in {
        "optimize": "there is no 'optimize'; expected encoder, .* Did you mean 'optimise'",
        "exact:z": "there is no 'exact:z'",
        "optimise:w:sgd": "--inverters optimise: expected one of 'adam', 'lbfgs', got 'sgd'",
        "in-domain:x": "--inverters in-domain: expected one of",
        "tune:locality": "expected one of 'no-locality', got 'locality'",
    }.items():
        with pytest.raises(UserError, match=message):
            make_inverter(text)
    for content, message in {
        "class_path: Optimse": "there is no class named 'Optimse'. Did you mean 'Optimise'",
        "{class_path: Optimise, init_args: {step: 3}}": "Optimise has no option 'step'; expected space",
        "{class_path: Optimise, init_args: {steps: -3}}": "expected a whole number of at least 0, got -3",
        "[1, 2]": "expected an object, got",
    }.items():
        (tmp_path / "x.yaml").write_text(content)
        with pytest.raises(UserError, match=message):
            make_inverter(str(tmp_path / "x.yaml"))
    with pytest.raises(UserError, match="y.yaml does not exist, here or among the configs of flows"):
        make_inverter(str(tmp_path / "y.yaml"))
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--models", "checkpoints/fashion-nice", "--images", "ood", "--inverters", "exat"])
    assert stopped.value.code == 2 and "there is no 'exat'" in capsys.readouterr().err


# Tables -------------------------------------------------------------------------------------------


def test_figures_are_aligned_right_and_a_reason_is_a_note():
    table = Table(
        ["model", "psnr", "interval", "none"],
        [
            ["glow", "31.5 (30.1 … 33.0)", "1 … 2", "–"],
            ["gan", "∞", "94 (94; 50)", ""],
            ["nice", *without_figures("impossible: <a>", 3)],
        ],
    )
    assert table.numeric() == [False, True, True, True]
    lines = table.markdown().splitlines()
    assert lines[1] == "| --- | --: | --: | --: |" and lines[4:] == [
        "| nice | – [1] | – | – |",
        "",
        "[1] impossible: <a>",
    ]
    page = table.html()
    assert "<td class=n>31.5 (30.1 … 33.0)</td>" in page
    assert "<td class=n>–<sup>1</sup></td>" in page and page.endswith(
        "<sup>1</sup> impossible: &lt;a&gt;</p>"
    )
    assert not Table(["a"], []) and Table(["a"], []).numeric() == [False]
