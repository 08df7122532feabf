"""What a client raises: one name for each thing that its caller may want to do about it.

Those that the distributor refuses with are the expected errors of `core/errors.py`, under the names
that callers look for.
"""

from collections.abc import Sequence
from typing import Any

from taskdist.core.errors import (
    Exhausted,
    InvalidFields,
    PreconditionFailed,
    Refused,
    TaskIdTaken,
    TaskNotFound,
    Unavailable,
)
from taskdist.kinds import InvalidInput, WrongResult
from taskdist.reports import gist

__all__ = [
    "AlreadyExists",
    "InvalidFields",
    "InvalidInput",
    "NotFound",
    "PreconditionFailed",
    "QueueFull",
    "Refused",
    "SubmittedInPart",
    "TaskCancelled",
    "TaskFailed",
    "Unavailable",
    "WaitTimeout",
    "WrongResult",
]

NotFound = TaskNotFound
"""No task has this id; it may have been forgotten after its retention."""

QueueFull = Exhausted
"""Too much waits, or the distributor's disk is full. Worth trying again after a while."""

AlreadyExists = TaskIdTaken
"""The task_id or key belongs to a task of different content."""


class TaskFailed(Exception):
    """The task is dead: out of retries or leases, not retryable, or past its deadline.

    Args:
        task_id: the task.
        error: the last failure's text; of a handler in Python, its traceback.
    """

    def __init__(self, task_id: str, error: str) -> None:
        why = gist(error)
        super().__init__(f"task {task_id} is dead: {why}")
        self.task_id = task_id
        self.error = error
        if error.strip() != why:
            self.add_note(f"As its agent reported it:\n\n{error.rstrip()}")


class TaskCancelled(Exception):
    """The task was cancelled."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"task {task_id} was cancelled")
        self.task_id = task_id


class WaitTimeout(TimeoutError):
    """The task was not finished in time. It goes on."""


class SubmittedInPart(Refused):
    """Of many tasks the first ones were submitted; then one was refused, which is the cause.

    Args:
        handles: those that are submitted, in the order of the values. None of the rest is.
        refusal: why it went no further.
    """

    def __init__(self, handles: Sequence[Any], refusal: Refused) -> None:
        super().__init__(f"submitted the first {len(handles)}; then: {refusal}")
        self.handles = tuple(handles)
        self.refusal = refusal
