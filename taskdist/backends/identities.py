"""Which task has an id or an idempotency key: in the tables, or among what is about to be written.

New ones are looked for before they are added, without a flush; those of one batch together, since
SQLite gives the interpreter up at each step. Most need no look: ids of UUID's version 7 begin with
the time, and one that is beyond all that were ever added cannot be among them.
"""

from collections.abc import Sequence

import apsw

from taskdist.backends.rows import ID_BYTES, SELECT_TASK, decode_task, id_blob, id_text
from taskdist.backends.selecting import readable
from taskdist.backends.unwritten import ROWS_PER_STEP, in_steps
from taskdist.core.commands import Change
from taskdist.core.task import Task

_BY_ID = SELECT_TASK + "FROM task WHERE id = ?"
_BY_KEY = SELECT_TASK + "FROM task WHERE queue = ? AND idempotency_key = ?"
_KNOWN = {
    count: f"SELECT id FROM task WHERE id IN ({', '.join('?' * count)})" for count in ROWS_PER_STEP
}

_HORIZON = "04000000-0000-0000-0000-000000000000"
"""An id of May 2109, if it begins with the time. Those behind it do not, and the newest one is not
sought among them: after it no other would be new."""


class Identities:
    """The tasks of one journal by what names them.

    Args:
        connection: that of its writer.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._unwritten: dict[str, Task | None] = {}
        """The tasks that unwritten rows belong to, by id; None for one that is gone."""
        self._unwritten_keys: dict[tuple[str, str], Task] = {}
        """The new ones among them that have an idempotency key, by queue and key."""
        self._is_any_gone = False
        self._absent: set[str] = set()
        """Of the ids that were looked for ahead, those that are not in the tables."""
        self._newest: str | None = None
        """No id between this and the horizon is in the tables, or unwritten. None until it matters:
        a damaged index must not keep a start from what can be read."""

    def by_id(self, task_id: str) -> Task | None:
        """The task of this id; its lease, if it has one, is with those that know the live ones."""
        if task_id in self._unwritten:
            return self._unwritten[task_id]
        if task_id in self._absent:
            return None
        for row in readable(self._connection, _BY_ID, (id_blob(task_id),)):
            return decode_task(row)
        return None

    def by_key(self, queue: str, key: str) -> Task | None:
        """The task of this queue with this idempotency key, likewise."""
        if (queue, key) in self._unwritten_keys:
            return self._unwritten_keys[queue, key]
        for row in readable(self._connection, _BY_KEY, (queue, key)):
            task = decode_task(row)
            # One that is gone in this same transaction has given its key back.
            return self._unwritten.get(task.id, task)
        return None

    def look_ahead(self, task_ids: Sequence[str]) -> None:
        """These are asked for next, one by one, and most are of no task."""
        newest = self._newest
        if newest is None:  # A batch begins: nothing new is unwritten.
            newest = self._newest = _newest(self._connection)
        self._absent = {one for one in task_ids if newest < one < _HORIZON}
        blobs = {id_blob(one): one for one in task_ids if one not in self._absent}
        for some in in_steps(tuple(blobs)):
            for (known,) in self._connection.execute(_KNOWN[len(some)], some):
                del blobs[known]
        self._absent.update(blobs.values())

    def is_unwritten(self, task_id: str) -> bool:
        """Whether rows of this task are about to be written."""
        return task_id in self._unwritten

    def may_clash(self, change: Change) -> bool:
        """Whether what is unwritten has to be written first: a task has one change among it, and a
        new one may have the id or key of one that is gone."""
        task = change.after or change.before
        assert task is not None
        return task.id in self._unwritten or (change.before is None and self._is_any_gone)

    def add(self, change: Change) -> None:
        """Rows of this change are about to be written."""
        task = change.after
        if task is None:
            assert change.before is not None
            self._unwritten[change.before.id] = None
            self._is_any_gone = True
            return
        self._unwritten[task.id] = task
        if change.before is None:
            if self._newest is not None and self._newest < task.id < _HORIZON:
                self._newest = task.id
            if task.idempotency_key is not None:
                self._unwritten_keys[task.queue, task.idempotency_key] = task

    def written(self) -> None:
        """All rows are written, or forgotten."""
        self._absent.difference_update(self._unwritten)
        self._unwritten.clear()
        self._unwritten_keys.clear()
        self._is_any_gone = False


def _newest(connection: apsw.Connection) -> str:
    """The last id before the horizon that is in the tables; empty if there is none."""
    query = "SELECT id FROM task WHERE id >= x'' AND id < ? ORDER BY id DESC LIMIT 1"
    found = connection.execute(query, (id_blob(_HORIZON),)).get
    if found is None:
        return ""
    # A damaged one may have another length: no id begins as it does and comes behind this.
    return id_text(found.ljust(ID_BYTES, b"\xff")[:ID_BYTES])
