"""Between the wire and the core: requests to commands, answers to responses.

Whatever is wrong with a request is found here, all of it at once, before anything is asked of a
backend. Times are seconds and timestamps on the wire, whole microseconds inside.
"""

import re

from taskdist.core import commands
from taskdist.core.commands import Placed
from taskdist.core.errors import InvalidFields, Refused
from taskdist.core.queries import GetTask, ListTasks, TaskHistory, TaskPage
from taskdist.core.task import Attempt, Backoff, Task, TaskState
from taskdist.core.values import value
from taskdist.limits import ID_ENDING_LENGTH_MIN, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, SECOND_US
from taskdist.wire import messages as wire
from taskdist.wire.checking import Faults
from taskdist.wire.codec import fields, make
from taskdist.wire.convert_entries import entry_told
from taskdist.wire.statuses import to_status
from taskdist.wire.times import timestamp

# --- requests to commands ---------------------------------------------------------------------


def task_id(message: wire.GetTaskRequest | wire.CancelTaskRequest | wire.WatchTaskRequest) -> str:
    """The id of the task that is asked about."""
    faults = Faults()
    value = faults.task_id(fields(message).task_id)
    faults.done()
    return value


def get(message: wire.GetTaskRequest) -> GetTask:
    """The task to look at."""
    return GetTask(task_id(message))


def cancel(message: wire.CancelTaskRequest) -> commands.Cancel:
    """The task to end."""
    return commands.Cancel(task_id(message))


def list_tasks(message: wire.ListTasksRequest) -> ListTasks:
    """Which tasks to list."""
    m = fields(message)
    faults = Faults()
    numbers = dict.fromkeys(m.states)
    states = tuple(state for state in map(core_state, numbers) if state)
    if len(states) != len(numbers):
        faults.add("states", [int(state) for state in numbers], ", ".join(TaskState))
    ending = m.id_ending.lower().replace("-", "")
    digits = f"[0-9a-f]{{{ID_ENDING_LENGTH_MIN},32}}"
    if m.id_ending and not re.fullmatch(digits, ending):
        faults.add("id_ending", m.id_ending, f"{ID_ENDING_LENGTH_MIN} or more of 0-9 a-f")
    if m.page_size > PAGE_SIZE_MAX:
        faults.add("page_size", m.page_size, f"0 to {PAGE_SIZE_MAX}")
    if m.cursor and not re.fullmatch(r"[0-9]{1,18}", m.cursor):
        faults.add("cursor", m.cursor, "the next_cursor of the page before, or nothing")
    query = ListTasks(
        states=states,
        user_tier=faults.name("user_tier", m.user_tier, optional=True),
        kind=faults.name("kind", m.kind, optional=True),
        queue=faults.name("queue", m.queue, optional=True),
        id_ending=ending,
        page_size=m.page_size or PAGE_SIZE_DEFAULT,
        before=int(m.cursor) if m.cursor and not faults.bad else None,
    )
    faults.done()
    return query


# --- answers to responses ---------------------------------------------------------------------


def refusal(refused: Refused) -> wire.Refusal:
    """Why one of several things was not done."""
    status = to_status(refused)
    bad = refused.fields if isinstance(refused, InvalidFields) else ()
    return make(
        wire.Refusal,
        code=status.status.value,
        message=status.message,
        bad_fields=[make(wire.BadField, field=field, reason=reason) for field, reason in bad],
    )


def cancelled(placed: Placed) -> wire.CancelTaskResponse:
    """That it is."""
    return make(wire.CancelTaskResponse, status=wire_state(placed.task.state))


def pong(message: wire.PingRequest, wall_us: int) -> wire.PingResponse:
    """The same message, and the time."""
    return make(wire.PingResponse, message=fields(message).message, timestamp=timestamp(wall_us))


