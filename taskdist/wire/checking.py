"""Checks the fields of a request, all of them, before anything is asked of a backend."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from taskdist.core.errors import BadField, InvalidFields, TooLarge
from taskdist.limits import SECOND_US
from taskdist.settings import NAME_PATTERN

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME = re.compile(NAME_PATTERN)

NAMES = "1 to 64 characters of A-Z a-z 0-9 . _ -"
"""The names that are allowed, in words."""

VALUE_LENGTH_SHOWN = 80
"""How much of a bad value is repeated in an error: enough to recognise it."""


class Faults:
    """Collects what is wrong with a request.

    Args:
        prefix: stands before each field's name, for one of several: `tasks[3].`.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.bad: list[BadField] = []
        self.large: list[BadField] = []

    def include(self, other: "Faults") -> None:
        """Adds what was found in a part of it; its fields' names then begin with both prefixes."""
        if not (other.bad or other.large):
            return
        self.bad += [BadField(self._prefix + bad.field, bad.reason) for bad in other.bad]
        self.large += [BadField(self._prefix + bad.field, bad.reason) for bad in other.large]

    def reject(self, field: str, reason: str) -> None:
        """Notes a bad field; of several faults of one field the first."""
        field = self._prefix + field
        if all(field != bad.field for bad in self.bad):
            self.bad.append(BadField(field, reason))

    def add(self, field: str, value: object, allowed: str) -> None:
        """Notes a bad value, and which ones are allowed."""
        shown = repr(value)
        shown = (
            shown if len(shown) <= VALUE_LENGTH_SHOWN else shown[: VALUE_LENGTH_SHOWN - 3] + "..."
        )
        self.reject(field, f"{shown} is not allowed; allowed: {allowed}")

    def name(self, field: str, value: str, *, optional: bool = False) -> str:
        """A name, as it came."""
        if not (_NAME.fullmatch(value) or (optional and not value)):
            self.add(field, value, NAMES + (", or nothing" if optional else ""))
        return value

    def names(self, field: str, values: Sequence[str], limit: int) -> tuple[str, ...]:
        """Names, as they came, each once."""
        if len(values) > limit:
            self.reject(field, f"{len(values)} of them; allowed: at most {limit}")
            return ()
        return tuple(self.name(field, value) for value in dict.fromkeys(values))

    def task_id(self, value: str, field: str = "task_id") -> str:
        """A task's id, in lower case."""
        value = value.lower()
        if not _UUID.fullmatch(value):
            self.add(field, value, "a UUID, such as 0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00")
        return value

    def seconds(self, field: str, value: float, limit_us: int, least_us: int = 0) -> int:
        """A duration between these limits, in microseconds; the least one if it is not."""
        least = least_us / SECOND_US
        if not (math.isfinite(value) and least <= value <= limit_us / SECOND_US):
            self.add(field, value, f"{least:g} to {limit_us // SECOND_US} seconds")
            return least_us
        return round(value * SECOND_US)

    def time(self, field: str, value: datetime) -> int:
        """A point in time since 1970, in microseconds."""
        us = (value - EPOCH) // timedelta(microseconds=1)
        if us <= 0:
            self.add(field, value.isoformat(), "a time after 1970")
        return us

    def size(self, field: str, value: bytes, limit: int) -> bytes:
        """Bytes, as they came."""
        if len(value) > limit:
            reason = f"{len(value)} bytes; allowed: at most {limit}"
            self.large.append(BadField(self._prefix + field, reason))
        return value

    def done(self) -> None:
        """All has been checked.

        Raises:
            InvalidFields: every field that is bad.
            TooLarge: nothing but sizes is bad.
        """
        refusal = self.refusal()
        if refusal is not None:
            raise refusal

    def refusal(self) -> InvalidFields | None:
        """What `done` would raise."""
        if self.bad:
            return InvalidFields(self.bad + self.large)
        return TooLarge(self.large) if self.large else None
