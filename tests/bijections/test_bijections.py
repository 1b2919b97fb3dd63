"""The laws over every bijection of the package, found by walking its classes."""

import inspect

import pytest

from flows.bijections.base import Bijection
from flows.testing import LAWS, broken_laws, cases_of


def bijections() -> list[type[Bijection]]:
    """Every concrete bijection under flows.bijections: a new file is found without editing a list."""

    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(child) for child in cls.__subclasses__()))

    found = [cls for cls in below(Bijection) if cls.__module__.startswith("flows.bijections.")]
    return sorted((cls for cls in found if not inspect.isabstract(cls)), key=lambda cls: cls.__qualname__)


def cases() -> list:
    """One case per example of every class."""
    return [
        pytest.param(cls, name, id=f"{cls.__name__}: {name}")
        for cls in bijections()
        for name in cls.examples()
    ]


@pytest.mark.parametrize(("cls", "name"), cases())
def test_laws(cls: type[Bijection], name: str):
    assert broken_laws(cases_of(cls)[name]) == {}


def test_every_law_is_run_on_every_class():
    assert len(LAWS) == 10
    assert len(bijections()) >= 20


def test_a_bijection_without_examples_is_named():
    class Nameless(Bijection):
        def forward(self, x, context=None):
            return x, x.sum(1)

        def inverse(self, z, context=None):
            return z, z.sum(1)

    with pytest.raises(TypeError, match="Nameless has no examples"):
        Nameless.examples()
