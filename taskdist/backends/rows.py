"""The rows of a journal as values of the core, and back. A row is decoded when it is read."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import apsw
from pydantic import ValidationError

from taskdist.core.errors import Damaged
from taskdist.core.task import Attempt, Backoff, Lease, Outcome, Task, TaskState, task_like
from taskdist.limits import DATA_BYTES_MAX

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
)
_OWN_COLUMNS = (
    "submitted_at_us",
    "enqueued_at_us",
    "finished_at_us",
    "data_bytes",
    "content_hash",
)
_RARE_SHARED_COLUMNS = (  # in the order of `task_like`, after the others
    "backoff",
    "backoff_us",
    "backoff_max_us",
    "backoff_jitter_percent",
    "run_timeout_us",
    "lease_us",
)
_TIME_COLUMNS = ("due_at_us", "backoff_until_us", "deadline_us")
_RARE_COLUMNS = (*_RARE_SHARED_COLUMNS, *_TIME_COLUMNS, "idempotency_key")
"""Those that most tasks leave as they are by default: neither written nor looked at for them."""

USUAL_COLUMNS = ("sequence", "id", *_SHARED_COLUMNS, *_OWN_COLUMNS)
TASK_COLUMNS = (*USUAL_COLUMNS, *_RARE_COLUMNS)
_SHARED = slice(2, 2 + len(_SHARED_COLUMNS))
_OWN = slice(_SHARED.stop, len(USUAL_COLUMNS))
_COUNTS = slice(_SHARED.stop - 4, _SHARED.stop)
_RARE = slice(len(USUAL_COLUMNS), len(TASK_COLUMNS))
_PLAIN = (Backoff.NONE, 0, 0, 0, *[None] * 6)
"""The _RARE_COLUMNS of most tasks."""

SELECT_TASK = f"SELECT {', '.join('task.' + column for column in TASK_COLUMNS)} "
UPDATED_COLUMNS = (
    "state",
    "retry_count",
    "lost_count",
    "hasty_releases",
    "attempt",
    "finished_at_us",
    "enqueued_at_us",
)
"""Those that change in every task's life."""
UPDATED_TIMES = (*UPDATED_COLUMNS, *_TIME_COLUMNS)
"""… and in that of one which has to do with time."""
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


NUMBER_MAX = 253_402_300_799_999_999
"""The end of the year 9999, microseconds: a later time cannot be told of."""

COUNT_MAX = 2**31 - 1
"""Of failures, lost leases, hand-backs and attempts: more than a task can have in its life."""

ID_BYTES = 16
"""Of a UUID."""


class BadRow(Damaged):
    """A row cannot be decoded. It is set aside and reported; all else is served."""


def checksum(sequence: int, content: bytes) -> int:
    """Of the data or the result of this task, kept beside it: CRC-32, begun with the sequence, so
    that what was written for another task does not pass either. It costs 0.7 µs a KiB."""
    return crc32(content, sequence)


def checked(sequence: int, content: object, sum_: object, what: str) -> bytes:
    """The content, tested against the checksum beside it, both as they were read; `what` is `data`
    or `result`. None is a row that is missing.

    Raises:
        BadRow: it is not what was written.
    """
    if content is None:
        raise BadRow(f"task row {sequence}: its {what} is missing")
    if not isinstance(content, bytes) or checksum(sequence, content) != sum_:
        raise BadRow(f"task row {sequence}: its {what} does not match its checksum")
    return content


