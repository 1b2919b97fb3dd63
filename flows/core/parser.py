"""Parser of command lines: one-line errors, plain types in the help, null, former names of options."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
from argparse import Action
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

import jsonargparse
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from flows.core.bounds import choices_of, describe, plain, refusal
from flows.core.checks import did_you_mean
from flows.core.context import set_within
from flows.core.plugins import modules_of
from flows.errors import UserError, deprecated, fail
from flows.storage.configs import find_config
from flows.storage.files import load_yaml

jsonargparse.set_parsing_settings(
    docstring_parse_attribute_docstrings=True, import_path_denylist=["*"], import_path_allowlist=["flows"]
)
NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)
"""Negative numbers, which are values and no options; argparse's own pattern has no exponents."""
CONFIG_TEXT = re.compile(r"\s*\{|.*\n|.*:\s", re.DOTALL)
"""Beginning of a config that is typed as YAML in place of a file."""
ALLOW = "allow_import"
"""Option with the names of packages whose classes options and configs may name."""

NAMED: set[type] = set()
"""Base classes whose subclasses any option may name; `flows.config` adds its own."""


def import_all(package: ModuleType) -> None:
    """Import all files of a package, and what installed packages add to it.

    Options then know the classes by their short names.
    """
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    modules_of(package.__name__)


_raising: ContextVar[bool] = ContextVar("raising", default=False)


@contextmanager
def raising() -> Iterator[None]:
    """Context in which mistakes raise UserError instead of ending the program."""
    with set_within(_raising, True):
        yield


class HelpFormatter(DefaultHelpFormatter):
    """jsonargparse's formatter with types in plain words: `(number > 0, or null; default: null)`."""

    def _get_type_str(self, action: Action) -> str | None:
        kind = type_of(action)
        return super()._get_type_str(action) if kind is None else describe(kind)

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action)
        if type_of(action) is None:
            return text
        text = text.replace("type: %(type)s", "%(type)s").replace("(required, ", "(required; ")
        text = text.replace(", default: %(default)s", f"; default: {default_text(action.default)}")
        text, known, classes = text.partition(", known subclasses: ")
        names = ", ".join(sorted(name.rsplit(".", 1)[-1] for name in classes.rstrip(")").split(", ")))
        return f"{text}; one of {names})" if known else text


