"""Scheduled tasks, backoffs and deadlines, by the right clock, over restarts (P2, P4, P5)."""

from typing import Any

import pytest

from taskdist.backends import timetable
from taskdist.backends.rows import decode_task
from taskdist.core.errors import InvalidFields
from taskdist.core.task import Backoff, Task, TaskState
from taskdist.limits import SECOND_US
from tests.support.backends import (
    DAY_S,
    Rig,
    fail,
    only_tasks,
    release,
    submit,
    succeed,
    take,
    turns,
)

HOUR_US = 3_600 * SECOND_US
PAUSE: dict[str, Any] = {"backoff": Backoff.FIXED, "backoff_us": 60 * SECOND_US}
SCHEDULED, READY, DEAD = TaskState.SCHEDULED, TaskState.READY, TaskState.DEAD


async def state(rig: Rig, task_id: str) -> TaskState:
    return (await rig.task(task_id)).state


async def test_p4_a_delayed_task_is_ready_within_a_second_after_its_time(rig: Rig) -> None:
    placed = await rig.apply(submit(delay_s=10))
    assert (placed.task.state, placed.position) == (SCHEDULED, 0)
    assert placed.task.due_at_us == rig.time.wall_us + 10 * SECOND_US
    await rig.pass_s(9.75)
    assert await rig.take_all() == []
    await rig.pass_s(1.25)
    assert await rig.take_all() == [placed.task.id]


async def test_p2_who_waits_is_served_when_a_task_falls_due(rig: Rig) -> None:
    task_id = await rig.submit(delay_s=5)
    waiter = rig.ask(take(wait_s=60))
    await rig.pass_s(4)
    assert not waiter.done()
    await rig.pass_s(2)
    assert [task.id for task in only_tasks(await waiter)] == [task_id]


async def test_p2_a_delayed_task_is_as_old_as_it_has_been_ready(rig: Rig) -> None:
    delayed = await rig.submit(delay_s=5)
    before = await rig.submit()
    await rig.pass_s(6)
    after = await rig.submit()
    assert (await rig.task(delayed)).due_at_us is None
    assert await rig.take_all() == [before, delayed, after]


async def test_p2_after_a_backoff_a_task_has_its_age_and_is_a_retry(rig: Rig) -> None:
    failed = await rig.submit(**PAUSE)
    await rig.pass_s(1)
    young = await rig.submit()
    first = await rig.take()
    await rig.apply(fail(first))
    kept = await rig.task(failed)
    assert (kept.state, kept.enqueued_at_us) == (SCHEDULED, first.enqueued_at_us)
    assert kept.due_at_us == rig.time.wall_us + 60 * SECOND_US
    await rig.apply(fail(await rig.take()))  # The young one, at once a retry, too.
    await rig.pass_s(61)
    new = await rig.submit("free", 100)
    assert await rig.take_all() == [new, failed, young]


async def test_retry_after_is_over_the_backoff_and_zero_is_at_once(rig: Rig) -> None:
    task_id = await rig.submit(**PAUSE)
    await rig.apply(fail(await rig.take(), retry_after_s=0))
    await rig.apply(fail(await rig.take(), retry_after_s=5))
    assert await state(rig, task_id) is SCHEDULED
    await rig.pass_s(6)
    assert await rig.take_all() == [task_id]


async def test_p5_what_is_handed_back_or_lost_does_not_pause(rig: Rig) -> None:
    task_id = await rig.submit(**PAUSE)
    await rig.apply(release(await rig.take()))
    await rig.take()
    await rig.pass_s(31)
    assert await rig.take_all() == [task_id]


@pytest.mark.parametrize("jump_us", [-HOUR_US, HOUR_US])
async def test_p4_a_wall_clock_that_is_set_moves_no_backoff_and_no_lease(
    rig: Rig, jump_us: int
) -> None:
    paused = await rig.submit("paid", **PAUSE)
    await rig.submit()
    await rig.apply(fail(await rig.take()))
    held = await rig.take()
    await rig.pass_s(20)
    rig.time.jump_wall_us(jump_us)
    await rig.pass_s(9)
    assert await state(rig, held.id) is TaskState.LEASED
    await rig.pass_s(2)
    assert await state(rig, held.id) is READY
    await rig.pass_s(28.5)
    assert await state(rig, paused) is SCHEDULED
    await rig.pass_s(1.5)
    assert await state(rig, paused) is READY


