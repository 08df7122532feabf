"""A backup that is taken under load is restored: nothing acknowledged before is missing (P1-P4)."""

import asyncio
import uuid
from pathlib import Path

import pytest

from taskdist.client import Stub
from taskdist.core.errors import PreconditionFailed, TaskNotFound
from taskdist.core.task import TaskState
from taskdist.reports import TaskReport
from tests.support.processes import Processes

SUBMITTERS = 8
PAUSE_S = 0.02
"""Between two submits of one: without it there would be too many tasks to look through."""
ACKNOWLEDGED_BEFORE = 300
TIERS = ("paid", "free")
LEASE = "2s"


class Load:
    """Clients that submit all the time; each task has an id of its own."""

    def __init__(self, client: Stub) -> None:
        self._client = client
        self.acknowledged: list[str] = []
        self.over = asyncio.Event()
        self._more = asyncio.Condition()

    async def submit(self) -> None:
        """Submits until it is over."""
        while not self.over.is_set():
            number, task_id = len(self.acknowledged), str(uuid.uuid4())
            await self._client.submit(
                task_id=task_id,
                user_tier=TIERS[number % 2],
                est_processing_time_s=number % 5,
                data=task_id.encode(),
            )
            self.acknowledged.append(task_id)
            await asyncio.sleep(PAUSE_S)
            async with self._more:
                self._more.notify_all()

    async def wait_for(self, count: int) -> None:
        """Returns once so many are acknowledged."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.acknowledged) >= count)


async def backed_up(processes: Processes, address: str, path: Path) -> list[str]:
    """Takes a backup under load; what was acknowledged before."""
    async with Stub(address) as client, asyncio.TaskGroup() as group:
        load = Load(client)
        for _ in range(SUBMITTERS):
            group.create_task(load.submit())
        await load.wait_for(ACKNOWLEDGED_BEFORE)
        before = list(load.acknowledged)
        backup = processes.spawn("store", "backup", str(path), "--server", address)
        assert await asyncio.to_thread(backup.wait_end) == 0, str(backup)
        check = processes.spawn("store", "check", "--server", address)
        assert await asyncio.to_thread(check.wait_end) == 0, str(check)
        await load.wait_for(len(load.acknowledged) + 1)
        load.over.set()
    return before


def place(task: TaskReport) -> tuple[object, ...]:
    """Where a task stands in the order."""
    return (
        task.retry_count > 0,
        TIERS.index(task.user_tier),
        task.est_processing_time_s,
        task.enqueued_at,
        task.sequence,
    )


async def test_p1_a_backup_under_load_is_restored(processes: Processes) -> None:
    path = processes.directory / "backup.db"
    serving = processes.serve("--lease", LEASE)
    agents = [
        processes.agent(f"a-{n}", serving.address, "--slots", "3", "--speed", "100")
        for n in range(2)
    ]
    # One is at work all the time, whatever the others have in hand at the moment of the backup.
    stays = ("--slots", "1", "--queues", "long", "--drain-timeout", "0s")
    agents.append(processes.agent("a-2", serving.address, *stays))
    async with Stub(serving.address) as client:
        await client.submit(user_tier="paid", est_processing_time_s=600, queue="long")
        agents[-1].wait_for("task started")
        await client.submit(user_tier="paid", est_processing_time_s=1, queue="later")
        before = await backed_up(processes, serving.address, path)
        later = await client.fetch(agent_id="tester", queues=["later"])
        assert later is not None
        after = await client.submit(user_tier="paid", est_processing_time_s=1, queue="after")
    for one in [*agents, serving]:
        one.terminate()
        assert one.wait_end() == 0
    check = processes.spawn("store", "check", str(path))
    assert check.wait_end() == 0, str(check)

    # A long lease, so that those who look at the order keep what they take.
    restored = processes.serve("--lease", "60s", store=f"sqlite:{path}")
    async with Stub(restored.address) as client:
        # What came after the backup never was.
        with pytest.raises(PreconditionFailed, match="does not hold lease"):
            await client.complete(
                task_id=later.task_id, agent_id="tester", lease_id=later.lease_id, success=True
            )
        with pytest.raises(TaskNotFound):
            await client.get(after.task_id)
        # P4: nobody speaks for the leases of that time; they run out.
        states = [TaskState.LEASED]
        leased = {t.task_id: t.lost_count async for t in client.list_tasks(states=states)}
        for task_id in leased:
            await asyncio.to_thread(restored.wait_for, "lease lost", task_id=task_id)
        tasks = [task async for task in client.list_tasks()]
        assert len({task.task_id for task in tasks}) == len(tasks), "each is in one state"
        assert set(before) <= {task.task_id for task in tasks}
        assert leased, "an agent was at work"
        lost = {task.task_id: task.lost_count for task in tasks if task.task_id in leased}
        assert lost == {task_id: count + 1 for task_id, count in leased.items()}
        assert {TaskState.SUCCEEDED, TaskState.READY} <= {task.state for task in tasks}
        waiting = [task for task in tasks if task.state is TaskState.READY]
        for task in sorted(waiting, key=place):
            if task.queue == "default":
                work = await client.fetch(agent_id="tester")
                assert work is not None
                assert (work.task_id, work.data) == (task.task_id, task.task_id.encode())
        assert await client.fetch(agent_id="tester") is None
