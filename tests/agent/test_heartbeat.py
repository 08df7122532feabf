"""Leases are kept alive, and given up in time (in virtual time, against a real distributor)."""

import asyncio
from itertools import pairwise

import pytest

from taskdist.core.task import Outcome, TaskState
from taskdist.reports import Work
from tests.support.agents import Stage, stage

LEASE_S = 30.0

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


class Endless:
    """A handler that never ends by itself, and knows when it began and was stopped."""

    def __init__(self) -> None:
        self.began_at: list[float] = []
        self.stopped_at: list[float] = []
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()

    async def __call__(self, work: Work) -> bytes:
        loop = asyncio.get_running_loop()
        self.began_at.append(loop.time())
        self.begun.set()
        try:
            await asyncio.sleep(1e9)
        finally:
            self.stopped_at.append(loop.time())
            self.stopped.set()
        return b""


async def test_a_lease_is_renewed_at_each_third_of_its_term() -> None:
    """P4: and so a task may run for many leases."""

    async def work(work: Work) -> bytes:
        await asyncio.sleep(3.5 * LEASE_S)
        return b"done"

    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(work)
        task = await played.final(await played.submit())
        beats = played.network.times("Heartbeat")
        gaps = [after - before for before, after in pairwise(beats)]
    assert (task.state, task.attempt, task.lost_count) == (TaskState.SUCCEEDED, 1, 0)
    assert gaps == pytest.approx([LEASE_S / 3] * 9)


async def test_an_agent_that_holds_nothing_does_not_beat() -> None:
    """Also not at the time at which a lease that is long over would have been due."""

    async def work(work: Work) -> bytes:
        await asyncio.sleep(1)
        return b"done"

    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(work)
        await played.final(await played.submit())
        await asyncio.sleep(3 * LEASE_S)
        assert not played.network.times("Heartbeat")


async def test_one_heartbeat_renews_all_that_is_held() -> None:
    handler = Endless()
    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(handler, slots=3)
        for _ in range(3):
            await played.submit()
        await asyncio.sleep(1.1 * LEASE_S)
        beats = [call for call in played.network.calls if call.method == "Heartbeat"]
        assert not handler.stopped_at
    assert len(beats) == 3
    assert all(len(beat.request.lease_ids) == 3 for beat in beats)


@pytest.mark.parametrize("how", ["broken", "silent"])
async def test_a_lease_that_cannot_be_renewed_is_given_up_before_its_end(how: str) -> None:
    """P3: the handler is stopped before another agent may begin, and nothing is reported."""
    first, second = Endless(), Endless()
    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(first, name="first")
        task_id = await played.submit()
        await first.begun.wait()
        healthy = Stage(played.client, played.network.distributor)
        healthy.agent(second, name="second")
        await asyncio.sleep(1.5 * LEASE_S)  # some beats go well
        getattr(played.network, how).update({"Heartbeat", "CompleteTask", "ReleaseTask"})
        renewed_at = played.network.times("Heartbeat")[-1]
        await second.begun.wait()
        task = await played.client.get(task_id)
        await healthy.leave()
    assert first.stopped_at[0] <= renewed_at + LEASE_S
    assert first.stopped_at[0] <= second.began_at[0] <= renewed_at + LEASE_S + 1
    assert [attempt.outcome for attempt in task.attempts] == [Outcome.LOST]
    assert not played.network.times("CompleteTask")


async def test_p4_in_doubt_a_run_may_go_on_and_counts_if_nobody_else_has_the_task() -> None:
    """`on_doubt=finish`: the beats go on being tried, and the outcome is accepted."""

    async def work(work: Work) -> bytes:
        await asyncio.sleep(3 * LEASE_S)
        return b"done"

    # The beats arrive, and their answers do not: the agent cannot know that it still has the lease.
    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(work, on_doubt="finish")
        task_id = await played.submit()
        await played.network.wait_for_calls("Heartbeat", 1)
        played.network.deaf.add("Heartbeat")
        task = await played.final(task_id)
    assert (task.state, task.attempt, task.lost_count) == (TaskState.SUCCEEDED, 1, 0)


