"""Exceptions for user errors, as distinct from bugs, and exit codes.

    FlowsError
      UserError (ValueError)                 settings, files, data: one line, exit code 2
        CheckpointError                      a checkpoint, code file or record cannot be used
        DataMissing (FileNotFoundError)      a data set, weights or an optional package are missing
        Unsupported                          the model lacks the requested capability
        NonFinite (FloatingPointError)       a run diverged
    Interrupted (KeyboardInterrupt)          a run was stopped by a signal, and has saved its state

The message of a `UserError` states what was expected, what was given, and how to fix it. Every other
exception is a bug: it prints a traceback, and the program ends with exit code 1.
"""

import errno
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

EXIT_BUG, EXIT_USER, EXIT_INTERRUPTED, EXIT_PIPE, EXIT_TERMINATED = 1, 2, 130, 141, 143
"""Exit codes besides 0: a bug, a user error, Ctrl-C, a reader that went away, SIGTERM."""

EXIT_CODES = (
    "Exit codes: 0 success, 2 user error (one line), 130 interrupted, 143 terminated, 1 bug (traceback)."
)
"""Last line of the help of every command."""

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Operating-system errors that count as user errors although they name no file."""


class FlowsError(Exception):
    """Base class of every exception that this package defines."""


class UserError(FlowsError, ValueError):
    """Settings, files or data cannot be used; the message names them and how to fix them."""


class CheckpointError(UserError):
    """A checkpoint or a file that belongs to one cannot be used; the message names the file and the fault."""


class DataMissing(UserError, FileNotFoundError):
    """A data set, weights or an optional package are missing; the message says how to get them."""


class Unsupported(UserError):
    """The model, space or layer lacks the requested capability, for example an encoder."""


class NonFinite(UserError, FloatingPointError):
    """A loss, gradient or likelihood is infinite or NaN; the message names phase, quantity and step."""


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal after its step; the message names its state and how to continue."""


class Deprecated(FutureWarning):
    """A former name was used; the message names the replacement."""


def deprecated(former: str, name: str) -> None:
    """Warn that a name, option or key is deprecated: `--level is deprecated; use --share`.

    The commands print the warning as one line.
    """
    warnings.warn(f"{former} is deprecated; use {name}", Deprecated, stacklevel=3)


def is_user_error(error: BaseException) -> bool:
    """Whether the user can fix it: a `UserError`, an OSError that names a file, a full disk or memory."""
    if isinstance(error, UserError) or is_out_of_memory(error):
        return True
    return isinstance(error, OSError) and (error.filename is not None or error.errno in DISK_ERRORS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of an accelerator did not suffice; torch has no type for the former."""
    host = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return host or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def sentence_of(error: BaseException) -> str:
    """Message of a user error; that of an OSError begins with the name of the file, not with its number."""
    if is_out_of_memory(error) and not isinstance(error, UserError):
        size = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
        return f"out of memory{f' ({size[0].lower()})' if size else ''}: take fewer images or a smaller batch"
    if isinstance(error, UserError) or not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


@contextmanager
def reported() -> Iterator[None]:
    """Context in which user errors and interruptions end the program with one line and exit code 2 or 130.

    Bugs are raised; with the environment variable FLOWS_DEBUG set, user errors too. Warnings of former names,
    and those about files, are one line, too.
    """
    whole = warnings.formatwarning

    def one_line(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        if issubclass(category, Deprecated | UserWarning):
            return f"warning: {message}\n"
        return whole(message, category, *place, **more)

    warnings.formatwarning = one_line
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal in another encoding ends no verb
    try:
        yield
    except Terminated:
        interrupted("terminated", EXIT_TERMINATED)
    except Interrupted as stopped:
        interrupted(str(stopped))
    except KeyboardInterrupt:
        interrupted()
    except BrokenPipeError:
        # The reader has what it wanted, as `head` does; the interpreter must not flush to it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_PIPE) from None
    except Exception as error:
        if os.environ.get("FLOWS_DEBUG") or not is_user_error(error):
            raise
        fail(sentence_of(error))
    finally:
        warnings.formatwarning = whole


class Terminated(KeyboardInterrupt):
    """The program was asked to end by SIGTERM; it ends like an interrupted one."""


@contextmanager
def program() -> Iterator[None]:
    """Context of a whole program: `reported`, and SIGTERM ends it as Ctrl-C does, without half-written files.

    When it ends, further interruptions are ignored: what is left takes no time.
    """

    def terminate(number: int, frame: Any) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        with reported():
            yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def fail(message: str) -> NoReturn:
    """End the program after a user error: one line on standard error, exit code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(EXIT_USER)


def interrupted(message: str = "interrupted", code: int = EXIT_INTERRUPTED) -> NoReturn:
    """End the program after an interruption: the message, if any, on standard error, exit code 130 or 143."""
    if message:
        print(message, file=sys.stderr)
    raise SystemExit(code)


def missing_extra(what: str, extra: str, error: Exception | None = None) -> DataMissing:
    """Create the error for a missing optional package, with the command that installs it.

    Args:
        what: Start of the message, for example "KID needs torchmetrics".
        extra: Name of the extra of this distribution, for example "metrics".
        error: ImportError of the package.
    """
    reason = f" ({error})" if error else ""
    commands = f'`pip install "exact-flows[{extra}]"`, or `pip install -e ".[{extra}]"` in a clone'
    return DataMissing(f"{what}{reason}; run {commands}")
