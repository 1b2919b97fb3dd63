"""Every numeric and literal argument of every model, data set, objective, method and inverter has bounds."""

import inspect
import math
import typing
from typing import Literal

import pytest
import torch

import flows.data
import flows.inversion
import flows.models
import flows.semantics
import flows.steering
import flows.training.objectives
from flows.core.bounds import (
    Bins,
    Checked,
    ImageShape,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
    accepts,
    checked,
)
from flows.core.parser import import_all
from flows.data.base import ImageData
from flows.errors import UserError
from flows.inversion.base import Inverter
from flows.models.base import LatentModel
from flows.semantics.base import SemanticModel
from flows.steering.method import Method
from flows.training.phase import Objective

BASES = (ImageData, Inverter, LatentModel, Method, Objective, SemanticModel)
PACKAGES = (
    flows.data, flows.inversion, flows.models, flows.semantics, flows.steering, flows.training.objectives,
)  # fmt: skip


def concrete():
    """Every class of the package whose constructor a config or a user calls."""
    for package in PACKAGES:
        import_all(package)
    waiting, found = list(BASES), {}
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if not inspect.isabstract(cls) and cls not in BASES and cls.__module__.startswith("flows."):
            found[cls.__name__] = cls
    return [found[name] for name in sorted(found)]


UNBOUNDED = {
    ("ExternalGenerator", "interval"): "any two numbers, the lower one first; checked by the constructor",
    ("Scenes", "correlated"): "names of factors to shares; checked by the constructor",
    ("Photos", "size"): "at most 300; checked by the constructor",
}
"""Numbers that are not restricted by their annotation, with the reason."""


def unbounded(kind):
    """Whether an annotation has a plain int or float, also within a union or a container."""
    return kind in (int, float) or any(map(unbounded, typing.get_args(kind)))


@pytest.mark.parametrize("cls", concrete(), ids=lambda cls: cls.__name__)
def test_every_number_has_bounds(cls):
    hints = typing.get_type_hints(cls.__init__)
    wrong = [name for name in inspect.signature(cls).parameters if unbounded(hints.get(name))]
    assert [name for name in wrong if (cls.__name__, name) not in UNBOUNDED] == []


@pytest.mark.parametrize("cls", concrete(), ids=lambda cls: cls.__name__)
def test_a_wrong_argument_is_refused_by_name(cls):
    """The other arguments are mocks: only the check of the wrong one is reached, or none."""
    hints = typing.get_type_hints(cls.__init__)
    parameters = inspect.signature(cls).parameters
    needed = {
        name: (3, 16, 16) if name == "image_shape" else 8 if accepts(hints.get(name), 8) else "x"
        for name, each in parameters.items()
        if each.default is inspect.Parameter.empty
    }
    tried = 0
    for name in parameters:
        for value in (-1, math.nan, "no such word", [-1, -1, -1], {}):
            if not accepts(hints.get(name), value):
                with pytest.raises(UserError, match=f"^{name}: expected "):
                    cls(**{**needed, name: value})
                tried += 1
    assert tried or not any(not accepts(hints.get(name), {}) for name in parameters)


@pytest.mark.parametrize("cls", [each for each in concrete() if issubclass(each, ImageData)])
def test_a_split_that_does_not_exist_is_refused(cls):
    if inspect.signature(cls.split).parameters["name"].annotation is not inspect.Parameter.empty:
        with pytest.raises(UserError, match="name: expected one of train, validation, test; got 'valid'"):
            cls.split(object(), "valid")


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (PositiveInt, [1, 10**9], [0, -1, 1.0, True, "1", None, math.nan]),
        (PositiveFloat, [1, 0.5, 1e300], [0, -1.0, math.nan, math.inf, "1", False]),
        (NonNegativeInt | None, [0, None], [-1, 0.5]),
        (Share, [0, 1, 0.5], [1.1, -0.1]),
        (Bins, [2, 256], [1, 257, 0]),
        (ImageShape, [(3, 8, 8), [1, 2, 3], torch.Size([3, 4, 5])], [(3, 8), (3, 0, 8), 3, "abc"]),
        (list[PositiveInt] | None, [None, [], [3]], [[0], 3, "3"]),
        (tuple[NonNegativeInt, ...], [(), (0, 1)], [(-1,), 5]),
        (Literal["a", "b"], ["a"], ["c", 1, None, ["a"]]),
        (dict[str, int], [{}, 3], []),
        (int, [-5, "x"], []),
    ],
)  # fmt: skip
def test_values_within_bounds(kind, right, wrong):
    assert all(accepts(kind, value) for value in right)
    assert not any(accepts(kind, value) for value in wrong)


def test_functions_and_dataclasses_of_others_are_checked():
    class Base(Checked):
        pass

    class Mine(Base):
        def __init__(self, steps: PositiveInt, word: Literal["line", "sphere"] = "line"):
            self.steps = steps

    assert Mine(3).steps == 3 and inspect.signature(Mine).parameters["steps"].annotation is PositiveInt
    with pytest.raises(UserError, match="steps: expected a whole number above 0, got 0"):
        Mine(0)
    with pytest.raises(
        UserError, match=r"word: expected one of line, sphere; got 'spere'. Did you mean 'sphere'"
    ):
        Mine(1, "spere")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Mine()

    @checked
    def add(a: PositiveInt, *rest: int) -> int:
        return a + sum(rest)

    assert add(1, 2, 3) == 6
    with pytest.raises(UserError, match="a: expected"):
        add(-1)


def test_constructors_and_verbs_get_pythons_own_numbers(monkeypatch):
    """A training state with a number of another type cannot be loaded."""
    from flows.config import parse_experiment
    from flows.core.bounds import plain

    arguments = ["--config", "configs/digits/glow.yaml", "--variant", "tiny", "--folder", "run"]
    parser, settings = parse_experiment(arguments)
    experiment = parser.instantiate(settings)
    training = vars(experiment.training)
    assert {type(each) for each in training["betas"]} == {float} and type(training["lr"]) is float
    assert type(training["batch"]) is int and type(training["seed"]) is int
    assert type(experiment.model.arguments()["depth"]) is int
    assert plain({"a": [PositiveInt(3)], "b": (Share(0.5), "x")}) == {"a": [3], "b": (0.5, "x")}
    assert [type(each) for each in plain((PositiveInt(3), PositiveFloat(1)))] == [int, float]
