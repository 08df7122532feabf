"""Whether a store is sound: SQLite's own check of the whole file, then ours of each task.

The file is looked at in one snapshot. Tasks are in many, each some milliseconds long, so that the
write-ahead log is not held while Python looks at a million rows; all that belongs to a task is read
in the same one.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from time import monotonic_ns
from typing import Any, cast

import apsw

from taskdist.backends import entry_rows, rows
from taskdist.backends.selecting import readable
from taskdist.backends.store_file import knows_its_clocks
from taskdist.core import soundness
from taskdist.core.inspecting import Checked
from taskdist.limits import ATTEMPTS_KEPT_MAX, CHECK_FAULTS_TOLD_MAX

STEP_NS = 10_000_000
"""How long it reads rows from one snapshot, some 500 tasks: nothing waits for longer."""

LOOK_STEPS = 20_000
"""SQLite's steps between two looks at whether the check is still wanted: a few milliseconds."""

FIRST = -(1 << 63)
LAST = (1 << 63) - 1
"""Of all numbers that a row can have."""

BELONGINGS = ("data", "result", "lease", "attempt", "entry")
"""The tables with what belongs to a task."""

_SELECT = (
    f"{rows.SELECT_TASK}, data.data, data.checksum, result.result, result.checksum,"
    f" {rows.SELECTED_LEASE} FROM task LEFT JOIN data USING (sequence)"
    " LEFT JOIN result USING (sequence) LEFT JOIN lease USING (sequence)"
    " WHERE task.sequence > ? ORDER BY task.sequence"
)
_CONTENTS = len(rows.TASK_COLUMNS)
_LEASE = _CONTENTS + 4
_ATTEMPTS = (
    f"SELECT sequence, {', '.join(rows.ATTEMPT_COLUMNS)} FROM attempt"
    " WHERE sequence > ? AND sequence <= ?"
)
_ENTRIES = (
    f"SELECT sequence, {', '.join(entry_rows.ENTRY_COLUMNS)} FROM entry"
    " WHERE sequence > ? AND sequence <= ?"
)