def read_result(connection: apsw.Connection, sequence: int) -> bytes:
    """The result of a task that succeeded; each such task has one.

    Raises:
        BadRow: it is not what was written.
    """
    blob = "CASE typeof(result) WHEN 'blob' THEN result END"  # A text that is none would raise.
    query = f"SELECT {blob}, checksum FROM result WHERE sequence = ?"
    result, sum_ = connection.execute(query, (sequence,)).fetchone() or (None, None)
    return checked(sequence, result, sum_, "result")


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
    sequence = row[0]
    submitted_at_us, enqueued_at_us, finished_at_us, data_bytes, content_hash = row[_OWN]
    rare = row[_RARE]
    try:
        if not (
            0 < sequence <= NUMBER_MAX
            and 0 <= submitted_at_us <= NUMBER_MAX
            and 0 <= enqueued_at_us <= NUMBER_MAX
            and 0 <= (finished_at_us or 0) <= NUMBER_MAX
            and 0 <= data_bytes <= DATA_BYTES_MAX
            and max(row[_COUNTS]) <= COUNT_MAX
        ):
            raise ValueError("a number beyond all times")
        if not (
            type(submitted_at_us) is type(enqueued_at_us) is type(data_bytes) is int
            and (finished_at_us is None or type(finished_at_us) is int)
            and (content_hash is None or type(content_hash) is bytes)
        ):
            raise TypeError("a value of a type that its column does not have")
        more = {} if rare == _PLAIN else _decode_rare(rare)
        return task_like(*row[_SHARED], *more.pop("shared", ())).evolve(
            sequence=sequence,
            id=id_text(row[1]),
            submitted_at_us=submitted_at_us,
            enqueued_at_us=enqueued_at_us,
            finished_at_us=finished_at_us,
            data_bytes=data_bytes,
            content_hash=content_hash,
            lease=lease,
            **more,
        )
    except ValidationError as error:
        faults = ", ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise BadRow(f"task row {sequence!r}: {faults}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise BadRow(f"task row {sequence!r}: {error}") from None


def _decode_rare(rare: tuple[Any, ...]) -> dict[str, Any]:
    split = len(_RARE_SHARED_COLUMNS)
    own = dict(zip(_RARE_COLUMNS[split:], rare[split:], strict=True))
    if not all(0 <= (own[column] or 0) <= NUMBER_MAX for column in _TIME_COLUMNS):
        raise ValueError("a number beyond all times")
    if not all(own[column] is None or type(own[column]) is int for column in _TIME_COLUMNS):
        raise TypeError("a time that is no number")
    if not isinstance(own["idempotency_key"], str | None):
        raise TypeError("an idempotency_key that is no text")
    return {"shared": rare[:split], **own}


def decode_lease(row: tuple[Any, ...], expires_us: int) -> Lease:
    """A lease from the columns LEASE_COLUMNS.

    Raises:
        BadRow: they are not those of a lease.
    """
    names, numbers = row[:3], row[3:]
    if not all(type(name) is str for name in names):
        raise BadRow(f"lease row {names!r}: a name that is no text")
    if not all(type(number) is int and 0 <= number <= NUMBER_MAX for number in numbers):
        raise BadRow(f"lease row {names!r}: a number beyond all times")
    return Lease(*(*row, expires_us))


def decode_attempt(row: tuple[Any, ...]) -> Attempt:
    """An attempt from the columns ATTEMPT_COLUMNS.

    Raises:
        BadRow: they are not those of an attempt.
    """
    try:
        *head, outcome, led_to, error = row
        number, *names, started_at_us, ended_at_us = head
        if not all(type(text) is str for text in (*names, error)):
            raise ValueError("a name or an error that is no text")
        if not all(
            type(whole) is int and 0 <= whole <= NUMBER_MAX
            for whole in (number, started_at_us, ended_at_us)
        ):
            raise ValueError("a number beyond all times")
        return Attempt(*(*head, Outcome(outcome), TaskState(led_to), error))
    except ValueError as reason:
        raise BadRow(f"attempt row {row[:2]!r}: {reason}") from None


def is_plain(task: Task) -> bool:
    """Whether all of its rare columns are as they are by default."""
    return task.backoff is Backoff.NONE and not (
        task.backoff_us
        or task.backoff_max_us
        or task.backoff_jitter_percent
        or task.run_timeout_us
        or task.lease_us
        or task.due_at_us
        or task.deadline_us
        or task.idempotency_key is not None
    )


def task_row(task: Task, columns: Sequence[str]) -> tuple[Any, ...]:
    """A task as USUAL_COLUMNS or TASK_COLUMNS."""
    inside = task.__dict__  # once for all columns: this is the hottest line of a submit
    row = [inside[column] for column in columns]
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
        task.sequence,
    )


def updated_times_row(task: Task) -> tuple[Any, ...]:
    """A task as the columns UPDATED_TIMES, and which one it is."""
    *columns, sequence = updated_row(task)
    return (*columns, task.due_at_us, task.backoff_until_us, task.deadline_us, sequence)


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
