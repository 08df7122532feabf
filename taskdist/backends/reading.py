"""How queries are read from a journal: SQL for each, on any connection to it.

A page looks at a bounded number of rows, so that a rare filter cannot hold up other readers.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

import apsw
import structlog

from taskdist.backends import rows
from taskdist.core.errors import TaskNotFound
from taskdist.core.queries import GetTask, ListTasks, Query, TaskHistory, TaskPage
from taskdist.core.task import Task
from taskdist.settings import PAGE_ROWS_SCANNED_MAX

A = TypeVar("A")

log = structlog.get_logger()


def run(query: Query[A], connection: apsw.Connection) -> A:
    """Reads from one consistent snapshot.

    Raises:
        Refused: what was asked for is not there.
    """
    with connection:  # One snapshot for all statements: a savepoint is a read transaction.
        match query:
            case GetTask():
                return cast(A, _get(query, connection))
            case ListTasks():
                return cast(A, _list(query, connection))
    raise TypeError(f"no such query: {query!r}")


def _get(query: GetTask, connection: apsw.Connection) -> TaskHistory:
    select = (
        rows.SELECT_TASK
        + f", {', '.join(rows.LEASE_COLUMNS)} FROM task LEFT JOIN lease USING (sequence)"
        " WHERE id = ?"
    )
    row = connection.execute(select, (rows.id_blob(query.task_id),)).fetchone()
    if row is None:
        raise TaskNotFound(f"no task has the id {query.task_id}")
    split = len(rows.TASK_COLUMNS)
    lease = None if row[split] is None else rows.decode_lease(row[split:], 0)
    task = rows.decode_task(row[:split], lease)
    attempts = connection.execute(
        f"SELECT {', '.join(rows.ATTEMPT_COLUMNS)} FROM attempt"
        " WHERE sequence = ? ORDER BY attempt",
        (task.sequence,),
    )
    result = connection.execute("SELECT result FROM result WHERE sequence = ?", (task.sequence,))
    return TaskHistory(
        task,
        result.get or b"",
        tuple(rows.decode_attempt(row) for row in attempts),
    )


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
    page = connection.execute(select, (before, *values, query.page_size)).fetchall()
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


def _decodable(page: Iterable[tuple[Any, ...]]) -> Iterator[Task]:
    for row in page:
        try:
            yield rows.decode_task(row)
        except rows.BadRow as reason:
            log.error("row set aside", reason=str(reason))


def _conditions(query: ListTasks) -> tuple[str, list[Any]]:
    parts: list[str] = []
    values: list[Any] = []
    if query.states:
        parts.append(f"state IN ({', '.join('?' * len(query.states))})")
        values += query.states
    for column, wanted in (
        ("user_tier", query.user_tier),
        ("kind", query.kind),
        ("queue", query.queue),
    ):
        if wanted:
            parts.append(f"{column} = ?")
            values.append(wanted)
    if query.id_ending:
        parts.append("substr(hex(id), ?) = ?")
        values += [-len(query.id_ending), query.id_ending.upper()]
    return ("WHERE " + " AND ".join(parts) if parts else ""), values
