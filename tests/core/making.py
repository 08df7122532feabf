"""Tasks, leases and moments for the tests of the core."""

from typing import Any

from taskdist.core.commands import Moment
from taskdist.core.task import Attempt, Lease, Outcome, Task, TaskState
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings

SETTINGS = DistributorSettings()
WALL_US = 1_750_000_000 * SECOND_US
SERVED_US = 5_000 * SECOND_US


def task_id(number: int) -> str:
    """A valid id for each number."""
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def moment(after_s: float = 0) -> Moment:
    """The moment so long after the beginning of the test; wall clock and age agree."""
    us = round(after_s * SECOND_US)
    return Moment(WALL_US + us, SERVED_US + us, WALL_US + us)


def ready(sequence: int = 1, **changes: Any) -> Task:
    """A task that waits."""
    values: dict[str, Any] = {
        "id": task_id(sequence),
        "user_tier": "free",
        "est_processing_time_us": SECOND_US,
        "sequence": sequence,
        "submitted_at_us": WALL_US - SECOND_US,
        "enqueued_at_us": WALL_US - SECOND_US,
        **changes,
    }
    return Task(**values)


def lease(lease_id: str = "lease-1", agent_id: str = "agent-1", **changes: Any) -> Lease:
    """A lease that began at `moment()`, for 30 s and at most an hour."""
    values: dict[str, Any] = {
        "lease_id": lease_id,
        "agent_id": agent_id,
        "session": "session-1",
        "started_at_us": WALL_US,
        "started_us": SERVED_US,
        "term_us": 30 * SECOND_US,
        "run_timeout_us": 3_600 * SECOND_US,
        "expires_us": SERVED_US + 30 * SECOND_US,
        **changes,
    }
    return Lease(**values)


def leased(sequence: int = 1, held: Lease | None = None, **changes: Any) -> Task:
    """A task in its first run, held by `agent-1`."""
    values = {"attempt": 1, **changes}
    return ready(sequence, state=TaskState.LEASED, lease=held or lease(), **values)


def attempt(outcome: Outcome, led_to: TaskState, **changes: Any) -> Attempt:
    """What became of `lease-1` of `agent-1`."""
    values: dict[str, Any] = {
        "attempt": 1,
        "lease_id": "lease-1",
        "agent_id": "agent-1",
        "session": "session-1",
        "started_at_us": WALL_US,
        "ended_at_us": WALL_US + SECOND_US,
        **changes,
    }
    return Attempt(outcome=outcome, led_to=led_to, **values)
