"""The handlers of an agent that was given none."""

import asyncio
import random

from taskdist.agent.context import Context
from taskdist.agent.registry import Registry
from taskdist.settings import AgentSettings


class SimulatedFailure(Exception):
    """A simulated task failed, as it was told to."""


def built_in(settings: AgentSettings) -> Registry:
    """One kind, `simulate`."""
    registry = Registry()

    @registry.handler
    async def simulate(_: bytes, ctx: Context) -> bytes:
        """Works for est_processing_time, then fails as often as the settings say.

        Whether it fails is drawn from the seed, the task and the attempt, so that a run can be
        repeated, whichever agent gets which task.
        """
        task = ctx.task
        await asyncio.sleep(task.est_processing_time_s / settings.speed)
        draw = random.Random(f"{settings.seed}/{task.sequence}/{task.attempt}").random()
        if draw < settings.failure_rate:
            raise SimulatedFailure(f"attempt {task.attempt} was drawn to fail")
        return f"worked {task.est_processing_time_s:g} s".encode()

    return registry
