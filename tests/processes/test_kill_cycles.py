"""The distributor is killed again and again, while clients submit and an agent works (P1, P2)."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from taskdist.client import Client
from taskdist.core.errors import Unavailable
from taskdist.core.task import TaskState
from taskdist.reports import Work
from tests.support.processes import LIMIT_S, Processes

T = TypeVar("T")

KILLS = 3
ACKNOWLEDGED_PER_LIFE = 50
SUBMITTERS = 8
TIERS = ("paid", "free")


class Traffic:
    """Clients that submit, and one agent that works, over every death of the distributor.

    Every submit has an id of its own and is never repeated, so an unacknowledged one may be there
    or not; an outcome is repeated until it is answered.
    """

    def __init__(self, address: str) -> None:
        self.client = Client(address)
        self.is_up = asyncio.Event()
        self.is_up.set()
        self.is_over = False
        self.tried: dict[str, bytes] = {}
        self.acknowledged: set[str] = set()
        self.succeeded: dict[str, bytes] = {}
        self._more = asyncio.Condition()

    async def submit(self) -> None:
        """Submits until it is over."""
        while not self.is_over:
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
        while not self.is_over:
            work = await self.patiently(lambda: self.client.fetch(agent_id="tester", wait_s=1))
            if work is not None:
                assert work.data == self.tried[work.task_id], "byte for byte"
                await self._succeed(work)

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Calls again whenever the distributor is back."""
        while True:
            try:
                return await call()
            except Unavailable:
                await self.is_up.wait()

    async def wait_for_more(self, count: int) -> None:
        """Returns when so many more submits are acknowledged."""
        wanted = len(self.acknowledged) + count
        async with self._more:
            await self._more.wait_for(lambda: len(self.acknowledged) >= wanted)

    async def _succeed(self, work: Work) -> None:
        result = work.data[::-1]
        await self.patiently(
            lambda: self.client.complete(
                task_id=work.task_id,
                agent_id="tester",
                lease_id=work.lease_id,
                success=True,
                result=result,
            )
        )
        self.succeeded[work.task_id] = result


async def test_nothing_acknowledged_is_lost_over_many_kills(processes: Processes) -> None:
    """P1: what was acknowledged is there, once, in one state; P2: the rest comes in order."""
    serving = processes.serve()
    traffic = Traffic(serving.address)
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
            traffic.is_over = True

        tasks = [task async for task in client.list_tasks()]
        by_id = {task.task_id: task for task in tasks}
        assert len(by_id) == len(tasks), "each is in one state"
        assert traffic.acknowledged <= by_id.keys() <= traffic.tried.keys()
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
