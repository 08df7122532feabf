"""Heartbeat, silence and CancelTask: how long a lease is held, and how its agent hears of it."""

import asyncio

import pytest
from structlog.testing import capture_logs

from taskdist.client import Stub
from taskdist.core.errors import PreconditionFailed, TaskNotFound
from taskdist.core.task import Outcome, TaskState
from taskdist.distributor.server import Distributor
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings
from tests.distributor.story import (
    NO_TASK,
    everything,
    fail,
    nothing_changes,
    now,
    submit,
    succeed,
    take,
)
from tests.support.channel import connect, distributor_channel

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

LEASE_S = 30


async def test_p4_a_silent_agents_task_is_offered_again_within_a_second(client: Stub) -> None:
    task_id = await submit(client)
    await take(client)
    began = now()
    again = await take(client, "agent-2", wait_s=60)
    assert (again.task_id, again.attempt, again.retry_count) == (task_id, 2, 0)
    assert LEASE_S <= now() - began <= LEASE_S + 1
    task = await client.get(task_id)
    assert task.lost_count == 1
    assert [attempt.outcome for attempt in task.attempts] == [Outcome.LOST]


async def test_p4_a_lease_never_ends_early(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    await asyncio.sleep(LEASE_S - 0.3)
    await succeed(client, work)


async def test_p4_heartbeats_hold_a_lease(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    for _ in range(10):
        await asyncio.sleep(LEASE_S - 1)
        held = await client.heartbeat(agent_id="agent-1", lease_ids=[work.lease_id])
        assert held == {work.lease_id}
    await succeed(client, work)


async def test_p4_a_broken_connection_ends_no_lease(client: Stub, distributor: Distributor) -> None:
    await submit(client)
    agent = connect(distributor)
    work = await take(agent)
    agent.close()
    await asyncio.sleep(LEASE_S - 1)
    await succeed(client, work)


async def test_p4_no_heartbeat_holds_a_task_beyond_its_run_timeout_and_a_term() -> None:
    settings = DistributorSettings(store="memory:", run_timeout_us=60 * SECOND_US)
    async with distributor_channel(settings) as (client, _):
        await submit(client)
        work = await take(client)
        began = now()
        held = {work.lease_id}
        while held:
            await asyncio.sleep(5)
            held = set(await client.heartbeat(agent_id="agent-1", lease_ids=[work.lease_id]))
        assert 60 + LEASE_S <= now() - began <= 60 + LEASE_S + 5
        assert (await client.get(work.task_id)).lost_count == 1


async def test_p5_the_third_lost_lease_makes_a_task_dead(client: Stub) -> None:
    task_id = await submit(client)
    with capture_logs() as logs:
        for _ in range(3):
            await take(client, wait_s=60)
        assert await client.fetch(agent_id="agent-1", wait_s=60) is None
    task = await client.get(task_id)
    assert (task.state, task.lost_count, task.retry_count) == (TaskState.DEAD, 3, 0)
    assert [line["event"] for line in logs] == ["lease lost"] * 3 + ["task dead"]


async def test_a_heartbeat_names_the_leases_that_are_still_held(client: Stub) -> None:
    for _ in range(4):
        await submit(client)
    held, done, lost_to_cancel = [await take(client) for _ in range(3)]
    others = await take(client, "agent-2")
    await succeed(client, done)
    await client.cancel(lost_to_cancel.task_id)
    said = [work.lease_id for work in (held, done, lost_to_cancel, others)]
    answer = await client.heartbeat(agent_id="agent-1", lease_ids=[*said, "", "1-1", "x" * 10_000])
    assert answer == {held.lease_id}


async def test_a_heartbeat_without_lease_ids_is_for_all_of_its_agent(client: Stub) -> None:
    for _ in range(3):
        await submit(client)
    held = {(await take(client)).lease_id for _ in range(2)}
    await take(client, "agent-2")
    assert await client.heartbeat(agent_id="agent-1", lease_ids=[]) == held
    assert await client.heartbeat(agent_id="agent-3", lease_ids=[]) == frozenset()


async def test_p3_a_heartbeat_of_another_agent_holds_nothing(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    await asyncio.sleep(LEASE_S - 1)
    assert not await client.heartbeat(agent_id="agent-2", lease_ids=[work.lease_id])
    await take(client, "agent-2", wait_s=2)
    async with nothing_changes(client):
        with pytest.raises(PreconditionFailed):
            await succeed(client, work)


# --- CancelTask ----------------------------------------------------------------------------------


async def test_a_waiting_task_that_is_cancelled_is_never_handed_out(client: Stub) -> None:
    cancelled = await submit(client, seconds=1)
    other = await submit(client, seconds=2)
    assert await client.cancel(cancelled.upper()) is TaskState.CANCELLED
    assert (await client.get(cancelled)).attempts == ()
    assert (await client.get(other)).queue_position == 1
    assert (await take(client)).task_id == other
    assert await client.fetch(agent_id="agent-1") is None


async def test_the_agent_of_a_cancelled_task_hears_so_and_its_outcome_is_refused(
    client: Stub,
) -> None:
    task_id = await submit(client)
    work = await take(client)
    await client.cancel(task_id)
    assert not await client.heartbeat(agent_id="agent-1", lease_ids=[work.lease_id])
    (task,) = await everything(client)
    assert (task.state, task.agent_id) == (TaskState.CANCELLED, "")
    assert [attempt.outcome for attempt in task.attempts] == [Outcome.CANCELLED]
    async with nothing_changes(client):
        for end in (succeed, fail):
            with pytest.raises(PreconditionFailed, match="which is cancelled"):
                await end(client, work)


async def test_what_is_finished_cannot_be_cancelled(client: Stub) -> None:
    cancelled, succeeded, dead = [await submit(client) for _ in range(3)]
    await client.cancel(cancelled)
    await succeed(client, await take(client))
    await fail(client, await take(client), retryable=False)
    async with nothing_changes(client):
        for task_id, state in (
            (cancelled, "cancelled"),
            (succeeded, "succeeded"),
            (dead, "dead"),
        ):
            with pytest.raises(
                PreconditionFailed, match=f"cancel is not possible: the task is {state}"
            ):
                await client.cancel(task_id)
        with pytest.raises(TaskNotFound, match=NO_TASK):
            await client.cancel(NO_TASK)
