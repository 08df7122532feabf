"""The distributor is killed again and again, while clients submit and an agent works (P1, P2)."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from taskdist.agent.feeds import Feed, Streaming
from taskdist.agent.fetching import Fetching
from taskdist.client import Stub
from taskdist.core.errors import Unavailable
from taskdist.core.task import TaskState
from taskdist.limits import SECOND_US
from taskdist.reports import Report, Work
from taskdist.settings import AgentSettings
from tests.support.processes import LIMIT_S, Processes

KILLS = 3
ACKNOWLEDGED_PER_LIFE = 50
SUBMITTERS = 8
TIERS = ("paid", "free")


class Traffic:
    """Clients that submit, and one agent that works, over every death of the distributor.

    Every submit has an id of its own and is never repeated, so an unacknowledged one may be there
    or not; an outcome is repeated until it is answered. It is the desk of its agent's feed.
    """

    agent_id = "tester"
    session = "s-1"
    kinds: Sequence[str] = ()
    slots = 1
    input_schemas: Mapping[str, dict[str, Any] | None] = MappingProxyType({})

    def __init__(self, address: str, feed: str) -> None:
        self.client = Stub(address)
        settings = AgentSettings(wait_us=SECOND_US, backoff_max_us=SECOND_US)
        kind = Fetching if feed == "FetchTask" else Streaming
        self._feed: Feed = kind(self, settings, self.client)
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self.is_up = asyncio.Event()
        self.is_up.set()
        self.over = asyncio.Event()
        self.wrong: list[Work] = []
        """Tasks whose data is not what was submitted, byte for byte."""
        self.tried: dict[str, bytes] = {}
        self.acknowledged: set[str] = set()
        self.succeeded: dict[str, bytes] = {}
        self._more = asyncio.Condition()

    async def submit(self) -> None:
        """Submits until it is over."""
        while not self.over.is_set():
            number = len(self.tried)
            task_id, data = str(uuid.uuid4()), number.to_bytes(8)
            self.tried[task_id] = data
            try:
                await self.client.submit(
                    task_id=task_id,
                    user_tier=TIERS[number % 2],
                    est_processing_time_s=number % 5,
                    data=data,
                )
            except Unavailable:
                await self.is_up.wait()
            else:
                self.acknowledged.add(task_id)
                async with self._more:
                    self._more.notify_all()

    async def work(self) -> None:
        """Takes one task after another and reports its data, reversed, as its result."""
        running = asyncio.ensure_future(self._feed.run())
        await self.over.wait()
        if isinstance(self._feed, Fetching):
            await self._idle.wait()
        self._feed.leave()
        await self._no_runs()
        await self._feed.finish()
        await running
        await self._no_runs()  # What came between goodbye and the end of the stream.

    def held(self) -> list[str]:
        """The leases that it holds."""
        return list(self._runs)

    def begin(self, work: Work, since: float) -> None:
        """A task has come."""
        if work.data != self.tried[work.task_id]:
            self.wrong.append(work)
        self._runs[work.lease_id] = asyncio.ensure_future(self._run(work))

    def lost(self, lease_id: str, reason: str) -> None:
        """An outcome was kept, and the distributor killed before it said so: it is said again."""

    async def free_slot(self) -> None:
        """Returns once no task runs; never when it is over, so that no fetch is cut off."""
        await self._no_runs()
        if self.over.is_set():
            self._idle.set()
            await asyncio.Event().wait()

    async def _no_runs(self) -> None:
        while self._runs:
            await asyncio.wait(self._runs.values())

    async def _run(self, work: Work) -> None:
        result = work.data[::-1]
        try:
            await self._feed.settle(Report(work.task_id, work.lease_id, result, ""))
            self.succeeded[work.task_id] = result
        finally:
            del self._runs[work.lease_id]

    async def wait_for_more(self, count: int) -> None:
        """Returns when so many more submits are acknowledged."""
        wanted = len(self.acknowledged) + count
        async with self._more:
            await self._more.wait_for(lambda: len(self.acknowledged) >= wanted)


async def test_nothing_acknowledged_is_lost_over_many_kills(
    processes: Processes, feed: str
) -> None:
    """P1: what was acknowledged is there, once, in one state; P2: the rest comes in order."""
    serving = processes.serve()
    traffic = Traffic(serving.address, feed)
    async with traffic.client as client, asyncio.timeout(2 * LIMIT_S):
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.work())
            for _ in range(SUBMITTERS):
                group.create_task(traffic.submit())
            for _ in range(KILLS):
                await traffic.wait_for_more(ACKNOWLEDGED_PER_LIFE)
                traffic.is_up.clear()
                serving.kill()
                serving = await asyncio.to_thread(processes.serve, listen=serving.address)
                traffic.is_up.set()
            await traffic.wait_for_more(ACKNOWLEDGED_PER_LIFE)
            traffic.over.set()

        tasks = [task async for task in client.list_tasks()]
        assert not traffic.wrong
        by_id = {task.task_id: task for task in tasks}
        assert len(by_id) == len(tasks), "each is in one state"
        assert traffic.acknowledged <= by_id.keys() <= traffic.tried.keys()
        assert traffic.succeeded
        for task_id, result in traffic.succeeded.items():
            assert by_id[task_id].state is TaskState.SUCCEEDED
            assert (await client.get(task_id)).result == result

        waiting = [task for task in tasks if task.state is TaskState.READY]
        waiting.sort(
            key=lambda task: (
                TIERS.index(task.user_tier),
                task.est_processing_time_s,
                task.enqueued_at,
                task.sequence,
            )
        )
        for task in waiting:
            work = await client.fetch(agent_id="tester")
            assert work is not None
            assert (work.task_id, work.data) == (task.task_id, traffic.tried[task.task_id])
        assert await client.fetch(agent_id="tester") is None
