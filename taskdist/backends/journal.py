"""The journal: the tables of the embedded backend in SQLite, which hold values of the core.

It knows SQL and nothing of rules. One connection writes and checkpoints. A row is decoded when it
is read, so a bad one never blocks a start.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any, cast

import apsw

from taskdist.backends import entry_rows, statements
from taskdist.backends.clock import Clocks
from taskdist.backends.identities import Identities
from taskdist.backends.log import Log
from taskdist.backends.reserve import Reserve
from taskdist.backends.rows import (
    ATTEMPT_COLUMNS,
    NUMBER_MAX,
    SELECT_TASK,
    SELECTED_LEASE,
    TASK_COLUMNS,
    USUAL_COLUMNS,
    BadRow,
    attempt_row,
    checked,
    checksum,
    decode_attempt,
    decode_lease,
    decode_task,
    is_plain,
    lease_row,
    read_result,
    task_row,
    updated_row,
    updated_times_row,
)
from taskdist.backends.selecting import each, readable
from taskdist.backends.store_file import (
    close_without_writing,
    is_for_want_of_room,
    lock,
    open_writer,
    resolved,
    unlock,
)
from taskdist.backends.unwritten import Unwritten, in_steps
from taskdist.core.commands import Change
from taskdist.core.entries import Kept
from taskdist.core.errors import StoreHasNoRoom
from taskdist.core.task import Attempt, Task, TaskState
from taskdist.limits import ATTEMPTS_KEPT_MAX


class _Savepoint(Enum):
    NONE = auto()
    WANTED = auto()
    MADE = auto()


class Journal:
    """The rows of one store. `path` None keeps them in memory, which is SQLite's `:memory:`.

    Args:
        reserve_bytes: room on its disk for what ends tasks when there is no other.
        spare_bytes: how much more must be free before that is kept again.

    Raises:
        StoreUnusable: the file cannot be used; the text says why.
        StoreFailed: it is damaged.
    """

    def __init__(
        self,
        path: Path | None,
        policy: str,
        tiers: Iterable[str],
        reserve_bytes: int = 0,
        spare_bytes: int = 0,
    ) -> None:
        path = path and resolved(path)
        self.path = path
        self._owner_lock = lock(path) if path else None
        self.reserve = Reserve(path, reserve_bytes, spare_bytes)
        order = (policy, ",".join(tiers))
        try:
            try:
                self.connection = open_writer(path, *order)
            except StoreHasNoRoom:
                if not self.reserve.give_up():
                    raise
                self.connection = open_writer(path, *order)
        except BaseException:
            self._unlock()
            raise
        self._savepoint = _Savepoint.NONE
        self._unwritten = Unwritten()
        self.identities = Identities(self.connection)
        self._entries = entry_rows.Entries(self.connection)
        self.log = Log(self.connection)

    def close(self) -> None:
        """Copies the log into the database, closes it and gives up the lock."""
        try:
            if self.path:
                self.log.checkpoint(truncate=True)
            self.connection.close()
        finally:
            self._unlock()

    def abandon(self) -> None:
        """Closes without writing, after a failure."""
        try:
            close_without_writing(self.connection)
        finally:
            self._unlock()

    # --- reading, by the writer ---

    def clocks(self) -> Clocks:
        """What `commit` saved last; no number is given twice, also where that is damaged."""
        newest = "SELECT ifnull(max(sequence), 0) FROM task WHERE sequence <= ?"
        columns = f"served_us, newest_enqueued_us, max(last_sequence, ({newest}))"
        row = self.connection.execute(f"SELECT {columns} FROM store", (NUMBER_MAX,)).get
        return Clocks(*row)

    def tasks_with_data(self, sequences: Sequence[int]) -> Iterator[tuple[Task, bytes] | BadRow]:
        """The task of each of these rows, and its data; or why it cannot be had."""
        self.flush()
        self._begin()  # They are about to change, and outside of it each row is locked for itself.
        for some in in_steps(sequences):
            rows = self.connection.execute(statements.SELECT_WANTED[len(some)], some)
            try:
                for sequence, read in zip(some, each(rows), strict=False):
                    yield _with_data(sequence, read)
            finally:
                rows.close(True)  # Whoever has enough of them leaves the rest unread.

    def attempt(self, sequence: int, lease_id: str, agent_id: str) -> Attempt | None:
        """The attempt under this lease; without a lease_id the last one of this agent."""
        self.flush()
        query = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempt WHERE sequence = ? "
        if lease_id:
            query, wanted = query + "AND lease_id = ?", lease_id
        else:
            query, wanted = query + "AND agent_id = ? ORDER BY attempt DESC LIMIT 1", agent_id
        for row in readable(self.connection, query, (sequence, wanted)):
            return decode_attempt(row)
        return None

    def entries(self, task: Task) -> list[Kept]:
        """What is kept of a task's progress and log lines."""
        # Those of others may wait to be written with more of them.
        if self.identities.is_unwritten(task.id):
            self.flush()
        return entry_rows.kept_of(self.connection, task.sequence)

    def result(self, sequence: int) -> bytes:
        """The result of a task that succeeded.

        Raises:
            BadRow: it is not what was written.
        """
        self.flush()
        return read_result(self.connection, sequence)

    def leased(self, served_us: int) -> Iterator[Task | BadRow]:
        """The leased tasks, each under its lease with a full term from now."""
        query = SELECT_TASK + f", {SELECTED_LEASE} FROM lease JOIN task USING (sequence)"
        split = len(TASK_COLUMNS)
        for row in readable(self.connection, query):
            try:
                lease = decode_lease(row[split:], 0).extended(served_us)
                task = decode_task(row[:split], lease)
            except BadRow as reason:
                yield reason
            else:
                leased = task.state is TaskState.LEASED
                yield task if leased else BadRow(f"task row {row[0]!r}: leased, yet {task.state}")

    def waiting(self, after: int, until: int) -> list[tuple[Any, ...]]:
        """(queue, kind, state, data_bytes, retry_count, user_tier, est, enqueued, sequence) of the
        ready and scheduled tasks whose sequence is in (after, until]."""
        query = (
            "SELECT queue, kind, state, data_bytes, retry_count, user_tier, est_processing_time_us,"
            " enqueued_at_us, sequence FROM task WHERE sequence > ? AND sequence <= ?"
            " AND state IN ('ready', 'scheduled')"
        )
        try:
            return self.connection.execute(query, (after, until)).fetchall()
        except UnicodeDecodeError:
            numbered = query.replace("SELECT", "SELECT sequence,", 1)
            rows = readable(self.connection, numbered, (after, until))
            return [(*row[:-1], sequence) for sequence, *row in rows]

    def next_sequence(self, after: int) -> int | None:
        """That of the first row after it."""
        query = "SELECT min(sequence) FROM task WHERE sequence > ?"
        return cast("int | None", self.connection.execute(query, (after,)).get)

    def tasks_where(self, which: str, more: str = "") -> Iterator[tuple[Any, ...]]:
        """The rows of a condition in its order, with `more` columns after TASK_COLUMNS, read as
        they are wanted."""
        self.flush()
        yield from readable(self.connection, f"{SELECT_TASK}{more}FROM task WHERE {which}")

    def count_finished(self, state: TaskState) -> int:
        """How many tasks have come to this end."""
        query = "SELECT count(*) FROM task WHERE finished_at_us IS NOT NULL AND state = ?"
        return int(self.connection.execute(query, (state,)).get)

    # --- writing ---

    def save(self, change: Change) -> int:
        """Takes a change into the open transaction; begins one if there is none and it has rows.

        They are written by `flush`. A task has one change among them, so that their order does not
        matter.

        Returns:
            How many rows it has.
        """
        before, after = change.before, change.after
        if self.identities.may_clash(change):
            self.flush()
        if after is None:
            return self._forget(change)
        rows = 0
        write = self._unwritten.add
        if before is None:
            if is_plain(after):
                rows += write(statements.INSERT_PLAIN_TASK, task_row(after, USUAL_COLUMNS))
            else:
                rows += write(statements.INSERT_TASK, task_row(after, TASK_COLUMNS))
            data = change.data or b""
            rows += write(
                statements.INSERT_DATA, (after.sequence, data, checksum(after.sequence, data))
            )
        elif before.state is not after.state:  # All but a heartbeat, which the journal lets pass.
            if before.due_at_us or after.due_at_us or before.deadline_us != after.deadline_us:
                rows += write(statements.UPDATE_TIMES, updated_times_row(after))
            else:
                rows += write(statements.UPDATE_TASK, updated_row(after))
        old, new = before and before.lease, after.lease
        if old and not new:
            rows += write(statements.DELETE_LEASE, (after.sequence,))
        elif new and not old:
            rows += write(statements.INSERT_LEASE, lease_row(after.sequence, new))
        if change.attempt:
            rows += write(statements.INSERT_ATTEMPT, attempt_row(after.sequence, change.attempt))
            dropped = change.attempt.attempt - ATTEMPTS_KEPT_MAX
            if dropped > 0:
                rows += write(statements.DELETE_ATTEMPT, (after.sequence, dropped))
        if change.result is not None:  # Also an empty one: a row that is missing is noticed.
            sum_ = checksum(after.sequence, change.result)
            rows += write(statements.INSERT_RESULT, (after.sequence, change.result, sum_))
        if change.entries:
            rows += self._entries.save(change, after.sequence, self._unwritten)
        if rows:
            self._begin()
            self.identities.add(change)
        return rows

    def _forget(self, change: Change) -> int:
        task = change.before
        assert task is not None
        self._begin()
        for statement in statements.FORGOTTEN:
            self._unwritten.add(statement, (task.sequence,))
        self._entries.forget(task.sequence, self._unwritten)
        self.identities.add(change)
        return len(statements.FORGOTTEN)

    def flush(self) -> None:
        """Writes what was saved into the tables, for all that reads them before the commit."""
        if self._unwritten and self._savepoint is _Savepoint.WANTED:
            self.connection.execute("SAVEPOINT several")
            self._savepoint = _Savepoint.MADE
        self._unwritten.write(self.connection)
        self.identities.written()

    def commit(self, clocks: Clocks) -> None:
        """Makes what was saved durable, with the clocks. Nothing to do if nothing was saved."""
        if self.connection.in_transaction:
            self.flush()
            self.save_clocks(clocks)
            self.log.commit()

    def save_clocks(self, clocks: Clocks) -> None:
        """Writes the clocks into the open transaction; begins one if there is none."""
        self._begin()
        self.connection.execute(
            "UPDATE store SET served_us = ?, newest_enqueued_us = ?, last_sequence = ?", clocks
        )

    def rollback(self) -> None:
        """Undoes what was saved since the last commit."""
        self._forget_unwritten()
        self._savepoint = _Savepoint.NONE
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def savepoint(self) -> None:
        """Remembers this point of the transaction.

        Made when rows are written before it is forgotten, which they mostly are not.
        """
        self.flush()
        self._savepoint = _Savepoint.WANTED

    def rollback_to_savepoint(self) -> None:
        """Undoes what was saved since the savepoint, and forgets it."""
        self._forget_unwritten()
        if self._savepoint is _Savepoint.MADE:
            self.connection.execute("ROLLBACK TO several")
        self.release_savepoint()

    def release_savepoint(self) -> None:
        """Forgets the savepoint; what was saved since stays."""
        if self._savepoint is _Savepoint.MADE:
            self.connection.execute("RELEASE several")
        self._savepoint = _Savepoint.NONE

    def full_disk(self, error: apsw.Error) -> apsw.FullError:
        """An error of a full disk, whatever SQLite calls it; one of anything else is raised."""
        if not is_for_want_of_room(error, self.connection):
            raise error
        return apsw.FullError(str(error))

    def make_room(self, now_us: int) -> bool:
        """On a full disk: gives the reserve up, if there is one, and begins the log anew."""
        has_given_up = self.reserve.give_up(now_us)
        self.log.checkpoint(truncate=has_given_up)
        return has_given_up

    def _begin(self) -> None:
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")

    def _forget_unwritten(self) -> None:
        self._unwritten.forget()
        self.identities.written()

    def _unlock(self) -> None:
        if self._owner_lock is not None:
            unlock(self._owner_lock)
            self._owner_lock = None


def _with_data(sequence: int, read: tuple[Any, ...] | None) -> tuple[Task, bytes] | BadRow:
    *row, data, sum_ = read or (sequence, *[None] * (len(TASK_COLUMNS) + 1))
    if row[0] is None:
        return BadRow(f"task row {sequence}: it, or its data, is missing or damaged")
    try:
        return decode_task(tuple(row)), checked(sequence, data, sum_, "data")
    except BadRow as reason:
        return reason
