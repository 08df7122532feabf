"""What a handler knows of its run, and can say of it."""

import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from threading import Event
from typing import Protocol

from taskdist.reports import Work


class Sink(Protocol):
    """Takes what runs say of themselves, from any thread. Never blocks, never fails."""

    def progress(self, lease_id: str, fraction: float, text: str) -> None:
        """How far a run is. A later one replaces one that is not sent yet."""

    def log(self, lease_id: str, line: str) -> None:
        """A line of a run's log."""


class Cancelled:
    """Whether a run is over for its task: look at it, or wait for it."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def is_set(self) -> bool:
        """Whether it is over."""
        return self._event.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Blocks its thread until it is over, or for so long; whether it is. Not for async code,
        which is simply cancelled."""
        return self._event.wait(timeout_s)

    def set(self) -> None:
        """It is."""
        self._event.set()


class Said:
    """It is said already; `await` costs nothing, and a plain function leaves it out."""

    __slots__ = ()

    def __await__(self) -> Generator[None]:
        yield from ()


_SAID = Said()


class Context:
    """One run of a task.

    Args:
        task: what is run, with its lease.
        limit_s: how long the run may take.
        sink: takes what it says.
        lease_left_s: until a lease is over, if it is not renewed; by its id, in seconds.
        clock: seconds that only grow.

    Attributes:
        task: its task_id, kind, queue, user_tier, sequence, retry_count, …
    """

    __slots__ = ("_cancelled", "_clock", "_lease_left_s", "_limit_s", "_sink", "_started", "task")

    def __init__(
        self,
        task: Work,
        limit_s: float,
        sink: Sink,
        lease_left_s: Callable[[str], float],
        clock: Callable[[], float],
    ) -> None:
        self.task = task
        self._limit_s = limit_s
        self._sink = sink
        self._lease_left_s = lease_left_s
        self._clock = clock
        self._started = clock()
        self._cancelled: Cancelled | None = None

    @property
    def attempt(self) -> int:
        """The how many-th run of its task this is, from 1."""
        return self.task.attempt

    @property
    def lease_id(self) -> str:
        """This run's fencing token: no other run, of any task, has it."""
        return self.task.lease_id

    def progress(self, fraction: float, text: str = "") -> Said:
        """Says how far the run is. Those who watch the task see the latest.

        Args:
            fraction: 0 to 1; what is beyond counts as the nearer of both.
            text: for people.
        """
        # What is no number fails here, in the handler; NaN is neither.
        self._sink.progress(self.task.lease_id, min(1.0, max(0.0, float(fraction))), str(text))
        return _SAID

    def log(self, line: str) -> None:
        """Adds a line to what is kept with the task, within limits."""
        self._sink.log(self.task.lease_id, str(line))

    @property
    def cancelled(self) -> Cancelled:
        """Whether nobody waits for this run any more: cancelled, out of time, its lease lost, or
        the agent stops. Only a plain function in a thread has to look; others are stopped."""
        if self._cancelled is None:
            self._cancelled = Cancelled()
        return self._cancelled

    @property
    def limit_s(self) -> float:
        """How long the run may take in all: the smaller of the handler's and the task's."""
        return self._limit_s

    def time_left(self) -> float:
        """Seconds until the run is stopped as a failure."""
        return max(0.0, self._started + self._limit_s - self._clock())

    @property
    def deadline(self) -> datetime:
        """When that is, by the wall clock."""
        return datetime.fromtimestamp(time.time() + self.time_left(), UTC)

    def lease_time_left(self) -> float:
        """Seconds until another agent may have the task, if the lease is not renewed from now on.
        It is, all the time, unless the distributor is out of reach."""
        return self._lease_left_s(self.task.lease_id)
