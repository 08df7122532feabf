"""What a submitter or an operator says, as the distributor's messages."""

from datetime import datetime
from typing import Any, Required, TypedDict

from taskdist.reports import (
    Dropped,
    Entry,
    LogLine,
    Progress,
    Remarks,
    RetryPause,
    Selection,
    Submission,
)
from taskdist.wire import convert_submits
from taskdist.wire import messages as wire
from taskdist.wire.codec import make


class Said(TypedDict, total=False):
    """The fields of a `Submission`, by name; a test keeps the two the same."""

    user_tier: Required[str]
    est_processing_time_s: Required[float]
    data: bytes
    kind: str
    queue: str
    task_id: str
    max_retries: int | None
    backoff: RetryPause | None
    delay_s: float
    not_before: datetime | None
    deadline_s: float
    deadline: datetime | None
    run_timeout_s: float | None
    lease_s: float | None
    idempotency_key: str


def submit_request(said: Submission) -> wire.SubmitTaskRequest:
    """The request of a submission."""
    further: dict[str, Any] = {}
    if said.backoff is not None:
        further["backoff"] = _backoff(said.backoff)
    # Most set none of these.
    limits = (said.not_before, said.deadline, said.run_timeout_s, said.lease_s)
    if said.delay_s or said.deadline_s or limits != (None, None, None, None):
        further["timing"] = make(wire.Timing, **_timing(said))
    if said.idempotency_key:
        further["idempotency_key"] = said.idempotency_key
    return make(
        wire.SubmitTaskRequest,
        user_tier=said.user_tier,
        est_processing_time=said.est_processing_time_s,
        data=said.data,
        kind=said.kind,
        queue=said.queue,
        task_id=said.task_id,
        max_retries=said.max_retries,
        **further,
    )


def check(said: Submission) -> None:
    """Checks a task as its distributor will, all but its tier and what depends on other tasks.

    Raises:
        InvalidFields, TooLarge: fields are bad; each is named as in the contract.
    """
    convert_submits.submit(submit_request(said), (said.user_tier,), said.task_id)


def _backoff(pause: RetryPause) -> wire.Backoff:
    names = wire.BackoffKind.__members__
    return make(
        wire.Backoff,
        kind=names.get(pause.kind.name, wire.BackoffKind.UNSPECIFIED),
        initial_seconds=pause.initial_s,
        max_seconds=pause.max_s,
        jitter_percent=pause.jitter_percent,
    )


def _timing(said: Submission) -> dict[str, Any]:
    fields = {
        "delay_seconds": said.delay_s or None,
        "not_before": said.not_before,
        "deadline_seconds": said.deadline_s or None,
        "deadline": said.deadline,
        "run_timeout_seconds": said.run_timeout_s,
        "lease_seconds": said.lease_s,
    }
    return {name: value for name, value in fields.items() if value is not None}


def entry_message(said: Entry) -> wire.TaskEntry:
    """Something that a run says."""
    what: dict[str, Any] = {}
    match said:
        case Progress():
            what["progress"] = make(wire.TaskProgress, fraction=said.fraction, text=said.text)
        case LogLine():
            what["log"] = said.text
        case Dropped():
            return make(wire.TaskEntry, dropped=said.count)
    if said.at is not None:
        what["at"] = said.at
    return make(wire.TaskEntry, **what)


def remarks_message(said: Remarks, agent_id: str = "") -> wire.ReportProgressRequest:
    """What a run says."""
    return make(
        wire.ReportProgressRequest,
        task_id=said.task_id,
        agent_id=agent_id,
        lease_id=said.lease_id,
        entries=list(map(entry_message, said.entries)),
    )


def selection_message(selection: Selection) -> wire.TaskSelection:
    """The tasks that an operator means."""
    return make(
        wire.TaskSelection,
        task_ids=list(selection.task_ids),
        states=[wire.TaskState[state.name] for state in selection.states],
        user_tier=selection.user_tier,
        kind=selection.kind,
        queue=selection.queue,
        age_seconds=selection.age_s,
        all=selection.all,
    )
