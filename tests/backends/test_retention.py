"""P7: finished tasks are kept for so long and so many, dead ones apart, and forgotten in steps."""

from typing import Any

import pytest

from taskdist.backends import timetable
from taskdist.core.commands import Cancel
from taskdist.core.errors import TaskNotFound
from taskdist.core.queries import ListTasks
from taskdist.core.task import TaskState
from taskdist.limits import SECOND_US
from tests.support.backends import Rig, fail, page, submit, succeed, turns

HOUR_US = 3_600 * SECOND_US


async def finished(rig: Rig, state: TaskState, **said: Any) -> str:
    """A task that has come to this end."""
    task_id = await rig.submit(queue="end", **said)
    if state is TaskState.CANCELLED:
        await rig.apply(Cancel(task_id))
    else:
        task = await rig.take(queues=("end",))
        end = succeed(task) if state is TaskState.SUCCEEDED else fail(task, retryable=False)
        await rig.apply(end)
    return task_id


async def left(rig: Rig) -> list[str]:
    """The tasks that there are, the oldest first."""
    all_: ListTasks = page(page_size=1_000)
    return [task.id for task in (await rig.read(all_)).tasks][::-1]


async def test_p7_each_end_is_kept_for_its_time(rig: Rig) -> None:
    await rig.restart(retention_us=10 * SECOND_US, dead_retention_us=20 * SECOND_US)
    done = await finished(rig, TaskState.SUCCEEDED)
    cancelled = await finished(rig, TaskState.CANCELLED)
    dead = await finished(rig, TaskState.DEAD)
    waits = await rig.submit()
    await rig.pass_s(9.75)
    assert await left(rig) == [done, cancelled, dead, waits]
    await rig.pass_s(1)
    assert await left(rig) == [dead, waits]
    with pytest.raises(TaskNotFound):
        await rig.history(done)
    await rig.pass_s(8.75)
    assert await left(rig) == [dead, waits]
    await rig.pass_s(1)
    assert await left(rig) == [waits]
    await rig.pass_s(60)
    assert await left(rig) == [waits], "what is not finished is never forgotten"


async def test_p7_as_many_as_may_are_kept_the_newest_and_dead_ones_apart(rig: Rig) -> None:
    await rig.restart(finished_kept_max=3, dead_kept_max=2)
    ends = [TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.DEAD]
    ids = []
    for number in range(12):
        ids.append(await finished(rig, ends[number % 3]))
        await rig.pass_s(0.25)
    dead = ids[2::3]
    others = [task_id for task_id in ids if task_id not in dead]
    assert set(await left(rig)) == {*others[-3:], *dead[-2:]}


async def test_p7_none_is_kept_if_none_may_be(rig: Rig) -> None:
    await rig.restart(finished_kept_max=0, dead_retention_us=0)
    for state in (TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.DEAD):
        await finished(rig, state)
    await rig.pass_s(1)
    assert await left(rig) == []


async def test_p7_the_forgotten_go_in_small_steps_and_free_their_keys(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timetable, "TASKS_MAX", 4)
    await rig.restart(retention_us=10 * SECOND_US, dead_retention_us=10 * SECOND_US)
    state = (TaskState.SUCCEEDED, TaskState.DEAD, TaskState.CANCELLED)
    ids = [await finished(rig, state[n % 3], idempotency_key=f"k{n}") for n in range(20)]
    sizes: list[int] = []
    heard = len(rig.hearer.changes)
    rig.hearer.when_changed = lambda: sizes.append(len(rig.hearer.changes) - heard - sum(sizes))
    rig.time.pass_us(SECOND_US)
    rig.time.jump_wall_us(10 * SECOND_US)
    rig.runner.wake()
    await turns(100)
    assert await left(rig) == []
    assert sum(sizes) == 20
    assert max(sizes) <= 8, "so many of those that are dead, and of the others"
    again = await finished(rig, TaskState.CANCELLED, idempotency_key="k0", data=b"other")
    assert again not in ids


async def test_p7_what_is_large_is_forgotten_in_smaller_steps(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timetable, "REMOVED_BYTES_MAX", 1_000)
    await rig.restart(retention_us=10 * SECOND_US)
    for size in (3_000, 400, 400, 400, 5_000, 100):
        await finished(rig, TaskState.CANCELLED, data=bytes(size))
    sizes: list[int] = []
    heard = len(rig.hearer.changes)
    rig.hearer.when_changed = lambda: sizes.append(len(rig.hearer.changes) - heard - sum(sizes))
    rig.time.jump_wall_us(11 * SECOND_US)
    rig.runner.wake()
    await turns(100)
    assert sizes == [1, 2, 1, 1, 1]


async def test_p7_what_ended_is_counted_the_same_after_a_restart(kept: Rig) -> None:
    ids = [await finished(kept, TaskState.SUCCEEDED) for _ in range(4)]
    dead = await finished(kept, TaskState.DEAD)
    await kept.restart(finished_kept_max=3)
    await turns(20)
    assert await left(kept) == [*ids[1:], dead]
    ids.append(await finished(kept, TaskState.SUCCEEDED))
    await kept.crash()
    await turns(20)
    assert await left(kept) == [*ids[2:4], dead, ids[4]]
    await kept.close()
    kept.time.pass_us(8 * 24 * HOUR_US)
    await kept.open()
    await turns(20)
    assert await left(kept) == [dead], "also what went out of date while nobody served"


async def test_p7_a_submit_and_an_end_do_not_wait_for_the_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch forgets a few, and does what is asked."""
    monkeypatch.setattr(timetable, "TASKS_MAX", 1)
    await rig.restart(finished_kept_max=5)
    for _ in range(5):
        await finished(rig, TaskState.SUCCEEDED)
    await rig.restart(finished_kept_max=0) if rig.settings.store != "memory:" else None
    placed = await rig.apply(submit())
    assert placed.position == 1
    await turns(50)
    assert rig.hearer.failure is None
