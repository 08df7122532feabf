"""The rows of a journal as values of the core, and back. A row is decoded when it is read."""

from typing import Any

from pydantic import ValidationError

from taskdist.core.errors import Damaged
from taskdist.core.task import Attempt, Lease, Outcome, Task, TaskState, task_like

_SHARED_COLUMNS = (  # in the order of `task_like`
    "user_tier",
    "est_processing_time_us",
    "kind",
    "queue",
    "max_retries",
    "state",
    "retry_count",
    "lost_count",
    "hasty_releases",
    "attempt",
    "backoff",
    "backoff_us",
    "backoff_max_us",
    "backoff_jitter_percent",
    "run_timeout_us",
    "lease_us",
)
_OWN_COLUMNS = (
    "submitted_at_us",
    "enqueued_at_us",
    "finished_at_us",
    "due_at_us",
    "backoff_until_us",
    "deadline_us",
    "idempotency_key",
    "data_bytes",
    "content_hash",
)
TASK_COLUMNS = (
    "sequence",
    "id",
    *_SHARED_COLUMNS,
    *_OWN_COLUMNS,
)
_FIRST_OWN = TASK_COLUMNS.index(_OWN_COLUMNS[0])
SELECT_TASK = f"SELECT {', '.join('task.' + column for column in TASK_COLUMNS)} "
UPDATED_COLUMNS = (
    "state",
    "retry_count",
    "lost_count",
    "hasty_releases",
    "attempt",
    "finished_at_us",
    "enqueued_at_us",
    "due_at_us",
    "backoff_until_us",
    "deadline_us",
)
"""Those that change in a task's life."""
LEASE_COLUMNS = (
    "lease_id",
    "agent_id",
    "session",
    "started_at_us",
    "started_us",
    "term_us",
    "run_timeout_us",
)
SELECTED_LEASE = ", ".join(f"lease.{column}" for column in LEASE_COLUMNS)
ATTEMPT_COLUMNS = (
    "attempt",
    "lease_id",
    "agent_id",
    "session",
    "started_at_us",
    "ended_at_us",
    "outcome",
    "led_to",
    "error",
)


class BadRow(Damaged):
    """A row cannot be decoded. It is set aside and reported; all else is served."""


def id_blob(task_id: str) -> bytes:
    """The 16 bytes of a UUID."""
    return bytes.fromhex(task_id.replace("-", ""))


def id_text(blob: bytes) -> str:
    """The UUID of these 16 bytes.

    Raises:
        ValueError: they are not 16.
    """
    d = blob.hex()
    if len(d) != 32:
        raise ValueError(f"an id of {len(blob)} bytes")
    return f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}"


def decode_task(row: tuple[Any, ...], lease: Lease | None = None) -> Task:
    """A task from the columns TASK_COLUMNS.

    Raises:
        BadRow: they are not those of a valid task.
    """
    sequence, id_ = row[:2]
    own = row[_FIRST_OWN:]
    try:
        if sequence < 0 or any(number < 0 for number in own if isinstance(number, int)):
            raise ValueError("a negative number")
        return task_like(*row[2:_FIRST_OWN]).evolve(
            sequence=sequence,
            id=id_text(id_),
            lease=lease,
            **dict(zip(_OWN_COLUMNS, own, strict=True)),
        )
    except ValidationError as error:
        faults = ", ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise BadRow(f"task row {sequence!r}: {faults}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise BadRow(f"task row {sequence!r}: {error}") from None


def decode_lease(row: tuple[Any, ...], expires_us: int) -> Lease:
    """A lease from the columns LEASE_COLUMNS."""
    return Lease(*(*row, expires_us))


def decode_attempt(row: tuple[Any, ...]) -> Attempt:
    """An attempt from the columns ATTEMPT_COLUMNS.

    Raises:
        BadRow: they are not those of an attempt.
    """
    try:
        *head, outcome, led_to, error = row
        return Attempt(*(*head, Outcome(outcome), TaskState(led_to), error))
    except ValueError as reason:
        raise BadRow(f"attempt row {row[:2]!r}: {reason}") from None


def task_row(task: Task) -> tuple[Any, ...]:
    """A task as the columns TASK_COLUMNS."""
    inside = task.__dict__  # once for all columns: this is the hottest line of a submit
    row = [inside[column] for column in TASK_COLUMNS]
    row[1] = id_blob(task.id)
    return tuple(row)


def updated_row(task: Task) -> tuple[Any, ...]:
    """A task as the columns UPDATED_COLUMNS, and which one it is."""
    return (
        task.state,
        task.retry_count,
        task.lost_count,
        task.hasty_releases,
        task.attempt,
        task.finished_at_us,
        task.enqueued_at_us,
        task.due_at_us,
        task.backoff_until_us,
        task.deadline_us,
        task.sequence,
    )


def lease_row(sequence: int, lease: Lease) -> tuple[Any, ...]:
    """Which task it is of, and the lease as the columns LEASE_COLUMNS."""
    return (
        sequence,
        lease.lease_id,
        lease.agent_id,
        lease.session,
        lease.started_at_us,
        lease.started_us,
        lease.term_us,
        lease.run_timeout_us,
    )


def attempt_row(sequence: int, attempt: Attempt) -> tuple[Any, ...]:
    """Which task it is of, and the attempt as the columns ATTEMPT_COLUMNS."""
    return (
        sequence,
        attempt.attempt,
        attempt.lease_id,
        attempt.agent_id,
        attempt.session,
        attempt.started_at_us,
        attempt.ended_at_us,
        attempt.outcome,
        attempt.led_to,
        attempt.error,
    )
