"""Agents that wait for a task: whom to wake, who gives up, and leases that nobody heard of."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from taskdist.core.commands import Cancel, Grants, Settle, StopTakes
from taskdist.core.errors import Exhausted, LeaseNotHeld, Unavailable
from taskdist.core.task import Task, TaskState
from tests.support.backends import (
    Rig,
    fail,
    lease_id_of,
    only_tasks,
    release,
    submit,
    take,
    turns,
)
from tests.support.changes import kept

Waiter = asyncio.Task[Grants]


async def waiting(rig: Rig, agent_id: str = "agent-1", **said: Any) -> Waiter:
    """An agent that found nothing and waits."""
    waiter = rig.ask(take(agent_id, **{"wait_s": 60, **said}))
    await turns()
    assert not waiter.done()
    return waiter


async def ids(waiter: Waiter) -> list[str]:
    """What it got; it must have got something, or nothing, by now."""
    await turns()
    assert waiter.done(), "still waits"
    return [task.id for task in only_tasks(await waiter)]


async def test_who_waits_gets_a_task_as_soon_as_there_is_one(rig: Rig) -> None:
    waiter = await waiting(rig)
    task_id = await rig.submit()
    assert await ids(waiter) == [task_id]


async def test_the_longest_waiting_is_served_first_and_nobody_is_woken_in_vain(rig: Rig) -> None:
    waiters = [await waiting(rig, f"agent-{number}") for number in range(3)]
    first = await rig.submit()
    assert await ids(waiters[0]) == [first]
    assert not waiters[1].done()
    second = await rig.submit()
    assert await ids(waiters[1]) == [second]
    assert not waiters[2].done()


async def test_as_many_are_served_as_tasks_became_ready_in_one_batch(rig: Rig) -> None:
    waiters = [await waiting(rig, f"agent-{number}") for number in range(3)]
    rig.runner.hold()
    submits = [rig.ask(submit("free", 5)), rig.ask(submit("paid", 1))]
    await turns()
    rig.runner.let_go()
    free, paid = [placed.task.id for placed in await asyncio.gather(*submits)]
    assert await ids(waiters[0]) == [paid], "the best of the batch, not the first that came"
    assert await ids(waiters[1]) == [free]
    assert not waiters[2].done()


async def test_who_waits_with_several_slots_gets_several(rig: Rig) -> None:
    waiter = await waiting(rig, slots=2)
    rig.runner.hold()
    submits = [rig.ask(submit()) for _ in range(3)]
    await turns()
    rig.runner.let_go()
    submitted = [placed.task.id for placed in await asyncio.gather(*submits)]
    assert await ids(waiter) == submitted[:2]


async def test_only_those_are_woken_who_may_take_the_task(rig: Rig) -> None:
    other_queue = await waiting(rig, queues=("other",))
    other_kind = await waiting(rig, kinds=("video",))
    right = await waiting(rig, kinds=("video", "simulate"))
    task_id = await rig.submit()
    assert await ids(right) == [task_id]
    assert not other_queue.done()
    assert not other_kind.done()
    video = await rig.submit(kind="video")
    assert await ids(other_kind) == [video]


async def test_a_take_in_the_same_batch_comes_after_those_who_waited(rig: Rig) -> None:
    waiter = await waiting(rig, "agent-1")
    rig.runner.hold()
    submitted = rig.ask(submit())
    late = rig.ask(take("agent-2"))
    await turns()
    rig.runner.let_go()
    assert await ids(waiter) == [(await submitted).task.id]
    assert (await late) == Grants()


@pytest.mark.parametrize("how", [fail, release])
async def test_a_task_that_comes_back_wakes_them_too(
    rig: Rig, how: Callable[[Task], Settle]
) -> None:
    task_id = await rig.submit()
    task = await rig.take("agent-1")
    waiter = await waiting(rig, "agent-2")
    await rig.apply(how(task))
    assert await ids(waiter) == [task_id]


async def test_p4_a_task_whose_agent_went_silent_goes_to_who_waits(rig: Rig) -> None:
    task_id = await rig.submit()
    await rig.take("agent-1")
    waiter = await waiting(rig, "agent-2")
    await rig.pass_s(31)
    assert await ids(waiter) == [task_id]


async def test_a_task_cancelled_in_the_batch_it_came_in_wakes_nobody(rig: Rig) -> None:
    waiter = await waiting(rig)
    command = submit()
    rig.runner.hold()
    submitted, cancelled = rig.ask(command), rig.ask(Cancel(command.task.id))
    await turns()
    rig.runner.let_go()
    await submitted
    assert (await cancelled).task.state is TaskState.CANCELLED
    assert not waiter.done()


async def test_whoever_waited_long_enough_gets_nothing(rig: Rig) -> None:
    short, long = await waiting(rig, wait_s=5), await waiting(rig, wait_s=10)
    await rig.pass_s(4.75)
    assert not short.done()
    await rig.pass_s(0.5)
    assert await ids(short) == []
    assert not long.done()


async def test_p7_as_many_wait_as_may(rig: Rig) -> None:
    rig.settings = rig.settings.model_copy(update={"waiting_agents_max": 2})
    await rig.close()
    await rig.open()
    line = [await waiting(rig), await waiting(rig)]
    with pytest.raises(Exhausted, match="2 agents are waiting"):
        await rig.apply(take(wait_s=1))
    assert await rig.apply(take(wait_s=0)) == Grants()
    await rig.close()
    assert [await ids(waiter) for waiter in line] == [[], []]


# --- calls that were given up -----------------------------------------------------------------


async def test_who_gave_up_is_not_served(rig: Rig) -> None:
    gone, here = await waiting(rig, "agent-1"), await waiting(rig, "agent-2")
    gone.cancel()
    await turns()
    task_id = await rig.submit()
    assert await ids(here) == [task_id]
    leases = [lease for change in rig.hearer.changes if (lease := kept(change).lease)]
    assert [lease.agent_id for lease in leases] == ["agent-2"]


async def test_who_gave_up_while_the_task_came_counts_as_nothing(rig: Rig) -> None:
    """The lease is given in the batch before the withdrawal: it is taken back."""
    waiter = await waiting(rig, "agent-1")
    before = submit()
    rig.runner.hold()
    submitted = rig.ask(before)
    await turns()
    waiter.cancel()
    await turns()
    rig.runner.let_go()
    task = (await submitted).task
    await turns()
    history = await rig.history(task.id)
    assert history.task == task
    assert history.attempts == ()


async def test_who_gave_up_right_after_the_lease_was_given_counts_as_nothing(rig: Rig) -> None:
    """The answer is there and was not looked at yet when the call is cancelled."""
    waiter = await waiting(rig, "agent-1")
    rig.hearer.when_changed = waiter.cancel
    task = (await rig.apply(submit())).task
    rig.hearer.when_changed = lambda: None
    await turns()
    assert waiter.cancelled()
    history = await rig.history(task.id)
    assert history.task == task
    assert history.attempts == ()
    assert (await rig.take("agent-2")).id == task.id


async def test_p3_a_late_outcome_of_what_was_taken_back_does_not_end_the_next_lease(
    rig: Rig,
) -> None:
    waiter = await waiting(rig, "agent-1")
    rig.hearer.when_changed = waiter.cancel
    await rig.submit()
    undone = kept(rig.hearer.changes[-1])
    rig.hearer.when_changed = lambda: None
    await turns()
    task = await rig.take("agent-1")
    assert lease_id_of(task) != lease_id_of(undone)
    with pytest.raises(LeaseNotHeld):
        await rig.apply(fail(undone))


async def test_what_was_taken_back_goes_to_the_next_who_waits(rig: Rig) -> None:
    gone, here = await waiting(rig, "agent-1"), await waiting(rig, "agent-2")
    rig.hearer.when_changed = gone.cancel
    task_id = await rig.submit()
    assert await ids(here) == [task_id]
    assert (await rig.task(task_id)).attempt == 1


async def test_a_cancelled_submit_may_have_been_applied_once(rig: Rig) -> None:
    call = rig.ask(submit())
    await turns(1)
    call.cancel()
    await turns()
    assert len(await rig.take_all()) in (0, 1)


# --- the stop ---------------------------------------------------------------------------------


async def test_stopping_answers_all_who_wait_with_nothing_and_refuses_more(rig: Rig) -> None:
    line = [await waiting(rig), await waiting(rig, "agent-2")]
    await rig.apply(StopTakes())
    assert [await ids(waiter) for waiter in line] == [[], []]
    await rig.submit()
    for wait_s in (0, 1):
        with pytest.raises(Unavailable, match="is stopping"):
            await rig.apply(take(wait_s=wait_s))


@pytest.mark.parametrize("stop_first", [True, False])
async def test_a_task_that_becomes_ready_in_the_batch_of_the_stop_is_kept(
    rig: Rig, stop_first: bool
) -> None:
    """P1: the submit is answered; nobody gets the task any more, and nothing breaks."""
    waiter = await waiting(rig)
    rig.runner.hold()
    asked = [StopTakes(), submit()] if stop_first else [submit(), StopTakes()]
    calls = [rig.ask(command) for command in asked]
    await turns()
    rig.runner.let_go()
    await asyncio.gather(*calls)
    assert await ids(waiter) == []
    assert rig.hearer.failure is None


async def test_while_stopping_outcomes_are_still_taken(rig: Rig) -> None:
    task_id = await rig.submit()
    task = await rig.take()
    waiter = await waiting(rig, "agent-2")
    rig.runner.hold()
    stop, failed = rig.ask(StopTakes()), rig.ask(fail(task))
    await turns()
    rig.runner.let_go()
    await stop
    assert (await failed).led_to is TaskState.READY
    assert await ids(waiter) == []
    assert await rig.position(task_id) == 1


async def test_closing_answers_who_waits_and_refuses_all_else(rig: Rig) -> None:
    waiter = await waiting(rig)
    await rig.close()
    assert await ids(waiter) == []
    with pytest.raises(Unavailable):
        await rig.apply(submit())
    with pytest.raises(Unavailable):
        await rig.history("any")


async def test_what_was_asked_before_the_close_is_applied(rig: Rig) -> None:
    rig.runner.hold()
    submits = [rig.ask(submit()) for _ in range(3)]
    await turns()
    await rig.close()
    assert [(await call).position for call in submits] == [1, 2, 3]
