"""P7 on a Work stream: what a message may have, and a peer that sends much and reads nothing."""

import asyncio

import pytest

from taskdist.client import Stub
from taskdist.distributor.server import Distributor
from taskdist.limits import DATA_BYTES_MAX, MESSAGE_BYTES_MAX, OUTCOMES_MAX
from taskdist.reports import Submission
from taskdist.wire import messages as wire
from tests.distributor.story import NO_TASK, submit
from tests.support.streams import spoken

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

NAME = "n" * 64
"""As long as names may be."""


def outcomes(count: int) -> list[wire.CompleteTaskRequest]:
    """Outcomes of a task that there is not, so that each verdict is a long one."""
    return [
        wire.CompleteTaskRequest(task_id=NO_TASK, lease_id=f"{number:0500}", success=True)
        for number in range(count)
    ]


async def test_p7_large_tasks_for_many_slots_come_in_several_messages(
    client: Stub, distributor: Distributor
) -> None:
    sizes = [DATA_BYTES_MAX, DATA_BYTES_MAX - 1, DATA_BYTES_MAX // 2, 0, 1] * 4
    expected = [
        await submit(client, "paid", seconds, data=bytes(size))
        for seconds, size in enumerate(sizes)
    ]
    async with spoken(distributor, slots=512) as work:
        heard = await work.all()
    leases = [lease for message in heard for lease in message.leases]
    assert [lease.task_id for lease in leases] == expected, "P2: none comes before its turn"
    assert [len(lease.data) for lease in leases] == sizes
    assert max(work.sizes) < MESSAGE_BYTES_MAX
    assert len(heard) > 1


async def test_p7_very_many_small_tasks_come_in_messages_that_an_agent_can_read(
    client: Stub, distributor: Distributor
) -> None:
    tasks = [Submission("paid", 0.5, bytes(8), NAME, NAME)] * 1_000
    for _ in range(4):
        await client.submit_many(tasks)
    async with spoken(distributor, slots=10_000, queues=(NAME,)) as work:
        await work.say(outcomes=outcomes(OUTCOMES_MAX))
        heard = await work.all()
    assert sum(len(message.leases) for message in heard) == 4_000
    assert max(work.sizes) < MESSAGE_BYTES_MAX


async def test_p7_a_message_has_no_more_verdicts_and_revocations_than_allowed(
    distributor: Distributor,
) -> None:
    gone = tuple(f"gone-{number}" for number in range(2 * OUTCOMES_MAX + 1))
    async with spoken(distributor, slots=10_000, lease_ids=gone) as work:
        for _ in range(3):
            await work.say(outcomes=outcomes(OUTCOMES_MAX))
        heard = await work.all()
    assert sum(len(message.verdicts) for message in heard) == 3 * OUTCOMES_MAX
    assert max(len(message.verdicts) for message in heard) <= OUTCOMES_MAX
    revoked = [lease_id for message in heard for lease_id in message.revoked_lease_ids]
    assert revoked == list(gone)
    assert max(len(message.revoked_lease_ids) for message in heard) == OUTCOMES_MAX
    assert max(work.sizes) < MESSAGE_BYTES_MAX


async def test_p7_who_does_not_read_its_verdicts_is_not_heard_any_further(
    client: Stub, distributor: Distributor
) -> None:
    """It may go on once it reads; meanwhile others are served."""
    sent = 0
    async with spoken(distributor) as work:

        async def pour() -> None:
            nonlocal sent
            for _ in range(8):
                await work.say(outcomes=outcomes(OUTCOMES_MAX))
                sent += 1

        pouring = asyncio.create_task(pour())
        await asyncio.sleep(5)
        assert not pouring.done()
        stuck_at = sent
        assert stuck_at < 6, "a window of unread verdicts, and one of unread outcomes"
        await submit(client)
        await asyncio.sleep(5)
        assert sent == stuck_at
        heard = await work.all()
        await pouring
        heard += await work.all()
    assert sum(len(message.verdicts) for message in heard) == 8 * OUTCOMES_MAX


async def test_a_stream_that_is_opened_while_the_distributor_stops_is_told_to_go(
    client: Stub, distributor: Distributor
) -> None:
    """P3: what its agent still holds may be reported; nothing is leased."""
    for _ in range(2):
        await submit(client)
    async with spoken(distributor) as first:
        message = await first.hear()
        assert message is not None
        (lease,) = message.leases
        # A stream keeps the stop waiting; another is opened on the same connection.
        stopping = asyncio.create_task(distributor.stop(30))
        assert (await first.hear() or wire.WorkResponse()).drain
        async with client.work(agent_id="agent-2", session="s-2", slots=5, lease_ids=()) as stream:
            news = await stream.receive()
            assert news is not None
            assert (news.drain, news.leases) == (True, ())
            await stream.end()
            assert await stream.receive() is None
        outcome = wire.CompleteTaskRequest(
            task_id=lease.task_id, lease_id=lease.lease_id, success=True
        )
        await first.say(outcomes=[outcome])
        await first.end()
        message = await first.hear()
        assert message is not None
        assert (message.verdicts[0].lease_id, message.leases) == (lease.lease_id, [])
        assert await first.hear() is None
    await asyncio.wait_for(stopping, 1)
