"""Idempotency keys (P1), redrive and purge, through the four methods of a backend."""

from typing import Any

import pytest

from taskdist.core.commands import Cancel, Done, Purge, Redrive
from taskdist.core.errors import Exhausted, TaskIdTaken, TaskNotFound, TransitionRefused
from taskdist.core.task import TaskState
from taskdist.limits import MIB, SECOND_US
from tests.support.backends import (
    Rig,
    fail,
    fresh_id,
    note,
    only_tasks,
    page,
    several,
    submit,
    succeed,
    take,
)


async def test_p1_a_key_is_one_task_of_its_queue_whatever_became_of_it(rig: Rig) -> None:
    first = await rig.apply(submit(idempotency_key="k"))
    assert (await rig.apply(submit(idempotency_key="k"))).task == first.task
    other = await rig.apply(submit(idempotency_key="k", queue="other"))
    assert other.task.id != first.task.id
    task = await rig.take()
    assert (await rig.apply(submit(idempotency_key="k"))).task == task, "under its lease"
    await rig.apply(succeed(task))
    again = await rig.apply(submit(idempotency_key="k"))
    assert (again.task.id, again.task.state) == (task.id, TaskState.SUCCEEDED)
    for different in (submit(idempotency_key="k", data=b"x"), submit("paid", idempotency_key="k")):
        with pytest.raises(TaskIdTaken, match="idempotency_key"):
            await rig.apply(different)
    assert len((await rig.read(page())).tasks) == 2


async def test_p1_an_id_and_a_key_of_two_tasks_are_refused(rig: Rig) -> None:
    of_id = await rig.submit(task_id=fresh_id())
    await rig.submit(idempotency_key="k")
    with pytest.raises(TaskIdTaken, match="another task"):
        await rig.apply(submit(task_id=of_id, idempotency_key="k"))
    both = fresh_id()
    await rig.submit(task_id=both, idempotency_key="both")
    assert await rig.submit(task_id=both, idempotency_key="both") == both
    assert await rig.submit(idempotency_key="both") == both
    assert await rig.submit(task_id=fresh_id(), idempotency_key="both") == both


async def test_p1_a_repeat_a_minute_later_agrees_though_its_times_are_relative(rig: Rig) -> None:
    said: dict[str, Any] = {"idempotency_key": "k", "delay_s": 300, "deadline_in_s": 600}
    first = await rig.apply(submit(**said))
    await rig.pass_s(60, tick_us=SECOND_US)
    assert (await rig.apply(submit(**said))).task == first.task
    with pytest.raises(TaskIdTaken):
        await rig.apply(submit(**{**said, "delay_s": 301}))
    await rig.pass_s(600, tick_us=SECOND_US)
    again = await rig.apply(submit(**said))
    assert again.task.state is TaskState.DEAD, "also when it could not be submitted any more"


async def test_p1_keys_outlive_restarts_and_crashes(kept: Rig) -> None:
    task_id = await kept.submit(idempotency_key="k")
    for again in (kept.restart, kept.crash, kept.crash):
        await again()
        assert await kept.submit(idempotency_key="k") == task_id
        with pytest.raises(TaskIdTaken):
            await kept.submit(idempotency_key="k", data=b"other")
    assert len((await kept.read(page())).tasks) == 1


@pytest.mark.parametrize("atomic", [False, True])
async def test_p1_inside_one_batch_a_key_is_one_task(rig: Rig, atomic: bool) -> None:
    one, two, other = await rig.apply(
        several(
            submit(idempotency_key="k"),
            submit(idempotency_key="k"),
            submit(idempotency_key="k", queue="other"),
            atomic=atomic,
        )
    )
    assert one.task == two.task != other.task
    assert len((await rig.read(page())).tasks) == 2


