"""The task: what the submitter said, where it is in its life, and the lease and attempts it had.

Not here: its data and result, opaque bytes that never live in memory for longer than a request.
The one invariant: `lease` is set exactly when `state` is `leased`.
"""

from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field, Strict
from pydantic.dataclasses import dataclass

from taskdist.core.values import members, value
from taskdist.limits import (
    DELAY_MAX_US,
    EST_PROCESSING_TIME_MAX_US,
    IDEMPOTENCY_KEY_LENGTH_MAX,
    LEASE_MAX_US,
    LEASE_MIN_US,
    MAX_RETRIES_DEFAULT,
    MAX_RETRIES_MAX,
    RUN_TIMEOUT_MAX_US,
    RUN_TIMEOUT_MIN_US,
)
from taskdist.settings import NAME_PATTERN


@members
class TaskState(StrEnum):
    """Where a task is in its life; `lifecycle.TRANSITIONS` says how it gets from one to another.

    Hashed as the text that it is equal to: Enum's own hash is a function in Python, and the table
    is looked up for every change.
    """

    SCHEDULED = "scheduled"
    READY = "ready"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"

    __hash__ = str.__hash__

    @property
    def is_final(self) -> bool:
        """Whether nothing but an explicit redrive leads out of it."""
        return self in _FINAL


_FINAL = frozenset((TaskState.SUCCEEDED, TaskState.DEAD, TaskState.CANCELLED))


@members
class Outcome(StrEnum):
    """How a lease ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RELEASED = "released"
    LOST = "lost"
    CANCELLED = "cancelled"

    __hash__ = str.__hash__


@members
class Backoff(StrEnum):
    """How long a failed task waits before it is ready again."""

    NONE = "none"
    FIXED = "fixed"
    EXPONENTIAL = "exponential"
    """Twice as long after each further failure, up to a cap."""

    __hash__ = str.__hash__


@value
class Lease:
    """The right to one run of a task. Times are on the served clock unless said."""

    lease_id: str
    """Opaque; the fencing token."""
    agent_id: str
    session: str
    """The agent's process, or empty if it did not say."""
    started_at_us: int
    """Wall clock, for people."""
    started_us: int
    term_us: int
    """How long it lasts without a heartbeat."""
    run_timeout_us: int
    """How long one run may take in all."""
    expires_us: int
    """When it may be ended. It ends when `expire` is applied, not when a clock passes this."""

    def extended(self, now_us: int) -> "Lease":
        """The same lease with its term begun anew, never past the run timeout and one term."""
        latest_us = self.started_us + self.run_timeout_us + self.term_us
        return replace(self, expires_us=min(now_us + self.term_us, latest_us))


@value
class Attempt:
    """A lease that has ended. Times are on the wall clock."""

    attempt: int
    """1 for the task's first."""
    lease_id: str
    agent_id: str
    session: str
    started_at_us: int
    ended_at_us: int
    outcome: Outcome
    led_to: TaskState
    """The task's state right after; what a repeat of the outcome is answered with."""
    error: str = ""
    """Of a failure."""


