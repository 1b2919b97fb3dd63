"""Settings of a study, which are also options of its verb.

A verb `def score(checkpoint: str, settings: ScoreSettings = ScoreSettings(), ...) -> None` takes a frozen
dataclass below `Options`. Python passes the object; the command line has one option for each field, with the
text that the docstring of the class has for it: `flows steer score runs/glow found.safetensors --alpha 3`.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter
from textwrap import indent
from typing import Any

import docstring_parser


class Options:
    """Base class of frozen dataclasses whose fields are options of the verbs that take one.

    Every field has a default, and a text under `Attributes` in the docstring, which `--help` shows.
    """


def options_in(function: Callable[..., Any]) -> dict[str, type[Options]]:
    """Parameters of a function that are `Options`, by name."""
    parameters = inspect.signature(function).parameters.values()
    kinds = {each.name: each.annotation for each in parameters}
    return {
        name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Options)
    }


def flattened(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function that takes the fields of each of its `Options` as keywords, in place of the object.

    Its signature and docstring are those that a parser of command lines reads.
    """
    groups = options_in(function)
    if not groups:
        return function
    parameters = flat_parameters(function, groups)

    def call(*given: Any, **named: Any) -> None:
        values = inspect.signature(call).bind(*given, **named).arguments
        for name, kind in groups.items():
            default = inspect.signature(function).parameters[name].default
            own = {each.name: values.pop(each.name) for each in fields(kind) if each.name in values}  # type: ignore[arg-type]
            values[name] = type(default)(**{**vars(default), **own})
        function(**values)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    call.__doc__ = flat_docstring(function, groups, parameters)
    call.__name__, call.__module__ = function.__name__, function.__module__
    return call


def flat_parameters(function: Callable[..., Any], groups: dict[str, type[Options]]) -> list[Parameter]:
    """Parameters of a function, with the fields of each of its `Options` in place of the object."""
    found: list[Parameter] = []
    for each in inspect.signature(function).parameters.values():
        if each.name not in groups:
            found.append(each.replace(kind=Parameter.KEYWORD_ONLY) if found_options(found) else each)
            continue
        for field in fields(groups[each.name]):  # type: ignore[arg-type]
            default = getattr(each.default, field.name)
            found.append(
                Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=field.type)
            )
    return found


def found_options(parameters: list[Parameter]) -> bool:
    """Whether the parameters so far contain fields, after which all are keywords."""
    return any(each.kind is Parameter.KEYWORD_ONLY for each in parameters)


def flat_docstring(
    function: Callable[..., Any], groups: dict[str, type[Options]], parameters: list[Parameter]
) -> str:
    """Docstring of a function whose `Args` are those of its flat parameters."""
    texts = {
        each.arg_name: each.description or ""
        for documented in (function, *groups.values())
        for each in docstring_parser.parse(inspect.getdoc(documented) or "").params
    }
    summary = (inspect.getdoc(function) or "").split("\n\nArgs:", 1)[0]
    lines = [f"{each.name}: {indent(texts.get(each.name, ''), '    ').lstrip()}" for each in parameters]
    return f"{summary}\n\nArgs:\n{indent(chr(10).join(lines), '    ')}\n"
