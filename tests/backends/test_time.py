"""P4: a lease ends soon after its term, and never before it, whatever the clocks do."""

import pytest

from taskdist.core.commands import Heartbeat
from taskdist.core.errors import LeaseNotHeld
from taskdist.core.task import Outcome, Task, TaskState
from taskdist.limits import SECOND_US
from tests.support.backends import DAY_S, Rig, fail, lease_id_of, submit, succeed, turns

HOUR_S = 3_600


async def still_held(rig: Rig, task: Task) -> bool:
    """Whether the lease lives, without a heartbeat that would extend it."""
    now = await rig.task(task.id)
    return now.state is TaskState.LEASED and now.attempt == task.attempt


async def beat(rig: Rig, *tasks: Task) -> list[str]:
    """A heartbeat for these leases; those that live."""
    held = await rig.apply(Heartbeat("agent-1", tuple(map(lease_id_of, tasks))))
    return list(held.lease_ids)


async def test_p4_a_silent_agents_task_is_offered_again_within_a_second(rig: Rig) -> None:
    task_id = await rig.submit()
    task = await rig.take()
    await rig.pass_s(29.75)
    assert await still_held(rig, task)
    await rig.pass_s(1.25)
    again = await rig.take("agent-2")
    assert again.id == task_id
    assert (again.lost_count, again.retry_count, again.attempt) == (1, 0, 2)


async def test_p4_heartbeats_keep_a_lease(rig: Rig) -> None:
    await rig.submit()
    task = await rig.take()
    for _ in range(10):
        await rig.pass_s(25)
        assert await beat(rig, task) == [lease_id_of(task)]
    await rig.apply(succeed(task))


async def test_p4_a_heartbeat_keeps_only_the_leases_that_it_names(rig: Rig) -> None:
    for _ in range(2):
        await rig.submit()
    kept, lost = await rig.take(), await rig.take()
    await rig.pass_s(20)
    assert await beat(rig, kept) == [lease_id_of(kept)]
    await rig.pass_s(15)
    assert await still_held(rig, kept)
    assert not await still_held(rig, lost)


async def test_p4_a_hung_handler_cannot_hold_a_task_for_ever(rig: Rig) -> None:
    await rig.submit()
    task = await rig.take()
    beats = 0
    while await beat(rig, task):
        beats += 1
        await rig.pass_s(20, tick_us=SECOND_US)
    assert HOUR_S / 20 <= beats <= (HOUR_S + 31) / 20 + 1
    now = await rig.task(task.id)
    assert (now.state, now.lost_count) == (TaskState.READY, 1)


async def test_p5_the_third_lost_lease_ends_a_task(rig: Rig) -> None:
    task_id = await rig.submit()
    for _ in range(3):
        await rig.take()
        await rig.pass_s(31)
    history = await rig.history(task_id)
    assert history.task.state is TaskState.DEAD
    assert history.task.retry_count == 0
    assert [attempt.outcome for attempt in history.attempts] == [Outcome.LOST] * 3


async def test_p4_a_pause_of_the_distributor_ends_no_lease(rig: Rig) -> None:
    await rig.submit()
    task = await rig.take()
    await rig.pass_s(10)
    rig.time.pass_us(60 * SECOND_US)  # The machine sleeps for a minute: nobody looks at the clock.
    rig.runner.wake()
    await turns()
    assert await still_held(rig, task)
    await rig.pass_s(18)
    assert await still_held(rig, task), "the pause counts as a second, not more"
    await rig.pass_s(3)
    assert not await still_held(rig, task)


async def test_p4_a_pause_ends_no_lease_that_is_short_by_its_tasks_own_wish(kept: Rig) -> None:
    task_id = await kept.submit(lease_us=SECOND_US)
    task = await kept.take()
    for _ in range(3):
        kept.time.pass_us(60 * SECOND_US)
        kept.runner.wake()
        await turns()
        assert await beat(kept, task) == [lease_id_of(task)]
    await kept.restart()
    kept.time.pass_us(60 * SECOND_US)
    kept.runner.wake()
    await turns()
    assert (await kept.task(task_id)).lost_count == 0
    await kept.pass_s(2)
    assert (await kept.task(task_id)).lost_count == 1, "and it ends when nobody speaks in time"


async def test_p4_a_heartbeat_after_a_pause_finds_its_lease(rig: Rig) -> None:
    await rig.submit()
    task = await rig.take()
    rig.time.pass_us(DAY_S * SECOND_US)
    assert await beat(rig, task) == [lease_id_of(task)]


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S, 40 * 365 * DAY_S])
async def test_p4_a_wall_clock_that_jumps_ends_no_lease(rig: Rig, jump_s: int) -> None:
    await rig.submit()
    task = await rig.take()
    rig.time.jump_wall_us(jump_s * SECOND_US)
    await rig.pass_s(29.5)
    assert await still_held(rig, task)
    await rig.pass_s(1.5)
    assert not await still_held(rig, task)


async def test_p2_a_wall_clock_that_goes_back_makes_nobody_older(rig: Rig) -> None:
    first = await rig.submit()
    rig.time.jump_wall_us(-HOUR_S * SECOND_US)
    second = await rig.submit()
    rig.time.jump_wall_us(-HOUR_S * SECOND_US)
    third = await rig.submit()
    assert await rig.take_all() == [first, second, third]


async def test_a_retry_keeps_its_age(rig: Rig) -> None:
    old = await rig.submit()
    await rig.pass_s(1)
    young = await rig.submit()
    for _ in range(2):
        await rig.apply(fail(await rig.take()))
    assert await rig.take_all() == [old, young]


async def test_p3_an_outcome_in_the_batch_after_the_end_of_the_lease_is_too_late(rig: Rig) -> None:
    """What is due comes first: who spoke too late is told so, once and for all."""
    await rig.submit()
    task = await rig.take()
    await rig.pass_s(29.9)
    rig.time.pass_us(SECOND_US // 2)
    with pytest.raises(LeaseNotHeld):
        await rig.apply(succeed(task))


async def test_many_leases_end_together_and_keep_their_order(rig: Rig) -> None:
    ids = [(await rig.apply(submit("free", 100 - number))).task.id for number in range(50)]
    assert await rig.take_all() == ids[::-1]
    await rig.pass_s(31)
    assert await rig.take_all() == ids[::-1]