TASKS_LIKE_KEPT_MAX = 4_096
"""Different tasks that `task_like` remembers: some 4 MiB."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=0)]
Delay = Annotated[int, Field(ge=0, le=DELAY_MAX_US)]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def _validated(cls: type[T]) -> type[T]:
    """A dataclass whose constructor is pydantic's, frozen as far as the type checker sees.

    A BaseModel takes three times as long to read a field of, and twice to `evolve`.
    """
    # Strict: a value that only looks like one of the field's type, such as a blob of digits in a
    # damaged row, is refused here; taken, it would be refused by the store when it is next written.
    config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
    return cast(type[T], dataclass(config=config, kw_only=True, unsafe_hash=True)(cls))


@_validated
class Task:
    """A unit of work, validated where it enters: from the wire, and from the journal's rows."""

    # What the submitter said.
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    user_tier: Name
    est_processing_time_us: Annotated[int, Field(ge=0, le=EST_PROCESSING_TIME_MAX_US)]
    kind: Name = "simulate"
    queue: Name = "default"
    max_retries: Annotated[int, Field(ge=0, le=MAX_RETRIES_MAX)] = MAX_RETRIES_DEFAULT
    backoff: Annotated[Backoff, Strict(False)] = Backoff.NONE
    backoff_us: Delay = 0
    """Before the first retry; with `exponential` doubled each time."""
    backoff_max_us: Delay = 0
    """The cap of an exponential backoff."""
    backoff_jitter_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """How much of a backoff is left to chance, so that tasks that failed together come apart."""
    run_timeout_us: Annotated[int, Field(ge=RUN_TIMEOUT_MIN_US, le=RUN_TIMEOUT_MAX_US)] | None = (
        None
    )
    """None: the distributor's."""
    lease_us: Annotated[int, Field(ge=LEASE_MIN_US, le=LEASE_MAX_US)] | None = None
    """The term of its leases; None: the distributor's."""
    deadline_us: Count | None = None
    """Wall clock; not started by then, it is dead."""
    idempotency_key: Annotated[str, Field(max_length=IDEMPOTENCY_KEY_LENGTH_MAX)] | None = None
    """Of the submitter's making; no other task of its queue has it."""
    data_bytes: Count = 0
    content_hash: bytes | None = None
    """Of a task whose client made the id or a key: what a repeated submit must agree with."""

    # Where it is in its life.
    sequence: Count = 0
    """Its number in the order of submission, from 1; also its row in the journal."""
    state: Annotated[TaskState, Strict(False)] = TaskState.READY
    retry_count: Count = 0
    """Reported failures so far."""
    lost_count: Count = 0
    """Leases that ended because nobody spoke in time; never counted as failures."""
    hasty_releases: Count = 0
    """Hand-backs right after the lease; bounded, or an unwanted task goes round for ever."""
    attempt: Count = 0
    """Runs begun so far."""
    submitted_at_us: Count = 0
    """Wall clock, for people."""
    due_at_us: Count | None = None
    """While it is scheduled, when it becomes ready, on the wall clock; of a backoff for people."""
    backoff_until_us: Count | None = None
    """While a backoff lasts, when that ends, on the served clock."""
    enqueued_at_us: Count = 0
    """From when its age counts. Never less than that of an earlier task. 0 until it is ready."""
    finished_at_us: Count | None = None
    """Wall clock; set when the state is final."""
    lease: Lease | None = None

    def evolve(self, **changes: object) -> "Task":
        """A copy with these fields changed. The changes are ours and are not validated again."""
        copy = object.__new__(Task)
        copy.__dict__ = {**self.__dict__, **changes}
        return copy


@lru_cache(TASKS_LIKE_KEPT_MAX)
def task_like(
    user_tier: str,
    est_processing_time_us: int,
    kind: str,
    queue: str,
    max_retries: int,
    state: TaskState = TaskState.READY,
    retry_count: int = 0,
    lost_count: int = 0,
    hasty_releases: int = 0,
    attempt: int = 0,
    backoff: Backoff = Backoff.NONE,
    backoff_us: int = 0,
    backoff_max_us: int = 0,
    backoff_jitter_percent: int = 0,
    run_timeout_us: int | None = None,
    lease_us: int | None = None,
) -> Task:
    """A task with these values and nothing of its own, to `evolve` from.

    Most tasks share them with others, so most are validated once. A pydantic validation takes
    longer than all else that is decided about a task.

    Raises:
        ValidationError: they are not those of a valid task.
    """
    return Task(
        id="00000000-0000-0000-0000-000000000000",
        user_tier=user_tier,
        est_processing_time_us=est_processing_time_us,
        kind=kind,
        queue=queue,
        max_retries=max_retries,
        state=state,
        retry_count=retry_count,
        lost_count=lost_count,
        hasty_releases=hasty_releases,
        attempt=attempt,
        backoff=backoff,
        backoff_us=backoff_us,
        backoff_max_us=backoff_max_us,
        backoff_jitter_percent=backoff_jitter_percent,
        run_timeout_us=run_timeout_us,
        lease_us=lease_us,
    )
