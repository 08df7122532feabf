"""How the command line ends: one table from errors to exit codes."""

import errno

from typer.exceptions import Abort, Exit, TyperException

from taskdist.core import errors
from taskdist.settings import SettingsError

OK = 0
USAGE = 2
NOT_FOUND = 3
TASK_FAILED = 5
WAIT_TIMED_OUT = 6
CANCELLED = 7
UNREACHABLE = 8
REFUSED = 9
STORE_FAILED = 74
"""EX_IOERR of sysexits.h."""
OUTPUT_REFUSED = 141
"""As a shell reports SIGPIPE: whoever read the output is gone, or its disk is full."""
INTERRUPTED = 130

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EIO, errno.EBADF)
"""What a write to standard output may meet. Stores and networks have names for theirs."""

EXIT_CODES: list[tuple[type[BaseException], int]] = [
    (SettingsError, USAGE),
    (errors.StoreUnusable, USAGE),
    (errors.InvalidFields, USAGE),
    (errors.TaskNotFound, NOT_FOUND),
    (errors.PreconditionFailed, REFUSED),
    (errors.TaskIdTaken, REFUSED),
    (errors.Exhausted, REFUSED),
    (errors.Unavailable, UNREACHABLE),
    (errors.StoreFailed, STORE_FAILED),
    (errors.Damaged, STORE_FAILED),
    (KeyboardInterrupt, INTERRUPTED),
    (Abort, INTERRUPTED),
]


def explain(error: BaseException) -> tuple[str, int] | None:
    """One line and an exit code for an expected error; None for a bug."""
    if isinstance(error, Exit):
        return "", error.exit_code
    if isinstance(error, TyperException):
        return error.format_message(), error.exit_code
    if isinstance(error, UnicodeEncodeError):  # bytes on the command line that are no text
        return f"{error.object!r} is not UTF-8", USAGE
    if isinstance(error, BrokenPipeError):
        return "", OUTPUT_REFUSED
    if isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT_ERRORS:
        return f"cannot write the output: {error.strerror}", OUTPUT_REFUSED
    for kind, code in EXIT_CODES:
        if isinstance(error, kind):
            return str(error), code
    return None
