"""ReportProgress, and what a watcher hears of it: all of it, once, in its order, also later."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.core import commands
from taskdist.core.errors import Unavailable
from taskdist.core.task import Outcome, TaskState
from taskdist.distributor import watching
from taskdist.distributor.server import Distributor
from taskdist.reports import Dropped, Progress, Selection, Work
from taskdist.settings import DistributorSettings
from tests.distributor.following import Follower, followed, say, word
from tests.distributor.story import fail, submit, succeed, take
from tests.support.channel import connect, distributor_channel

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


async def a_life(client: Stub) -> str:
    """A task fails with a pause, is lost, handed back and succeeds; each run says something."""
    task_id = await submit(client, delay_s=1)
    await asyncio.sleep(2)
    work = await take(client)
    await say(client, work, "1a", Progress(0.5), "1b")
    await fail(client, work, error="first", retry_after_s=5)
    await asyncio.sleep(6)
    await say(client, await take(client), "2a")
    await asyncio.sleep(31)
    work = await take(client)
    await client.release(task_id=task_id, agent_id="agent-1", lease_id=work.lease_id)
    work = await take(client)
    await say(client, work, "4a", Dropped(7), "4b", Dropped(2))
    await succeed(client, work, result=b"42")
    return task_id


LIFE = [
    "SCHEDULED.0",
    *("READY.0", "LEASED.1", "1a", "0.5", "1b", "SCHEDULED.1"),
    *("READY.1", "LEASED.2", "2a"),
    *("READY.2", "LEASED.3", "READY.3"),
    *("LEASED.4", "4a", "-7", "4b", "-2", "SUCCEEDED.4"),
]


async def test_all_that_happens_is_told_as_it_comes(client: Stub, distributor: Distributor) -> None:
    living = asyncio.ensure_future(a_life(client))
    await asyncio.sleep(0.5)
    (task,) = [task async for task in client.list_tasks()]
    followers = [Follower(distributor, task.task_id, after) for after in (0, None)]
    await asyncio.sleep(7)
    assert followers[0].words == LIFE[:8]
    late = Follower(distributor, task.task_id, None)
    task_id = await living
    for follower in followers:
        assert await follower.to_the_end() == LIFE
    assert await late.to_the_end() == LIFE[8:] or late.words == LIFE[7:]
    last = followers[0].heard[-1].task
    assert last is not None
    assert (last.result, last.error, last.task_id) == (b"42", "first", task_id)


async def test_whoever_goes_on_from_any_place_misses_and_repeats_nothing(client: Stub) -> None:
    """Also where every state is told from what is kept of it; each number is there once."""
    task_id = await a_life(client)
    whole = await followed(client, task_id)
    assert list(map(word, whole)) == LIFE[1:], "that it was scheduled first is not kept"
    numbers = [news.number for news in whole]
    assert numbers == sorted(set(numbers))
    for place, news in enumerate(whole[:-1], 1):
        assert await followed(client, task_id, news.number) == whole[place:]
    assert await followed(client, task_id, numbers[-1]) == whole[-1:], "the end comes always"
    assert await followed(client, task_id, 2**64 - 1) == whole[-1:]
    tasks = [news.task for news in whole if news.task is not None]
    assert [task.retry_count for task in tasks] == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert [task.lost_count for task in tasks] == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert [task.error for task in tasks] == ["", "", *["first"] * 8]
    assert [task.agent_id for task in tasks if task.state is TaskState.LEASED] == ["agent-1"] * 4
    assert [task.result for task in tasks] == [b""] * 9 + [b"42"]


async def test_p1_over_restarts_and_lost_connections_nothing_is_missed_or_repeated(
    tmp_path: Path,
) -> None:
    settings = DistributorSettings(store=f"sqlite:{tmp_path}/tasks.db")
    heard: list[str] = []
    number = 0
    work: Work | None = None
    task_id = ""
    for restart in range(4):
        async with distributor_channel(settings) as (client, distributor):
            task_id = task_id or await submit(client)
            follower = Follower(distributor, task_id, number)
            work = work or await take(client)
            await say(client, work, f"{restart}a")
            await say(client, work, f"{restart}b")
            if restart == 2:
                await fail(client, work)
                work = await take(client)
            await client.ping()
            await asyncio.sleep(0.5 * (restart % 2))  # Some are cut off before they have heard all.
            if restart == 3:
                await succeed(client, work)
                await follower.to_the_end()
            await follower.leave()
            heard += follower.words
            number = follower.heard[-1].number if follower.heard else number
    assert heard == [
        *("READY.0", "LEASED.1", "0a", "0b", "1a", "1b", "2a", "2b", "READY.1", "LEASED.2"),
        *("3a", "3b", "SUCCEEDED.2"),
    ]


async def test_who_asks_for_no_entries_hears_what_was_heard_before_there_were_any(
    client: Stub, distributor: Distributor
) -> None:
    task_id = await submit(client)
    heard = []

    async def watch() -> None:
        async with connect(distributor) as own:
            async for news in own.follow(task_id, entries=False):
                heard.append(news)

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(1)
    work = await take(client)
    await say(client, work, "a line")
    await succeed(client, work)
    await watching
    assert list(map(word, heard)) == ["READY.0", "LEASED.1", "SUCCEEDED.1"]
    numbers = [news.number for news in heard]
    assert numbers == sorted(set(numbers))
    again = [n async for n in client.follow(task_id, entries=False, after=numbers[0])]
    assert again == heard[1:]


async def test_the_present_is_told_first_and_what_was_said_before_it_is_not(
    client: Stub, distributor: Distributor
) -> None:
    task_id = await submit(client)
    work = await take(client)
    await say(client, work, "before")
    follower = Follower(distributor, task_id, None)
    await asyncio.sleep(1)
    await say(client, work, "after")
    await asyncio.sleep(1)
    assert follower.words == ["LEASED.1", "after"]
    number = follower.heard[0].number
    await follower.leave()
    again = Follower(distributor, task_id, number)
    await succeed(client, work)
    assert await again.to_the_end() == ["after", "SUCCEEDED.1"]


async def test_an_end_that_a_redrive_undid_is_passed_over(client: Stub) -> None:
    task_id = await submit(client, max_retries=0)
    await fail(client, await take(client), error="first")
    whole = await followed(client, task_id)
    assert list(map(word, whole)) == ["READY.0", "LEASED.1", "DEAD.1"]
    await client.redrive(Selection(task_ids=(task_id,)))
    work = await take(client)
    await say(client, work, "again")
    await succeed(client, work)
    rest = ["LEASED.2", "again", "SUCCEEDED.2"]
    assert list(map(word, await followed(client, task_id))) == [
        *("READY.0", "LEASED.1", "READY.1"),
        *rest,
    ]
    assert list(map(word, await followed(client, task_id, whole[-1].number))) == rest
    task = await client.get(task_id)
    await client.purge(Selection(task_ids=(task.task_id,)))


async def test_the_end_of_a_task_that_is_removed_at_once_is_told(
    client: Stub, distributor: Distributor
) -> None:
    task_id = await submit(client)
    work = await take(client)
    follower = Follower(distributor, task_id)
    await asyncio.sleep(1)
    failed = commands.Settle(
        task_id, "agent-1", work.lease_id, Outcome.FAILED, error="last", retryable=False
    )
    await distributor._backend.apply(commands.Several((failed, commands.Purge(task_id))))
    assert await follower.to_the_end() == ["READY.0", "LEASED.1", "DEAD.1"]
    end = follower.heard[-1].task
    assert end is not None
    assert end.error == "last"


async def test_p7_a_slow_follower_costs_no_memory_and_misses_nothing(
    client: Stub, distributor: Distributor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of what is kept, in between which it may take its time."""
    monkeypatch.setattr(watching, "ENTRIES_PAGE_MAX", 7)
    task_id = await submit(client)
    work = await take(client)
    said = []
    following = client.follow(task_id, after=0)
    heard = [word(await anext(following)) for _ in range(2)]
    for start in range(0, 100, 20):
        texts = [f"{start + n} {'x' * 3_000}" for n in range(20)]
        await say(client, work, *texts)
        said += texts
        await asyncio.sleep(1)
    await succeed(client, work)
    heard += [word(news) async for news in following]
    assert [len(text) for text in said[-2:]] == [3_003, 3_003]
    first_kept = 100 - 256 * 1024 // 3_003
    live = [text for text in heard[2:-1] if text[0] != "-"]
    assert live[-80:] == said[-80:], "all that is kept, and before it all that was read in time"
    missing = sum(int(text[1:]) for text in heard if text[0] == "-")
    assert len(live) + missing == 100
    late = list(map(word, await followed(client, task_id)))
    assert late == ["READY.0", "LEASED.1", f"-{first_kept}", *said[first_kept:], "SUCCEEDED.1"]


