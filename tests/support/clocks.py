"""Time that a test moves by hand, beside that which a virtual event loop moves."""

from taskdist.backends.clock import Clock
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings
from taskdist.testing.memory import NOON_US, loop_clock

__all__ = ["NOON_US", "ManualTime", "loop_clock"]


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
