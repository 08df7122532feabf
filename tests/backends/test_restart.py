"""P1, P2, P4: what a restart and a crash leave, of a store on disk."""

from taskdist.core.commands import Heartbeat, Held
from taskdist.core.task import TaskState
from taskdist.limits import SECOND_US
from tests.support.backends import (
    DAY_S,
    Rig,
    fail,
    fresh_id,
    lease_id_of,
    release,
    submit,
    succeed,
    turns,
)


async def test_p2_the_queue_is_rebuilt_in_the_same_order_with_the_same_positions(kept: Rig) -> None:
    ids = []
    for number in range(12):
        tier, est_s = ("paid", "free")[number % 2], number % 3
        ids.append(await kept.submit(tier, est_s, kind=f"kind-{number % 4}"))
        if number % 5 == 0:
            await kept.apply(fail(await kept.take()))
        if number % 5 == 1:
            await kept.apply(release(await kept.take()))
    before = {task_id: await kept.position(task_id) for task_id in ids}
    await kept.restart()
    assert {task_id: await kept.position(task_id) for task_id in ids} == before
    assert await kept.take_all() == sorted(ids, key=lambda task_id: before[task_id])


async def test_p2_a_new_list_of_tiers_makes_a_new_order(kept: Rig) -> None:
    paid, free = await kept.submit("paid"), await kept.submit("free")
    await kept.restart(tiers=("free",))
    assert await kept.take_all() == [free, paid]


async def test_p1_everything_that_was_answered_is_there_after_a_crash(kept: Rig) -> None:
    ready = await kept.submit("free", 9, data=b"waits", task_id=fresh_id())
    done, dead, running = [await kept.submit("paid", est_s) for est_s in (1, 2, 3)]
    await kept.apply(succeed(await kept.take(), b"42"))
    await kept.apply(fail(await kept.take(), "bad", retryable=False))
    task = await kept.take()
    before = [await kept.history(task_id) for task_id in (ready, done, dead, running)]
    assert [history.task.state.value for history in before] == [
        "ready",
        "succeeded",
        "dead",
        "leased",
    ]
    await kept.crash()
    assert [await kept.history(task_id) for task_id in (ready, done, dead, running)] == before
    await kept.apply(succeed(task))
    again = await kept.apply(submit("free", 9, data=b"waits", task_id=ready))
    assert (again.task.id, again.position) == (ready, 1)


async def test_p1_what_was_not_committed_was_never_answered(kept: Rig) -> None:
    await kept.submit()
    kept.runner.hold()
    call = kept.ask(submit())
    await turns()
    assert not call.done()
    await kept.crash()
    assert len(await kept.take_all()) == 1


async def test_p4_a_restart_grants_every_live_lease_a_full_term(kept: Rig) -> None:
    await kept.submit()
    task = await kept.take()
    await kept.pass_s(25)
    await kept.close()
    kept.time.pass_us(DAY_S * SECOND_US)
    await kept.open()
    await kept.pass_s(29)
    assert await kept.apply(Heartbeat("agent-1", (lease_id_of(task),))) == Held(
        (lease_id_of(task),)
    )
    await kept.restart()
    await kept.pass_s(31)
    assert (await kept.take("agent-2")).lost_count == 1


async def test_p4_restarts_do_not_extend_a_lease_past_its_run_timeout(kept: Rig) -> None:
    """The served clock goes on where it was, also when the process did not end in peace."""
    await kept.submit()
    task = await kept.take()
    for restart in (kept.restart, kept.crash) * 10:
        for _ in range(10):
            await kept.pass_s(20, tick_us=SECOND_US)
            await kept.apply(Heartbeat("agent-1", (lease_id_of(task),)))
        await restart()
    now = await kept.task(task.id)
    assert now.state is TaskState.READY, "4000 s of heartbeats are more than the hour"
    assert now.lost_count == 1


async def test_p4_a_crash_forgets_at_most_a_minute_of_served_time(kept: Rig) -> None:
    """Heartbeats write nothing; the clock is saved once a minute all the same."""
    await kept.submit()
    task = await kept.take()
    for _ in range(100):
        await kept.pass_s(10, tick_us=SECOND_US)
        await kept.apply(Heartbeat("agent-1", (lease_id_of(task),)))
    await kept.crash()
    for _ in range(260):
        await kept.pass_s(10, tick_us=SECOND_US)
        await kept.apply(Heartbeat("agent-1", (lease_id_of(task),)))
    await kept.pass_s(100)
    assert (await kept.task(task.id)).state is TaskState.READY


async def test_p2_enqueued_at_never_decreases_over_a_restart_with_a_clock_set_back(
    kept: Rig,
) -> None:
    first = await kept.apply(submit())
    kept.time.jump_wall_us(-DAY_S * SECOND_US)
    await kept.restart()
    second = await kept.apply(submit())
    assert second.task.enqueued_at_us == first.task.enqueued_at_us
    assert second.task.sequence > first.task.sequence
    assert second.position == 2


async def test_no_sequence_is_given_twice(kept: Rig) -> None:
    sequences = []
    for restart in (kept.restart, kept.crash, kept.restart):
        task = (await kept.apply(submit())).task
        sequences.append(task.sequence)
        await kept.apply(succeed(await kept.take()))
        await restart()
    assert sequences == [1, 2, 3]


async def test_p5_counts_go_on_after_a_restart(kept: Rig) -> None:
    task_id = await kept.submit(max_retries=1)
    await kept.apply(fail(await kept.take()))
    await kept.restart()
    await kept.apply(release(await kept.take()))
    await kept.crash()
    task = await kept.take()
    assert (task.retry_count, task.hasty_releases, task.attempt) == (1, 1, 3)
    await kept.apply(fail(task))
    assert (await kept.task(task_id)).state is TaskState.DEAD


async def test_p3_an_old_outcome_is_still_known_after_a_restart(kept: Rig) -> None:
    await kept.submit()
    first = await kept.take()
    answer = await kept.apply(fail(first))
    second = await kept.take("agent-2")
    await kept.restart()
    assert await kept.apply(fail(first)) == answer
    assert (await kept.apply(succeed(second))).led_to is TaskState.SUCCEEDED


async def test_p5_haste_is_measured_over_a_restart(kept: Rig) -> None:
    task_id = await kept.submit()
    task = await kept.take()
    await kept.pass_s(9)
    await kept.restart()
    await kept.pass_s(2)
    await kept.apply(release(task))
    assert (await kept.task(task_id)).hasty_releases == 0
