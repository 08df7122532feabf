"""P1: rows are written many to a step, and all of them are there; a batch ends as it was said."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from taskdist.core.commands import Cancel, Command, Heartbeat, Held, Settle
from taskdist.core.errors import Exhausted, StoreFull, TaskIdTaken
from taskdist.core.task import Outcome, Task, TaskState
from tests.backends.test_full_disk import no_room_for_the_log
from tests.support.backends import (
    Rig,
    fail,
    fresh_id,
    lease_id_of,
    only_tasks,
    page,
    release,
    several,
    submit,
    succeed,
    take,
    turns,
)

COUNTS = [0, 1, 15, 16, 17, 127, 128, 129, 145, 500]
"""Around all numbers of rows that are written in one step."""


async def together(rig: Rig, *asked: Command[Any]) -> list[Any]:
    """The answers to all of these, from one commit."""
    rig.runner.hold()
    calls = [rig.ask(one) for one in asked]
    await turns()
    rig.runner.let_go()
    return await asyncio.gather(*calls, return_exceptions=True)


async def everything(rig: Rig) -> list[Any]:
    """All that is kept of each task, and where it stands."""
    tasks: list[Task] = []
    cursor: int | None = None
    while True:
        found = await rig.read(page(before=cursor))
        tasks += found.tasks
        if (cursor := found.next_before) is None:
            break
    return [(await rig.history(task.id), await rig.position(task.id)) for task in tasks]


@pytest.mark.parametrize("count", COUNTS)
async def test_p1_all_rows_of_a_batch_are_there_after_a_crash(kept: Rig, count: int) -> None:
    """Every kind of row: tasks, data, leases given and ended, results, attempts."""
    first = await kept.submit("free", 99)
    asked = [submit("free", number % 7, data=b"%d" % number) for number in range(count)]
    placed = await together(kept, *asked)
    held: list[Task] = []
    while len(held) < max(1, count):  # One take hands out so many at most.
        (grants,) = await together(kept, take(slots=max(1, count) - len(held)))
        assert grants.grants
        held += only_tasks(grants)
    ends = [(succeed, fail, release)[number % 3](task) for number, task in enumerate(held)]
    await together(kept, *ends)
    before = await everything(kept)
    assert len(before) == count + 1
    await kept.crash()
    assert await everything(kept) == before
    assert {answer.task.id for answer in placed} | {first} == {
        history.task.id for history, _ in before
    }
    for number, end in enumerate(ends):
        history = await kept.history(end.task_id)
        assert history.result == (b"a result" if number % 3 == 0 else b"")
        assert len(history.attempts) == 1
    data = {one.task.id: one.data for one in asked}
    left = await kept.apply(take(slots=1_000))
    assert all(data.get(grant.task.id, b"some data") == grant.data for grant in left.grants)


async def test_p1_a_task_that_changes_often_in_one_batch_ends_as_it_was_last_told(
    kept: Rig,
) -> None:
    """Submitted, leased, handed back, leased, failed, leased, succeeded: each read in between."""
    waiting = await kept.submit("free", 9)
    one = submit("paid", task_id=fresh_id(), data=b"its data")
    placed, first = await together(kept, one, take(session="s-1"))
    (task,) = only_tasks(first)
    assert task.id == placed.task.id
    released, second, refused = await together(kept, release(task), take("agent-2"), fail(task))
    (again,) = only_tasks(second)
    assert (again.id, again.attempt) == (task.id, 2)
    assert released.led_to is TaskState.READY
    assert isinstance(refused, Exception)
    answers = await together(kept, fail(again), fail(again), Cancel(task.id), one, take(slots=2))
    assert answers[0] == answers[1]
    assert (answers[3].task.state, answers[3].position) == (TaskState.CANCELLED, 0)
    assert [task.id for task in only_tasks(answers[4])] == [waiting]
    before = await everything(kept)
    await kept.crash()
    assert await everything(kept) == before
    history = await kept.history(task.id)
    assert [attempt.outcome.value for attempt in history.attempts] == ["released", "failed"]


async def test_p1_leases_that_begin_and_end_in_one_batch_are_over(kept: Rig) -> None:
    """Nothing is read between the two changes of a task; its agent guesses the lease's id."""
    ids = [await kept.submit("free", number) for number in range(40)]
    both = take(slots=20)
    tasks = [await kept.task(task_id) for task_id in ids[:20]]
    lease_ids = [f"{both.token}-{task.sequence}-1" for task in tasks]
    outcomes = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.RELEASED]
    ends = [
        Settle(task.id, "agent-1", lease_id, outcomes[number % 3])
        for number, (task, lease_id) in enumerate(zip(tasks, lease_ids, strict=True))
    ]
    grants, *settled = await together(kept, both, *ends)
    assert list(map(lease_id_of, only_tasks(grants))) == lease_ids
    assert [answer.outcome for answer in settled] == [end.outcome for end in ends]
    before = await everything(kept)
    await kept.crash()
    assert await everything(kept) == before
    assert await kept.apply(Heartbeat("agent-1", ())) == Held(())


