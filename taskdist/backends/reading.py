"""How queries are read from a journal: SQL for each, on any connection to it.

A page looks at a bounded number of rows, so that a rare filter cannot hold up other readers.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import apsw
import structlog

from taskdist.backends import entry_rows, rows
from taskdist.backends.selecting import readable
from taskdist.core.errors import TaskNotFound
from taskdist.core.queries import (
    Followed,
    FollowTask,
    GetTask,
    ListTasks,
    Query,
    Selected,
    SelectFinished,
    TaskHistory,
    TaskPage,
)
from taskdist.core.task import Task, TaskState
from taskdist.limits import PAGE_ROWS_SCANNED_MAX

A = TypeVar("A")

_WEIGHT = (
    "max(0, ifnull(CAST(data_bytes AS INTEGER), 0))"
    " + ifnull((SELECT length(result) FROM result WHERE result.sequence = task.sequence), 0)"
)
"""The bytes of a task's data and result, whatever a damaged row says of them."""

log = structlog.get_logger()


def run(query: Query[A], connection: apsw.Connection) -> A:
    """Reads from one consistent snapshot.

    Raises:
        Refused: what was asked for is not there.
    """
    with connection:  # One snapshot for all statements: a savepoint is a read transaction.
        match query:
            case GetTask():
                return cast(A, _get(query.task_id, connection))
            case FollowTask():
                return cast(A, _follow(query, connection))
            case ListTasks():
                return cast(A, _list(query, connection))
            case SelectFinished():
                return cast(A, _select(query, connection))
    raise TypeError(f"no such query: {query!r}")


def _get(task_id: str, connection: apsw.Connection) -> TaskHistory:
    select = (
        rows.SELECT_TASK + f", {rows.SELECTED_LEASE} FROM task LEFT JOIN lease USING (sequence)"
        " WHERE id = ?"
    )
    row = next(readable(connection, select, (rows.id_blob(task_id),)), None)
    if row is None:
        raise TaskNotFound(f"no task has the id {task_id}")
    split = len(rows.TASK_COLUMNS)
    lease = None if row[split] is None else rows.decode_lease(row[split:], 0)
    task = rows.decode_task(row[:split], lease)
    attempts = readable(
        connection,
        f"SELECT {', '.join(rows.ATTEMPT_COLUMNS)} FROM attempt"
        " WHERE sequence = ? ORDER BY attempt",
        (task.sequence,),
    )
    is_there = task.state is TaskState.SUCCEEDED
    return TaskHistory(
        task,
        rows.read_result(connection, task.sequence) if is_there else b"",
        tuple(rows.decode_attempt(row) for row in attempts),
        entry_rows.last_progress(connection, task.sequence),
    )


def _follow(query: FollowTask, connection: apsw.Connection) -> Followed:
    history = _get(query.task_id, connection)
    sequence, limit = history.task.sequence, query.limit
    found = entry_rows.entries_after(connection, sequence, query.after, limit + 1) if limit else []
    newest = entry_rows.newest_place(connection, sequence)
    return Followed(history, tuple(found[:limit]), len(found) > limit, newest)


def _list(query: ListTasks, connection: apsw.Connection) -> TaskPage:
    conditions, values = _conditions(query)
    scanned = (
        "SELECT * FROM task WHERE sequence < ? ORDER BY sequence DESC "
        f"LIMIT {PAGE_ROWS_SCANNED_MAX}"
    )
    before = query.before if query.before is not None else 1 << 62
    select = (
        f"{rows.SELECT_TASK} FROM ({scanned}) AS task {conditions} ORDER BY sequence DESC LIMIT ?"
    )
    page = list(readable(connection, select, (before, *values, query.page_size)))
    if len(page) == query.page_size:
        end = page[-1][0]
    else:
        lowest = connection.execute(f"SELECT min(sequence) FROM ({scanned})", (before,))
        end = lowest.get
    more = (
        end is not None
        and connection.execute("SELECT EXISTS (SELECT 1 FROM task WHERE sequence < ?)", (end,)).get
    )
    return TaskPage(tuple(_decodable(page)), cast("int", end) if more else None)


def _select(query: SelectFinished, connection: apsw.Connection) -> Selected:
    """A page of one state, in the order of its index; then the next state's turn comes."""
    place, *after = query.after or (0, 0, 0)
    if place >= len(query.states):
        return Selected((), 0, None)
    scanned = (
        "SELECT finished_at_us, sequence, CAST(id AS BLOB) AS id, user_tier, kind, queue,"
        " data_bytes FROM task"
        " WHERE finished_at_us IS NOT NULL AND state = ?"
        " AND (finished_at_us, sequence) > (?, ?) AND finished_at_us <= ?"
        f" ORDER BY finished_at_us, sequence LIMIT {PAGE_ROWS_SCANNED_MAX}"
    )
    start = (query.states[place], *after, query.finished_before_us)
    conditions, values = _same(query)
    weight = f", {_WEIGHT}" if query.bytes_max else ""
    found: list[tuple[Any, ...]] = connection.execute(
        f"SELECT finished_at_us, sequence, ifnull(id, x''){weight}"
        f" FROM ({scanned}) AS task {_where(conditions)} ORDER BY finished_at_us, sequence LIMIT ?",
        (*start, *values, query.limit or PAGE_ROWS_SCANNED_MAX),
    ).fetchall()
    page = _light(found, query.bytes_max) if query.bytes_max else found
    next_after: tuple[int, int, int]
    if len(page) < len(found) or (page and len(page) == query.limit):
        next_after = (place, page[-1][0], page[-1][1])
    else:
        end = f"SELECT finished_at_us, sequence FROM ({scanned}) LIMIT 1 OFFSET ?"
        last: Any = connection.execute(end, (*start, PAGE_ROWS_SCANNED_MAX - 1)).fetchone()
        next_after = (place, last[0], last[1]) if last else (place + 1, 0, 0)
    # One whose id is damaged cannot be named, and stays for people.
    named = [row[2] for row in page if len(row[2]) == rows.ID_BYTES] if query.limit else []
    ids = tuple(map(rows.id_text, named))
    return Selected(ids, len(page), next_after if next_after[0] < len(query.states) else None)


def _light(page: list[tuple[Any, ...]], bytes_max: int) -> list[tuple[Any, ...]]:
    """The first of these rows, whose last column is how heavy each is: as many as weigh so much
    together, and one at least."""
    total = 0
    for number, row in enumerate(page):
        total += row[-1]
        if number and total > bytes_max:
            return page[:number]
    return page


def _decodable(page: Iterable[tuple[Any, ...]]) -> Iterator[Task]:
    for row in page:
        try:
            yield rows.decode_task(row)
        except rows.BadRow as reason:
            log.error("row set aside", reason=str(reason))


def _conditions(query: ListTasks) -> tuple[str, list[Any]]:
    parts, values = _same(query)
    if query.states:
        parts.append(f"state IN ({', '.join('?' * len(query.states))})")
        values += query.states
    if query.id_ending:
        parts.append("substr(hex(id), ?) = ?")
        values += [-len(query.id_ending), query.id_ending.upper()]
    return _where(parts), values


def _same(query: ListTasks | SelectFinished) -> tuple[list[str], list[Any]]:
    """The filters that ask for one value of a column."""
    wanted = {"user_tier": query.user_tier, "kind": query.kind, "queue": query.queue}
    set_ = {column: text for column, text in wanted.items() if text}
    return [f"{column} = ?" for column in set_], list(set_.values())


def _where(conditions: Sequence[str]) -> str:
    return "WHERE " + " AND ".join(conditions) if conditions else ""
