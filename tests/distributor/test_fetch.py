"""FetchTask: what an agent gets, how long it waits, and who of several is served."""

import asyncio

import pytest

from taskdist.client import Stub
from taskdist.core.errors import Exhausted
from taskdist.core.task import TaskState
from taskdist.distributor.server import Distributor
from taskdist.settings import DistributorSettings
from tests.distributor.story import fail, nothing_changes, now, submit, take
from tests.support.channel import connect, distributor_channel

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


async def test_an_agent_hears_all_that_it_needs_to_run_a_task(client: Stub) -> None:
    task_id = await submit(client, "free", 2.5, data=b"in", kind="resize", queue="images")
    work = await take(client, queues=["images"], session="s-1")
    assert work.task_id == task_id
    assert (work.user_tier, work.est_processing_time_s, work.data) == ("free", 2.5, b"in")
    assert (work.kind, work.queue) == ("resize", "images")
    assert (work.sequence, work.attempt, work.retry_count) == (1, 1, 0)
    assert (work.lease_s, work.run_timeout_s) == (30, 3600)
    assert work.lease_id

    await fail(client, work)
    retried = await take(client, queues=["images"])
    assert (retried.sequence, retried.attempt, retried.retry_count) == (1, 2, 1)
    assert retried.lease_id != work.lease_id, "the fencing token (P3)"


async def test_a_long_task_may_run_ten_times_its_expected_time(client: Stub) -> None:
    await submit(client, seconds=1000)
    assert (await take(client)).run_timeout_s == 10_000


async def test_while_it_runs_the_task_says_who_runs_it(client: Stub) -> None:
    task_id = await submit(client)
    await take(client, "agent-7")
    task = await client.get(task_id)
    assert (task.state, task.agent_id, task.attempt) == (TaskState.LEASED, "agent-7", 1)
    assert task.queue_position == 0


async def test_without_a_wait_the_answer_comes_at_once(client: Stub) -> None:
    began = now()
    assert await client.fetch(agent_id="agent-1") is None
    assert now() == began


@pytest.mark.parametrize("wait_s", [0.001, 7.5, 60])
async def test_a_long_poll_is_answered_empty_when_its_time_is_over(
    client: Stub, wait_s: float
) -> None:
    began = now()
    assert await client.fetch(agent_id="agent-1", wait_s=wait_s) is None
    assert now() - began == pytest.approx(wait_s, abs=1e-5)


async def test_a_submit_serves_who_waits_in_the_same_instant(client: Stub) -> None:
    poll = asyncio.create_task(client.fetch(agent_id="agent-1", wait_s=30))
    await asyncio.sleep(3)
    submitted_at = now()
    task_id = await submit(client)
    work = await poll
    assert work is not None
    assert work.task_id == task_id
    assert now() == submitted_at


async def test_a_failure_serves_who_waits_with_the_retry(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    poll = asyncio.create_task(client.fetch(agent_id="agent-2", wait_s=30))
    await asyncio.sleep(3)
    await fail(client, work)
    again = await poll
    assert again is not None
    assert (again.task_id, again.retry_count) == (work.task_id, 1)


async def test_of_several_that_wait_the_longest_waiting_is_served_first(
    client: Stub, distributor: Distributor
) -> None:
    names = ["agent-1", "agent-2", "agent-3"]
    clients = {name: connect(distributor) for name in names}
    polls = []
    for name in names:
        polls.append(asyncio.create_task(clients[name].fetch(agent_id=name, wait_s=30)))
        await asyncio.sleep(1)
    for name in names:
        task_id = await submit(client)
        assert (await client.get(task_id)).agent_id == name
    assert all([await poll for poll in polls])
    for one in clients.values():
        one.close()


async def test_a_task_that_nobody_waits_for_wakes_nobody(client: Stub) -> None:
    poll = asyncio.create_task(
        client.fetch(agent_id="agent-1", kinds=["resize"], queues=["a", "b"], wait_s=30)
    )
    await asyncio.sleep(1)
    other_kind = await submit(client, kind="crop", queue="a")
    other_queue = await submit(client, kind="resize", queue="c")
    assert not poll.done()
    wanted = await submit(client, "free", 9, kind="resize", queue="b")
    work = await poll
    assert work is not None
    assert work.task_id == wanted
    for task_id in (other_kind, other_queue):
        assert (await client.get(task_id)).queue_position == 1


async def test_p2_over_several_queues_and_kinds_the_smallest_is_next(client: Stub) -> None:
    second = await submit(client, "paid", 2, queue="a", kind="x")
    third = await submit(client, "free", 1, queue="a", kind="y")
    first = await submit(client, "paid", 1, queue="b", kind="y")
    await submit(client, "paid", 0, queue="b", kind="z")
    got = [await take(client, queues=["a", "b", "a"], kinds=["x", "y"]) for _ in range(3)]
    assert [work.task_id for work in got] == [first, second, third]


async def test_no_queues_means_the_default_one(client: Stub) -> None:
    await submit(client, seconds=0, queue="other")
    task_id = await submit(client, seconds=9)
    assert (await take(client)).task_id == task_id
    assert await client.fetch(agent_id="agent-1") is None


async def test_p7_no_more_agents_may_wait_than_the_limit() -> None:
    settings = DistributorSettings(store="memory:", waiting_agents_max=1)
    async with distributor_channel(settings) as (client, _):
        await submit(client, queue="other")
        poll = asyncio.create_task(client.fetch(agent_id="agent-1", wait_s=30))
        await asyncio.sleep(1)
        async with nothing_changes(client):
            with pytest.raises(Exhausted, match="1 agents are waiting"):
                await client.fetch(agent_id="agent-2", wait_s=30)
        assert await client.fetch(agent_id="agent-2", wait_s=0) is None
        await submit(client)
        assert await poll is not None
