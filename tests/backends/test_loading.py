"""P4: while the waiting tasks are loaded, agents are heard at once; submits and takes wait."""

from typing import Any

import pytest

from taskdist.backends import live
from taskdist.core.commands import (
    Cancel,
    Command,
    Grants,
    Heartbeat,
    Held,
    Locate,
    Settled,
    TakeBack,
)
from taskdist.core.errors import LeaseNotHeld
from taskdist.core.task import Task, TaskState
from tests.support.backends import (
    Rig,
    fail,
    lease_id_of,
    only_tasks,
    release,
    several,
    submit,
    succeed,
    take,
    turns,
)


class Slow:
    """A rig that was just opened and loads one row with each step.

    In its store are 16 tasks that differ in age alone. The first two, the last two and one in the
    middle are leased.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.ids: list[str] = []
        self.held: list[Task] = []

    async def begin(self) -> None:
        """Fills the store and opens it again."""
        for number in range(16):
            kind = "taken" if number in (0, 1, 8, 14, 15) else "waiting"
            self.ids.append(await self.rig.submit("free", 1, kind=kind))
        self.held = only_tasks(await self.rig.apply(take(kinds=("taken",), slots=5)))
        await self.rig.close()
        await self.rig.open()
        self.rig.runner.hold()

    async def step(self) -> None:
        """One step of the writer and no more, though it has more to load."""
        self.rig.runner.let_go()
        await turns(1)
        self.rig.runner.hold()
        await turns()

    async def hear(self, command: Command[Any]) -> Any:
        """Asks, and is answered after one step."""
        call = self.rig.ask(command)
        await turns()
        await self.step()
        assert call.done(), f"{command} had to wait"
        return await call

    async def order(self) -> list[str]:
        """Loads the rest; the order in which the tasks are handed out."""
        self.rig.runner.let_go()
        return await self.rig.take_all()


@pytest.fixture
async def slow(kept: Rig, monkeypatch: pytest.MonkeyPatch) -> Slow:
    """A backend that is loading its tasks."""
    monkeypatch.setattr(live, "LOAD_ROWS", 1)
    slow = Slow(kept)
    await slow.begin()
    return slow


async def test_p4_heartbeats_and_outcomes_are_answered_while_tasks_are_loaded(slow: Slow) -> None:
    first, second, third, fourth, fifth = slow.held
    everyone = tuple(map(lease_id_of, slow.held))
    assert await slow.hear(Heartbeat("agent-1", everyone)) == Held(everyone)
    assert (await slow.hear(succeed(first))).led_to is TaskState.SUCCEEDED
    assert (await slow.hear(release(third))).led_to is TaskState.READY
    failed: Settled = await slow.hear(fail(fourth))
    assert failed.led_to is TaskState.READY
    await slow.hear(TakeBack((lease_id_of(fifth),)))
    assert await slow.hear(fail(fourth)) == failed
    with pytest.raises(LeaseNotHeld):
        await slow.hear(succeed(third))
    # Handed back or taken back: where it was. Failed: behind all that did not.
    unheld = [task_id for task_id in slow.ids if task_id not in {first.id, second.id, fourth.id}]
    assert await slow.order() == [*unheld, fourth.id]


async def test_p2_outcomes_at_every_point_of_the_load_leave_each_task_in_the_queue_once(
    slow: Slow,
) -> None:
    for task in slow.held:
        await slow.step()
        await slow.hear(release(task))
        await slow.step()
    assert await slow.order() == slow.ids


async def test_p2_a_take_with_outcomes_gets_nothing_while_better_tasks_may_be_on_disk(
    slow: Slow,
) -> None:
    """The outcomes are answered at once; the take does not wait, and ends up in no line."""
    first, *_, last = slow.held
    riding = take(slots=5, wait_s=60)
    settled, failed, grants = await slow.hear(several(succeed(first), fail(last), riding))
    assert [settled.led_to, failed.led_to] == [TaskState.SUCCEEDED, TaskState.READY]
    assert grants == Grants()
    call = slow.rig.ask(several(riding))
    await turns()
    await slow.step()
    assert not call.done(), "nothing but takes: it waits, as each of them would"
    slow.rig.runner.let_go()
    (grants,) = await call
    held = {task.id for task in slow.held}
    waiting = [task_id for task_id in slow.ids if task_id not in held]
    assert [task.id for task in only_tasks(grants)] == waiting[:5], "the failed one comes last"


async def test_submits_takes_and_positions_wait_until_all_is_loaded(slow: Slow) -> None:
    rig = slow.rig
    best = submit("paid", 0)
    asked = (best, take(slots=2), Locate(slow.ids[5]), Cancel(slow.ids[7]))
    calls: list[Any] = [rig.ask(command) for command in asked]
    await turns()
    for _ in range(10):
        await slow.step()
        assert not any(call.done() for call in calls)
    rig.runner.let_go()
    placed, grants, located, cancelled = [await call for call in calls]
    assert placed.position == 1
    assert [grant.task.id for grant in grants.grants] == [best.task.id, slow.ids[2]]
    assert located.position == 3
    assert cancelled.task.state is TaskState.CANCELLED


async def test_who_gave_up_while_it_was_loading_gets_nothing(slow: Slow) -> None:
    call = slow.rig.ask(take())
    await turns()
    await slow.step()
    call.cancel()
    await turns()
    slow.rig.runner.let_go()
    await turns(100)  # It is loaded, and what the call got is taken back.
    unheld = [task_id for task_id in slow.ids if task_id not in {task.id for task in slow.held}]
    assert await slow.order() == unheld
    assert (await slow.rig.task(unheld[0])).attempt == 1


async def test_p4_a_lease_that_ends_while_it_is_loading_puts_its_task_back(slow: Slow) -> None:
    for number in range(16):
        slow.rig.time.pass_us(900_000 if number else 0)
        await slow.step()
    slow.rig.runner.let_go()
    await slow.rig.pass_s(20)
    assert await slow.order() == slow.ids


async def test_p1_closing_while_it_is_loading_loses_nothing(slow: Slow) -> None:
    await slow.step()
    late = slow.rig.ask(submit("free", 9))
    await turns()
    await slow.rig.close()
    assert (await late).position == 12
    await slow.rig.open()
    for task in slow.held:
        await slow.rig.apply(release(task))
    assert await slow.rig.take_all() == [*slow.ids, (await late).task.id]


async def test_p1_a_crash_while_it_is_loading_loses_nothing(slow: Slow) -> None:
    await slow.step()
    await slow.hear(release(slow.held[4]))
    await slow.rig.crash()
    for task in slow.held[:4]:
        await slow.rig.apply(release(task))
    assert await slow.order() == slow.ids
