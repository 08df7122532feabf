"""The distributor is killed with SIGKILL and started again on the same store and port."""

from dataclasses import replace
from datetime import timedelta

from taskdist.client import Stub
from taskdist.core.task import TaskState
from taskdist.reports import Work
from tests.support.processes import Processes, Serving, when


def again(processes: Processes, killed: Serving, *flags: str) -> Serving:
    """A distributor in the place of a killed one."""
    return processes.serve(*flags, listen=killed.address)


async def taken(client: Stub) -> Work:
    """The next task, which must be there."""
    work = await client.fetch(agent_id="tester")
    assert work is not None
    return work


async def test_a_sigkill_changes_nothing_that_was_acknowledged(processes: Processes) -> None:
    """P1: every task is as it was told to be, byte for byte; P2: in the order that it was in."""
    serving = processes.serve()
    async with Stub(serving.address) as client:
        ids = [
            (
                await client.submit(
                    user_tier="free", est_processing_time_s=i, data=bytes([i]), max_retries=0
                )
            ).task_id
            for i in range(8)
        ]
        for number, (success, text) in enumerate([(True, b"\x00done\xff"), (False, b"")]):
            work = await taken(client)
            assert work.task_id == ids[number]
            await client.complete(
                task_id=work.task_id,
                agent_id="tester",
                lease_id=work.lease_id,
                success=success,
                result=text,
                error="" if success else "out of luck",
            )
        await client.cancel(ids[2])
        running = [await taken(client), await taken(client)]
        before = [await client.get(task_id) for task_id in ids]

    serving.kill()
    serving = again(processes, serving)

    async with Stub(serving.address) as client:
        # Why a ready one waits is no part of it: who is live has to be heard anew.
        after = [await client.get(task_id) for task_id in ids]
        assert [replace(task, waits_because="") for task in after] == [
            replace(task, waits_because="") for task in before
        ]
        assert [task.state async for task in client.list_tasks()] == [
            *[TaskState.READY] * 3,
            *[TaskState.LEASED] * 2,
            TaskState.CANCELLED,
            TaskState.DEAD,
            TaskState.SUCCEEDED,
        ]
        assert [(work.task_id, work.data) for work in [await taken(client) for _ in range(3)]] == [
            (ids[i], bytes([i])) for i in (5, 6, 7)
        ]
        # P4: the leases go on, and their outcomes count.
        lease_ids = [work.lease_id for work in running]
        assert await client.heartbeat(agent_id="tester", lease_ids=lease_ids) == set(lease_ids)
        for work in running:
            await client.complete(
                task_id=work.task_id, agent_id="tester", lease_id=work.lease_id, success=True
            )
        assert [(await client.get(task_id)).state for task_id in ids[3:5]] == [
            TaskState.SUCCEEDED
        ] * 2


async def test_a_restart_within_two_thirds_of_a_lease_stops_no_running_work(
    processes: Processes, feed: str
) -> None:
    """P4: agent and client find the distributor by themselves; the task ends in its first run."""
    lease = ("--lease", "6s")  # a start may take two seconds on a busy machine
    serving = processes.serve(*lease)
    # The second slot is free: an agent that fetches notices by that, too.
    agent = processes.agent("agent-1", serving.address, "--slots", "2", "--failure-rate", "0")
    waiting = processes.spawn("submit", "--time", "7", "--wait", "--server", serving.address)
    started = agent.wait_for("task started")
    task_id = started["task_id"]

    serving.kill()
    agent.wait_for("distributor lost")
    waiting.wait_for_text("waiting for it")
    agent.wait_for("heartbeat failed")  # a third of the lease has gone by
    serving = again(processes, serving, *lease)

    if feed == "Work":  # Who fetches says so once a fetch is answered: here, in half a minute.
        agent.wait_for("distributor back")
    finished = agent.wait_for("task succeeded", task_id=task_id, attempt=1)
    assert when(finished) - when(started) > timedelta(seconds=6)
    assert not agent.logged("lease lost")
    assert waiting.wait_end() == 0
    async with Stub(serving.address) as client:
        task = await client.get(task_id)
    assert (task.state, task.lost_count, task.retry_count) == (TaskState.SUCCEEDED, 0, 0)
    assert [attempt.attempt for attempt in task.attempts] == [1]