async def test_p1_what_is_taken_back_in_the_batch_of_its_lease_was_never_leased(kept: Rig) -> None:
    waiter = kept.ask(take(wait_s=60))
    await turns()
    kept.runner.hold()
    submitted = kept.ask(submit())
    await turns()
    waiter.cancel()
    await turns()
    kept.runner.let_go()
    placed = await submitted
    await turns()
    await kept.crash()
    assert await kept.task(placed.task.id) == placed.task
    assert await kept.take_all() == [placed.task.id]


@pytest.mark.parametrize("count", COUNTS)
async def test_p1_a_batch_that_is_undone_leaves_nothing_behind_and_its_ids_are_free(
    kept: Rig, count: int
) -> None:
    await kept.close()
    kept.settings = kept.settings.model_copy(update={"batch_rows_max": count + 1})
    await kept.open()
    task_id = await kept.submit()
    before = await everything(kept)
    asked = [submit(task_id=fresh_id()) for _ in range(count)]
    with no_room_for_the_log() as fails:
        fails.append(True)
        answers = await together(kept, *asked, take())
    assert {type(answer) for answer in answers} == {StoreFull}
    assert await everything(kept) == before
    await together(kept, *asked)
    await kept.crash()
    assert len(await everything(kept)) == count + 1
    assert (await kept.task(task_id)).state is TaskState.READY


# --- all or nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("client_made", [False, True], ids=["ours", "client-made"])
@pytest.mark.parametrize("count", [1, 16, 129])
async def test_p1_all_or_nothing_that_is_refused_late_leaves_nothing_behind(
    rig: Rig, count: int, client_made: bool
) -> None:
    """What its batch did before and after it stays. Ids of a client are looked up: rows of it are
    in the tables by then."""
    taken = submit("free", 1, task_id=fresh_id())
    await rig.apply(taken)
    before = await everything(rig)
    ids = [fresh_id() if client_made else None for _ in range(count)]
    parts = [submit("paid", 0, task_id=task_id) for task_id in ids]
    repeated = parts[:1] if client_made else []
    other = submit("free", 2, task_id=taken.task.id)
    refused = several(*parts, *repeated, other, *parts, atomic=True)
    earlier, later = submit("free", 3), submit("free", 4)
    answers = await together(rig, earlier, refused, later)
    assert isinstance(answers[1], TaskIdTaken)
    assert [answers[0].position, answers[2].position] == [2, 3]
    now = await everything(rig)
    assert [history.task.id for history, _ in now] == [
        later.task.id,
        earlier.task.id,
        taken.task.id,
    ]
    assert now[2:] == before
    # The ids are free; nothing is in the way of the same once more.
    accepted = await rig.apply(several(*parts, *repeated, atomic=True))
    assert [placed.task.sequence for placed in accepted[:count]] == sorted(
        placed.task.sequence for placed in accepted[:count]
    )
    if repeated:
        assert accepted[-1].task == accepted[0].task
    assert len(await everything(rig)) == 3 + count


async def test_p1_all_or_nothing_is_on_the_disk_after_a_crash_wholly_or_not_at_all(
    kept: Rig,
) -> None:
    taken = submit(task_id=fresh_id())
    await kept.apply(taken)
    other = submit("paid", task_id=taken.task.id)
    good = several(*(submit(task_id=fresh_id()) for _ in range(20)), atomic=True)
    bad = several(*(submit(task_id=fresh_id()) for _ in range(20)), other, atomic=True)
    answers = await together(kept, bad, good, bad, submit("free", 9))
    assert [isinstance(answer, TaskIdTaken) for answer in answers] == [True, False, True, False]
    before = await everything(kept)
    assert len(before) == 22
    await kept.crash()
    assert await everything(kept) == before


@pytest.mark.parametrize("client_made", [False, True], ids=["ours", "client-made"])
async def test_p7_all_or_nothing_that_is_one_too_many_leaves_nothing_behind(
    tmp_path: Path, client_made: bool
) -> None:
    """Refused for a limit, while rows of it wait to be written."""
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", tasks_waiting_max=20)
    await rig.open()
    earlier = await rig.submit()
    parts = [submit(task_id=fresh_id() if client_made else None) for _ in range(20)]
    answers = await together(rig, several(*parts, atomic=True), submit(), submit())
    assert isinstance(answers[0], Exhausted)
    before = await everything(rig)
    assert [history.task.id for history, _ in before] == [
        answers[2].task.id,
        answers[1].task.id,
        earlier,
    ]
    await rig.crash()
    assert await everything(rig) == before
    await rig.close()


async def test_what_was_leased_before_is_leased_after_a_refused_whole(kept: Rig) -> None:
    """The rows of the batch that came before the savepoint are not undone with it."""
    taken = submit(task_id=fresh_id())
    await kept.apply(taken)
    other = submit("paid", 7, task_id=taken.task.id)
    bad = several(submit(task_id=fresh_id()), other, atomic=True)
    grants, refused, settled = await together(kept, take(), bad, take("agent-2"))
    (task,) = only_tasks(grants)
    assert isinstance(refused, TaskIdTaken)
    assert only_tasks(settled) == []
    await kept.crash()
    assert lease_id_of(await kept.task(task.id)) == lease_id_of(task)