class Parser(ArgumentParser):
    """jsonargparse's parser with one-line errors that name the closest valid word; exit code 2.

    On the command line, `None` means null for every option whose type includes it; `none` too, where it is
    no other value of the option.

    Attributes:
        former: Former names of options, by name; they are still accepted, with a warning.
        nulls: Options with several words that are null on the command line that was parsed last.
        arguments_of: Class whose constructor's arguments are the options, in a parser that jsonargparse makes
            for the class that an option names.
    """

    def __init__(self, *given: Any, **options: Any):
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(*given, **options)
        self._negative_number_matcher = NEGATIVE
        self.former: dict[str, str] = {}
        self.nulls: set[str] = set()
        self.arguments_of: type | None = None

    def parse_args(self, args: Any = None, *given: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """Parse as jsonargparse does; former names of options are replaced, with a warning."""
        words = list(sys.argv[1:] if args is None else args)
        for i, word in enumerate(words):
            option, sign, value = word.partition("=")
            if option.startswith("--") and (name := self.former.get(option[2:])):
                deprecated(option, f"--{name}")
                words[i] = f"--{name}{sign}{value}"
        self.nulls = set()
        allow_imports(words)
        settings = super().parse_args(words, *given, **options)
        for name in self.nulls:
            settings[name] = None
        self.check_given(settings)
        return settings

    def check_given(self, settings: Namespace) -> None:
        """End with a sentence for null or an empty list where the option needs a value, as in a config."""
        for action in self._actions:
            if isinstance(action.choices, dict) and (verb := settings.get(action.dest)) in action.choices:
                inner = action.choices[verb]
                if isinstance(inner, Parser) and isinstance(settings.get(verb), Namespace):
                    inner.check_given(settings[verb])
                continue
            kind = type_of(action)
            group = action.dest.rpartition(".")[0]
            if kind is not None and group and action.dest not in settings:
                self.error(f"{group}: expected a mapping of options to values")
            if kind is None or action.dest not in settings:
                continue
            value, optional = settings[action.dest], NoneType in get_args(kind) or kind is Any
            if value is None and action.default is not None and not optional:
                self.error(f"{action.dest}: {refusal(kind, value, 'null')}")
            if value == [] and action.default != [] and (action.nargs == "+" or get_origin(kind) is list):
                self.error(f"{action.dest}: expected at least one value, got an empty list")

    def add_class_arguments(
        self, class_type: type, nested_key: Any = None, *given: Any, **options: Any
    ) -> list[str]:
        """Add the arguments of a class as jsonargparse does."""
        if nested_key is None:
            self.arguments_of = class_type
        return super().add_class_arguments(class_type, nested_key, *given, **options)

    def validate(self, *given: Any, **options: Any) -> None:
        """Check settings as jsonargparse does; the message of an unknown option names its class."""
        try:
            super().validate(*given, **options)
        except KeyError as error:
            if self.arguments_of is None:
                raise
            names = ", ".join(action.dest for action in self._actions if not action.dest.endswith("help"))
            known = f"expected {names}" if names else "it has none"
            raise type(error)(f"{error} by {self.arguments_of.__name__}; {known}") from error

    def _apply_actions(self, cfg: Any, *given: Any, **options: Any) -> Any:
        for former, name in self.former.items():
            if isinstance(cfg, Namespace | dict) and former in cfg:
                deprecated(f"the key {former}", name)
                cfg[name] = cfg.pop(former)
        return super()._apply_actions(cfg, *given, **options)

    def _get_values(self, action: Action, arg_strings: list[str]) -> Any:
        # An option with several words is an optional list if its default is null; jsonargparse would parse
        # each word by itself.
        if action.nargs == "+" and not action.required and action.default is None and action.option_strings:
            self.nulls.discard(action.dest)
            if arg_strings in (["None"], ["null"]):
                self.nulls.add(action.dest)
        elif is_null(type_of(action), arg_strings):
            arg_strings = ["null"]
        return super()._get_values(action, arg_strings)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if os.environ.get("FLOWS_DEBUG") and ex is not None:
            raise ex
        if _raising.get():
            raise UserError(self.sentence(message))
        fail(self.sentence(message))

    def sentence(self, message: str) -> str:
        """Return a message of jsonargparse in plain words, with the closest valid word."""
        text = " ".join(line.strip() for line in str(message).splitlines() if line.strip())
        if denied := re.search(r"Importing '([\w.]+)' is not allowed", text):
            package = denied[1].partition(".")[0]
            return f"{denied[1]} is not a class of flows; --{ALLOW} {package} allows to import it"
        unknown = re.search(r'key "([\w.]+)".*dot import path string: (\w+)', text)
        if unknown:
            text = f"{self.spelling(unknown[1])}: there is no class named '{unknown[2]}'."
        return self.wrong_value(text) or shorten(self.plain(text)) + self.suggestion(text)

    def action_of(self, key: str) -> Action | None:
        """Option or argument of a key, `None` if there is none; the key may begin with a verb."""
        for action in self._actions:
            if action.dest == key:
                return action
        verb, _, rest = key.partition(".")
        for action in self._actions:
            inner = action.choices.get(verb) if isinstance(action.choices, dict) else None
            if rest and isinstance(inner, Parser):
                return inner.action_of(rest)
        return None

    def spelling(self, key: str, given: bool = False) -> str:
        """Return the name of an option as it was typed, `--n`, or the key, if it comes from a file.

        Args:
            key: Key of the option, with dots.
            given: Whether to name the option although it was not typed.
        """
        action = self.action_of(key)
        if action is None or not action.option_strings or not self.exit_on_error:  # a class in a config
            return key if action is None else action.dest
        typed = {word.partition("=")[0] for word in getattr(self, "args", None) or ()}
        option = next((each for each in action.option_strings if each in typed), None)
        return option or (action.option_strings[0] if given else key)

    def wrong_value(self, message: str) -> str | None:
        """Return the sentence for a value of the wrong type; None for other messages.

        `--seconds: expected a number above 0, or null; got 'abc'`.
        """
        match = re.match(rf'Parser key "([\w.]+)"(?: element \d+)?: (?:{WRONG})', message)
        action = self.action_of(match[1]) if match else None
        kind = type_of(action)
        if match is None or kind is None:
            return None
        words = describe(kind, sentence=True)
        given = next((found[1] for form in GIVEN if (found := re.search(form, message))), None)
        if nested := re.match(r"NestedArg\(key='([\w.]+)'", given or ""):
            return f"{match[1]} has no key '{nested[1]}' here: expected {words}"
        if given is None:
            return f"{self.spelling(match[1])}: expected {words}"
        shown = given if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|[\[{(].*", given) else f"'{given}'"
        return f"{self.spelling(match[1])}: {refusal(kind, given, shown)}"

    def plain(self, message: str) -> str:
        """Replace jsonargparse's terms in a message: `required, but not given: --inverters`."""
        if missing := re.fullmatch(r"the following arguments are required: (.*)", message):
            names = ", ".join(self.spelling(key, given=True) for key in missing[1].split(", "))
            return f"required, but not given: {names}"
        if verb := re.match(r'expected "([\w.]+)" to be one of', message):
            group, action = verb[1].rpartition(".")[0], self.action_of(verb[1])
            verbs = ", ".join((action and action.choices) or ())
            return f"expected a verb{' of ' * bool(group)}{group}: {verbs}"
        if verb := re.fullmatch(r"argument verb: invalid choice: ('.*?') \(choose from (.*)\)", message):
            return f"there is no verb {verb[1]}; expected one of {verb[2].replace(chr(39), '')}."
        if key := re.match(r'(?:Parser key "([\w.]+)"|argument (--[\w.]+)): ', message):
            name = self.spelling(key[1]) if key[1] else key[2]
            message = f"{name}: {message[key.end() :]}"
        for pattern, replacement in PLAIN:
            message = re.sub(pattern, replacement, message)
        return message

    def instantiate(self, *given: Any, **options: Any) -> Namespace:
        """Instantiate as jsonargparse does, but raise the exceptions of constructors unchanged.

        jsonargparse would wrap them in a list of the union's members and the namespace of all arguments.
        """
        options.setdefault("instantiators", [(_construct, object, True)])
        try:
            return super().instantiate(*given, **options)
        except _Raised as raised:
            raise raised.error from None

    def suggestion(self, message: str) -> str:
        """Return ` Did you mean …?` for the word that `message` is about, or an empty string."""
        quoted = re.findall(
            r"""Option ['"]([^'"]+)['"]|option ['"]([^'"]+)['"]|--([\w.]+)|class named '(\w+)'""", message
        )
        quoted += re.findall(r"""invalid choice: '(\w+)'()""", message)
        quoted += re.findall(r"""class_path ['"]([^'"]+)['"]|Unrecognized arguments: -*([\w.]+)""", message)
        words = [word for groups in quoted for word in groups if word]
        known = self.known_words(message)
        for word in words:
            for candidate in (word, word.rsplit(".", 1)[-1]):
                if candidate not in known and (hint := did_you_mean(candidate, known)):
                    return hint
        return ""

    def known_words(self, message: str) -> set[str]:
        """All options, classes and constructor arguments that a config can name."""
        options = {action.dest for action in self._actions}
        options |= {str(choice) for action in self._actions for choice in action.choices or ()}
        if re.match(r"[Uu]nrecognized arguments: --\w+( |=|$)", message):
            return options
        kinds = {kind for action in self._actions for kind in classes_of(type_of(action))}
        classes = [cls for kind in NAMED | kinds for cls in _subclasses(kind)]
        named = {cls.__name__ for cls in classes}
        mentioned = [cls for cls in classes if re.search(rf"\b{cls.__name__}\b", message)]
        arguments = {name for cls in mentioned or classes for name in _parameters(cls)}
        return options | {option.rsplit(".", 1)[-1] for option in options} | named | arguments


def add_import_option(parser: ArgumentParser) -> None:
    """Add the option `--allow_import` to a parser of options that may name classes."""
    parser.add_argument(
        f"--{ALLOW}",
        f"--{ALLOW.replace('_', '-')}",
        type=str | None,
        default=None,
        help="Name of your own package or module whose classes options and configs may name; it is imported",
    )


def allow_imports(words: Sequence[str]) -> None:
    """Allow classes of the packages that `--allow_import` names, and say so on standard error.

    A config may come from elsewhere, and naming a class imports its module, which runs it. Classes of other
    packages than this one are therefore refused.
    """
    for i, word in enumerate(words):
        option, sign, value = word.partition("=")
        if option.lstrip("-").replace("-", "_") == ALLOW and option.startswith("--"):
            name = value if sign else "".join(words[i + 1 : i + 2])
            if not all(part.isidentifier() for part in name.split(".")):
                fail(f"--{ALLOW}: expected the name of a package or module, got {name!r}")
            jsonargparse.set_parsing_settings(import_path_allowlist=[name])
            print(f"--{ALLOW}: options and configs may import {name}", file=sys.stderr)


class ConfigFile(ActionConfigFile):
    """Option for YAML files, also by the name of a config of flows.

    What is no file, no YAML or holds no options ends with one line that names it.
    """

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        if CONFIG_TEXT.match(values):
            super().__call__(parser, cfg, values, option_string)
            return
        try:
            path = find_config(values)
        except UserError as error:
            parser.error(f"--config: {error}")
        if path.is_file() and (fault := config_fault(path)):
            parser.error(f"--config {values}: expected {fault}")
        super().__call__(parser, cfg, str(path), option_string)


def config_fault(path: Path) -> str:
    """Return the expected contents of a config file and its fault; empty if the file holds options."""
    try:
        content = load_yaml(path.read_bytes())
    except UserError as error:
        return f"a YAML file{error}"
    if isinstance(content, dict):
        return ""
    kinds = {NoneType: "an empty file", list: "a list"}
    return f"a mapping of options to values, got {kinds.get(type(content), 'text')}"


class _Raised(BaseException):
    """Exception of a constructor or link, passed through jsonargparse, which catches every `Exception`."""

    def __init__(self, error: Exception):
        self.error = error


def _construct(cls: type, *given: Any, **options: Any) -> Any:
    return linked(cls)(*map(plain, given), **{name: plain(value) for name, value in options.items()})


def linked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function, of a link or a constructor, whose exceptions pass through jsonargparse."""

    def call(*given: Any, **options: Any) -> Any:
        try:
            return function(*given, **options)
        except Exception as error:
            raise _Raised(error) from error

    return call


WRONG = r"Not of type|Expected an? |Does not validate against any of the Union"
"""Beginnings of jsonargparse's messages about a value of the wrong type, as a regular expression."""

GIVEN = (
    r"Given value: (.*)$",
    r"Got value: (.*)$",
    r"Not of type \w+: (?:invalid literal|could not convert).*?: '(.*)'$",
    r"Not of type \w+: (.+?) (?:does not conform|not an? )",
)
"""Phrases in which jsonargparse names the value that was given, as regular expressions."""

PLAIN = (
    (r'Parser key "([\w.+]+)": ', r"\1: "),
    (r"^[Uu]nrecognized arguments: (-\S+?)(=.*| .*)?$", r"there is no option \1."),
    (r"^[Uu]nrecognized arguments: (\S+).*$", r"unexpected argument '\1'."),
    (r"^(?:Group|Subcommand) '([\w.]+)' does not accept option '([\w.]+)'$", r"\1: there is no option '\2'."),
    (r"^Option '([\w.]+)' is not accepted$", r"there is no option '\1'."),
    (r"^Option '([\w.]+)' is not accepted by (\w+); (.*)$", r"\2 has no option '\1'; \3."),
    (r"expected (one|at least one) argument$", r"expected \1 value"),
    (r"\bFile does not exist\b", "file does not exist"),
)
"""Phrases of jsonargparse, as regular expressions, and their replacements."""


def type_of(action: Action | None) -> Any:
    """Annotation of an option, None if it has none, such as `--help` and `--model.help`."""
    return None if action is None or action.dest.endswith(".help") else getattr(action, "_typehint", None)


def default_text(value: Any) -> str:
    """Default of an option as it is typed: `null`, `true`, or the name of a class."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping | Namespace) and list(value.keys()) == ["class_path"]:
        return str(value["class_path"]).rsplit(".", 1)[-1]
    return str(value)


def classes_of(kind: Any) -> set[type]:
    """Classes of this package that an annotation names."""
    named = {cls for member in get_args(kind) for cls in classes_of(member)}
    return named | ({kind} if getattr(kind, "__module__", "").startswith("flows.") else set())


def is_null(kind: Any, words: list[str]) -> bool:
    """Whether the words of an option of this type mean null: `None`, or `none` where it is no other value."""
    members = get_args(kind)
    if get_origin(kind) not in (Union, UnionType) or NoneType not in members or len(words) != 1:
        return False
    free = any(isinstance(member, type) and issubclass(member, str | os.PathLike) for member in members)
    return words[0] == "None" or (words[0] == "none" and not free and "none" not in choices_of(kind))


def shorten(message: str, limit: int = 600) -> str:
    """Truncate a message to `limit` characters, because libraries quote whole union types."""
    return message if len(message) <= limit else message[:limit] + " …"


def _subclasses(base: type) -> set[type]:
    subclasses: set[type] = set()
    children: list[type] = base.__subclasses__()
    for cls in children:
        subclasses |= {cls} | _subclasses(cls)
    return subclasses


def _parameters(cls: type) -> list[str]:
    return list(inspect.signature(cls).parameters)
