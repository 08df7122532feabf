"""The named points at which a distributor dies, each bound to a function of the product by name.

The product carries nothing for this. `fork_server.py` wraps the functions in the process that is to
die; a point whose function is gone fails at import. What has to be true after a death there is said
beside each: whether the change was `saved`, and whether the caller heard of it (`spoken`).
"""

from asyncio import selector_events
from collections.abc import Callable, Sequence
from enum import Enum, Flag, auto
from typing import Any, NamedTuple

from taskdist.backends import reading, schema
from taskdist.backends.embedded import EmbeddedBackend, _Inbox
from taskdist.backends.journal import Journal
from taskdist.backends.live import Live
from taskdist.backends.log import Log
from taskdist.backends.writer import Writer
from taskdist.distributor.server import Distributor
from taskdist.distributor.transport import _Messages
from tests.crashes.disk import File
from tests.support.peer import END_STREAM, HEADERS


class Side(Enum):
    """Of a function."""

    BEFORE = auto()
    AFTER = auto()


class Way(Flag):
    """What a call goes through on its way; a point is on one of these."""

    SPEAKS = auto()
    READS = auto()
    DECIDES = auto()
    """The writer decides something for it."""
    SAVES = auto()
    """Rows are written for it."""


When = Callable[[Sequence[Any], Any], bool]
"""Whether a call of the function counts, by its arguments and, after it, by its result."""


class Point(NamedTuple):
    """A place in the life of a call."""

    name: str
    owner: Any
    function: str
    side: Side
    way: Way
    saved: bool | None = None
    """Whether a change is there after a death here; None: it may be."""
    spoken: bool | None = False
    """Whether the caller has its answer; None: it may have."""
    when: When = lambda arguments, result: True
    batch: int = 1
    """So many requests are gathered into one batch; the point is at the last of them."""
    idle: bool = False
    """In the checkpoint that a distributor makes when it is idle."""
    deep: bool = False
    """Tried in a deep run only: another one is so near that little can happen between them."""


def _saves(arguments: Sequence[Any], result: Any) -> bool:
    """A commit of nothing is not one: the writer makes some each second."""
    return bool(arguments[0].connection.in_transaction)


def _answers(arguments: Sequence[Any], result: Any) -> bool:
    return bool(result.answered or result.changes)


def _of(ending: str) -> When:
    return lambda arguments, result: arguments[0].ending == ending


def _is_commit(arguments: Sequence[Any], result: Any) -> bool:
    """Whether it is the sync that makes a commit of what is in the log."""
    file: File = arguments[0]
    return file.ending == "-wal" and file.wrote_at > 0


def _is_end(arguments: Sequence[Any], result: Any) -> bool:
    """Whether the end of a call is among these frames (RFC 9113, section 4.1)."""
    data = bytes(arguments[1])
    while data:
        size, sort, flags = int.from_bytes(data[:3]), data[3], data[4]
        if sort == HEADERS and flags & END_STREAM:
            return True
        data = data[9 + size :]
    return False


Transport: Any = vars(selector_events)["_SelectorSocketTransport"]
IDLE: dict[str, Any] = {"idle": True, "spoken": None}
_BEFORE, _AFTER = Side
_SPEAKS, _READS, _DECIDES, _SAVES = Way

POINTS = (
    Point("the request is read", _Messages, "receive", _AFTER, _SPEAKS, False),
    Point("before it waits for the writer", _Inbox, "put", _BEFORE, _DECIDES, False, deep=True),
    Point("before it is decided", Writer, "_decide", _BEFORE, _DECIDES, False),
    Point("decided", Writer, "_decide", _AFTER, _DECIDES, False),
    Point("one of two is decided", Writer, "_decide", _BEFORE, _DECIDES, False, batch=2),
    Point("before its rows are written", Journal, "commit", _BEFORE, _SAVES, False, when=_saves),
    Point("before COMMIT", Journal, "save_clocks", _AFTER, _SAVES, False),
    Point("half in the log", File, "xWrite", _AFTER, _SAVES, False, when=_of("-wal")),
    # Not the power is lost, only the process: the system has what it was given.
    Point("in the log, not synced", File, "xSync", _BEFORE, _SAVES, True, when=_is_commit),
    Point("synced", File, "xSync", _AFTER, _SAVES, True, when=_is_commit, deep=True),
    Point("after COMMIT", Writer, "_run", _AFTER, _DECIDES, True, when=_answers),
    Point("two are committed", Writer, "_run", _AFTER, _DECIDES, True, when=_answers, batch=2),
    Point("before it is spoken of", EmbeddedBackend, "_speak", _BEFORE, _DECIDES, True, deep=True),
    Point("spoken of", EmbeddedBackend, "_speak", _AFTER, _DECIDES, True),
    Point("before a read", reading, "run", _BEFORE, _READS, deep=True),
    Point("after a read", reading, "run", _AFTER, _READS),
    Point("before the reply is written", _Messages, "send", _BEFORE, _SPEAKS, True, deep=True),
    Point("the reply is written", _Messages, "send", _AFTER, _SPEAKS, True),
    Point("before the reply leaves", Transport, "write", _BEFORE, _SPEAKS, True, when=_is_end),
    Point("the reply has left", Transport, "write", _AFTER, _SPEAKS, True, True, when=_is_end),
    Point("before a checkpoint", Log, "checkpoint", _BEFORE, _SAVES, **IDLE, deep=True),
    Point("in a checkpoint", File, "xWrite", _AFTER, _SAVES, **IDLE, when=_of("")),
    Point("after a checkpoint", Log, "checkpoint", _AFTER, _SAVES, **IDLE, deep=True),
)
"""On the way of a call, in its order."""

FIRST_STARTS = (
    Point("the tables are made", schema, "create", _AFTER, _SAVES),
    Point("the tables are in the log", File, "xSync", _BEFORE, _SAVES, when=_is_commit),
)
"""In the start that makes a store."""

STARTS = (
    Point("before the leases are loaded", Live, "load_leases", _BEFORE, _SAVES),
    Point("the leases have a full term", Live, "load_leases", _AFTER, _SAVES),
    Point("before tasks are loaded", Live, "load_some", _BEFORE, _SAVES),
    Point("some tasks are loaded", Live, "load_some", _AFTER, _SAVES),
    Point("before it listens", Distributor, "listen", _BEFORE, _SAVES),
    Point("it listens", Distributor, "listen", _AFTER, _SAVES),
    Point("its first batch", Writer, "step", _AFTER, _SAVES),
)
"""In each start."""

STOPS = (
    Point("before takes are stopped", Distributor, "stop", _BEFORE, _SAVES),
    Point("before the clocks are saved", Writer, "close", _BEFORE, _SAVES),
    Point("the clocks are saved", Journal, "save_clocks", _AFTER, _SAVES),
    Point("before the last checkpoint", Log, "checkpoint", _BEFORE, _SAVES),
    Point("in the last checkpoint", File, "xWrite", _AFTER, _SAVES, when=_of("")),
    Point("all is closed", Journal, "close", _AFTER, _SAVES),
)
"""In a stop."""

ALL = (*POINTS, *FIRST_STARTS, *STARTS, *STOPS)
for _point in ALL:
    assert callable(getattr(_point.owner, _point.function)), _point
