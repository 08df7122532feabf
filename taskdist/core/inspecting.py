"""What operators ask of a whole store, as values: whether it is sound, and a copy of it.

Each is read as a stream, since it takes as long as the store is large.
"""

from collections.abc import AsyncGenerator

from taskdist.core.queries import Query
from taskdist.core.values import value


@value
class Checked:
    """How far a check is, and what it found since it last told."""

    store_bytes: int
    tasks: int
    """Looked at so far."""
    tasks_in_all: int
    """Roughly: they come and go meanwhile."""
    attempts: int
    """Looked at so far."""
    faults: tuple[str, ...]
    """One line each. The first CHECK_FAULTS_TOLD_MAX of a check are told."""
    fault_count: int
    """So far, and those that are not told."""
    done: bool


@value
class BackupPart:
    """How far the copy is, or the next bytes of it, or at the end what they add up to."""

    total_bytes: int
    copied_bytes: int
    chunk: bytes = b""
    sha256: bytes = b""


@value
class CheckStore(Query[AsyncGenerator[Checked, None]]):
    """Whether the store is sound. Raises `PreconditionFailed` for one in memory, and `Exhausted`
    while another inspection is under way, when it is begun to be read."""


@value
class BackUpStore(Query[AsyncGenerator[BackupPart, None]]):
    """A copy of the store at one moment, likewise."""
