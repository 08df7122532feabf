"""What runs a task: one handler per kind. An agent announces exactly the kinds that it has."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from taskdist.reports import Work
from taskdist.settings import AgentSettings

Handler = Callable[[Work], Awaitable[bytes]]
"""Runs a task and returns its result. Whatever it raises is a failure of that attempt."""


class Fatal(Exception):
    """What a handler raises when no retry can help: the task is dead at once, whatever is left."""


class Retry(Exception):
    """What a handler raises to fail and to say when to try again, if there are retries left.

    Args:
        after_s: how long the task waits before its retry, whatever its own backoff says.
    """

    def __init__(self, text: str = "", *, after_s: float) -> None:
        super().__init__(text or f"to be tried again after {after_s:g} s")
        self.after_s = float(after_s)  # What is no number fails here, in the handler.


class SimulatedFailure(Exception):
    """A simulated task failed, as it was told to."""


def built_in(settings: AgentSettings) -> dict[str, Handler]:
    """The handlers of an agent that was given none."""

    async def simulate(work: Work) -> bytes:
        """Works for est_processing_time, then fails as often as the settings say.

        Whether it fails is drawn from the seed, the task and the attempt, so that a run can be
        repeated, whichever agent gets which task.
        """
        await asyncio.sleep(work.est_processing_time_s / settings.speed)
        draw = random.Random(f"{settings.seed}/{work.sequence}/{work.attempt}").random()
        if draw < settings.failure_rate:
            raise SimulatedFailure(f"attempt {work.attempt} was drawn to fail")
        return f"worked {work.est_processing_time_s:g} s".encode()

    return {"simulate": simulate}
