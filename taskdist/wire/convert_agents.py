"""Between the wire and the core, for agents: takes, outcomes, heartbeats, and the Work stream.

As in `convert.py`, whatever is wrong with a request is found before anything is asked of a backend.
"""

from collections.abc import Sequence
from datetime import datetime

from taskdist.core import commands
from taskdist.core.commands import Grant, Grants, Held, Settled
from taskdist.core.errors import InvalidFields, Refused
from taskdist.core.task import Outcome, TaskState
from taskdist.core.values import value
from taskdist.limits import (
    DELAY_MAX_US,
    ERROR_BYTES_MAX,
    HEARTBEAT_LEASES_MAX,
    LANES_PER_AGENT_MAX,
    OUTCOMES_MAX,
    RESULT_BYTES_MAX,
    SECOND_US,
    SLOTS_MAX,
    WAIT_MAX_US,
)
from taskdist.wire import messages as wire
from taskdist.wire.checking import Faults
from taskdist.wire.codec import fields, make
from taskdist.wire.convert import refusal, wire_state
from taskdist.wire.convert_entries import notes
from taskdist.wire.times import timestamp

# --- requests to commands ---------------------------------------------------------------------


def take(message: wire.FetchTaskRequest, token: str) -> commands.Take:
    """What an agent asks for."""
    m = fields(message)
    faults = Faults()
    queues, kinds = lanes(m.queues, m.kinds, faults)
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


