"""Between the wire and the core: requests to commands, answers to responses.

Whatever is wrong with a request is found here, all of it at once, before anything is asked of a
backend. Times are seconds and timestamps on the wire, whole microseconds inside.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from taskdist.core import commands
from taskdist.core.commands import Placed
from taskdist.core.errors import InvalidFields, Refused
from taskdist.core.queries import GetTask, ListTasks, TaskHistory, TaskPage
from taskdist.core.task import Attempt, Task, TaskState, task_like
from taskdist.settings import (
    DATA_BYTES_MAX,
    EST_PROCESSING_TIME_MAX_US,
    ID_ENDING_LENGTH_MIN,
    MAX_RETRIES_DEFAULT,
    MAX_RETRIES_MAX,
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    SECOND_US,
    SUBMIT_TASKS_MAX,
)
from taskdist.wire import messages as wire
from taskdist.wire.checking import NAMES, Faults
from taskdist.wire.codec import fields, make
from taskdist.wire.statuses import to_status

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_SUBMIT_ALLOWED = {
    "kind": NAMES,
    "queue": NAMES,
    "max_retries": f"0 to {MAX_RETRIES_MAX}",
}
"""What may stand in the fields that only the task's own validation looks at."""


# --- requests to commands ---------------------------------------------------------------------


def submit(message: wire.SubmitTaskRequest, tiers: Sequence[str], new_id: str) -> commands.Submit:
    """The task that a client submits; `new_id` is for one without an id.

    Raises:
        InvalidFields: every field that is bad.
        TooLarge: nothing but the size of data.
    """
    faults = Faults()
    command = _submit(message, tiers, new_id, faults)
    faults.done()
    return command


def submit_several(
    message: wire.SubmitTasksRequest, tiers: Sequence[str], new_id: Callable[[], str]
) -> tuple[commands.Several, dict[int, Refused]]:
    """The tasks that a client submits, and those that are refused already, by their place.

    Raises:
        InvalidFields, TooLarge: how many there are; and, of all or nothing, every bad field.
    """
    m = fields(message)
    faults = Faults()
    if not 1 <= len(m.tasks) <= SUBMIT_TASKS_MAX:
        faults.reject("tasks", f"{len(m.tasks)} of them; allowed: 1 to {SUBMIT_TASKS_MAX}")
        faults.done()
    atomic = m.atomic is not False
    submits: list[commands.Submit] = []
    refused: dict[int, Refused] = {}
    for place, task in enumerate(m.tasks):
        own = Faults(f"tasks[{place}]." if atomic else "")
        command = _submit(task, tiers, new_id(), own, position_wanted=m.positions)
        if atomic:
            faults.include(own)
        elif refusal := own.refusal():
            refused[place] = refusal
            continue
        submits.append(command)
    faults.done()
    return commands.Several(tuple(submits), atomic=atomic), refused


def _submit(
    message: wire.SubmitTaskRequest,
    tiers: Sequence[str],
    new_id: str,
    faults: Faults,
    *,
    position_wanted: bool = True,
) -> commands.Submit:
    """The task of a request; one without fields of its own, if `faults` are found in them."""
    m = fields(message)
    if m.user_tier not in tiers:
        faults.add("user_tier", m.user_tier, ", ".join(tiers))
    chosen_id = faults.task_id(m.task_id) if m.task_id else new_id
    est_us = faults.seconds(
        "est_processing_time", m.est_processing_time, EST_PROCESSING_TIME_MAX_US
    )
    max_retries = MAX_RETRIES_DEFAULT if m.max_retries is None else m.max_retries
    data = faults.size("data", m.data, DATA_BYTES_MAX)
    try:
        alike = task_like(
            m.user_tier, est_us, m.kind or "simulate", m.queue or "default", max_retries
        )
        task = alike.evolve(id=chosen_id)
    except ValidationError as error:
        for fault in error.errors():
            field = str(fault["loc"][0])
            if field in _SUBMIT_ALLOWED:
                faults.add(field, fault["input"], _SUBMIT_ALLOWED[field])
        task = Task(id=new_id, user_tier=tiers[0], est_processing_time_us=0)
    return commands.Submit(
        task, data, client_made_id=bool(m.task_id), position_wanted=position_wanted
    )


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
    states = tuple(state for state in map(_core_state, numbers) if state)
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


def submitted(placed: Placed) -> wire.SubmitTaskResponse:
    """What was submitted, and where it stands."""
    return make(
        wire.SubmitTaskResponse,
        task_id=placed.task.id,
        status=wire_state(placed.task.state),
        queue_position=placed.position,
    )


def submitted_several(
    answers: Sequence[Placed | Refused], refused: Mapping[int, Refused]
) -> wire.SubmitTasksResponse:
    """What became of each task, in the order of the request."""
    rest = iter(answers)
    count = len(answers) + len(refused)
    results = [refused[place] if place in refused else next(rest) for place in range(count)]
    return make(wire.SubmitTasksResponse, results=[_result(result) for result in results])


def _result(result: Placed | Refused) -> wire.SubmitTasksResult:
    if isinstance(result, Refused):
        return make(wire.SubmitTasksResult, refusal=refusal(result))
    return make(wire.SubmitTasksResult, submitted=submitted(result))


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
    return make(wire.PingResponse, message=fields(message).message, timestamp=_timestamp(wall_us))


def got(history: TaskHistory, position: int) -> wire.GetTaskResponse:
    """All that is kept of a task."""
    return make(
        wire.GetTaskResponse,
        task=_task(history.task, position),
        result=history.result,
        error=history.error,
        attempts=[_attempt(attempt) for attempt in history.attempts],
    )


def listed(page: TaskPage) -> wire.ListTasksResponse:
    """A page of tasks."""
    return make(
        wire.ListTasksResponse,
        tasks=[_task(task) for task in page.tasks],
        next_cursor="" if page.next_before is None else str(page.next_before),
    )


def watched(task: Task, position: int, result: bytes, error: str) -> wire.WatchTaskResponse:
    """A task after a change."""
    return make(wire.WatchTaskResponse, task=_task(task, position), result=result, error=error)


def _task(task: Task, position: int = 0) -> wire.Task:
    finished_us = task.finished_at_us
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
        submitted_at=_timestamp(task.submitted_at_us),
        enqueued_at=_timestamp(task.enqueued_at_us),
        agent_id=task.lease.agent_id if task.lease else "",
        **({} if finished_us is None else {"finished_at": _timestamp(finished_us)}),
    )


def _attempt(attempt: Attempt) -> wire.Attempt:
    return make(
        wire.Attempt,
        attempt=attempt.attempt,
        agent_id=attempt.agent_id,
        session=attempt.session,
        lease_id=attempt.lease_id,
        started_at=_timestamp(attempt.started_at_us),
        ended_at=_timestamp(attempt.ended_at_us),
        outcome=wire.AttemptOutcome[attempt.outcome.name],
        error=attempt.error,
    )


def wire_state(state: TaskState) -> wire.TaskState:
    """The wire's word for a state."""
    return getattr(wire.TaskState, state.name)  # type: ignore[no-any-return] # betterproto's enum


def _core_state(state: wire.TaskState) -> TaskState | None:
    return TaskState.__members__.get(state.name or "")


def _timestamp(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
