"""The two clocks of a backend, by name.

`wall_us` is the system's and may jump. `served_us` is monotonic, leaves out the times in which this
process did not run, and goes on after a restart from where it was saved: leases age by it alone.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from taskdist.settings import DistributorSettings


class Clocks(NamedTuple):
    """What the journal keeps besides tasks."""

    served_us: int
    newest_enqueued_us: int
    last_sequence: int


class Clock:
    """Reads both clocks. Looked at at least every `tick_us`, else it takes the gap for a pause.

    Args:
        settings: says how long a gap is a pause.
        wall_ns, monotonic_ns: the sources of time, nanoseconds.
    """

    def __init__(
        self,
        settings: DistributorSettings,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        # Less than the time between two heartbeats, or a pause could end a lease by itself.
        self._pause_us = min(settings.pause_us, settings.lease_us // 3)
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._last_us = monotonic_ns() // 1_000
        self._served_us = 0

    def resume(self, served_us: int) -> None:
        """Goes on from a served time that was saved."""
        self._served_us = served_us
        self._last_us = self._monotonic_ns() // 1_000

    def make_room_for(self, term_us: int) -> None:
        """Leases of this term are held: from now on a pause counts as less than the time between
        two of their heartbeats."""
        self._pause_us = min(self._pause_us, term_us // 3)

    def read(self) -> tuple[int, int]:
        """Wall and served time, microseconds. A pause counts as `pause_us` of served time, or less
        where a short lease is held."""
        now_us = self._monotonic_ns() // 1_000
        self._served_us += min(now_us - self._last_us, self._pause_us)
        self._last_us = now_us
        return self._wall_ns() // 1_000, self._served_us