async def test_not_before_goes_by_the_wall_clock(rig: Rig) -> None:
    sooner = await rig.submit(not_before_us=rig.time.wall_us + HOUR_US // 2)
    later = await rig.submit(not_before_us=rig.time.wall_us + HOUR_US * 2)
    past = await rig.apply(submit(not_before_us=rig.time.wall_us - 1))
    assert past.task.state is READY
    rig.time.jump_wall_us(HOUR_US)
    await rig.pass_s(1)
    assert (await state(rig, sooner), await state(rig, later)) == (READY, SCHEDULED)
    rig.time.jump_wall_us(-HOUR_US)
    await rig.pass_s(HOUR_US / SECOND_US, tick_us=SECOND_US)
    assert await state(rig, later) is SCHEDULED
    again = await rig.submit()
    assert await rig.take_all() == [past.task.id, sooner, again], "P2: nobody is younger than 0"


# --- deadlines -----------------------------------------------------------------------------------


async def test_a_deadline_that_passes_while_a_task_waits_ends_it(rig: Rig) -> None:
    scheduled = await rig.submit(delay_s=5, deadline_in_s=10)
    ready = await rig.submit(deadline_in_s=10, queue="other")
    paused = await rig.submit(deadline_in_s=10, queue="third", **PAUSE)
    await rig.apply(fail(await rig.take(queues=("third",))))
    in_time = await rig.submit(deadline_us=rig.time.wall_us + 10 * SECOND_US, queue="fourth")
    await rig.take(queues=("fourth",))
    await rig.pass_s(5.25)
    assert await state(rig, scheduled) is READY
    await rig.pass_s(4.5)
    assert [await state(rig, one) for one in (scheduled, ready, paused)] == [
        READY,
        READY,
        SCHEDULED,
    ]
    await rig.pass_s(1)
    for task_id in (scheduled, ready, paused):
        history = await rig.history(task_id)
        assert history.task.state is DEAD
        assert history.task.finished_at_us is not None
        assert history.task.due_at_us is history.task.backoff_until_us is None
        again = "retry 1" if task_id == paused else "it could be started"
        assert history.error.endswith(f"its deadline passed before {again}")
    assert await state(rig, in_time) is TaskState.LEASED, "it was started by then"
    await rig.pass_s(60)
    assert await state(rig, in_time) is DEAD, "its lease was lost, and it cannot start again"


async def test_a_deadline_while_a_task_is_still_to_come_ends_it_unstarted(rig: Rig) -> None:
    task_id = await rig.submit(delay_s=5, deadline_in_s=7)
    rig.time.jump_wall_us(HOUR_US)
    await rig.pass_s(1)
    assert await state(rig, task_id) is DEAD
    assert (await rig.history(task_id)).attempts == ()


async def test_a_deadline_that_can_never_be_kept_is_refused(rig: Rig) -> None:
    now_us = rig.time.wall_us
    for bad in (
        submit(deadline_us=now_us),
        submit(delay_s=5, deadline_in_s=5),
        submit(not_before_us=now_us + 10, deadline_us=now_us + 10),
    ):
        with pytest.raises(InvalidFields, match="deadline"):
            await rig.apply(bad)
    await rig.apply(submit(not_before_us=now_us + 10, deadline_us=now_us + 11))


async def test_a_deadline_that_passed_while_nobody_served_ends_its_task_first(kept: Rig) -> None:
    """At the start no agent gets it, however fast it asks."""
    late = await kept.submit("paid", deadline_in_s=60)
    to_come = await kept.submit("paid", delay_s=30, deadline_in_s=60)
    good = await kept.submit("free", deadline_in_s=2 * DAY_S)
    await kept.close()
    kept.time.pass_us(DAY_S * SECOND_US)
    await kept.open()
    assert await kept.take_all() == [good]
    assert (await state(kept, late), await state(kept, to_come)) == (DEAD, DEAD)


async def test_p2_a_take_meets_overdue_tasks_before_they_are_ended_and_hands_out_the_rest(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More are overdue than one batch ends: an agent gets none of them."""
    monkeypatch.setattr(timetable, "TASKS_MAX", 2)
    late = [await rig.submit("paid", deadline_in_s=5) for _ in range(9)]
    good = await rig.submit()
    rig.runner.hold()
    calls = [rig.ask(take(slots=4, wait_s=60)) for _ in range(2)]
    rig.time.pass_us(SECOND_US // 2)
    rig.time.jump_wall_us(HOUR_US)
    await turns()
    rig.runner.let_go()
    await turns(50)
    got = [task.id for call in calls if call.done() for task in only_tasks(await call)]
    assert got == [good] or await rig.take_all() == [good]
    assert {await state(rig, task_id) for task_id in late} == {DEAD}


# --- restarts and small steps --------------------------------------------------------------------


async def test_p1_a_restart_keeps_what_is_scheduled(kept: Rig) -> None:
    soon, late = await kept.submit(delay_s=100), await kept.submit(delay_s=DAY_S)
    paused = await kept.submit(queue="other", **PAUSE)
    await kept.apply(fail(await kept.take(queues=("other",))))
    before = [await kept.task(task_id) for task_id in (soon, late, paused)]
    for again in (kept.restart, kept.crash):
        await again()
        assert [await kept.task(task_id) for task_id in (soon, late, paused)] == before
    await kept.close()
    kept.time.pass_us(200 * SECOND_US)
    await kept.open()
    await turns()
    assert await state(kept, soon) is READY
    assert await state(kept, paused) is SCHEDULED, "a backoff counts the time that was served"
    await kept.pass_s(61)
    assert await state(kept, paused) is READY
    assert await state(kept, late) is SCHEDULED


async def test_p4_a_crash_forgets_at_most_a_minute_of_a_backoff(kept: Rig) -> None:
    task_id = await kept.submit(backoff=Backoff.FIXED, backoff_us=600 * SECOND_US)
    await kept.apply(fail(await kept.take()))
    await kept.pass_s(500, tick_us=SECOND_US)
    await kept.crash()
    await kept.pass_s(90, tick_us=SECOND_US)
    assert await state(kept, task_id) is SCHEDULED
    await kept.pass_s(75, tick_us=SECOND_US)
    assert await state(kept, task_id) is READY


async def test_p7_many_fall_due_together_in_small_steps(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timetable, "TASKS_MAX", 3)
    ids = [await rig.submit(delay_s=5 - number / 100) for number in range(20)]
    for _ in range(7):
        await rig.submit(queue="other", **PAUSE)
        await rig.apply(fail(await rig.take(queues=("other",))))
    heard = len(rig.hearer.changes)
    steps: list[int] = []
    rig.hearer.when_changed = lambda: steps.append(len(rig.hearer.changes))
    rig.time.pass_us(6 * SECOND_US)
    rig.runner.wake()
    await turns(100)
    assert [step - heard for step in steps] == [3, 6, 9, 12, 15, 18, 20]
    assert sorted(await rig.take_all()) == sorted(ids)
    await rig.pass_s(61)
    assert len(await rig.take_all(queues=("other",))) == 7


async def test_a_lease_and_a_run_timeout_of_a_tasks_own(rig: Rig) -> None:
    await rig.submit(lease_us=2 * SECOND_US, run_timeout_us=5 * SECOND_US)
    task = await rig.take()
    assert task.lease is not None
    assert (task.lease.term_us, task.lease.run_timeout_us) == (2 * SECOND_US, 5 * SECOND_US)
    await rig.pass_s(1.75)
    assert await state(rig, task.id) is TaskState.LEASED
    await rig.pass_s(1.25)
    assert await state(rig, task.id) is READY
    await rig.restart() if rig.settings.store != "memory:" else None
    await rig.apply(succeed(await rig.take()))


async def test_p7_a_look_reads_what_is_due_and_one_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many follow later: a look that reads them too costs each batch milliseconds."""
    for number in range(20):
        await rig.submit(delay_s=10 + number)
    read = []

    def counted(*row: Any) -> Task:
        read.append(row)
        return decode_task(*row)

    await rig.pass_s(9.5)
    monkeypatch.setattr(timetable, "decode_task", counted)
    await rig.pass_s(1)
    assert len(read) == 2
