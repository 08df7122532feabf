"""The event loop that turns a process can be chosen."""

import asyncio
import subprocess
import sys
from pathlib import Path

from taskdist.client import Stub
from taskdist.core.task import TaskState
from tests.support.processes import Processes, environment


async def test_a_task_is_worked_over_uvloop_and_both_stop_well(processes: Processes) -> None:
    """The whole way, and SIGTERM, as over Python's own loop."""
    store = f"--store={processes.store()}"
    uvloop = {"TASKDIST_EVENT_LOOP": "uvloop"}
    serving = processes.spawn("serve", "--listen=127.0.0.1:0", store, **uvloop)
    address = str(serving.wait_for("serving")["address"])
    agent = processes.spawn(
        "agent", "agent-1", f"--server={address}", "--failure-rate=0", "--speed=100", **uvloop
    )
    async with Stub(address) as client:
        task = await client.submit(user_tier="paid", est_processing_time_s=1)
        states = [report.state async for report in client.watch(task.task_id)]
        assert states[-1] is TaskState.SUCCEEDED
    for process in (agent, serving):
        process.terminate()
        assert await asyncio.to_thread(process.wait_end) == 0
        assert not process.texts(), "no traceback"


def test_one_that_is_not_installed_is_said_so(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['uvloop'] = None; from taskdist.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--store", "memory:", "--listen", "127.0.0.1:0"],
        env=environment(tmp_path) | {"TASKDIST_EVENT_LOOP": "uvloop"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "uvloop is not installed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
