"""The expected errors: refusals, each an outcome with a name that every caller can meet.

`wire/statuses.py` has the one table between these and the statuses of gRPC; a client raises the
same ones. A refused command has changed nothing. At the end, the two ways in which a store ends a
process. Anything else that is raised is a bug.
"""

from collections.abc import Sequence
from typing import NamedTuple

_LINE_LENGTH_MAX = 1_000
"""Characters of what is said of a store: SQLite may tell a damaged schema, all of it."""


class Refused(Exception):
    """Base of the expected errors. Its text is one line for people."""


class BadField(NamedTuple):
    """One field of a request that cannot be accepted."""

    field: str
    """Its name in the contract."""
    reason: str
    """What is wrong and which values are allowed."""


class InvalidFields(Refused):
    """Fields of the request are bad. All of them are named, not only the first."""

    def __init__(self, fields: Sequence[BadField]) -> None:
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in fields))
        self.fields = tuple(fields)


class TooLarge(InvalidFields):
    """Only the size of a field is bad; sending it again is of no use."""


class TaskNotFound(Refused):
    """No task has this id."""


class PreconditionFailed(Refused):
    """The task is not in a state for this, or not in the caller's hands."""


class LeaseNotHeld(PreconditionFailed):
    """The caller does not hold the task's lease now, nor did it end one with this same outcome."""


class TransitionRefused(PreconditionFailed):
    """The table of the life cycle has no such step from the task's state."""


class TaskIdTaken(Refused):
    """The client-made id belongs to a task of different content."""


class Exhausted(Refused):
    """A limit is reached: too much waits, or the disk is full. Worth trying again after a while."""


class StoreFull(Exhausted):
    """The disk is full; the command was undone."""

    def __init__(self) -> None:
        super().__init__("the disk of the distributor's store is full")


class Unavailable(Refused):
    """The distributor is stopping, out of reach, or its store failed. Worth trying later."""


class Damaged(Refused):
    """What is stored of this task cannot be read. Other tasks are served."""


class Unsupported(Refused):
    """This distributor does not have that method."""


class StoreTrouble(Exception):
    """How a store ends a process. One line, whatever SQLite has to say."""

    def __init__(self, text: str) -> None:
        line = " ".join(part.strip() for part in text.splitlines())
        super().__init__(line if len(line) <= _LINE_LENGTH_MAX else f"{line[:_LINE_LENGTH_MAX]}…")


class StoreUnusable(StoreTrouble):
    """The store cannot be opened, and it is for people to put that right: a bad path, a missing
    permission, another distributor's lock, a foreign file, a newer version. One line."""


class StoreHasNoRoom(StoreUnusable):
    """… since its disk is full."""


class StoreFailed(StoreTrouble):
    """The store failed while in use, or is damaged. Nothing more is acknowledged (P6). One line."""
