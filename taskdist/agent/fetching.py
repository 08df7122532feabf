"""Tasks and outcomes by unary calls, for distributors that lack the Work stream."""

import asyncio

import structlog

from taskdist.agent.announcing import Announcing
from taskdist.agent.feeds import TELL_PAUSE_S, Backoff, Desk, patiently
from taskdist.agent.untold import Untold
from taskdist.client import Stub
from taskdist.core.errors import Refused, Unavailable
from taskdist.limits import SECOND_US
from taskdist.reports import Remarks, Report, Work
from taskdist.settings import AgentSettings

log = structlog.get_logger()


class Fetching:
    """A `Feed` of unary calls, for distributors that lack Work."""

    def __init__(self, desk: Desk, settings: AgentSettings, client: Stub) -> None:
        self._desk = desk
        self._settings = settings
        self._client = client
        self._fetching: asyncio.Task[None] | None = None
        self._finished = asyncio.Event()
        self._announcing = Announcing(desk, settings, client)
        self._untold = Untold()
        self._telling: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """See `Feed.run`."""
        self._announcing.now()
        self._fetching = asyncio.ensure_future(self._fetch_forever())
        finished = asyncio.ensure_future(self._finished.wait())
        try:
            await asyncio.wait({self._fetching, finished}, return_when=asyncio.FIRST_COMPLETED)
            if self._fetching.done() and not self._fetching.cancelled():
                self._fetching.result()
            await finished
        finally:
            finished.cancel()
            self._fetching.cancel()
            self._announcing.end()
            if self._telling is not None:
                self._telling.cancel()

    def tell(self, remarks: Remarks) -> None:
        """See `Feed.tell`."""
        self._untold.add(remarks)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.ensure_future(self._tell_all())

    async def _tell_all(self) -> None:
        while self._untold:
            await asyncio.sleep(TELL_PAUSE_S)
            for remarks in self._untold.take():
                await self._tell(remarks)

    async def _tell(self, remarks: Remarks) -> None:
        try:
            await self._client.report_progress(remarks, agent_id=self._desk.agent_id)
        except Backoff.worth_waiting_for:
            self._untold.lost(remarks)
            await asyncio.sleep(self._settings.backoff_us / SECOND_US)
        except Refused as reason:
            log.info("progress refused", task_id=remarks.task_id, reason=str(reason))

    async def settle(self, report: Report) -> str:
        """See `Feed.settle`."""
        for remarks in self._untold.take_of(report.lease_id):
            await self._tell(remarks)
        return await patiently(
            self._settings,
            lambda: self._client.complete(
                task_id=report.task_id,
                agent_id=self._desk.agent_id,
                lease_id=report.lease_id,
                success=not report.error,
                result=report.result,
                error=report.error,
                retryable=report.retryable,
                retry_after_s=report.retry_after_s,
            ),
        )

    def resize(self) -> None:
        """See `Feed.resize`. It asks for a task only when there is a slot."""

    def leave(self) -> None:
        """See `Feed.leave`. A task that is on its way in this instant is lost with its lease."""
        self._announcing.end()
        if self._fetching is not None:
            self._fetching.cancel()

    async def finish(self) -> None:
        """See `Feed.finish`."""
        self.leave()
        self._finished.set()

    async def _fetch_forever(self) -> None:
        while True:
            await self._desk.free_slot()
            work, since = await patiently(self._settings, self._fetch)
            if work is not None:
                self._desk.begin(work, since)

    async def _fetch(self) -> tuple[Work | None, float]:
        """A task, and since when its lease may run: no earlier than it was asked for."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            work = await self._client.fetch(
                agent_id=self._desk.agent_id,
                session=self._desk.session,
                queues=self._settings.queues,
                kinds=self._desk.kinds,
                wait_s=self._settings.wait_us / SECOND_US,
            )
        except Unavailable:
            self._announcing.now()  # Once it is back, it has forgotten.
            raise
        got_at = loop.time()
        waited_long = work is not None and got_at - asked_at > work.lease_s / 3
        return work, got_at if waited_long else asked_at
