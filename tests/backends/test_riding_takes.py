"""Takes that count what their session holds, and those that ride along with outcomes."""

import asyncio
from typing import Any

import pytest

from taskdist.core.commands import Grants, Settled, Several, StopTakes
from taskdist.core.errors import LeaseNotHeld, Unavailable
from taskdist.core.task import Task, TaskState
from tests.support.backends import (
    Rig,
    fail,
    only_tasks,
    release,
    several,
    submit,
    succeed,
    take,
    turns,
)

SESSION = "s-1"


def take_in_all(slots: int, *, wait_s: float = 0, session: str = SESSION) -> Any:
    return take(slots=slots, wait_s=wait_s, session=session, in_all=True)


async def held(rig: Rig, count: int) -> list[Task]:
    """So many tasks that the session holds."""
    for _ in range(count):
        await rig.submit("free", 9)
    return only_tasks(await rig.apply(take_in_all(count)))


async def ids(grants: Any) -> list[str]:
    return [task.id for task in only_tasks(await grants)]


async def test_slots_in_all_count_what_the_session_holds_and_nothing_else(rig: Rig) -> None:
    await held(rig, 2)
    for _ in range(4):
        await rig.submit()
    await rig.take("agent-2", session=SESSION)
    await rig.take("agent-1", session="s-2")
    assert only_tasks(await rig.apply(take_in_all(2))) == []
    assert len(only_tasks(await rig.apply(take_in_all(3)))) == 1
    assert only_tasks(await rig.apply(take_in_all(1))) == []


async def test_who_has_no_free_slot_does_not_wait(rig: Rig) -> None:
    await held(rig, 1)
    assert await rig.apply(take_in_all(1, wait_s=60)) == Grants()


async def test_a_waiting_take_counts_what_its_session_holds_when_it_is_served(rig: Rig) -> None:
    """Two calls of a session wait for its one slot: the second gets nothing, and is in nobody's
    way."""
    line = [rig.ask(take_in_all(1, wait_s=60)) for _ in range(2)]
    await turns()
    other = rig.ask(take("agent-2", wait_s=60))
    await turns()
    rig.runner.hold()
    submits = [rig.ask(submit("free", est_s)) for est_s in (1, 2)]
    await turns()
    rig.runner.let_go()
    first, second = [(await call).task.id for call in submits]
    assert [await ids(call) for call in line] == [[first], []]
    assert await ids(other) == [second]


async def test_p2_the_slots_that_outcomes_free_are_filled_in_the_same_commit(rig: Rig) -> None:
    one, two = await held(rig, 2)
    best, next_best = await rig.submit("paid", 1), await rig.submit("free", 1)
    rest = await rig.submit("free", 2)
    *said, grants = await rig.apply(several(succeed(one), fail(two), take_in_all(2)))
    assert [settled.led_to for settled in said] == [TaskState.SUCCEEDED, TaskState.READY]
    assert [task.id for task in only_tasks(grants)] == [best, next_best]
    assert await rig.position(rest) == 1


async def test_p2_those_who_waited_come_before_a_take_that_rides_along(rig: Rig) -> None:
    (task,) = await held(rig, 1)
    waiter = rig.ask(take("agent-2", wait_s=60))
    await turns()
    settled, grants = await rig.apply(several(release(task), take_in_all(1)))
    assert settled.led_to is TaskState.READY
    assert grants == Grants()
    assert await ids(waiter) == [task.id]


async def test_a_take_that_rides_along_never_waits(rig: Rig) -> None:
    (task,) = await held(rig, 1)
    _, grants = await rig.apply(several(succeed(task), take_in_all(1, wait_s=60)))
    assert grants == Grants()
    task_id = await rig.submit()
    assert await rig.position(task_id) == 1, "nobody is left in the line"