async def test_p3_in_doubt_a_run_that_went_on_is_refused_when_another_has_the_task() -> None:
    """`on_doubt=finish`: the fencing decides, unless a Work stream has said so already."""
    ended = asyncio.Event()

    async def slow(work: Work) -> bytes:
        try:
            await asyncio.sleep(3 * LEASE_S)
        finally:
            ended.set()
        return b"slow"

    second = Endless()
    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(slow, name="first", on_doubt="finish")
        task_id = await played.submit()
        await played.network.wait_for_calls("Heartbeat", 1)
        healthy = Stage(played.client, played.network.distributor)
        healthy.agent(second, name="second")
        played.network.broken.add("Heartbeat")
        await ended.wait()
        await asyncio.sleep(1)
        task = await played.client.get(task_id)
        await healthy.leave()
    assert (task.state, task.agent_id, task.attempt) == (TaskState.LEASED, "second", 2)
    assert not second.stopped_at or second.stopped_at[0] > second.began_at[0]


@pytest.mark.parametrize("beat_s", [0.01, 0.2 * LEASE_S, LEASE_S / 3 - 0.01])
async def test_an_outage_of_less_than_two_thirds_of_a_lease_costs_nothing(beat_s: float) -> None:
    """P4: whether it begins right after a beat or right before the next."""
    handler = Endless()
    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(handler)
        task_id = await played.submit()
        await handler.begun.wait()
        for _ in range(10):
            beats = len(played.network.times("Heartbeat"))
            await played.network.wait_for_calls("Heartbeat", beats + 1)
            await asyncio.sleep(beat_s)
            played.network.broken.add("Heartbeat")
            await asyncio.sleep(LEASE_S * 2 / 3 - 0.1)
            played.network.broken.clear()
            await asyncio.sleep(LEASE_S / 3)
        task = await played.client.get(task_id)
    assert (task.state, task.attempt, task.lost_count) == (TaskState.LEASED, 1, 0)
    assert len(handler.began_at) == 1


async def test_an_unexpected_answer_does_not_end_the_beats() -> None:
    """P4: a proxy's or a newer distributor's; without beats every later lease would be lost."""
    handler = Endless()
    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(handler)
        task_id = await played.submit()
        played.network.odd.add("Heartbeat")
        await played.network.wait_for_calls("Heartbeat", 2)
        played.network.odd.clear()
        await asyncio.sleep(3 * LEASE_S)
        task = await played.client.get(task_id)
    assert (task.state, task.attempt, task.lost_count) == (TaskState.LEASED, 1, 0)


async def test_a_lost_lease_stops_the_handler_and_nothing_is_reported() -> None:
    """P3: a cancelled task's agent hears so at its next heartbeat, and takes the next task."""
    handler = Endless()
    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(handler)
        task_id = await played.submit()
        await handler.begun.wait()
        await asyncio.sleep(1)
        await played.client.cancel(task_id)
        await handler.stopped.wait()
        assert not played.network.times("CompleteTask")

        handler.begun.clear()
        await played.submit()
        await handler.begun.wait()
    assert handler.stopped_at[0] - handler.began_at[0] <= LEASE_S / 3 + 0.1


async def test_a_lost_lease_leaves_the_others_alone() -> None:
    handler = Endless()
    async with stage(lease_us=LEASE_S * 1e6) as played:
        played.agent(handler, slots=2)
        first, second = await played.submit(), await played.submit()
        await asyncio.sleep(1)
        await played.client.cancel(first)
        await asyncio.sleep(2 * LEASE_S)
        assert len(handler.stopped_at) == 1
        assert (await played.client.get(second)).state is TaskState.LEASED
