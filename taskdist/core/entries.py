"""What an agent says of a run while it lasts: progress and log lines, and how they are numbered.

Each entry has a number of its own within its attempt, its step, also one that is dropped: so a gap
between two steps says how many were. Where nothing that was kept follows a gap, a mark stands at
its end.
"""

from enum import StrEnum
from typing import NamedTuple

from taskdist.core.values import members, value

STEP_MAX = 2**32 - 16
"""The last step of an attempt; above are the numbers of the states that follow."""


@members
class EntryKind(StrEnum):
    """What an entry is."""

    PROGRESS = "progress"
    LOG = "log"
    DROPPED = "dropped"
    """Nothing but a mark: up to here entries were dropped."""

    __hash__ = str.__hash__


@value
class Remark:
    """What an agent says."""

    kind: EntryKind
    at_us: int
    """The agent's wall clock; 0: it did not say."""
    text: str = ""
    fraction: float | None = None
    """Of a progress: how much is done, 0 to 1."""
    dropped: int = 0
    """Of a mark: how many entries the agent dropped itself."""


@value
class Entry:
    """A remark as it is kept."""

    attempt: int
    step: int
    """1 for the attempt's first."""
    kind: EntryKind
    at_us: int
    """Wall clock."""
    fraction: float | None
    text: str
    place: int
    """How many of its attempt were kept up to this one."""


class Kept(NamedTuple):
    """What has to be known of an entry that is kept, to add others."""

    attempt: int
    step: int
    is_mark: bool
    text_bytes: int
    place: int
