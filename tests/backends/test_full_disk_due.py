"""P6: what falls due while the disk is full happens once there is room, and nothing of it twice."""

import asyncio
from typing import Any

import apsw
import pytest

from taskdist.core.commands import Cancel, Done, Purge, Redrive, TakeBack
from taskdist.core.errors import StoreFull, TaskNotFound
from taskdist.core.task import TaskState
from taskdist.limits import SECOND_US
from tests.backends.test_full_disk import no_room_for_the_log
from tests.support.backends import Rig, fail, lease_id_of, page, submit, take, turns

DUE: dict[str, dict[str, Any]] = {
    "due": {"delay_s": 5},
    "overdue while ready": {"deadline_in_s": 5},
    "overdue while scheduled": {"delay_s": 100, "deadline_in_s": 105},
}


@pytest.mark.parametrize("what", DUE)
async def test_p6_what_falls_due_is_undone_and_happens_when_there_is_room(
    kept: Rig, what: str
) -> None:
    ids = [await kept.submit(queue="due", **DUE[what]) for _ in range(3)]
    before = [await kept.task(task_id) for task_id in ids]
    heard = len(kept.hearer.changes)
    if what == "overdue while scheduled":
        kept.time.jump_wall_us(100 * SECOND_US)
    with no_room_for_the_log() as fails:
        fails += [True] * 20
        await kept.pass_s(9)
        assert 10 <= len(fails) <= 17, "tried once a second, not at every look"
        assert [await kept.task(task_id) for task_id in ids] == before
        assert len(kept.hearer.changes) == heard
        positions = [await kept.position(task_id) for task_id in ids]
        fails.clear()
        await kept.pass_s(1.5)
    after = [await kept.task(task_id) for task_id in ids]
    if what == "due":
        assert [task.state for task in after] == [TaskState.READY] * 3
        assert positions == [0, 0, 0]
        assert await kept.take_all(queues=("due",)) == ids
    else:
        assert [task.state for task in after] == [TaskState.DEAD] * 3
        assert await kept.take_all(queues=("due",)) == []
    assert len(kept.hearer.changes) == heard + (6 if what == "due" else 3)
    assert kept.hearer.failure is None


async def test_p6_a_backoff_that_ends_without_room_ends_later(kept: Rig) -> None:
    task_id = await kept.submit()
    await kept.apply(fail(await kept.take(), retry_after_s=5))
    before = await kept.task(task_id)
    with no_room_for_the_log() as fails:
        fails += [True] * 20
        await kept.pass_s(9)
        assert await kept.task(task_id) == before
        fails.clear()
        await kept.pass_s(1.5)
    after = await kept.task(task_id)
    assert (after.state, after.enqueued_at_us) == (TaskState.READY, before.enqueued_at_us)


@pytest.mark.parametrize("by", [{"retention_us": 5 * SECOND_US}, {"finished_kept_max": 0}])
async def test_p6_what_could_not_be_forgotten_is_forgotten_later(
    kept: Rig, by: dict[str, int]
) -> None:
    await kept.restart(finished_kept_max=2, **({} if "finished_kept_max" in by else by))
    ids = [await kept.submit(idempotency_key=f"k{number}") for number in range(2)]
    for task_id in ids:
        await kept.apply(Cancel(task_id))
    if "finished_kept_max" in by:
        ids.append(await kept.submit())
        with no_room_for_the_log() as fails:
            fails += [True] * 20 + [False]  # The end itself finds room.
            await kept.apply(Cancel(ids[-1]))
            await turns(20)
            await kept.pass_s(4)
            assert len((await kept.read(page())).tasks) == 3
            assert await kept.submit(idempotency_key="k0") == ids[0], "a repeat writes nothing"
            fails.clear()
            await kept.pass_s(1.5)
        assert len((await kept.read(page())).tasks) == 2
    else:
        with no_room_for_the_log() as fails:
            fails += [True] * 20
            await kept.pass_s(9)
            assert len((await kept.read(page())).tasks) == 2
            fails.clear()
            await kept.pass_s(1.5)
        assert (await kept.read(page())).tasks == ()
    assert kept.hearer.failure is None


async def test_p6_a_request_in_the_batch_that_was_undone_gets_through_alone(kept: Rig) -> None:
    """What is due is in no other's way, and is not lost with it."""
    due = await kept.submit(delay_s=5)
    dead = await kept.submit(queue="other")
    await kept.apply(fail(await kept.take(queues=("other",)), retryable=False))
    kept.time.pass_us(6 * SECOND_US)
    kept.runner.hold()
    calls = [kept.ask(submit()), kept.ask(Redrive(dead)), kept.ask(Purge(dead)), kept.ask(take())]
    await turns()
    with no_room_for_the_log() as fails:
        fails += [True]
        kept.runner.let_go()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreFull, StoreFull, Done, StoreFull]
    assert (await kept.task(due)).state is TaskState.SCHEDULED
    await kept.pass_s(2)
    assert (await kept.task(due)).state is TaskState.READY


async def test_p6_a_lease_that_nobody_heard_of_is_taken_back_once_there_is_room(
    kept: Rig,
) -> None:
    """It counts as nothing, however long that takes; until then nobody else has the task (P3)."""
    task_id = await kept.submit()
    before = await kept.task(task_id)
    task = await kept.take()
    with no_room_for_the_log() as fails:
        fails += [True] * 20
        assert await kept.apply(TakeBack((lease_id_of(task),))) == Done()
        await kept.pass_s(5)
        assert (await kept.task(task_id)).state is TaskState.LEASED
        fails.clear()
        await kept.pass_s(1.5)
    history = await kept.history(task_id)
    assert (history.task, history.attempts) == (before, ())
    again = await kept.take("agent-2")
    assert (again.id, again.attempt) == (task_id, 1)
    await kept.pass_s(5)
    assert (await kept.task(task_id)).lease is not None, "it is taken back once"


async def test_p6_a_lease_that_is_owed_back_and_ends_meanwhile_is_no_trouble(kept: Rig) -> None:
    task_id = await kept.submit()
    task = await kept.take()
    with no_room_for_the_log() as fails:
        fails += [True, True]
        await kept.apply(TakeBack((lease_id_of(task),)))
        await kept.apply(Cancel(task_id))
        await kept.pass_s(3)
    assert (await kept.task(task_id)).state is TaskState.CANCELLED
    assert kept.hearer.failure is None


async def test_p7_a_full_disk_forgets_no_end_of_a_retention(kept: Rig) -> None:
    """The look at what is to be forgotten may itself be what meets the full disk."""
    await kept.restart(retention_us=10 * SECOND_US)
    task_id = await kept.submit()
    await kept.apply(Cancel(task_id))
    await kept.submit(deadline_in_s=10)
    kept.time.pass_us(11 * SECOND_US)
    journal = kept.backend._writer._journal
    flush, fails = journal.flush, [True]

    def full_at_the_end() -> None:
        if fails and journal._unwritten:
            fails.pop()
            raise apsw.FullError
        flush()

    journal.flush = full_at_the_end  # type: ignore[method-assign] # of this one alone
    await kept.pass_s(5)
    assert not fails
    with pytest.raises(TaskNotFound):
        await kept.task(task_id)
