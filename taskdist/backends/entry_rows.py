"""The rows of progress and log lines, as values of the core and back, and how they are read."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import apsw
import structlog

from taskdist.backends.rows import NUMBER_MAX, BadRow
from taskdist.backends.selecting import each
from taskdist.backends.unwritten import Statement, Unwritten, delete, insert
from taskdist.core.commands import Change
from taskdist.core.entries import Entry, EntryKind, Kept
from taskdist.core.queries import Place

log = structlog.get_logger()

ENTRY_COLUMNS = ("attempt", "step", "kind", "at_us", "fraction", "text", "place")
# Or replace: a mark takes the place of what it stands for.
_INSERT_ENTRY = insert("entry", ("sequence", *ENTRY_COLUMNS), "INSERT OR REPLACE")
_DELETE_ENTRY = Statement(
    "DELETE FROM entry WHERE (sequence, attempt, step) IN (VALUES ", "(?, ?, ?)", ")"
)
_FORGOTTEN = delete("entry", "sequence")
_SELECT = f"SELECT {', '.join(ENTRY_COLUMNS)} FROM entry WHERE sequence = ? "


class Entries:
    """The entries of one journal, as they are written. Where there are none, nothing is.

    Args:
        connection: the one that writes.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._is_any: bool | None = None
        """Whether there may be any, once it is known."""

    def save(self, change: Change, sequence: int, unwritten: Unwritten) -> int:
        """Adds what is to be written of a change; how many rows that is."""
        self._is_any = True
        for place in change.entries_gone:
            unwritten.add(_DELETE_ENTRY, (sequence, *place))
        for entry in change.entries:
            row = (entry.kind, entry.at_us, entry.fraction, entry.text, entry.place)
            unwritten.add(_INSERT_ENTRY, (sequence, entry.attempt, entry.step, *row))
        return len(change.entries_gone) + len(change.entries)

    def forget(self, sequence: int, unwritten: Unwritten) -> None:
        """Those of a task go."""
        if self._is_any is None:
            found = self._connection.execute("SELECT EXISTS (SELECT 1 FROM entry)")
            self._is_any = bool(found.get)
        if self._is_any:
            unwritten.add(_FORGOTTEN, (sequence,))


def kept_of(connection: apsw.Connection, sequence: int) -> list[Kept]:
    """What is kept of a task, in its order. What cannot be read is left out; it may be replaced."""
    found = connection.execute(
        "SELECT attempt, step, kind = 'dropped', octet_length(text), place FROM entry"
        " WHERE sequence = ? ORDER BY attempt, step",
        (sequence,),
    )
    return [
        Kept(attempt, step, bool(mark), *more)
        for attempt, step, mark, *more in filter(None, each(found))
        if _are_numbers(attempt, step, *more)
    ]


def entries_after(
    connection: apsw.Connection, sequence: int, after: Place, count: int
) -> list[Entry]:
    """So many entries of a task, from those after a place on. What cannot be read is left out."""
    found = connection.execute(
        _SELECT + "AND (attempt, step) > (?, ?) ORDER BY attempt, step", (sequence, *after)
    )
    entries = list(islice(_decodable(found), count))
    found.close(True)
    return entries


def newest_place(connection: apsw.Connection, sequence: int) -> Place:
    """Where a task's entries end; (0, 0) if it has none."""
    newest = connection.execute(
        "SELECT attempt, step FROM entry WHERE sequence = ?1"
        " AND typeof(attempt) = 'integer' AND typeof(step) = 'integer'"
        " AND max(attempt, step) <= ?2 ORDER BY attempt DESC, step DESC LIMIT 1",
        (sequence, NUMBER_MAX),
    ).fetchone()
    return newest or (0, 0)


def last_progress(connection: apsw.Connection, sequence: int) -> Entry | None:
    """The newest progress of a task."""
    found = connection.execute(
        _SELECT + "AND kind = 'progress' ORDER BY attempt DESC, step DESC", (sequence,)
    )
    newest = next(_decodable(found), None)
    found.close(True)
    return newest


def _are_numbers(*values: object) -> bool:
    return all(type(value) is int and 0 <= value <= NUMBER_MAX for value in values)


def _decodable(found: apsw.Cursor) -> Iterator[Entry]:
    for row in each(found):
        try:
            yield decode_entry(row or (None,) * len(ENTRY_COLUMNS))
        except BadRow as reason:
            log.error("row set aside", reason=str(reason))


def decode_entry(row: tuple[Any, ...]) -> Entry:
    """An entry from the columns ENTRY_COLUMNS.

    Raises:
        BadRow: they are not those of an entry.
    """
    attempt, step, kind, at_us, fraction, text, place = row
    try:
        if not _are_numbers(attempt, step, at_us, place):
            raise ValueError("a number beyond all times")
        if type(text) is not str:
            raise TypeError("a text that is none")
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError("a fraction beyond 0 and 1")
        return Entry(attempt, step, EntryKind(kind), at_us, fraction, text, place)
    except (ValueError, TypeError) as error:
        raise BadRow(f"entry row {row[:2]!r}: {error}") from None
