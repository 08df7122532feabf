"""How an agent starts and stops: its hooks are called, and what cannot be run is said at once."""

import asyncio
import threading

import pytest
from pydantic import BaseModel

from taskdist import Registry
from tests.support.agents import stage

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


class Prompt(BaseModel):
    text: str


def raw(data: bytes) -> bytes:
    return data


async def test_hooks_are_called_before_the_first_task_and_after_the_last() -> None:
    happened: list[str] = []
    hooked = Registry()
    hooked.on_stop(lambda: happened.append("stopped"))

    @hooked.on_start
    async def load() -> None:
        await asyncio.sleep(10)
        happened.append("loaded")

    @hooked.on_start()
    def load_more() -> None:
        happened.append(threading.current_thread().name)

    @hooked.handler
    async def run(data: bytes) -> None:
        happened.append("run")

    async with stage() as played:
        task_id = await played.submit(kind="run")
        agent = played.agent(hooked)
        await played.final(task_id)
        played.signals.terminate()
        assert await agent is True
    assert happened == ["loaded", "handler-1", "run", "stopped"]


@pytest.mark.parametrize("error", [OSError("no such model"), SystemExit("no such model")])
async def test_a_start_that_fails_takes_no_task(error: BaseException) -> None:
    hooked = Registry()
    hooked.handler(raw)

    @hooked.on_start
    def load() -> None:
        raise error

    async with stage() as played:
        task_id = await played.submit(kind="raw")
        with pytest.raises(Exception, match=r"test_starts.py:\d+: load failed: \w+: no such"):
            await played.agent(hooked)
        assert (await played.client.get(task_id)).attempt == 0


async def test_a_handler_that_another_process_would_not_find_is_refused_at_the_start() -> None:
    """Two functions of one name, say: the process would run the other one."""
    other = Registry()
    other.handler(name="other", process=True)(raw)
    async with stage() as played:
        with pytest.raises(Exception, match=r"\.py:\d+: process=True: .*raw is something"):
            await played.agent(other)


async def test_a_signal_ends_a_start_that_hangs() -> None:
    hooked = Registry()
    hooked.handler(raw)

    @hooked.on_start
    async def load() -> None:
        await asyncio.sleep(1e9)

    async with stage() as played:
        agent = played.agent(hooked)
        await asyncio.sleep(1)
        played.signals.terminate()
        assert await agent is True


async def test_a_command_that_does_not_exist_is_said_at_the_start() -> None:
    missing = Registry()
    missing.command("go", ["no-such-program", "{text}"], input=Prompt)
    async with stage() as played:
        with pytest.raises(Exception, match=r"test_starts.py:\d+: command 'go': no program"):
            await played.agent(missing)
