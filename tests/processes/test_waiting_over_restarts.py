"""`submit --wait` and the client go through restarts of the distributor as if nothing had been."""

import asyncio

import pytest

from taskdist.client import Stub
from taskdist.core.errors import Unavailable
from tests.support.processes import Processes, Serving


async def kill_while_watched(serving: Serving, client: Stub, task_id: str) -> None:
    async with asyncio.timeout(60):
        async for _ in client.watch(task_id):
            serving.kill()


async def test_a_lost_connection_leaves_no_cancel_behind(processes: Processes) -> None:
    """grpclib cancels the task of a broken call; whoever goes on must not be cancelled later."""
    serving = processes.serve()
    async with Stub(serving.address) as client:
        placed = await client.submit(user_tier="free", est_processing_time_s=1)
        with pytest.raises(Unavailable):
            await kill_while_watched(serving, client, placed.task_id)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()


def test_the_timeout_and_ctrl_c_work_after_a_restart(processes: Processes) -> None:
    """Two wait for a task that no agent runs, while the distributor is killed and comes back."""
    serving = processes.serve()
    flags = ("submit", "nobody-runs-this", "--wait", "--server", serving.address)
    patient = processes.spawn(*flags)
    hasty = processes.spawn(*flags, "--timeout", "4s")
    for waiting in (patient, hasty):
        waiting.wait_for_text("ready")
    serving.kill()
    for waiting in (patient, hasty):
        waiting.wait_for_text("waiting for it")
    processes.serve(listen=serving.address)
    assert hasty.wait_end() == 6
    patient.interrupt()
    assert patient.wait_end() == 130
    for waiting in (patient, hasty):
        assert not [line for line in waiting.texts() if "Traceback" in line]