async def test_p1_a_batch_that_is_undone_leaves_no_key_behind(rig: Rig) -> None:
    whole = several(
        submit(idempotency_key="k"), submit(idempotency_key="k", data=b"other"), atomic=True
    )
    with pytest.raises(TaskIdTaken):
        await rig.apply(whole)
    placed = await rig.apply(submit(idempotency_key="k", data=b"third"))
    assert placed.position == 1
    assert len((await rig.read(page())).tasks) == 1


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_purge_gives_id_and_key_back_within_the_same_batch(rig: Rig, atomic: bool) -> None:
    same = submit(task_id=fresh_id(), idempotency_key="k", data=b"new")
    old = await rig.submit(task_id=same.task.id, idempotency_key="k", data=b"old")
    await rig.apply(Cancel(old))
    done, placed, again = await rig.apply(several(Purge(old), same, same, atomic=atomic))
    assert done == Done()
    assert placed.task == again.task
    (grant,) = (await rig.apply(take())).grants
    assert grant.data == b"new"
    answers = await rig.apply(
        several(submit(queue="q", idempotency_key="k", task_id=fresh_id()), atomic=False)
    )
    in_one = answers[0].task.id
    cancelled, _, gone = await rig.apply(several(Cancel(in_one), Purge(in_one), Cancel(in_one)))
    assert cancelled.task.state is TaskState.CANCELLED
    assert isinstance(gone, TaskNotFound)
    await rig.submit(queue="q", idempotency_key="k", data=b"another")


async def test_p1_a_purge_that_is_undone_gives_nothing_back(rig: Rig) -> None:
    old = await rig.submit(idempotency_key="k")
    await rig.apply(Cancel(old))
    with pytest.raises(TaskNotFound):
        await rig.apply(several(Purge(old), Purge(fresh_id()), atomic=True))
    assert await rig.submit(idempotency_key="k") == old
    await rig.apply(Purge(old))
    assert await rig.submit(idempotency_key="k") != old


# --- redrive and purge ---------------------------------------------------------------------------


async def test_a_redriven_task_is_as_if_new_and_keeps_its_history(rig: Rig) -> None:
    task_id = await rig.submit("paid", max_retries=0, deadline_in_s=60, data=b"in")
    other = await rig.submit("paid")
    await rig.apply(fail(await rig.take(), "no memory"))
    await rig.pass_s(1)
    placed = await rig.apply(Redrive(task_id))
    assert (placed.task.state, placed.position) == (TaskState.READY, 2)
    assert (placed.task.retry_count, placed.task.lost_count) == (0, 0)
    assert placed.task.deadline_us is placed.task.finished_at_us is None
    history = await rig.history(task_id)
    assert (history.task, history.error) == (placed.task, "no memory")
    await rig.take()
    (grant,) = (await rig.apply(take())).grants
    assert (grant.task.id, grant.task.attempt, grant.data) == (task_id, 2, b"in")
    await rig.apply(succeed(grant.task, b"42"))
    assert (await rig.history(task_id)).result == b"42"
    assert [attempt.attempt for attempt in (await rig.history(task_id)).attempts] == [1, 2]
    assert other


async def test_only_dead_and_cancelled_tasks_are_redriven_and_only_finished_ones_purged(
    rig: Rig,
) -> None:
    done, ready, held = [await rig.submit("paid", n) for n in range(3)]
    scheduled = await rig.submit(delay_s=60)
    await rig.apply(succeed(await rig.take()))
    for task_id in (done, ready, scheduled):
        with pytest.raises(TransitionRefused, match="redrive is not possible"):
            await rig.apply(Redrive(task_id))
    assert (await rig.take()).id == ready
    for task_id in (ready, held, scheduled):
        with pytest.raises(TransitionRefused):
            await rig.apply(Purge(task_id))
    for unknown in (Redrive(fresh_id()), Purge(fresh_id())):
        with pytest.raises(TaskNotFound):
            await rig.apply(unknown)
    await rig.apply(Purge(done))
    with pytest.raises(TaskNotFound):
        await rig.history(done)


