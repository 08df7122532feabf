"""The testing kit: whole lives of tasks in virtual time, without a port."""

import asyncio
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from taskdist.core.task import Backoff, Outcome, TaskState
from taskdist.reports import RetryPause, Work
from taskdist.testing import Playground, virtual_time


async def test_a_minute_of_backoff_passes_at_once(playground: Playground) -> None:
    began = asyncio.get_running_loop().time()

    async def simulate(work: Work) -> bytes:
        if work.attempt == 1:
            raise ValueError("not yet")
        return b"now"

    playground.agent({"simulate": simulate})
    pause = RetryPause(Backoff.FIXED, initial_s=60)
    handle = await playground.client.submit("simulate", backoff=pause)
    assert await handle.result() == b"now"
    assert 60 <= asyncio.get_running_loop().time() - began < 61


async def test_an_agent_that_is_killed_loses_its_lease(playground: Playground) -> None:
    """P4: the task is offered again after its lease."""

    async def simulate(work: Work) -> bytes:
        await asyncio.sleep(10)
        return work.data

    first = playground.agent({"simulate": simulate}, "first")
    handle = await playground.client.submit("simulate", b"data", lease="5s")
    await asyncio.sleep(1)
    await first.kill()
    playground.agent({"simulate": simulate}, "second")
    assert await handle.result() == b"data"
    outcomes = [(one.agent_id, one.outcome) for one in (await handle.report()).attempts]
    assert outcomes == [("first", Outcome.LOST), ("second", Outcome.SUCCEEDED)]


async def test_an_agent_that_is_stopped_hands_back_what_takes_too_long(
    playground: Playground,
) -> None:
    async def simulate(work: Work) -> bytes:
        await asyncio.sleep(1_000)
        return b""

    agent = playground.agent({"simulate": simulate}, drain_timeout="10s")
    handle = await playground.client.submit("simulate")
    await asyncio.sleep(1)
    await agent.stop()
    assert (await handle.report()).state is TaskState.READY


async def test_work_in_a_thread_takes_its_own_time(playground: Playground) -> None:
    """Else an hour of run timeout would pass while a thread counts to ten."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    asleep = asyncio.ensure_future(asyncio.sleep(0.05))
    await loop.run_in_executor(None, sum, range(3_000_000))
    assert loop.time() - began < 1
    await asleep


async def test_virtual_time_ends_with_its_block() -> None:
    with virtual_time():
        await asyncio.sleep(3_600)
    began = monotonic()
    await asyncio.sleep(0.01)
    assert monotonic() - began >= 0.009


SAMPLE = """
async def test_sample(playground):
    async def simulate(work):
        return b"done"

    playground.agent({"simulate": simulate})
    assert await (await playground.client.submit("simulate")).result() == b"done"


def test_plain():
    pass
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_fixture_is_there_for_other_projects(tmp_path: Path, mode: str) -> None:
    mark = "import pytest\n\n\n@pytest.mark.asyncio" if mode == "strict" else ""
    (tmp_path / "test_sample.py").write_text(mark + SAMPLE)
    options = ["-q", "-Werror", "-pno:looptime_plugin", "-pno:cacheprovider"]
    options += [f"--asyncio-mode={mode}", "-oasyncio_default_fixture_loop_scope=function"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in run.stdout, run.stdout + run.stderr


def test_the_plugin_costs_other_projects_nothing() -> None:
    code = "import sys, taskdist.testing.plugin; print('grpclib' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
