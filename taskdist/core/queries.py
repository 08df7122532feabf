"""What can be read of a store, as values. Reads see what is durable and change nothing."""

from typing import Generic, TypeVar

from taskdist.core.entries import Entry
from taskdist.core.task import Attempt, Outcome, Task, TaskState
from taskdist.core.values import value

A_co = TypeVar("A_co", covariant=True)

Place = tuple[int, int]
"""An attempt, and a step of it."""


@value
class Query(Generic[A_co]):
    """Something to read; its parameter is the type of what comes back."""


@value
class TaskHistory:
    """A task with all that is kept of it, except its data."""

    task: Task
    result: bytes
    attempts: tuple[Attempt, ...]
    """Oldest first."""
    progress: Entry | None = None
    """The newest that its agents told of."""

    @property
    def error(self) -> str:
        """Why the task is dead, or else the text of the last failure, or nothing."""
        last = self.attempts[-1] if self.attempts else None
        if self.task.state is TaskState.DEAD:
            if last is None or last.led_to is not TaskState.DEAD:
                return self._why_overdue()
            if last.outcome is Outcome.LOST:
                return f"lost leases: {self.task.lost_count}, the last one by {last.agent_id}"
            if last.outcome is Outcome.RELEASED:
                times = self.task.hasty_releases
                return f"handed back in haste {times} times, the last one by {last.agent_id}"
        return self._last_failure()

    def _last_failure(self) -> str:
        return next((a.error for a in reversed(self.attempts) if a.error), "")

    def _why_overdue(self) -> str:
        """With the failure that it was to be tried again after, if there was one."""
        failure = self._last_failure() if self.task.retry_count else ""
        if not failure:
            return "its deadline passed before it could be started"
        return f"{failure.rstrip()}\nits deadline passed before retry {self.task.retry_count}"


@value
class TaskPage:
    """Tasks, newest first. May be short while there are more."""

    tasks: tuple[Task, ...]
    next_before: int | None
    """Where the next page begins; None when there is none."""


@value
class GetTask(Query[TaskHistory]):
    """One task by its id. Raises `TaskNotFound`."""

    task_id: str


@value
class Followed:
    """A task, and what its agents said of its runs."""

    history: TaskHistory
    entries: tuple[Entry, ...]
    """Those after the place that was asked for, in their order."""
    is_more: bool
    """Whether there are more of them."""
    newest: Place
    """Where they all end; (0, 0) if there are none."""


@value
class FollowTask(Query[Followed]):
    """A task and what its agents said of its runs. Raises `TaskNotFound`."""

    task_id: str
    after: Place
    limit: int
    """How many entries at most; 0: none are wanted."""


@value
class ListTasks(Query[TaskPage]):
    """A page of tasks, each of which passes every filter that is set."""

    states: tuple[TaskState, ...]
    user_tier: str
    kind: str
    queue: str
    id_ending: str
    """Hexadecimal digits without dashes."""
    page_size: int
    before: int | None
    """Only tasks of a smaller sequence."""


@value
class Selected:
    """Finished tasks that an operator means."""

    task_ids: tuple[str, ...]
    """The oldest of them, as many as were wanted."""
    count: int
    """How many there are of those that were looked at."""
    next_after: tuple[int, int, int] | None
    """Where the next page begins; None when there is none."""


@value
class SelectFinished(Query[Selected]):
    """A page of finished tasks, each of which passes every filter that is set, the oldest first."""

    states: tuple[TaskState, ...]
    """Final ones."""
    user_tier: str
    kind: str
    queue: str
    finished_before_us: int
    """Wall clock."""
    limit: int
    """How many to name; 0: to count them."""
    after: tuple[int, int, int] | None
    """Of the page before: the place of its last state among `states`, finished_at_us, sequence."""
    bytes_max: int = 0
    """How heavy, data and results, those that are named may be together, if they are more than one;
    0: as they like."""