async def test_a_purge_leaves_no_row_behind(kept: Rig) -> None:
    task_id = await kept.submit(max_retries=9, data=b"in")
    for _ in range(3):
        await kept.apply(fail(await kept.take()))
    task = await kept.take()
    await kept.apply(note(task, "a line"))
    await kept.apply(succeed(task, b"out"))
    await kept.apply(Purge(task_id))
    for table in ("task", "data", "result", "attempt", "lease", "entry"):
        count = kept.backend._connection.execute(f"SELECT count(*) FROM {table}").get
        assert count == 0, table


# --- P7: how much may wait -----------------------------------------------------------------------


async def test_p7_scheduled_tasks_wait_too_and_a_redrive_needs_room(rig: Rig) -> None:
    await rig.restart(tasks_waiting_max=2)
    cancelled = await rig.submit()
    await rig.apply(Cancel(cancelled))
    later = await rig.submit(delay_s=60)
    await rig.submit()
    for command in (submit(), submit(delay_s=9), Redrive(cancelled)):
        with pytest.raises(Exhausted, match="2 tasks are waiting"):
            await rig.apply(command)
    assert (await rig.task(cancelled)).state is TaskState.CANCELLED
    await rig.apply(Cancel(later))
    assert (await rig.apply(Redrive(cancelled))).task.state is TaskState.READY
    with pytest.raises(Exhausted):
        await rig.submit()


async def test_p7_no_more_data_waits_than_may(rig: Rig) -> None:
    await rig.restart(waiting_bytes_max=MIB)
    half = bytes(MIB // 2)
    first = await rig.submit(data=half)
    await rig.submit(data=half, delay_s=60)
    with pytest.raises(Exhausted, match="tasks with 1048576 bytes of data are waiting"):
        await rig.submit(data=b"x")
    await rig.submit(data=b"")
    task = await rig.take()
    assert task.id == first
    await rig.submit(data=half[1:])
    with pytest.raises(Exhausted):
        await rig.submit(data=b"xx")
    await rig.apply(fail(task, retryable=False))
    with pytest.raises(Exhausted):
        await rig.apply(Redrive(first))
    await rig.submit(data=b"x")


async def test_p7_what_waits_is_counted_the_same_after_a_restart(kept: Rig) -> None:
    await kept.restart(waiting_bytes_max=MIB, tasks_waiting_max=4)
    await kept.submit(data=bytes(MIB - 3))
    await kept.submit(data=b"x", delay_s=60)
    await kept.submit(data=b"x", queue="other")
    await kept.apply(fail(await kept.take(queues=("other",)), retry_after_s=60))
    for again in (kept.restart, kept.crash):
        await again()
        with pytest.raises(Exhausted, match="bytes of data"):
            await kept.submit(data=b"xx")
    await kept.submit(data=b"x")
    with pytest.raises(Exhausted, match="4 tasks are waiting"):
        await kept.submit(data=b"")
    large, _ = only_tasks(await kept.apply(take(slots=2)))
    await kept.submit(data=bytes(MIB - 2))
    await kept.apply(succeed(large))


async def test_p7_a_redrive_may_not_open_one_lane_too_many(rig: Rig) -> None:
    cancelled = await rig.submit(kind="one-more")
    await rig.apply(Cancel(cancelled))
    await rig.apply(several(*(submit(kind=f"kind-{number}") for number in range(1_000))))
    with pytest.raises(Exhausted, match="1000"):
        await rig.apply(Redrive(cancelled))


async def test_p1_a_known_id_does_not_take_a_new_key(rig: Rig) -> None:
    """It would not be kept: a repeat by the key alone would be a second task."""
    task_id = fresh_id()
    await rig.submit(task_id=task_id)
    with pytest.raises(TaskIdTaken, match="without this idempotency_key"):
        await rig.submit(task_id=task_id, idempotency_key="k")
    assert await rig.submit(task_id=task_id) == task_id
    assert await rig.submit(idempotency_key="k") != task_id