def got(history: TaskHistory, position: int, waits_because: str = "") -> wire.GetTaskResponse:
    """All that is kept of a task."""
    progress = {} if history.progress is None else {"progress": entry_told(history.progress)}
    return make(
        wire.GetTaskResponse,
        task=_task(history.task, position, waits_because),
        result=history.result,
        error=history.error,
        attempts=[_attempt(attempt) for attempt in history.attempts],
        **progress,
    )


def listed(page: TaskPage) -> wire.ListTasksResponse:
    """A page of tasks."""
    return make(
        wire.ListTasksResponse,
        tasks=[_task(task) for task in page.tasks],
        next_cursor="" if page.next_before is None else str(page.next_before),
    )


def watched(
    task: Task, position: int, result: bytes, error: str, waits_because: str = "", number: int = 0
) -> wire.WatchTaskResponse:
    """A task after a change."""
    told = _task(task, position, waits_because)
    return make(wire.WatchTaskResponse, task=told, result=result, error=error, number=number)


@value
class Watching:
    """What somebody wants to be told of a task."""

    task_id: str
    entries: bool
    after: int | None
    """The number to go on from; None: from the present on."""


def watching(message: wire.WatchTaskRequest) -> Watching:
    """What is watched, and from where on."""
    m = fields(message)
    return Watching(task_id(message), m.entries, m.after)


def _task(task: Task, position: int = 0, waits_because: str = "") -> wire.Task:
    return make(
        wire.Task,
        task_id=task.id,
        state=wire_state(task.state),
        user_tier=task.user_tier,
        est_processing_time=task.est_processing_time_us / SECOND_US,
        kind=task.kind,
        queue=task.queue,
        sequence=task.sequence,
        retry_count=task.retry_count,
        max_retries=task.max_retries,
        lost_count=task.lost_count,
        attempt=task.attempt,
        queue_position=position,
        submitted_at=timestamp(task.submitted_at_us),
        agent_id=task.lease.agent_id if task.lease else "",
        data_bytes=task.data_bytes,
        run_timeout_seconds=(task.run_timeout_us or 0) / SECOND_US,
        lease_seconds=(task.lease_us or 0) / SECOND_US,
        idempotency_key=task.idempotency_key or "",
        waits_because=waits_because,
        **{name: timestamp(us) for name, us in _times(task) if us},
        **({} if task.backoff is Backoff.NONE else {"backoff": _backoff(task)}),
    )


def _times(task: Task) -> tuple[tuple[str, int | None], ...]:
    return (
        ("enqueued_at", task.enqueued_at_us),
        ("finished_at", task.finished_at_us),
        ("due_at", task.due_at_us),
        ("deadline", task.deadline_us),
        ("leased_at", task.lease.started_at_us if task.lease else None),
    )


def _backoff(task: Task) -> wire.Backoff:
    longest = {"max_seconds": task.backoff_max_us / SECOND_US} if task.backoff_max_us else {}
    return make(
        wire.Backoff,
        kind=getattr(wire.BackoffKind, task.backoff.name),
        initial_seconds=task.backoff_us / SECOND_US,
        jitter_percent=task.backoff_jitter_percent,
        **longest,
    )


def _attempt(attempt: Attempt) -> wire.Attempt:
    return make(
        wire.Attempt,
        attempt=attempt.attempt,
        agent_id=attempt.agent_id,
        session=attempt.session,
        lease_id=attempt.lease_id,
        started_at=timestamp(attempt.started_at_us),
        ended_at=timestamp(attempt.ended_at_us),
        outcome=wire.AttemptOutcome[attempt.outcome.name],
        error=attempt.error,
    )


_WIRE_STATES: dict[TaskState, wire.TaskState] = {
    state: getattr(wire.TaskState, state.name) for state in TaskState
}


def wire_state(state: TaskState) -> wire.TaskState:
    """The wire's word for a state."""
    return _WIRE_STATES[state]


def core_state(state: wire.TaskState) -> TaskState | None:
    """The core's word for a state; None for what is none."""
    return TaskState.__members__.get(state.name or "")
