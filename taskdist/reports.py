"""What the distributor tells its clients, as values: what a `Stub` returns."""

import re
from datetime import datetime

from taskdist.core.errors import Refused
from taskdist.core.task import Backoff, Outcome, TaskState
from taskdist.core.values import value


@value
class RetryPause:
    """How long a failed task waits before its retry."""

    kind: Backoff
    initial_s: float = 0
    """The first pause."""
    max_s: float | None = None
    """The longest pause of an exponential one; None: an hour."""
    jitter_percent: int = 0
    """Up to so much is taken off each pause by chance."""


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
    deadline: datetime | None = None
    """By when it had to be started."""


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
class Progress:
    """How far a run is."""

    fraction: float | None = None
    """How much is done, 0 to 1; None: unknown."""
    text: str = ""
    at: datetime | None = None
    """The agent's wall clock."""
    attempt: int = 0
    """Which run it is; an agent need not say."""


@value
class LogLine:
    """A line that a run said, for people."""

    text: str
    at: datetime | None = None
    attempt: int = 0


@value
class Dropped:
    """Progress and log lines are missing here."""

    count: int
    attempt: int = 0


Entry = Progress | LogLine | Dropped


@value
class Remarks:
    """What a run has to say while it lasts."""

    task_id: str
    lease_id: str
    entries: tuple[Entry, ...]


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
    enqueued_at: datetime | None
    """None while it has never been ready."""
    finished_at: datetime | None
    agent_id: str
    """Who runs it, while it is leased."""
    leased_at: datetime | None
    """While it is leased, since when."""
    due_at: datetime | None
    """While it is scheduled, when it becomes ready."""
    deadline: datetime | None
    data_bytes: int
    backoff: RetryPause | None
    run_timeout_s: float
    """0: the distributor's."""
    lease_s: float
    """0: the distributor's."""
    idempotency_key: str
    waits_because: str = ""
    """Why it waits, while it is ready and no live agent takes it."""
    result: bytes = b""
    error: str = ""
    attempts: tuple[PastAttempt, ...] = ()
    progress: Progress | None = None
    """The newest that its agents told of."""

    @property
    def attempts_dropped(self) -> int:
        """How many attempts came before the first that is kept. Only those of `get` tell."""
        return self.attempts[0].attempt - 1 if self.attempts else 0


@value
class News:
    """One thing in a task's life."""

    number: int
    """Where it stands; with it a watch goes on from there."""
    task: TaskReport | None
    """The task after a change of its state …"""
    entry: Entry | None
    """… or else something that its agent said."""


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
    progress_heard: int
    """Messages with remarks that were heard on this stream; 0: as many as before."""


@value
class Report:
    """How a run ended, in its agent's words."""

    task_id: str
    lease_id: str
    result: bytes
    error: str
    """Empty: it succeeded."""
    retryable: bool = True
    """Whether a retry of a failure makes sense."""
    retry_after_s: float | None = None
    """How long the retry waits; None: as the task's backoff says."""


@value
class Selection:
    """Finished tasks that an operator means: by id, or all that pass every filter that is set."""

    task_ids: tuple[str, ...] = ()
    """At most 500, and nothing else set; if one of them cannot be done, none is."""
    states: tuple[TaskState, ...] = ()
    """None: dead."""
    user_tier: str = ""
    kind: str = ""
    queue: str = ""
    age_s: float = 0
    """Ended at least so long ago."""
    all: bool = False
    """Required where nothing else narrows it."""


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
    backoff: RetryPause | None = None
    """None: a retry is ready at once."""
    delay_s: float = 0
    """Not before so long from now."""
    not_before: datetime | None = None
    """… or not before this time, which has a time zone."""
    deadline_s: float = 0
    """Not started within so long from now, it is dead; 0: no deadline."""
    deadline: datetime | None = None
    """… or not started by this time, which has a time zone."""
    run_timeout_s: float | None = None
    """How long one run may take; None: the distributor's limit."""
    lease_s: float | None = None
    """The term of its leases; None: the distributor's."""
    idempotency_key: str = ""
    """Of your own: no two tasks of a queue share one, and a repeat adds nothing twice."""


_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*: ")
"""How the lines of a traceback begin that name the exception (`traceback` of Python)."""


def gist(error: str) -> str:
    """The line of an error or traceback that says what went wrong. The text of an exception may
    have several lines, of which the first one has its type."""
    lines = error.strip().split("\n")
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    if frames:
        after = [line for line in lines[frames[-1] + 1 :] if _EXCEPTION.match(line)]
        return after[-1] if after else lines[-1]
    return lines[-1]
