"""P1: an id is one task, also where the ids of a whole batch are looked for at once."""

import asyncio

import pytest

from taskdist.core.commands import Placed, Purge
from taskdist.core.errors import Refused, TaskIdTaken
from taskdist.core.task import TaskState
from tests.support.backends import Rig, fresh_id, page, several, submit, succeed, turns


def placed(answers: tuple[object, ...]) -> list[Placed]:
    found = [answer for answer in answers if isinstance(answer, Placed)]
    assert len(found) == len(answers)
    return found


async def test_p1_a_batch_tells_new_ids_from_known_ones(rig: Rig) -> None:
    """200 of them, so that they are looked for in several steps."""
    known = [fresh_id() for _ in range(100)]
    for task_id in known:
        await rig.submit(task_id=task_id)
    done = await rig.take()
    await rig.apply(succeed(done))
    leased = await rig.take()
    mixed = [task_id for one in known for task_id in (one, fresh_id())]
    answers = placed(await rig.apply(several(*(submit(task_id=one) for one in mixed))))
    assert [answer.task.id for answer in answers] == mixed
    states = {answer.task.id: answer.task.state for answer in answers}
    assert states.pop(done.id) is TaskState.SUCCEEDED
    assert states.pop(leased.id) is TaskState.LEASED
    assert set(states.values()) == {TaskState.READY}
    assert len((await rig.read(page(page_size=500))).tasks) == 200


@pytest.mark.parametrize("atomic", [True, False])
async def test_p1_an_id_that_comes_twice_in_a_batch_is_one_task(rig: Rig, atomic: bool) -> None:
    one, other = fresh_id(), fresh_id()
    asked = [submit(task_id=task_id) for task_id in (one, other, one)]
    answers = placed(await rig.apply(several(*asked, atomic=atomic)))
    assert [answer.task.id for answer in answers] == [one, other, one]
    assert answers[0].task.sequence == answers[2].task.sequence
    assert len((await rig.read(page())).tasks) == 2


async def test_p1_an_id_that_comes_twice_in_a_batch_of_several_callers_is_one_task(
    rig: Rig,
) -> None:
    """Also after what was saved had to be written, and after a part of it was undone."""
    one, taken = fresh_id(), fresh_id()
    await rig.submit(task_id=taken, data=b"x")
    await rig.apply(succeed(await rig.take()))
    rig.runner.hold()
    asks = [
        rig.ask(several(submit(task_id=one), atomic=True)),
        rig.ask(several(submit(task_id=one), submit(task_id=taken, data=b"y"), atomic=True)),
        rig.ask(Purge(taken)),
        rig.ask(submit(task_id=taken, data=b"y")),
        rig.ask(submit(task_id=one)),
    ]
    await turns()
    rig.runner.let_go()
    first, refused, _, again, last = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(refused, TaskIdTaken)
    assert not isinstance(again, Refused), "its earlier bearer is gone"
    assert isinstance(first, tuple)
    assert isinstance(last, Placed)
    assert last.task.sequence == first[0].task.sequence
    ids = sorted(task.id for task in (await rig.read(page())).tasks)
    assert ids == sorted([one, taken])


OLD = "00000000-0000-4000-8000-000000000001"
NEWEST = "03ffffff-ffff-7fff-bfff-fffffffffffe"
LAST = "03ffffff-ffff-7fff-bfff-ffffffffffff"
BEYOND = "04000000-0000-4000-8000-000000000000"
NO_TIME = "ffffffff-ffff-4fff-bfff-ffffffffffff"


async def test_p1_ids_of_any_age_are_known_when_they_come_again(kept: Rig) -> None:
    """Also the newest and the last that begins with the time, and those that begin with none; also
    after a restart."""
    rig = kept
    ids = [fresh_id(), OLD, NO_TIME, NEWEST, BEYOND, LAST, fresh_id()]
    for task_id in ids:
        await rig.submit(task_id=task_id)
    for _ in range(2):
        answers = placed(await rig.apply(several(*(submit(task_id=one) for one in ids))))
        assert [answer.task.sequence for answer in answers] == list(range(1, len(ids) + 1))
        for task_id in ids:
            with pytest.raises(TaskIdTaken):
                await rig.submit(task_id=task_id, data=b"other")
        await rig.restart()
    assert len((await rig.read(page())).tasks) == len(ids)


async def test_p1_an_id_whose_submit_was_undone_is_new_again(rig: Rig) -> None:
    known, undone = fresh_id(), fresh_id()
    await rig.submit(task_id=known, data=b"x")
    refused = submit(task_id=known, data=b"other")
    with pytest.raises(Refused):
        await rig.apply(several(submit(task_id=undone), refused, atomic=True))
    assert await rig.submit(task_id=undone) == undone
    assert {task.id for task in (await rig.read(page())).tasks} == {known, undone}
