"""Time that a test moves by hand, or that a virtual event loop moves."""

import asyncio

from taskdist.backends.clock import Clock
from taskdist.settings import SECOND_US, DistributorSettings

NOON_US = 1_750_000_000 * SECOND_US
"""Where the wall clock of a test begins: some time in June 2025."""


class ManualTime:
    """Both sources of time. They stand still until the test moves them."""

    def __init__(self) -> None:
        self.wall_us = NOON_US
        self.monotonic_us = 7 * SECOND_US

    def clock(self, settings: DistributorSettings) -> Clock:
        """A clock that reads this time."""
        return Clock(
            settings,
            wall_ns=lambda: self.wall_us * 1_000,
            monotonic_ns=lambda: self.monotonic_us * 1_000,
        )

    def pass_us(self, us: int) -> None:
        """Time passes, for everybody."""
        self.wall_us += us
        self.monotonic_us += us

    def jump_wall_us(self, us: int) -> None:
        """Somebody sets the system's clock, forward or back."""
        self.wall_us += us


def loop_clock(settings: DistributorSettings) -> Clock:
    """A clock that goes by the running event loop's own time; for tests in virtual time."""
    loop = asyncio.get_running_loop()
    return Clock(
        settings,
        wall_ns=lambda: NOON_US * 1_000 + round(loop.time() * 1e9),
        monotonic_ns=lambda: round(loop.time() * 1e9),
    )
