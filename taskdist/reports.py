"""What the distributor tells its clients, as values: what `client.py` returns."""

from datetime import datetime

from taskdist.core.errors import Refused
from taskdist.core.task import Outcome, TaskState
from taskdist.core.values import value


@value
class Submitted:
    """A task that is safe with the distributor."""

    task_id: str
    state: TaskState
    queue_position: int
    """1 is next in its queue; 0 when it is not ready."""


@value
class Work:
    """A task to run, under a lease."""

    task_id: str
    kind: str
    queue: str
    user_tier: str
    est_processing_time_s: float
    data: bytes
    sequence: int
    attempt: int
    retry_count: int
    lease_id: str
    lease_s: float
    run_timeout_s: float


@value
class PastAttempt:
    """A run that has ended."""

    attempt: int
    agent_id: str
    session: str
    lease_id: str
    started_at: datetime
    ended_at: datetime
    outcome: Outcome
    error: str


@value
class TaskReport:
    """A task as the distributor last told of it."""

    task_id: str
    state: TaskState
    user_tier: str
    est_processing_time_s: float
    kind: str
    queue: str
    sequence: int
    retry_count: int
    max_retries: int
    lost_count: int
    attempt: int
    queue_position: int
    submitted_at: datetime
    enqueued_at: datetime
    finished_at: datetime | None
    agent_id: str
    result: bytes = b""
    error: str = ""
    attempts: tuple[PastAttempt, ...] = ()


@value
class Verdict:
    """What became of an outcome that was reported on a Work stream."""

    lease_id: str
    accepted: str
    """For people, if it was."""
    refusal: Refused | None


@value
class WorkNews:
    """All that a distributor says at once on a Work stream."""

    leases: tuple[Work, ...]
    verdicts: tuple[Verdict, ...]
    revoked_lease_ids: tuple[str, ...]
    drain: bool


@value
class Report:
    """How a run ended, in its agent's words."""

    task_id: str
    lease_id: str
    result: bytes
    error: str
    """Empty: it succeeded."""


@value
class Submission:
    """A task to submit."""

    user_tier: str
    est_processing_time_s: float
    data: bytes = b""
    kind: str = ""
    """Empty: `simulate`."""
    queue: str = ""
    """Empty: `default`."""
    task_id: str = ""
    """A UUID of your own, with which a repeat adds nothing twice; empty: one is made."""
    max_retries: int | None = None
    """None: 3."""
