"""What falls due by itself: scheduled tasks, deadlines, backoffs, the end of retention.

The journal's indexes are the timetable: nothing of it is in memory but the earliest time of each
sort, so that a look costs nothing until that has come.
"""

from collections.abc import Iterator, Sequence
from heapq import merge
from operator import itemgetter
from typing import Any

import structlog

from taskdist.backends.journal import Journal
from taskdist.backends.rows import TASK_COLUMNS, BadRow, decode_task
from taskdist.core import commands
from taskdist.core.commands import Command, Moment
from taskdist.core.task import Task, TaskState
from taskdist.limits import REMOVED_BYTES_MAX
from taskdist.settings import DistributorSettings

log = structlog.get_logger()

TASKS_MAX = 250
"""Tasks of one sort in one batch: some 5 ms of work."""

NEVER_US = 1 << 62

# Each is an index of the journal, in its order.
_NOT_BEFORE = "due_at_us IS NOT NULL AND backoff_until_us IS NULL ORDER BY due_at_us"
_BACKOFF = "backoff_until_us IS NOT NULL ORDER BY backoff_until_us"
_DEADLINE = "deadline_us IS NOT NULL AND state IN ('scheduled', 'ready') ORDER BY deadline_us"
_FINISHED = "finished_at_us IS NOT NULL AND state = '{}' ORDER BY finished_at_us"
_RESULT_BYTES = (
    ", ifnull((SELECT length(result) FROM result WHERE result.sequence = task.sequence), 0) "
)

_WAIT = (TaskState.SCHEDULED, TaskState.READY)
_KEPT = {
    False: (TaskState.SUCCEEDED, TaskState.CANCELLED),
    True: (TaskState.DEAD,),
}
"""The states whose tasks are kept together: those that are not dead, and those that are."""


