"""How a run ends badly: what handlers raise, and what that means for the task."""

import traceback
from pathlib import Path
from types import TracebackType

from taskdist.limits import DELAY_MAX_US, ERROR_BYTES_MAX, RESULT_BYTES_MAX, SECOND_US
from taskdist.settings import parse_duration_us

_OURS = str(Path(__file__).parent)


class Fatal(Exception):
    """What a handler raises when no retry can help: the task is dead at once, whatever is left."""


class Retry(Exception):
    """What a handler raises to fail and to say when to try again, if there are retries left.

    Args:
        after: how long the task waits before its retry, whatever its own backoff says: seconds, or
            a text like `30s`. None: as its backoff says.

    Raises:
        ValueError: it is no duration, or longer than 365 days.
    """

    def __init__(self, text: str = "", *, after: float | str | None = None) -> None:
        self.after_s = None if after is None else _seconds(after)
        pause = "" if self.after_s is None else f" after {self.after_s:g} s"
        super().__init__(text or f"to be tried again{pause}")


class Failed(Exception):
    """How a run failed, as its agent reports it."""

    def __init__(
        self, error: str, *, retryable: bool = True, retry_after_s: float | None = None
    ) -> None:
        super().__init__(error)
        self.error = error
        self.retryable = retryable
        self.retry_after_s = retry_after_s


def check_size(result: bytes) -> None:
    """Far larger ones would not even be read, and their stream would break again and again.

    Raises:
        Failed: it is too large to be kept.
    """
    if len(result) > RESULT_BYTES_MAX:
        raise Failed(f"a result of {len(result)} bytes; allowed: at most {RESULT_BYTES_MAX}")


def failure(reason: BaseException) -> Failed:
    """What an exception of a handler means."""
    if isinstance(reason, Failed):
        return reason
    return Failed(
        "".join(traceback.format_exception(type(reason), reason, _of_the_handler(reason))),
        retryable=not isinstance(reason, Fatal),
        retry_after_s=reason.after_s if isinstance(reason, Retry) else None,
    )


def _of_the_handler(reason: BaseException) -> TracebackType | None:
    """Its traceback, from where our own code is left."""
    frame = reason.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OURS):
        frame = frame.tb_next
    return frame or reason.__traceback__


def _seconds(after: float | str) -> float:
    """Fails on what is no duration here, in the handler."""
    seconds = float(after) if not isinstance(after, str) else _parsed(after)
    if not 0 <= seconds <= DELAY_MAX_US / SECOND_US:
        raise ValueError(f"after is {after!r}; allowed: 0 to 365 days")
    return seconds


def _parsed(after: str) -> float:
    us = parse_duration_us(after)
    assert isinstance(us, int)
    return us / SECOND_US


def end_of(error: str) -> str:
    """As much of an error as is kept, in characters that can be sent. A traceback ends with why."""
    return error.encode(errors="replace")[-ERROR_BYTES_MAX:].decode(errors="ignore")