async def test_p7_a_talkative_agent_makes_its_watchers_read_no_more_than_they_need(
    client: Stub, distributor: Distributor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a change of state is told at once all the same."""
    task_id = await submit(client)
    work = await take(client)
    follower = Follower(distributor, task_id)
    await asyncio.sleep(1)
    reads = 0
    read = distributor._backend.read

    async def counted(query: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(query)

    monkeypatch.setattr(distributor._backend, "read", counted)
    for number in range(200):
        await say(client, work, f"{number}")
        await asyncio.sleep(0.005)
    assert 10 <= reads <= 25, "twenty a second"
    await asyncio.sleep(1)
    assert follower.words[2:] == [f"{number}" for number in range(200)]
    await succeed(client, work)
    await client.ping()
    assert follower.words[-1] == "SUCCEEDED.1"
    await follower.to_the_end()


async def test_p7_what_comes_too_fast_is_dropped_and_said_so() -> None:
    settings = DistributorSettings(store="memory:", entries_at_once_max=3, entries_per_second_max=1)
    async with distributor_channel(settings) as (client, distributor):
        task_id = await submit(client)
        work = await take(client)
        follower = Follower(distributor, task_id)
        assert await say(client, work, *"abcde") == 2
        assert await say(client, work, "f") == 1
        await asyncio.sleep(1)
        assert await say(client, work, "g", "h") == 1
        await succeed(client, work)
        expected = ["READY.0", "LEASED.1", *"abc", "-3", "g", "-1", "SUCCEEDED.1"]
        heard = await follower.to_the_end()
        # Who was there heard of the first gap in two parts.
        assert heard in (expected, [*expected[:5], "-2", "-1", *expected[6:]])
        assert list(map(word, await followed(client, task_id))) == expected


async def test_the_newest_progress_is_kept_with_the_task(client: Stub) -> None:
    task_id = await submit(client)
    assert (await client.get(task_id)).progress is None
    work = await take(client)
    at = (await client.get(task_id)).submitted_at
    await say(client, work, Progress(0.25), Progress(0.5, "half", at), "a line")
    assert (await client.get(task_id)).progress == Progress(0.5, "half", at, 1)
    await fail(client, work)
    await say(client, await take(client), Progress(None, "begun anew", at))
    assert (await client.get(task_id)).progress == Progress(None, "begun anew", at, 2)


async def test_at_shutdown_a_follower_is_told_so(client: Stub, distributor: Distributor) -> None:
    follower = Follower(distributor, await submit(client))
    await asyncio.sleep(1)
    await distributor.stop(10)
    with pytest.raises(Unavailable, match="stopping"):
        await follower.to_the_end()
    assert follower.words == ["READY.0"]
