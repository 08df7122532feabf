"""What can be read of a store, as values. Reads see what is durable and change nothing."""

from typing import Generic, TypeVar

from taskdist.core.task import Attempt, Task, TaskState
from taskdist.core.values import value

A_co = TypeVar("A_co", covariant=True)


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

    @property
    def error(self) -> str:
        """The text of the last failure, or nothing."""
        return next((a.error for a in reversed(self.attempts) if a.error), "")


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
