"""What can be asked of the tasks, and answered, as values. What each leads to is in `decide.py`.

A command says which tasks it needs; a backend finds them. A decision is the changes to save and the
answer to speak once they are saved. Undo is the same changes reversed.
"""

from collections.abc import Sequence
from dataclasses import field
from typing import Any, Generic, TypeVar

from taskdist.core.entries import Entry, Kept, Remark
from taskdist.core.task import Attempt, Outcome, Task, TaskState
from taskdist.core.values import value

A_co = TypeVar("A_co", covariant=True)

# --- answers ----------------------------------------------------------------------------------


@value
class Placed:
    """A task and where it stands."""

    task: Task
    position: int = 0
    """1 is next in its queue; 0 when it is not ready. Filled in by who holds the TaskQueue."""


@value
class Grant:
    """A task under a new lease, with its data."""

    task: Task
    data: bytes


@value
class Grants:
    """What an agent got: nothing, or up to as many as it had slots."""

    grants: tuple[Grant, ...] = ()


@value
class Held:
    """The leases, of those asked about, that the agent still holds."""

    lease_ids: tuple[str, ...]


@value
class Settled:
    """What an outcome led to; the same again when it is repeated."""

    outcome: Outcome
    led_to: TaskState


@value
class Noted:
    """What became of some remarks."""

    dropped: int
    """How many of them were not kept, because they came too fast."""


@value
class Done:
    """It was done, and there is no more to say."""


# --- commands ---------------------------------------------------------------------------------


@value
class Command(Generic[A_co]):
    """Something asked; its parameter is the type of the answer."""


@value
class Submit(Command[Placed]):
    """Add a task. Needs: the task of this id, if the client made it; that of its key."""

    task: Task
    """Only what the submitter said is read."""
    data: bytes
    client_made_id: bool
    position_wanted: bool = True
    not_before_us: int = 0
    """Wall clock. It is scheduled until then; 0: it is ready at once."""
    delay_us: int = 0
    """… or so long from now."""
    deadline_in_us: int = 0
    """So long from now is its deadline; 0: it is `task.deadline_us`."""
    prefix: str = ""
    """Stands before the fields that a refusal names, for one of several: `tasks[3].`."""


@value
class Several(Command[tuple[Any, ...]]):
    """Apply these in one commit, in this order. Answers one for each, a `Refused` where it was.

    No rule of its own: each of them is decided as if it had come alone, but that a `Take` among
    them never waits.
    """

    commands: tuple[Command[Any], ...]
    atomic: bool = False
    """All or nothing: the first refusal is that of the whole, and undoes what came before it."""


@value
class Take(Command[Grants]):
    """Lease up to `slots` tasks. Needs: the smallest of these lanes. Waits if there are none and
    it has a free slot."""

    agent_id: str
    session: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    """None means any."""
    slots: int
    wait_us: int
    token: str
    """A random text, new for each command: with it lease ids cannot be guessed or used again."""
    slots_in_all: bool = False
    """Whether the leases that the agent's session holds already count among its `slots`."""


@value
class Resume(Command[Held]):
    """A session says which leases it still holds: the others are undone, since their answer never
    reached it. Needs: the leased tasks of this session."""

    agent_id: str
    session: str
    lease_ids: tuple[str, ...]


@value
class Heartbeat(Command[Held]):
    """Start terms anew. Needs: the leased tasks of these leases, or with none, of this agent."""

    agent_id: str
    lease_ids: tuple[str, ...]


@value
class Settle(Command[Settled]):
    """End a lease. Needs: the task, the attempt that this lease became, the result."""

    task_id: str
    agent_id: str
    lease_id: str
    """Empty: the agent did not send it."""
    outcome: Outcome
    """SUCCEEDED, FAILED or RELEASED."""
    result: bytes = b""
    error: str = ""
    retryable: bool = True
    retry_after_us: int | None = None
    """How long a failed task waits before its retry; None: what its own backoff says."""


@value
class Note(Command[Noted]):
    """Keep what an agent says of its run. Needs: the task, what is kept of this sort."""

    task_id: str
    agent_id: str
    lease_id: str
    """Empty: the agent did not send it."""
    remarks: tuple[Remark, ...]


@value
class Cancel(Command[Placed]):
    """End a live task. Needs: the task."""

    task_id: str


@value
class Redrive(Command[Placed]):
    """Put a dead or cancelled task back, as if new. Needs: the task, how much waits."""

    task_id: str
    position_wanted: bool = True


@value
class Purge(Command[Done]):
    """Remove a finished task for good. Needs: the task."""

    task_id: str


@value
class Locate(Command[Placed]):
    """Say where a task stands. Needs: the task."""

    task_id: str


@value
class Expire(Command[Done]):
    """End the leases whose time is up. Needs: their tasks."""


@value
class Due(Command[Done]):
    """Make scheduled tasks ready whose time has come. Needs: some of them, the earliest first."""


@value
class Overdue(Command[Done]):
    """End tasks whose deadline has passed. Needs: some that are scheduled or ready."""


@value
class Forget(Command[Done]):
    """Remove finished tasks after their retention. Needs: some of them, the oldest first."""


@value
class TakeBack(Command[Done]):
    """Undo leases whose answer never reached the agent. Needs: their tasks."""

    lease_ids: tuple[str, ...]


@value
class StopTakes(Command[Done]):
    """The server stops: answer all that wait for a task with nothing, refuse any further `Take`."""


# --- what a decision is made of ---------------------------------------------------------------


@value
class Moment:
    """The moment of decision."""

    wall_us: int
    """The system's clock; may jump."""
    served_us: int
    """Monotonic, without the pauses of the distributor; goes on over restarts."""
    enqueue_us: int
    """The later of the wall clock and the newest enqueued_at given."""


@value
class Found:
    """What a backend found for a command; each command's docstring says what it needs."""

    tasks: Sequence[Task] = ()
    data: Sequence[bytes] = ()
    """Of the tasks, one for one, if the command hands it out or compares it."""
    attempt: Attempt | None = None
    result: bytes = b""
    """Of the attempt, if it succeeded."""
    of_key: Task | None = None
    """The task that has the submit's idempotency key."""
    next_sequence: int = 0
    waiting: int = 0
    """How many tasks are ready or scheduled."""
    waiting_bytes: int = 0
    """How much data they have."""
    lanes: int = 0
    """How many lanes there would be with the new task's."""
    held: int = 0
    """How many leases the agent's session holds."""
    entries: Sequence[Kept] = ()
    """What is kept of the task's progress and log lines, in their order."""


@value
class Change:
    """A task before and after. `before` is None for a new one, `after` for one that is gone."""

    before: Task | None
    after: Task | None
    attempt: Attempt | None = None
    """The attempt that ended with this change."""
    data: bytes | None = None
    """Of a new task."""
    result: bytes | None = None
    """Of a task that succeeded."""
    entries: tuple[Entry, ...] = ()
    """That are kept from now on."""
    entries_gone: tuple[tuple[int, int], ...] = ()
    """The attempts and steps of those that are not, before the new ones are added."""


@value
class Decision:
    """What a command leads to."""

    answer: Any
    changes: list[Change] = field(default_factory=list)
