"""The distributor's messages as the values of `reports.py`."""

from typing import Any

from taskdist.core.errors import BadField, Refused, Unavailable
from taskdist.core.offers import KindReport
from taskdist.core.task import Backoff, Outcome, TaskState
from taskdist.reports import (
    Dropped,
    Entry,
    LogLine,
    News,
    PastAttempt,
    Progress,
    RetryPause,
    Submitted,
    TaskReport,
    Verdict,
    Work,
    WorkNews,
)
from taskdist.wire import messages as wire
from taskdist.wire.codec import fields
from taskdist.wire.statuses import from_code


def state_of(state: wire.TaskState) -> TaskState:
    """The core's word for a state."""
    return TaskState[str(state.name)]


def report(task: wire.Task, **more: Any) -> TaskReport:
    """A task as the wire tells of it."""
    m = fields(task)
    return TaskReport(
        task_id=m.task_id,
        state=state_of(m.state),
        user_tier=m.user_tier,
        est_processing_time_s=m.est_processing_time,
        kind=m.kind,
        queue=m.queue,
        sequence=m.sequence,
        retry_count=m.retry_count,
        max_retries=m.max_retries,
        lost_count=m.lost_count,
        attempt=m.attempt,
        queue_position=m.queue_position,
        submitted_at=m.submitted_at,
        enqueued_at=m.enqueued_at,
        finished_at=m.finished_at,
        agent_id=m.agent_id,
        leased_at=m.leased_at,
        due_at=m.due_at,
        deadline=m.deadline,
        data_bytes=m.data_bytes,
        backoff=_pause(m.backoff),
        run_timeout_s=m.run_timeout_seconds,
        lease_s=m.lease_seconds,
        idempotency_key=m.idempotency_key,
        waits_because=m.waits_because,
        **more,
    )


def _pause(backoff: wire.Backoff | None) -> RetryPause | None:
    if backoff is None:
        return None
    m = fields(backoff)
    kind = Backoff[str(m.kind.name)]
    return RetryPause(kind, m.initial_seconds, m.max_seconds, m.jitter_percent)


def past_attempt(attempt: wire.Attempt) -> PastAttempt:
    """A run that has ended."""
    m = fields(attempt)
    return PastAttempt(
        attempt=m.attempt,
        agent_id=m.agent_id,
        session=m.session,
        lease_id=m.lease_id,
        started_at=m.started_at,
        ended_at=m.ended_at,
        outcome=Outcome[str(m.outcome.name)],
        error=m.error,
    )


def entry(message: wire.TaskEntry) -> Entry:
    """Something that a run said."""
    m: Any = fields(message)
    if m.progress is not None:
        p = fields(m.progress)
        return Progress(p.fraction, p.text, m.at, m.attempt)
    if m.log is not None:
        return LogLine(m.log, m.at, m.attempt)
    return Dropped(m.dropped or 0, m.attempt)


def progress(message: wire.TaskEntry | None) -> Progress | None:
    """How far a run is, if it said so."""
    said = None if message is None else entry(message)
    return said if isinstance(said, Progress) else None


def news(message: wire.WatchTaskResponse) -> News:
    """One thing in a task's life."""
    m: Any = fields(message)
    if m.entry is not None:
        return News(m.number, None, entry(m.entry))
    return News(m.number, report(m.task, result=m.result, error=m.error), None)


def kind_report(message: wire.KindReport) -> KindReport:
    """What is known of a kind."""
    m = fields(message)
    return KindReport(m.name, tuple(m.queues), m.live_agents, tuple(m.input_schemas))


def submitted(message: wire.SubmitTaskResponse) -> Submitted:
    """A task that is safe."""
    m = fields(message)
    return Submitted(m.task_id, state_of(m.status), m.queue_position)


def submitted_or_refused(message: wire.SubmitTasksResult) -> Submitted | Refused:
    """What became of one task of several."""
    m = fields(message)
    done: wire.SubmitTaskResponse | None = m.submitted
    return refused(m.refusal) if done is None else submitted(done)


def refused(message: wire.Refusal) -> Refused:
    """Why something was not done."""
    m = fields(message)
    bad = [BadField(fields(item).field, fields(item).reason) for item in m.bad_fields]
    return from_code(m.code, m.message, bad) or Unavailable(m.message)


def work(message: wire.FetchTaskResponse) -> Work:
    """A task to run."""
    m = fields(message)
    return Work(
        task_id=m.task_id,
        kind=m.kind,
        queue=m.queue,
        user_tier=m.user_tier,
        est_processing_time_s=m.est_processing_time,
        data=m.data,
        sequence=m.sequence,
        attempt=m.attempt,
        retry_count=m.retry_count,
        lease_id=m.lease_id,
        lease_s=m.lease_seconds,
        run_timeout_s=m.run_timeout_seconds,
        deadline=m.deadline,
    )


def work_news(message: wire.WorkResponse) -> WorkNews:
    """All that a distributor says at once on a Work stream."""
    m = fields(message)
    return WorkNews(
        leases=tuple(map(work, m.leases)),
        verdicts=tuple(map(_verdict, m.verdicts)),
        revoked_lease_ids=tuple(m.revoked_lease_ids),
        drain=m.drain,
        progress_heard=m.progress_heard,
    )


def _verdict(message: wire.WorkVerdict) -> Verdict:
    m = fields(message)
    refusal: wire.Refusal | None = m.refusal
    if refusal is not None:
        return Verdict(m.lease_id, "", refused(refusal))
    return Verdict(m.lease_id, m.accepted or "", None)
