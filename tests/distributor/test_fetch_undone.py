"""A lease that its agent never heard of is taken back and counts as nothing (P3, design §4)."""

import asyncio
from typing import Any

import pytest
from grpclib.const import Cardinality

from taskdist.client import Stub
from taskdist.core import commands
from taskdist.core.errors import Unavailable
from taskdist.core.task import TaskState
from taskdist.distributor.server import Distributor
from taskdist.limits import DATA_BYTES_MAX, SECOND_US
from taskdist.settings import DistributorSettings
from taskdist.wire import messages as wire
from tests.distributor.story import submit, take
from tests.support.channel import MemoryChannel, connect, distributor_channel, embedded

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

FETCH = "/taskdist.v1.TaskDistributor/FetchTask"


async def assert_untouched(client: Stub, task_id: str) -> None:
    """The task is ready as if nobody had ever had it, and the next agent has its first attempt."""
    task = await client.get(task_id)
    assert (task.state, task.queue_position, task.agent_id) == (TaskState.READY, 1, "")
    assert (task.attempt, task.retry_count, task.lost_count) == (0, 0, 0)
    assert task.attempts == ()
    work = await take(client, "agent-2")
    assert (work.task_id, work.attempt) == (task_id, 1)


async def test_a_caller_that_cancels_while_it_waits_gets_nothing(client: Stub) -> None:
    poll = asyncio.create_task(client.fetch(agent_id="agent-1", wait_s=30))
    await asyncio.sleep(1)
    poll.cancel()
    await asyncio.sleep(1)
    await assert_untouched(client, await submit(client))


async def test_a_caller_whose_connection_goes_away_while_it_waits_gets_nothing(
    client: Stub, distributor: Distributor
) -> None:
    agent = connect(distributor)
    poll = asyncio.create_task(agent.fetch(agent_id="agent-1", wait_s=30))
    await asyncio.sleep(1)
    agent.close()
    with pytest.raises(Unavailable, match="connection was lost"):
        await poll
    await asyncio.sleep(1)
    await assert_untouched(client, await submit(client))


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_an_answer_that_cannot_be_written_takes_the_task_back(
    client: Stub, distributor: Distributor, how: str
) -> None:
    """The answer is larger than the window, and the agent reads nothing until it goes."""
    task_id = await submit(client, data=b"x" * DATA_BYTES_MAX)
    channel = MemoryChannel(distributor.server)
    async with channel.request(
        FETCH, Cardinality.UNARY_UNARY, wire.FetchTaskRequest, wire.FetchTaskResponse
    ) as stream:
        await stream.send_message(wire.FetchTaskRequest(agent_id="agent-1"))
        await asyncio.sleep(1)
        assert (await client.get(task_id)).state is TaskState.LEASED
        if how == "cancel":
            await stream.cancel()
        else:
            channel.close()
        await asyncio.sleep(1)
        await assert_untouched(client, task_id)
    channel.close()


async def test_an_answer_written_to_a_connection_that_has_just_closed_is_taken_back(
    client: Stub, distributor: Distributor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distributor has seen the end of the connection, but the call has not been told yet."""
    channel = MemoryChannel(distributor.server)
    poll = asyncio.ensure_future(Stub(channel=channel).fetch(agent_id="agent-1", wait_s=60))
    await asyncio.sleep(1)
    protocol = await channel.__connect__()
    end: Any = protocol.connection._transport
    # A backend tells its listener right after it has answered, before anybody runs on.
    monkeypatch.setattr(distributor, "changed", lambda changes: end.peer.close())
    task_id = await submit(client)
    with pytest.raises(Unavailable, match="the connection was lost"):
        await poll
    channel.close()
    await asyncio.sleep(1)
    await assert_untouched(client, task_id)


async def test_an_answer_that_comes_in_the_moment_of_the_cancel_is_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit is done, the answer is on its way to the call, and the call is cancelled."""
    backend = embedded(DistributorSettings(store="memory:"))
    async with distributor_channel(backend=backend) as (client, distributor):
        take = commands.Take("agent-1", "", ("default",), (), 1, 60 * SECOND_US, "token")
        call = asyncio.ensure_future(backend.apply(take))
        await asyncio.sleep(1)
        # A backend tells its listener right after it has answered, before anybody runs on.
        monkeypatch.setattr(distributor, "changed", lambda changes: call.cancel())
        task_id = await submit(client)
        await asyncio.sleep(1)
        assert call.cancelled()
        await assert_untouched(client, task_id)