async def test_p3_a_refused_outcome_frees_no_slot(rig: Rig) -> None:
    one, two = await held(rig, 2)
    await rig.apply(succeed(one))
    waiting = [await rig.submit() for _ in range(2)]
    refused, grants = await rig.apply(several(fail(one), take_in_all(2)))
    assert isinstance(refused, LeaseNotHeld)
    assert [task.id for task in only_tasks(grants)] == waiting[:1]
    assert (await rig.task(two.id)).state is TaskState.LEASED


# --- calls that were given up -----------------------------------------------------------------


async def assert_untouched(rig: Rig, ended: Task, waiting: Task) -> None:
    """The outcome counts; the lease that nobody heard of counts as nothing."""
    await turns()
    assert (await rig.task(ended.id)).state is TaskState.SUCCEEDED
    history = await rig.history(waiting.id)
    assert history.task == waiting
    assert history.attempts == ()
    assert (await rig.take("agent-2")).id == waiting.id


async def outcome_and_take(rig: Rig) -> tuple[Task, Task, Several]:
    """A held task, one that waits, and what ends the one and takes the other."""
    (ended,) = await held(rig, 1)
    waiting = await rig.task(await rig.submit())
    return ended, waiting, several(succeed(ended), take_in_all(1))


async def test_who_gave_up_before_the_commit_gets_no_lease_and_the_outcome_counts(
    rig: Rig,
) -> None:
    ended, waiting, both = await outcome_and_take(rig)
    rig.runner.hold()
    call = rig.ask(both)
    await turns()
    call.cancel()
    await turns()
    rig.runner.let_go()
    await assert_untouched(rig, ended, waiting)
    assert call.cancelled()


async def test_who_gave_up_in_the_turn_of_the_answer_gets_no_lease_and_the_outcome_counts(
    rig: Rig,
) -> None:
    """The answer is there and was not looked at yet when the call is cancelled."""
    ended, waiting, both = await outcome_and_take(rig)
    call = rig.ask(both)
    rig.hearer.when_changed = call.cancel
    await asyncio.wait({call})
    rig.hearer.when_changed = lambda: None
    await assert_untouched(rig, ended, waiting)
    assert call.cancelled()


async def test_what_was_taken_back_frees_its_slot(rig: Rig) -> None:
    _, waiting, both = await outcome_and_take(rig)
    call = rig.ask(both)
    rig.hearer.when_changed = call.cancel
    await asyncio.wait({call})
    rig.hearer.when_changed = lambda: None
    await turns()
    assert await ids(rig.apply(take_in_all(1))) == [waiting.id]


# --- the stop ---------------------------------------------------------------------------------


async def test_while_stopping_outcomes_are_taken_and_the_take_among_them_is_refused(
    rig: Rig,
) -> None:
    (task,) = await held(rig, 1)
    waiting = await rig.submit()
    await rig.apply(StopTakes())
    settled, refused = await rig.apply(several(succeed(task), take_in_all(1)))
    assert isinstance(settled, Settled)
    assert isinstance(refused, Unavailable)
    assert await rig.position(waiting) == 1


@pytest.mark.parametrize("stop_first", [True, False])
async def test_an_outcome_and_a_take_in_the_batch_of_the_stop(rig: Rig, stop_first: bool) -> None:
    """P1: who was before the stop has a lease, who came after it has none."""
    (task,) = await held(rig, 1)
    waiting = await rig.submit()
    rig.runner.hold()
    both, stop = several(succeed(task), take_in_all(1)), StopTakes()
    calls = [rig.ask(asked) for asked in ([stop, both] if stop_first else [both, stop])]
    await turns()
    rig.runner.let_go()
    answers: list[Any] = await asyncio.gather(*calls)
    settled, grants = answers[1] if stop_first else answers[0]
    assert settled.led_to is TaskState.SUCCEEDED
    if stop_first:
        assert isinstance(grants, Unavailable)
    else:
        assert [granted.id for granted in only_tasks(grants)] == [waiting]
