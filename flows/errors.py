"""Errors: what the user can mend, apart from bugs, and the exit codes of both.

    FlowsError
      UserError (ValueError)                 settings, files, data: one line, exit code 2
        CheckpointError                      a checkpoint, code file or record cannot be used
        DataMissing (FileNotFoundError)      a data set, weights or an optional package are missing
        Unsupported                          the model has not what was asked of it
        NonFinite (FloatingPointError)       a run diverged

The message of a `UserError` says what was expected, what was given, and the way out. Every other exception is
a bug: it leaves a traceback, and the program ends with exit code 1.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

EXIT_BUG, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130
"""Exit codes of every command beside 0: a bug of this package, a mistake of the user, interrupted."""

EXIT_CODES = "Exit codes: 0 done, 2 a mistake of yours (one line), 130 interrupted, 1 a bug (a traceback)."
"""For the help of every command."""

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of the operating system that name no file and are nevertheless the user's to mend."""


class FlowsError(Exception):
    """Base class of every exception that this package defines."""


class UserError(FlowsError, ValueError):
    """Settings, files or data that cannot be used; the message names them and the way out."""


class CheckpointError(UserError):
    """A checkpoint or a file that belongs to one cannot be used; the message names the file and the fault."""


class DataMissing(UserError, FileNotFoundError):
    """A data set, weights or an optional package are missing; the message says how to get them."""


class Unsupported(UserError):
    """The model, space or layer lacks the capability that was asked for, for example an encoder."""


class NonFinite(UserError, FloatingPointError):
    """A loss, gradient or likelihood is infinite or NaN; the message names phase, quantity and step."""


def is_user_error(error: BaseException) -> bool:
    """Whether the user can mend this: a `UserError`, or a failure of a file that is named, or a full disk."""
    if isinstance(error, UserError):
        return True
    return isinstance(error, OSError) and (error.filename is not None or error.errno in DISK_ERRORS)


@contextmanager
def reported() -> Iterator[None]:
    """Report errors of the block as a command does: one line and exit code 2 or 130, or a traceback and 1.

    With the environment variable FLOWS_DEBUG set, every error is a traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        interrupted()
    except Exception as error:
        if os.environ.get("FLOWS_DEBUG") or not is_user_error(error):
            raise
        fail(str(error))


def fail(message: str) -> NoReturn:
    """End the program for a mistake of the user: one line on standard error, exit code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(EXIT_USER)


def interrupted(message: str = "interrupted") -> NoReturn:
    """End the program that was interrupted: one line on standard error unless it is empty, exit code 130."""
    if message:
        print(message, file=sys.stderr)
    raise SystemExit(EXIT_INTERRUPTED)
