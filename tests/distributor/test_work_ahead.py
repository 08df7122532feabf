"""A Work stream hears the next outcomes while others are on a slow disk."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from taskdist.backends.clock import Clock
from taskdist.backends.embedded import EmbeddedBackend
from taskdist.client import Stub
from taskdist.core.task import TaskState
from taskdist.distributor.server import Distributor
from taskdist.distributor.work_stream import HEARD_AHEAD_MAX
from taskdist.limits import MESSAGE_BYTES_MAX, RESULT_BYTES_MAX
from taskdist.settings import DistributorSettings
from taskdist.wire import messages as wire
from taskdist.wire.codec import fields
from tests.distributor.story import submit
from tests.support.backends import HandRunner
from tests.support.channel import distributor_channel
from tests.support.streams import Spoken, spoken

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

SLOTS = 8

Served = tuple[Stub, Distributor, HandRunner]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A distributor whose disk is slow, and can be held up."""
    settings = DistributorSettings(store="memory:", inbox_bytes_max=MESSAGE_BYTES_MAX)
    runner = HandRunner()
    backend = EmbeddedBackend(settings, Clock(settings), runner)
    async with distributor_channel(settings, backend) as (client, distributor):
        distributor.paced(is_disk_slow=True)
        yield client, distributor, runner


async def leased(client: Stub, work: Spoken, count: int) -> list[wire.FetchTaskResponse]:
    for _ in range(count):
        await submit(client)
    leases: list[wire.FetchTaskResponse] = []
    while len(leases) < count:
        leases += (await heard(work)).leases
    return leases


async def heard(work: Spoken) -> wire.WorkResponse:
    message = await work.hear()
    assert message is not None
    return message


def success(lease: wire.FetchTaskResponse, size: int = 0) -> wire.CompleteTaskRequest:
    return wire.CompleteTaskRequest(
        task_id=lease.task_id, lease_id=lease.lease_id, success=True, result=bytes(size)
    )


async def accepted(work: Spoken, count: int) -> list[str]:
    ids: list[str] = []
    while len(ids) < count:
        ids += [v.lease_id for v in (await heard(work)).verdicts if fields(v).refusal is None]
    return ids


async def test_p1_outcomes_that_come_while_the_disk_is_busy_share_the_next_commit(
    served: Served,
) -> None:
    client, distributor, runner = served
    async with spoken(distributor, slots=SLOTS) as work:
        leases = await leased(client, work, HEARD_AHEAD_MAX)
        runner.hold()
        for lease in leases:
            await work.say(outcomes=[success(lease)])
        with pytest.raises(TimeoutError):
            await work.hear()
        runner.let_go()
        message = await heard(work)
        told = [verdict.lease_id for verdict in message.verdicts]
    assert told == [lease.lease_id for lease in leases], "in one message, for it was one commit"


async def test_p7_no_more_is_heard_ahead_than_allowed(served: Served) -> None:
    client, distributor, runner = served
    async with spoken(distributor, slots=SLOTS) as work:
        leases = await leased(client, work, SLOTS)
        runner.hold()
        for lease in leases:
            await work.say(outcomes=[success(lease)])
        await asyncio.sleep(1)
        runner.let_go()
        first = await heard(work)
        assert len(first.verdicts) == HEARD_AHEAD_MAX
        rest = await accepted(work, SLOTS - HEARD_AHEAD_MAX)
    told = [verdict.lease_id for verdict in first.verdicts]
    assert told + rest == [lease.lease_id for lease in leases]


async def test_a_fast_disk_keeps_one_message_at_a_time(served: Served) -> None:
    """Or what others ask for would wait behind all of them."""
    client, distributor, runner = served
    distributor.paced(is_disk_slow=False)
    async with spoken(distributor, slots=2) as work:
        leases = await leased(client, work, 2)
        runner.hold()
        for lease in leases:
            await work.say(outcomes=[success(lease)])
        await asyncio.sleep(1)
        cancelling = asyncio.ensure_future(client.cancel(leases[1].task_id))
        await asyncio.sleep(1)
        runner.let_go()
        messages = await work.all()
        await cancelling
    verdicts = [verdict for message in messages for verdict in message.verdicts]
    assert [fields(verdict).refusal is None for verdict in verdicts] == [True, False]


async def test_p2_slots_that_are_freed_by_outcomes_heard_ahead_are_filled_once(
    served: Served,
) -> None:
    client, distributor, runner = served
    async with spoken(distributor, slots=HEARD_AHEAD_MAX) as work:
        leases = await leased(client, work, HEARD_AHEAD_MAX)
        expected = [await submit(client) for _ in range(HEARD_AHEAD_MAX + 1)]
        runner.hold()
        for lease in leases:
            await work.say(outcomes=[success(lease)])
        await asyncio.sleep(1)
        runner.let_go()
        messages = await work.all()
    got = [lease.task_id for message in messages for lease in message.leases]
    assert got == expected[:HEARD_AHEAD_MAX]


async def test_p7_large_results_are_not_heard_ahead_and_fill_no_inbox(served: Served) -> None:
    client, distributor, runner = served
    async with spoken(distributor, slots=SLOTS) as work:
        leases = await leased(client, work, SLOTS)
        runner.hold()

        async def pour() -> None:
            for pair in zip(leases[::2], leases[1::2], strict=True):
                await work.say(outcomes=[success(lease, RESULT_BYTES_MAX) for lease in pair])

        pouring = asyncio.create_task(pour())
        await asyncio.sleep(5)
        assert not pouring.done(), "it is not heard any further"
        runner.let_go()
        await pouring
        ids = await accepted(work, SLOTS)
    assert sorted(ids) == sorted(lease.lease_id for lease in leases)
    for lease in leases:
        assert (await client.get(lease.task_id)).state is TaskState.SUCCEEDED


async def test_p5_what_is_granted_to_a_stream_that_breaks_meanwhile_is_taken_back(
    served: Served,
) -> None:
    client, distributor, runner = served
    async with spoken(distributor, slots=HEARD_AHEAD_MAX) as work:
        leases = await leased(client, work, HEARD_AHEAD_MAX)
        waiting = [await submit(client) for _ in range(HEARD_AHEAD_MAX)]
        runner.hold()
        for lease in leases:
            await work.say(outcomes=[success(lease)])
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    runner.let_go()
    await asyncio.sleep(1)
    for lease in leases:
        assert (await client.get(lease.task_id)).state is TaskState.SUCCEEDED
    for task_id in waiting:
        task = await client.get(task_id)
        assert (task.state, task.attempt) == (TaskState.READY, 0)
