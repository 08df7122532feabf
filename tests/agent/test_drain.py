"""The end of an agent: the drain, in virtual time against a real distributor."""

import asyncio

import pytest

from taskdist.agent.runtime import HAND_BACK_S
from taskdist.core.task import Outcome, TaskState
from taskdist.reports import Work
from tests.support.agents import Stage, stage

DRAIN_S = 30.0

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


async def work_on(work: Work) -> bytes:
    """A handler that works for as long as the task expects."""
    await asyncio.sleep(work.est_processing_time_s)
    return b"done"


async def started(played: Stage, *est_s: float) -> list[str]:
    """Tasks of these times, which the agent has begun."""
    ids = [await played.submit(est_s=seconds) for seconds in est_s]
    await asyncio.sleep(1)
    assert {(await played.client.get(task_id)).state for task_id in ids} == {TaskState.LEASED}
    return ids


async def test_running_tasks_are_finished_and_no_new_ones_taken() -> None:
    async with stage() as played:
        agent = played.agent(work_on, slots=3)
        ids = await started(played, 5, 20)
        played.signals.terminate()
        await asyncio.sleep(0)
        late = await played.submit()
        assert await agent is True
        states = [(await played.client.get(task_id)).state for task_id in (*ids, late)]
        assert asyncio.get_running_loop().time() == pytest.approx(20, abs=0.5)
    assert states == [TaskState.SUCCEEDED, TaskState.SUCCEEDED, TaskState.READY]


async def test_what_outlasts_the_drain_is_handed_back() -> None:
    """P5: ready again, in its old place, and counted as nothing but a hand-back."""
    async with stage() as played:
        agent = played.agent(work_on, slots=2, drain_timeout_us=DRAIN_S * 1e6)
        short, long = await started(played, 10, 100)
        other = await played.submit(est_s=200)
        played.signals.terminate()
        assert await agent is True
        assert asyncio.get_running_loop().time() == pytest.approx(1 + DRAIN_S, abs=0.5)
        assert (await played.client.get(short)).state is TaskState.SUCCEEDED
        back = await played.client.get(long)
        assert (await played.client.get(other)).queue_position == 2
    assert (back.state, back.queue_position) == (TaskState.READY, 1)
    assert (back.retry_count, back.lost_count) == (0, 0)
    assert [attempt.outcome for attempt in back.attempts] == [Outcome.RELEASED]


async def test_a_second_signal_hands_back_at_once() -> None:
    async with stage() as played:
        agent = played.agent(work_on, slots=2, drain_timeout_us=DRAIN_S * 1e6)
        ids = await started(played, 100, 100)
        played.signals.terminate()
        await asyncio.sleep(2)
        played.signals.terminate()
        assert await agent is False, "cut short"
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.5)
        states = {(await played.client.get(task_id)).state for task_id in ids}
    assert states == {TaskState.READY}


async def test_leases_are_kept_alive_while_it_drains() -> None:
    """P4: a drain may take longer than a lease."""
    async with stage(lease_us=3_000_000) as played:
        agent = played.agent(work_on)
        (task_id,) = await started(played, 20)
        played.signals.terminate()
        assert await agent is True
        task = await played.client.get(task_id)
    assert (task.state, task.attempt) == (TaskState.SUCCEEDED, 1)


@pytest.mark.parametrize("how", ["broken", "silent"])
async def test_a_drain_ends_although_the_distributor_is_away(how: str) -> None:
    """P7: it tries to hand back for a while; the lease runs out by itself (P4)."""
    async with stage() as played:
        agent = played.agent(work_on, drain_timeout_us=DRAIN_S * 1e6)
        (task_id,) = await started(played, 100)
        getattr(played.network, how).update({"ReleaseTask", "FetchTask", "CompleteTask"})
        played.signals.terminate()
        assert await agent is True
        ended_at = asyncio.get_running_loop().time()
        assert ended_at == pytest.approx(1 + DRAIN_S + HAND_BACK_S, abs=0.5)
        work = await played.client.fetch(agent_id="other", wait_s=60)
    assert work is not None
    assert (work.task_id, work.attempt) == (task_id, 2)


async def test_a_run_that_could_not_be_handed_back_is_not_said_never_to_have_been() -> None:
    """P5: it was begun, and its lease is lost and kept as lost, also when the agent says hello
    once more after it has given up."""
    async with stage() as played:
        agent = played.agent(work_on, drain_timeout_us=DRAIN_S * 1e6)
        (task_id,) = await started(played, 100)
        played.network.broken.add("ReleaseTask")
        played.signals.terminate()
        # The stream breaks, and is opened again when the run is over.
        await asyncio.sleep(DRAIN_S + HAND_BACK_S - 0.02)
        played.network.move_to(played.network.distributor)
        assert await agent is True
        work = await played.client.fetch(agent_id="other", wait_s=60)
        assert work is not None
        assert (work.task_id, work.attempt) == (task_id, 2)
        attempts = (await played.client.get(task_id)).attempts
    assert [attempt.outcome for attempt in attempts] == [Outcome.LOST]


async def test_an_idle_agent_leaves_at_once() -> None:
    """Its long-poll is withdrawn: a task that comes then is not lost on it (P4)."""
    async with stage() as played:
        agent = played.agent(work_on)
        await asyncio.sleep(10)
        played.signals.terminate()
        assert await agent is True
        assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)
        task_id = await played.submit()
        assert (await played.client.get(task_id)).state is TaskState.READY
