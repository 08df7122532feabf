"""An agent announces its kinds, over Work and FetchTask, and what its runs say arrives."""

import asyncio

import pytest

from taskdist.agent.context import Context
from taskdist.agent.registry import Registry
from taskdist.core.offers import KindReport
from taskdist.reports import LogLine, Progress, Remarks, Work
from tests.support.agents import Stage, stage
from tests.support.channel import distributor_channel

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

AGAIN_S = 30


async def kinds(played: Stage) -> list[KindReport]:
    return [report async for report in played.client.list_kinds()]


async def done(work: Work) -> bytes:
    await asyncio.sleep(1)
    return b"42"


async def test_it_announces_at_the_start_and_as_often_as_it_is_asked_to() -> None:
    async with stage() as played:
        played.agent(done)
        await played.network.wait_for_calls("AnnounceKinds", 3)
        times = played.network.times("AnnounceKinds")
        assert [at - times[0] for at in times] == pytest.approx([0, AGAIN_S, 2 * AGAIN_S], abs=1)
        assert await kinds(played) == [KindReport("simulate", ("default",), 1, ())]
        request = played.network.calls[0].request
        assert (request.agent_id, [kind.name for kind in request.kinds]) == (
            "agent-1",
            ["simulate"],
        )


async def test_it_announces_again_when_the_distributor_comes_back_without_its_memory() -> None:
    async with stage() as played, distributor_channel() as (client, another):
        played.agent(done)
        await played.network.wait_for_calls("AnnounceKinds", 1)
        await asyncio.sleep(5)
        played.network.move_to(another)
        await asyncio.sleep(15)
        assert [report.name async for report in client.list_kinds()] == ["simulate"]
        task_id = (await client.submit(user_tier="free", est_processing_time_s=1)).task_id
        await asyncio.sleep(10)
        assert (await client.get(task_id)).result == b"42"


async def test_a_distributor_that_does_not_take_it_gives_tasks_all_the_same() -> None:
    async with stage(live_agents_max=1) as played:
        await played.client.fetch(agent_id="first")
        played.agent(done)
        report = await played.final(await played.submit())
        assert report.result == b"42"
    async with stage() as played:
        played.network.broken.add("AnnounceKinds")
        played.agent(done)
        report = await played.final(await played.submit())
        assert report.result == b"42"


async def test_in_a_drain_it_announces_no_more() -> None:
    async with stage() as played:
        agent = played.agent(done)
        await played.network.wait_for_calls("AnnounceKinds", 1)
        played.signals.terminate()
        assert await agent
        await asyncio.sleep(3 * AGAIN_S)
        assert len(played.network.times("AnnounceKinds")) == 1


async def test_what_a_run_says_comes_in_its_order_and_before_its_end() -> None:
    async with stage() as played:

        async def talks(work: Work) -> bytes:
            feed = played.runners[0]._feed
            for number in range(5):
                line = LogLine(f"line {number}")
                feed.tell(Remarks(work.task_id, work.lease_id, (line, Progress(number / 5))))
                await asyncio.sleep(number / 10)
            feed.tell(Remarks(work.task_id, work.lease_id, (LogLine("last"),)))
            return b"42"

        played.agent(talks)
        task_id = await played.submit()
        heard = [news async for news in played.client.follow(task_id, after=0)]
        entries = [news.entry for news in heard if news.entry is not None]
        lines = [entry.text for entry in entries if isinstance(entry, LogLine)]
        assert lines == [*(f"line {number}" for number in range(5)), "last"]
        progresses = [entry.fraction for entry in entries if isinstance(entry, Progress)]
        assert progresses == [0, 0.2, 0.4, 0.6, 0.8]
        assert heard[-1].task is not None
        assert heard[-1].task.result == b"42"


async def test_what_a_handler_says_of_its_run_arrives_before_its_outcome() -> None:
    """From an async function, and from one in a thread."""
    registry = Registry()

    @registry.handler
    async def simulate(_: bytes, ctx: Context) -> bytes:
        for number in range(3):
            await ctx.progress(number / 3, f"step {number}")
            ctx.log(f"line {number}")
            await asyncio.sleep(1)
        ctx.log("last")
        return b"42"

    @registry.handler
    def threaded(_: bytes, ctx: Context) -> bytes:
        ctx.log("in a thread")
        return b"43"

    async with stage() as played:
        played.agent(registry)
        ids = [await played.submit(kind=kind) for kind in ("simulate", "threaded")]
        told: list[list[str | float | None]] = []
        for task_id in ids:
            heard = [news async for news in played.client.follow(task_id, after=0)]
            said = [news.entry for news in heard if news.entry is not None]
            entries = [one for one in said if isinstance(one, LogLine | Progress)]
            assert len(entries) == len(said)
            assert all(entry.at for entry in entries)
            told.append([e.text if isinstance(e, LogLine) else e.fraction for e in entries])
            assert heard[-1].task is not None
            assert heard[-1].task.result in (b"42", b"43")
        assert told[0] == [0, "line 0", 1 / 3, "line 1", 2 / 3, "line 2", "last"]
        assert told[1] == ["in a thread"]
