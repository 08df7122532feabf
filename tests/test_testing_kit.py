"""The testing kit: whole lives of tasks in virtual time, without a port."""

import asyncio
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest
from pydantic import BaseModel

from taskdist import Context, Registry
from taskdist.agent.definition import RegistryError
from taskdist.core.task import Backoff, Outcome, TaskState
from taskdist.reports import Entry, LogLine, Progress, RetryPause
from taskdist.settings import SettingsError
from taskdist.testing import Playground, virtual_time


async def test_a_minute_of_backoff_passes_at_once(playground: Playground) -> None:
    tasks = Registry()

    @tasks.handler
    async def infer(data: bytes, ctx: Context) -> bytes:
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return data.upper()

    began = asyncio.get_running_loop().time()
    playground.agent(tasks)
    pause = RetryPause(Backoff.FIXED, initial_s=60)
    handle = await playground.client.submit(infer, b"hi", backoff=pause)
    assert await handle.result() == b"HI"
    assert 60 <= asyncio.get_running_loop().time() - began < 61


async def test_an_agent_that_is_killed_loses_its_lease(playground: Playground) -> None:
    """P4: the task is offered again after its lease."""
    tasks = Registry()

    @tasks.handler
    async def slow(data: bytes) -> bytes:
        await asyncio.sleep(10)
        return data

    first = playground.agent(tasks, "first")
    handle = await playground.client.submit(slow, b"data", lease="5s")
    await asyncio.sleep(1)
    await first.kill()
    playground.agent(tasks, "second")
    assert await handle.result() == b"data"
    outcomes = [(one.agent_id, one.outcome) for one in (await handle.report()).attempts]
    assert outcomes == [("first", Outcome.LOST), ("second", Outcome.SUCCEEDED)]


async def test_an_agent_that_is_stopped_hands_back_what_takes_too_long(
    playground: Playground,
) -> None:
    tasks = Registry()

    @tasks.handler
    async def endless(data: bytes) -> bytes:
        await asyncio.sleep(1_000)
        return data

    agent = playground.agent(tasks, drain_timeout="10s")
    handle = await playground.client.submit(endless, b"")
    await asyncio.sleep(1)
    await agent.stop()
    assert (await handle.report()).state is TaskState.READY


async def test_an_agent_that_fails_ends_what_waits_and_the_test_is_told() -> None:
    tasks = Registry()

    @tasks.on_start
    def load() -> None:
        raise OSError("no such model")

    @tasks.handler
    async def run(data: bytes) -> bytes:
        return data

    async def wait() -> None:
        async with Playground() as playground:
            playground.agent(tasks)
            handle = await playground.client.submit(run, b"")
            with pytest.raises(RuntimeError, match="the client is closed"):
                await handle.result()

    with virtual_time():
        with pytest.raises(RegistryError, match="load failed: OSError: no such model"):
            await wait()
        async with Playground() as playground:
            agent = playground.agent(tasks)
            await asyncio.sleep(1)
            with pytest.raises(RegistryError):
                await agent.stop()


async def test_a_setting_that_does_not_exist_is_named(playground: Playground) -> None:
    with pytest.raises(SettingsError, match="no setting 'slotz'; there are: log_level, "):
        playground.agent(Registry(), slotz=4)


async def test_plain_functions_processes_and_commands_take_their_own_time(
    playground: Playground,
) -> None:
    """Else an hour of run timeout would pass while a thread counts to ten."""
    tasks = Registry()

    @tasks.handler(timeout="1m")
    def count(data: bytes) -> int:
        return sum(range(1_000_000))

    class Nothing(BaseModel):
        pass

    echo = tasks.command("echo", ["echo", "hi"], input=Nothing, timeout="1m")
    playground.agent(tasks, slots=2)
    assert await (await playground.client.submit(count, b"")).result() == 499_999_500_000
    assert await (await playground.client.submit(echo, Nothing())).result() == b"hi\n"


def plain(entry: Entry) -> Entry:
    """What was said, whenever it was."""
    match entry:
        case Progress():
            return Progress(entry.fraction, entry.text)
        case LogLine():
            return LogLine(entry.text)
    return entry


@pytest.mark.parametrize("unary", [False, True], ids=["Work", "FetchTask"])
async def test_what_handlers_say_is_heard_in_its_order(playground: Playground, unary: bool) -> None:
    """From the loop and from a thread, without a gap (P1)."""
    tasks = Registry()

    @tasks.handler
    async def infer(data: bytes, ctx: Context) -> bytes:
        ctx.log("loading")
        await ctx.progress(0.25, "decoding")
        await ctx.progress(0.5, "decoding")
        await asyncio.sleep(10)
        ctx.log("done")
        return data

    @tasks.handler
    def count(data: bytes, ctx: Context) -> bytes:
        ctx.log("1")
        ctx.progress(0.5)
        ctx.log("2")
        return data

    playground.agent(tasks, unary=unary)
    for kind, expected in (
        (infer, [LogLine("loading"), Progress(0.5, "decoding"), LogLine("done")]),
        (count, [LogLine("1"), Progress(0.5), LogLine("2")]),
    ):
        handle = await playground.client.submit(kind, b"")
        all_news = [news async for news in handle.watch(after=0)]
        said = [plain(news.entry) for news in all_news if news.entry]
        assert said == expected
        assert [news.number for news in all_news] == sorted(news.number for news in all_news)
        middle = all_news[len(all_news) // 2]
        rest = [news async for news in handle.watch(after=middle.number)]
        assert rest == all_news[len(all_news) // 2 + 1 :]


async def test_virtual_time_ends_with_its_block() -> None:
    with virtual_time():
        await asyncio.sleep(3_600)
    began = monotonic()
    await asyncio.sleep(0.01)
    assert monotonic() - began >= 0.009


SAMPLE = """
from taskdist import Registry

tasks = Registry()


@tasks.handler
def double(number: int) -> int:
    return 2 * number


MARK
async def test_sample(playground):
    playground.agent(tasks)
    assert await (await playground.client.submit(double, 21)).result() == 42


def test_plain():
    pass
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_fixture_is_there_for_other_projects(tmp_path: Path, mode: str) -> None:
    mark = "import pytest\n\n\n@pytest.mark.asyncio" if mode == "strict" else ""
    (tmp_path / "test_sample.py").write_text(SAMPLE.replace("MARK", mark))
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
