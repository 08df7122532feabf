"""Between the wire and the core: requests to commands, answers to responses.

Whatever is wrong with a request is found here, all of it at once, before anything is asked of a
backend. Times are seconds and timestamps on the wire, whole microseconds inside.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from taskdist.core import commands
from taskdist.core.commands import Grants, Held, Placed, Settled
from taskdist.core.queries import GetTask, ListTasks, TaskHistory, TaskPage
from taskdist.core.task import Attempt, Outcome, Task, TaskState
from taskdist.settings import (
    DATA_BYTES_MAX,
    ERROR_BYTES_MAX,
    EST_PROCESSING_TIME_MAX_US,
    HEARTBEAT_LEASES_MAX,
    ID_ENDING_LENGTH_MIN,
    LANES_PER_AGENT_MAX,
    MAX_RETRIES_DEFAULT,
    MAX_RETRIES_MAX,
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    RESULT_BYTES_MAX,
    SECOND_US,
    WAIT_MAX_US,
)
from taskdist.wire import messages as wire
from taskdist.wire.checking import NAMES, Faults
from taskdist.wire.codec import fields, make

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
    m = fields(message)
    faults = Faults()
    task_id = faults.task_id(m.task_id) if m.task_id else new_id
    if m.user_tier not in tiers:
        faults.add("user_tier", m.user_tier, ", ".join(tiers))
    estimate_us = faults.seconds(
        "est_processing_time", m.est_processing_time, EST_PROCESSING_TIME_MAX_US
    )
    data = faults.size("data", m.data, DATA_BYTES_MAX)
    retries = MAX_RETRIES_DEFAULT if m.max_retries is None else m.max_retries
    wish = {"kind": m.kind or "simulate", "queue": m.queue or "default", "max_retries": retries}
    checked = {"id": new_id, "user_tier": tiers[0], "est_processing_time_us": estimate_us}
    try:
        task = Task.model_validate(checked | wish)
    except ValidationError as error:
        for fault in error.errors():
            field = str(fault["loc"][0])
            faults.add(field, fault["input"], _SUBMIT_ALLOWED[field])
    faults.done()
    task = task.evolve(id=task_id, user_tier=m.user_tier)
    return commands.Submit(task, data, client_made_id=bool(m.task_id))


def take(message: wire.FetchTaskRequest, token: str) -> commands.Take:
    """What an agent asks for."""
    m = fields(message)
    faults = Faults()
    queues = faults.names("queues", m.queues, LANES_PER_AGENT_MAX) or ("default",)
    kinds = faults.names("kinds", m.kinds, LANES_PER_AGENT_MAX)
    if len(queues) * max(1, len(kinds)) > LANES_PER_AGENT_MAX:
        faults.reject("queues", f"queues times kinds; allowed: at most {LANES_PER_AGENT_MAX}")
    command = commands.Take(
        agent_id=faults.name("agent_id", m.agent_id),
        session=faults.name("session", m.session, optional=True),
        queues=queues,
        kinds=kinds,
        slots=1,
        wait_us=faults.seconds("wait_seconds", m.wait_seconds or 0.0, WAIT_MAX_US),
        token=token,
    )
    faults.done()
    return command


def complete(message: wire.CompleteTaskRequest) -> commands.Settle:
    """How a run ended."""
    m = fields(message)
    faults = Faults()
    result = faults.size("result", m.result, RESULT_BYTES_MAX)
    command = commands.Settle(
        task_id=faults.task_id(m.task_id),
        agent_id=faults.name("agent_id", m.agent_id),
        lease_id=m.lease_id,
        outcome=Outcome.SUCCEEDED if m.success else Outcome.FAILED,
        result=result if m.success else b"",
        error="" if m.success else _error_text(m.error, result),
        retryable=m.retryable is not False,
    )
    faults.done()
    return command


def _error_text(error: str, result: bytes) -> str:
    """The error, or else the result, or else a word: cut to the limit at a whole character."""
    data = error.encode() or result
    return data[:ERROR_BYTES_MAX].decode("utf-8", "ignore") or "failed"


def release(message: wire.ReleaseTaskRequest) -> commands.Settle:
    """A task handed back."""
    m = fields(message)
    faults = Faults()
    command = commands.Settle(
        task_id=faults.task_id(m.task_id),
        agent_id=faults.name("agent_id", m.agent_id),
        lease_id=m.lease_id,
        outcome=Outcome.RELEASED,
    )
    faults.done()
    return command


def heartbeat(message: wire.HeartbeatRequest) -> commands.Heartbeat:
    """The leases that an agent says it holds."""
    m = fields(message)
    faults = Faults()
    if len(m.lease_ids) > HEARTBEAT_LEASES_MAX:
        reason = f"{len(m.lease_ids)} of them; allowed: at most {HEARTBEAT_LEASES_MAX}"
        faults.reject("lease_ids", reason)
    command = commands.Heartbeat(faults.name("agent_id", m.agent_id), tuple(m.lease_ids))
    faults.done()
    return command


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


def fetched(grants: Grants) -> wire.FetchTaskResponse:
    """The task that an agent got, or that it got none."""
    if not grants.grants:
        return make(wire.FetchTaskResponse)
    (grant,) = grants.grants
    task, lease = grant.task, grant.task.lease
    assert lease is not None
    return make(
        wire.FetchTaskResponse,
        has_task=True,
        task_id=task.id,
        user_tier=task.user_tier,
        est_processing_time=task.est_processing_time_us / SECOND_US,
        data=grant.data,
        kind=task.kind,
        queue=task.queue,
        retry_count=task.retry_count,
        lease_id=lease.lease_id,
        lease_seconds=lease.term_us / SECOND_US,
        sequence=task.sequence,
        attempt=task.attempt,
        run_timeout_seconds=lease.run_timeout_us / SECOND_US,
    )


_COMPLETED = {
    (Outcome.SUCCEEDED, TaskState.SUCCEEDED): "succeeded; its result is kept",
    (Outcome.FAILED, TaskState.READY): "failed; it will be retried after all new tasks",
    (Outcome.FAILED, TaskState.DEAD): "failed; dead, its errors are kept",
}


def completed(settled: Settled) -> wire.CompleteTaskResponse:
    """What became of the task."""
    text = _COMPLETED[settled.outcome, settled.led_to]
    return make(wire.CompleteTaskResponse, acknowledged=True, message=text)


def released(settled: Settled) -> wire.ReleaseTaskResponse:
    """What became of the task."""
    return make(wire.ReleaseTaskResponse, status=wire_state(settled.led_to))


def held(answer: Held) -> wire.HeartbeatResponse:
    """The leases that go on."""
    return make(wire.HeartbeatResponse, lease_ids=list(answer.lease_ids))


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