class StoreCheck:
    """One check of the store behind a connection.

    Args:
        connection: for reading only, and for nothing else meanwhile.
        look: called every few milliseconds; what it raises ends the check.
        released: called once the log is held no more.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        look: Callable[[], None],
        released: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._look = look
        self._released = released
        self._store_bytes = 0
        self._tasks = 0
        self._tasks_in_all = 0
        self._attempts = 0
        self._after = FIRST
        self._faults: list[str] = []
        self._fault_count = 0

    def steps(self) -> Iterator[Checked]:
        """Checks some, and says how far it is; again, until it is done.

        Raises:
            apsw.Error: the file cannot be read, for another reason than that it is damaged.
        """
        try:
            pages = self._connection.pragma("page_count")
            self._store_bytes = pages * self._connection.pragma("page_size")
            yield self._told()
            self._check_file()
            self._released()
            self._tasks_in_all = self._connection.execute("SELECT count(*) FROM task").get
            yield self._told()
            while self._check_some():
                self._look()
                yield self._told()
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self._found(f"store: nothing after task row {self._after} can be read: {error}")
        yield self._told(done=True)

    def _told(self, *, done: bool = False) -> Checked:
        faults, self._faults = tuple(self._faults), []
        return Checked(
            self._store_bytes,
            self._tasks,
            max(self._tasks, self._tasks_in_all),
            self._attempts,
            faults,
            self._fault_count,
            done,
        )

    def _found(self, fault: str) -> None:
        self._fault_count += 1
        if self._fault_count <= CHECK_FAULTS_TOLD_MAX:
            self._faults.append(" ".join(fault.split()))

    def _check_file(self) -> None:
        self._look()
        self._connection.set_progress_handler(self._may_go_on, LOOK_STEPS)
        try:
            check = f"PRAGMA integrity_check({CHECK_FAULTS_TOLD_MAX})"
            for (text,) in self._connection.execute(check):
                for line in text.splitlines():
                    if line != "ok":
                        self._found(f"file: {line}")
        finally:
            self._connection.set_progress_handler(None)

    def _may_go_on(self) -> bool:
        self._look()
        return False

    # --- tasks ---

    def _check_some(self) -> bool:
        """The next tasks, in one snapshot. Returns whether there are more."""
        end_ns = monotonic_ns() + STEP_NS
        runs: dict[int, int] = {}
        with self._connection:
            newest = self._newest()
            after, until = self._after, LAST
            # The rest is left for the next step.
            with closing(readable(self._connection, _SELECT, (after,))) as found:
                for row in found:
                    runs[row[0]] = self._check_task(row, newest)
                    self._after = row[0]
                    if monotonic_ns() > end_ns:
                        until = row[0]
                        break
            self._check_attempts(after, until, runs)
            self._check_entries(after, until)
            for table in BELONGINGS:
                self._check_owners(table, after, until)
        return until < LAST

    def _newest(self) -> tuple[int, int]:
        """The number and the time up to which the store goes."""
        if not knows_its_clocks(self._connection):
            if self._after == FIRST:
                self._found("store: it does not say up to where it goes")
            return LAST, LAST
        clocks = "SELECT last_sequence, newest_enqueued_us FROM store"
        return cast("tuple[int, int]", self._connection.execute(clocks).fetchone())

    def _check_task(self, row: tuple[Any, ...], newest: tuple[int, int]) -> int:
        """Returns how many runs it has begun."""
        self._tasks += 1
        sequence = row[0]
        if not any(column is not None for column in row[1:]):
            self._found(f"task row {sequence}: text in it, or in what belongs to it, is not UTF-8")
            return LAST  # Unknown.
        data, data_sum, result, result_sum = row[_CONTENTS:_LEASE]
        lease = None
        if row[_LEASE] is not None:
            try:
                lease = rows.decode_lease(row[_LEASE:], 0)
            except rows.BadRow as error:
                self._found(f"task row {sequence}: {error}")
        try:
            task = rows.decode_task(row[:_CONTENTS], lease)
        except rows.BadRow as error:
            self._found(str(error))
            return LAST  # Unknown.
        name = f"task {task.id}"
        for what, content, sum_ in (("data", data, data_sum), ("result", result, result_sum)):
            if content is not None or what == "data":
                try:
                    rows.checked(sequence, content, sum_, what)
                except rows.BadRow as error:
                    self._found(str(error))
        if isinstance(data, bytes):
            for fault in soundness.faults(
                task, data_bytes=len(data), has_result=result is not None
            ):
                self._found(f"{name}: {fault}")
        if sequence > newest[0]:
            self._found(f"{name}: row {sequence}, yet the last one given is {newest[0]}")
        if task.enqueued_at_us > newest[1]:
            self._found(f"{name}: enqueued later than the newest task")
        return task.attempt

    def _check_entries(self, after: int, until: int) -> None:
        for sequence, *columns in readable(self._connection, _ENTRIES, (after, until)):
            try:
                entry_rows.decode_entry(tuple(columns))
            except rows.BadRow as error:
                self._found(f"task row {sequence}: {error}")

    def _check_attempts(self, after: int, until: int, runs: dict[int, int]) -> None:
        kept: Counter[int] = Counter()
        for sequence, *columns in readable(self._connection, _ATTEMPTS, (after, until)):
            self._attempts += 1
            kept[sequence] += 1
            try:
                attempt = rows.decode_attempt(tuple(columns))
            except (rows.BadRow, TypeError) as error:
                self._found(f"task row {sequence}: {error}")
                continue
            if not 1 <= attempt.attempt <= runs.get(sequence, attempt.attempt):
                self._found(
                    f"task row {sequence}: attempt {attempt.attempt} of {runs[sequence]} runs"
                )
        for sequence, count in kept.items():
            if count > ATTEMPTS_KEPT_MAX:
                self._found(
                    f"task row {sequence}: {count} attempts are kept; "
                    f"possible: at most {ATTEMPTS_KEPT_MAX}"
                )

    def _check_owners(self, table: str, after: int, until: int) -> None:
        orphans = (
            f"SELECT DISTINCT sequence FROM {table} WHERE sequence > ? AND sequence <= ? AND"
            f" NOT EXISTS (SELECT 1 FROM task WHERE task.sequence = {table}.sequence)"
        )
        for (sequence,) in self._connection.execute(orphans, (after, until)):
            self._found(f"{table} of task row {sequence}: there is no such task")