class Timetable:
    """Which tasks of a journal something falls due for, and when."""

    def __init__(self, journal: Journal, settings: DistributorSettings) -> None:
        self._journal = journal
        self._settings = settings
        # The past: it looks for all of them at once.
        self._not_before_us = self._backoff_us = self._deadline_us = self._forget_us = 0
        self._aside: set[int] = set()
        """Sequences of rows that could not be read when it was their turn."""
        self._kept = {
            state: journal.count_finished(state) for states in _KEPT.values() for state in states
        }

    # --- following changes ---

    def add(self, task: Task) -> None:
        """A task is as it is now: something may fall due for it earlier than for all others."""
        if task.state.is_final:
            if task.sequence in self._aside:
                return  # It is never forgotten, so it must not be in excess.
            self._kept[task.state] += 1
            finished_us = task.finished_at_us or 0
            kept_us = self._retention_us(are_dead=task.state is TaskState.DEAD)
            self._forget_us = min(self._forget_us, finished_us + kept_us)
            return
        if task.deadline_us is not None and task.lease is None:
            self._deadline_us = min(self._deadline_us, task.deadline_us)
        if task.backoff_until_us is not None:
            self._backoff_us = min(self._backoff_us, task.backoff_until_us)
        elif task.due_at_us is not None:
            self._not_before_us = min(self._not_before_us, task.due_at_us)

    def remove(self, task: Task) -> None:
        """A task is not any more as it was."""
        if task.state.is_final and task.sequence not in self._aside:
            self._kept[task.state] -= 1

    @property
    def is_any_in_backoff(self) -> bool:
        """Whether some task waits for a time on the served clock, as far as is known."""
        return self._backoff_us < NEVER_US

    # --- what is due ---

    def next_due_us(self, moment: Moment) -> int:
        """How long from now until something is due; not positive when it is."""
        if self._too_many():
            return 0
        by_wall = min(self._not_before_us, self._deadline_us, self._forget_us)
        return min(by_wall - moment.wall_us, self._backoff_us - moment.served_us)

    def due(self, moment: Moment) -> Iterator[Command[commands.Done]]:
        """The commands to apply now, in this order."""
        if self._deadline_us <= moment.wall_us:
            yield commands.Overdue()
        if self._not_before_us <= moment.wall_us or self._backoff_us <= moment.served_us:
            yield commands.Due()
        if self._forget_us <= moment.wall_us or self._too_many():
            yield commands.Forget()

    def overdue(self, moment: Moment) -> list[Task]:
        """Tasks whose deadline has passed, the earliest first."""
        tasks, self._deadline_us = self._until(_DEADLINE, _WAIT, "deadline_us", moment.wall_us)
        return tasks

    def not_early(self, moment: Moment) -> list[Task]:
        """Scheduled tasks whose time has come, the earliest first."""
        early = (TaskState.SCHEDULED,)
        by_wall, self._not_before_us = self._until(_NOT_BEFORE, early, "due_at_us", moment.wall_us)
        by_served, self._backoff_us = self._until(
            _BACKOFF, early, "backoff_until_us", moment.served_us
        )
        return by_wall + by_served

    def forgettable(self, moment: Moment) -> list[Task]:
        """Finished tasks after their retention, or too many of them, the oldest first."""
        found = [self._forgettable(moment, are_dead=are_dead) for are_dead in _KEPT]
        # Only now: a full disk may end a look, and then it is looked again.
        self._forget_us = min(next_us for _, next_us in found)
        return [task for tasks, _ in found for task in tasks]

    def _forgettable(self, moment: Moment, *, are_dead: bool) -> tuple[list[Task], int]:
        """Those of one kind, and when to look again."""
        tasks: list[Task] = []
        size = 0
        for finished_us, task, result_bytes in self._oldest(are_dead=are_dead):
            over_us = finished_us + self._retention_us(are_dead=are_dead)
            size += task.data_bytes + result_bytes
            is_full = len(tasks) == TASKS_MAX or (tasks and size > REMOVED_BYTES_MAX)
            # Counted anew each time: a bad row that was met meanwhile does not count.
            excess = self._excess(are_dead=are_dead)
            if is_full or (len(tasks) >= excess and over_us > moment.wall_us):
                return tasks, over_us
            tasks.append(task)
        return tasks, NEVER_US

    def _oldest(self, *, are_dead: bool) -> Iterator[tuple[int, Task, int]]:
        """When each finished, the task, and the bytes of its result."""
        states = [self._finished(state) for state in _KEPT[are_dead]]
        return merge(*states, key=itemgetter(0))

    def _finished(self, state: TaskState) -> Iterator[tuple[int, Task, int]]:
        for task, row in self._rows(_FINISHED.format(state), (state,), _RESULT_BYTES):
            yield task.finished_at_us or 0, task, row[-1]

    def _until(
        self, which: str, states: Sequence[TaskState], column: str, now_us: int
    ) -> tuple[list[Task], int]:
        """Those whose time in this column has come, and when to look again."""
        tasks: list[Task] = []
        for task, _ in self._rows(which, states):
            time_us: int = getattr(task, column)
            if time_us > now_us or len(tasks) == TASKS_MAX:
                return tasks, time_us
            tasks.append(task)
        return tasks, NEVER_US

    def _rows(
        self, which: str, states: Sequence[TaskState], more: str = ""
    ) -> Iterator[tuple[Task, tuple[Any, ...]]]:
        """The tasks of an index, which are in one of these states, and their rows. Whoever has
        enough of them leaves the rest unread."""
        for row in self._journal.tasks_where(which, more):
            if task := self._readable(row, states):
                yield task, row

    def _readable(self, row: tuple[Any, ...], states: Sequence[TaskState]) -> Task | None:
        """The task of this row; None, and said once, if it is a bad one."""
        if row[0] in self._aside:
            return None
        try:
            task = decode_task(row[: len(TASK_COLUMNS)])
            if task.state not in states:
                raise BadRow(f"task row {row[0]!r}: it has a time to wait for, yet {task.state}")
        except BadRow as reason:
            log.error("row set aside", reason=str(reason))
            self._aside.add(row[0])
            if states[0] in self._kept:
                self._kept[states[0]] -= 1  # It is never forgotten, so it must not be in excess.
            return None
        return task

    def _excess(self, *, are_dead: bool) -> int:
        settings = self._settings
        most = settings.dead_kept_max if are_dead else settings.finished_kept_max
        return sum(self._kept[state] for state in _KEPT[are_dead]) - most

    def _too_many(self) -> bool:
        return self._excess(are_dead=False) > 0 or self._excess(are_dead=True) > 0

    def _retention_us(self, *, are_dead: bool) -> int:
        return self._settings.dead_retention_us if are_dead else self._settings.retention_us