def lanes(
    queues: Sequence[str], kinds: Sequence[str], faults: Faults
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The queues and kinds that an agent names, each once. None: what it announced says which."""
    named = faults.names("queues", queues, LANES_PER_AGENT_MAX)
    wanted = faults.names("kinds", kinds, LANES_PER_AGENT_MAX)
    if max(1, len(named)) * max(1, len(wanted)) > LANES_PER_AGENT_MAX:
        faults.reject("queues", f"queues times kinds; allowed: at most {LANES_PER_AGENT_MAX}")
    return named, wanted


def complete(message: wire.CompleteTaskRequest, agent_id: str = "") -> commands.Settle:
    """How a run ended; `agent_id` is for a message that leaves it empty."""
    m = fields(message)
    faults = Faults()
    result = faults.size("result", m.result, RESULT_BYTES_MAX)
    command = commands.Settle(
        task_id=faults.task_id(m.task_id),
        agent_id=faults.name("agent_id", m.agent_id or agent_id),
        lease_id=m.lease_id,
        outcome=Outcome.SUCCEEDED if m.success else Outcome.FAILED,
        result=result if m.success else b"",
        error="" if m.success else _error_text(m.error, result),
        retryable=m.retryable is not False,
        retry_after_us=(
            None
            if m.retry_after_seconds is None
            else faults.seconds("retry_after_seconds", m.retry_after_seconds, DELAY_MAX_US)
        ),
    )
    faults.done()
    return command


def _error_text(error: str, result: bytes) -> str:
    """The error, or else the result, or else a word: cut to the limit at a whole character."""
    data = error.encode() or result
    return data[:ERROR_BYTES_MAX].decode("utf-8", "ignore") or "failed"


def release(message: wire.ReleaseTaskRequest, agent_id: str = "") -> commands.Settle:
    """A task handed back; `agent_id` is for a message that leaves it empty."""
    m = fields(message)
    faults = Faults()
    command = commands.Settle(
        task_id=faults.task_id(m.task_id),
        agent_id=faults.name("agent_id", m.agent_id or agent_id),
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


# --- answers to responses ---------------------------------------------------------------------


def fetched(grants: Grants) -> wire.FetchTaskResponse:
    """The task that an agent got, or that it got none."""
    if not grants.grants:
        return make(wire.FetchTaskResponse)
    return leased(grants.grants[0])


def leased(grant: Grant) -> wire.FetchTaskResponse:
    """A task to run, under its lease."""
    task, lease = grant.task, grant.task.lease
    assert lease is not None
    further = _NOTHING
    if task.deadline_us is not None:
        further = {"deadline": timestamp(task.deadline_us)}
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
        **further,
    )


_NOTHING: dict[str, datetime] = {}

_OUTCOMES = {
    (Outcome.SUCCEEDED, TaskState.SUCCEEDED): "succeeded; its result is kept",
    (Outcome.FAILED, TaskState.READY): "failed; it will be retried after all new tasks",
    (Outcome.FAILED, TaskState.SCHEDULED): "failed; it will be retried after a pause",
    (Outcome.FAILED, TaskState.DEAD): "failed; dead, its errors are kept",
    (Outcome.RELEASED, TaskState.READY): "handed back",
    (Outcome.RELEASED, TaskState.DEAD): "handed back in haste too often; dead",
}


def outcome_text(settled: Settled) -> str:
    """What became of a task, for people."""
    return _OUTCOMES[settled.outcome, settled.led_to]


def completed(settled: Settled) -> wire.CompleteTaskResponse:
    """What became of the task."""
    return make(wire.CompleteTaskResponse, acknowledged=True, message=outcome_text(settled))


def released(settled: Settled) -> wire.ReleaseTaskResponse:
    """What became of the task."""
    return make(wire.ReleaseTaskResponse, status=wire_state(settled.led_to))


def held(answer: Held) -> wire.HeartbeatResponse:
    """The leases that go on."""
    return make(wire.HeartbeatResponse, lease_ids=list(answer.lease_ids))


# --- the Work stream --------------------------------------------------------------------------


@value
class Hello:
    """Who opens a stream, and what for."""

    agent_id: str
    session: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    slots: int
    lease_ids: tuple[str, ...]


@value
class Said:
    """What one message of an agent says."""

    hello: Hello | None
    slots: int | None
    settles: tuple[commands.Settle, ...]
    refused: tuple[tuple[str, Refused], ...]
    """Outcomes that cannot be accepted as they are, by their lease."""
    goodbye: bool
    notes: tuple[commands.Note, ...] = ()


def said(message: wire.WorkRequest, agent_id: str) -> Said:
    """What an agent says; `agent_id` is that of its hello, or empty before it.

    Raises:
        InvalidFields: the message as a whole cannot be accepted.
    """
    m = fields(message)
    faults = Faults()
    # A view reads as None what is not set, which the message's own type does not know.
    greeting: wire.WorkHello | None = m.hello
    hello = _hello(greeting, faults) if greeting is not None else None
    if m.slots is not None and m.slots > SLOTS_MAX:
        faults.add("slots", m.slots, f"0 to {SLOTS_MAX}")
    count = len(m.outcomes) + len(m.releases)
    if count > OUTCOMES_MAX:
        faults.reject("outcomes", f"{count} of them and releases; allowed: {OUTCOMES_MAX}")
    name = agent_id if hello is None else hello.agent_id
    noted = notes(m.progress, name, faults) if m.progress else ()
    faults.done()
    settles: list[commands.Settle] = []
    refused: list[tuple[str, Refused]] = []
    parts: list[wire.CompleteTaskRequest | wire.ReleaseTaskRequest] = [*m.outcomes, *m.releases]
    for part in parts:
        try:
            settles.append(_settle(part, name))
        except InvalidFields as reason:
            refused.append((fields(part).lease_id, reason))
    return Said(hello, m.slots, tuple(settles), tuple(refused), m.goodbye, noted)


def _hello(message: wire.WorkHello, faults: Faults) -> Hello:
    m = fields(message)
    if m.slots > SLOTS_MAX:
        faults.add("hello.slots", m.slots, f"0 to {SLOTS_MAX}")
    if len(m.lease_ids) > HEARTBEAT_LEASES_MAX:
        reason = f"{len(m.lease_ids)} of them; allowed: at most {HEARTBEAT_LEASES_MAX}"
        faults.reject("hello.lease_ids", reason)
    own = Faults("hello.")
    queues, kinds = lanes(m.queues, m.kinds, own)
    hello = Hello(
        agent_id=own.name("agent_id", m.agent_id),
        session=own.name("session", m.session),
        queues=queues,
        kinds=kinds,
        slots=m.slots,
        lease_ids=tuple(m.lease_ids),
    )
    faults.include(own)
    return hello


def _settle(
    message: wire.CompleteTaskRequest | wire.ReleaseTaskRequest, agent_id: str
) -> commands.Settle:
    if isinstance(message, wire.CompleteTaskRequest):
        return complete(message, agent_id)
    return release(message, agent_id)


def leases(grants: Sequence[Grant]) -> list[wire.FetchTaskResponse]:
    """Tasks to run."""
    return [leased(grant) for grant in grants]


def verdict(lease_id: str, answer: Settled | Refused) -> wire.WorkVerdict:
    """What became of an outcome."""
    if isinstance(answer, Refused):
        return make(wire.WorkVerdict, lease_id=lease_id, refusal=refusal(answer))
    return make(wire.WorkVerdict, lease_id=lease_id, accepted=outcome_text(answer))


def response(
    leases: Sequence[wire.FetchTaskResponse],
    verdicts: Sequence[wire.WorkVerdict],
    revoked_lease_ids: Sequence[str],
    *,
    drain: bool,
    progress_heard: int,
) -> wire.WorkResponse:
    """All that there is to say to an agent at once."""
    return make(
        wire.WorkResponse,
        leases=list(leases),
        verdicts=list(verdicts),
        revoked_lease_ids=list(revoked_lease_ids),
        drain=drain,
        progress_heard=progress_heard,
    )
