"""What was typed, as the values that are meant. A mistake is one line that names the flag."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from taskdist.core.task import TaskState
from taskdist.limits import DATA_BYTES_MAX, SECOND_US
from taskdist.settings import SettingsError, parse_duration_us


def duration_s(flag: str, text: str) -> float:
    """A duration such as 90s, in seconds.

    Raises:
        SettingsError: it is none.
    """
    try:
        return int(str(parse_duration_us(text))) / SECOND_US
    except ValueError as error:
        raise SettingsError(f"{flag}: {error}") from None


def optional_s(flag: str, text: str | None) -> float | None:
    """A duration in seconds, if there is one.

    Raises:
        SettingsError: it is none.
    """
    return None if text is None else duration_s(flag, text)


def positive_s(flag: str, text: str | None) -> float:
    """A duration in seconds; 0 if there is none. For what 0 would switch off, unseen.

    Raises:
        SettingsError: it is none, or 0.
    """
    if text is None:
        return 0
    value_s = duration_s(flag, text)
    if not value_s:
        raise SettingsError(f"{flag}: {text!r} is not allowed; allowed: more than 0")
    return value_s


def time_at(flag: str, text: str) -> datetime:
    """A point in time, in ISO 8601.

    Raises:
        SettingsError: it is none, or has no time zone.
    """
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is not None:
            return when.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: it is beyond the calendar in UTC
        raise SettingsError(f"{flag}: {text!r} is not a time: write 2027-01-01T00:00:00Z") from None
    raise SettingsError(f"{flag}: {text!r} has no time zone: write 2027-01-01T00:00:00Z")


def states_of(names: Sequence[str] | None, allowed: Sequence[TaskState]) -> tuple[TaskState, ...]:
    """The states of these names.

    Raises:
        SettingsError: one is not allowed.
    """
    for name in names or ():
        if name not in allowed:
            raise SettingsError(f"--state: {name!r}; allowed: {', '.join(allowed)}")
    return tuple(TaskState(name) for name in names or ())


def data_of(text: str) -> bytes:
    """The data that `--data` means. Reads no more than is allowed, and a byte.

    Raises:
        SettingsError: there is no such file.
    """
    if text == "-":
        return sys.stdin.buffer.read(DATA_BYTES_MAX + 1)
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            with path.open("rb") as file:
                return file.read(DATA_BYTES_MAX + 1)
        except OSError as error:
            raise SettingsError(f"--data: {path}: {error.strerror}") from None
    return text.encode(errors="surrogateescape")  # bytes that are no UTF-8, as they were typed
