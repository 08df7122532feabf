"""When an agent that is to end with its work has none left."""

import asyncio
from typing import Protocol

import structlog

from taskdist.agent.feeds import Desk
from taskdist.client import Stub
from taskdist.core.errors import Refused, TaskNotFound
from taskdist.core.task import TaskState
from taskdist.limits import SECOND_US
from taskdist.settings import AgentSettings

log = structlog.get_logger()

WAITS = (TaskState.READY, TaskState.SCHEDULED)


class BusyDesk(Desk, Protocol):
    """An agent, seen from here."""

    @property
    def is_busy(self) -> bool:
        """Whether anything runs."""


class Idleness:
    """Comes when all of this holds: nothing runs here and nothing has come for a while; no task
    whose run failed here waits for its retry; and an empty poll says that no task is ready for this
    agent.

    Tasks that others run or that are due later, by their submitter's wish, are not waited for.
    """

    def __init__(self, desk: BusyDesk, settings: AgentSettings, client: Stub) -> None:
        self._desk = desk
        self._settings = settings
        self._client = client
        self._failed: dict[str, None] = {}
        """Tasks that may come back."""

    def failed(self, task_id: str) -> None:
        """A run of this task failed here."""
        self._failed[task_id] = None

    async def comes(self) -> None:
        """Returns when it has come. A distributor that is away has more to do, for all we know."""
        idle_s = self._settings.idle_us / SECOND_US
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        while True:
            await asyncio.sleep(idle_s / 4)
            if self._desk.is_busy:
                quiet_since = loop.time()
            elif loop.time() - quiet_since >= idle_s:
                try:
                    if not await self._is_expecting() and not await self._poll():
                        log.info("idle", agent_id=self._desk.agent_id)
                        return
                except Refused as reason:
                    log.debug("idle, but not told so", reason=str(reason))
                quiet_since = loop.time()

    async def _is_expecting(self) -> bool:
        """Whether a task that failed here waits."""
        for task_id in list(self._failed):
            try:
                if (await self._client.get(task_id)).state in WAITS:
                    return True
            except TaskNotFound:
                pass  # Its time to be kept was short.
            del self._failed[task_id]
        return False

    async def _poll(self) -> bool:
        """Whether something is ready; then it runs."""
        since = asyncio.get_running_loop().time()
        work = await self._client.fetch(
            agent_id=self._desk.agent_id,
            session=self._desk.session,
            queues=self._settings.queues,
            kinds=self._desk.kinds,
        )
        if work is None:
            return False
        self._desk.begin(work, since)
        return True
