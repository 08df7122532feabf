"""What is submitted in a measurement, and whether all of it came to its end exactly once."""

import asyncio
import time

from scripts.benching.measured import Failed
from scripts.benching.players import PATIENCE_S, Player
from taskdist.client import Stub
from taskdist.core.task import TaskState
from taskdist.reports import Submission

SECONDS_NEVER = 365 * 86_400.0
"""The longest expected time: such a task stands behind all others."""


def done(player: Player, count: int, patience_s: float = PATIENCE_S) -> float:
    """The rate of a counting agent that had exactly so many tasks to run, each once."""
    line = player.until("done", patience_s)
    if (line["runs"], line["tasks"]) != (count, count):
        raise Failed(f"{count} tasks, but {line['tasks']} were run, {line['runs']} times")
    return float(line["rate"])


async def check(address: str, count: int) -> None:
    """Every task succeeded, in its first attempt."""
    async with Stub(address) as client:
        tasks = [task async for task in client.list_tasks(page_size=1_000)]
    good = sum(task.state is TaskState.SUCCEEDED and task.attempt == 1 for task in tasks)
    if (len(tasks), good) != (count, count):
        raise Failed(f"{count} were submitted, {len(tasks)} are there, {good} succeeded at once")


async def check_in_part(address: str, *, submitted: int, worked: int) -> None:
    """So many succeeded, and all others wait: by the distributor's own count, none is lost.

    The distributor counts what waits in no time: a task is added that comes last (a paid or a
    shorter one would not), and its position is how many wait. Those that succeeded are listed.
    None may be leased meanwhile.
    """
    async with Stub(address, batching=False) as client:
        last = await client.submit(user_tier="free", est_processing_time_s=SECONDS_NEVER)
        await client.cancel(last.task_id)
        succeeded = client.list_tasks(states=[TaskState.SUCCEEDED], page_size=1_000)
        ids = {task.task_id async for task in succeeded}
    waiting = last.queue_position - 1
    if (waiting, len(ids)) != (submitted - worked, worked):
        raise Failed(
            f"{submitted} were submitted and {worked} worked, "
            f"but {waiting} wait and {len(ids)} succeeded"
        )


async def submit_batches(
    address: str, count: int, *, data: bytes = b"x" * 100, together: int = 100
) -> float:
    """Submits so many tasks in such batches, or as many as fit a message, four at a time.

    Returns:
        Tasks a second.
    """
    size = min(together, max(1, 3_000_000 // len(data)))
    sizes = iter([size] * (count // size) + [count % size] * (count % size > 0))
    async with Stub(address) as client:
        begin = time.perf_counter()

        async def submit() -> None:
            for number in sizes:
                await client.submit_many([Submission("free", 0.0, data)] * number)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(submit())
        return count / (time.perf_counter() - begin)


async def submit_now_and_then(address: str, count: int) -> None:
    """One at a time, each with the time of its submit, while nothing else happens."""
    async with Stub(address, batching=False) as client:
        for _ in range(count):
            now = str(time.monotonic()).encode()
            await client.submit(user_tier="free", est_processing_time_s=0, data=now)
            await asyncio.sleep(0.005)


async def submit_singles(address: str, count: int, *, batching: bool = False) -> float:
    """Submits so many tasks one per call from 64 callers; tasks a second."""
    async with Stub(address, batching=batching) as client:
        begin = time.perf_counter()

        async def submit() -> None:
            for _ in range(count // 64):
                await client.submit(user_tier="free", est_processing_time_s=0, data=b"x" * 100)

        async with asyncio.TaskGroup() as group:
            for _ in range(64):
                group.create_task(submit())
        return count // 64 * 64 / (time.perf_counter() - begin)
