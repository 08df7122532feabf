"""What a take may have, at its edges: tasks that are too late, and as many leases as may be."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from taskdist.core.commands import Grants, Submit
from taskdist.core.errors import Exhausted
from taskdist.core.task import TaskState
from taskdist.limits import SECOND_US
from tests.support.backends import (
    Rig,
    only_tasks,
    release,
    several,
    submit,
    take,
    turns,
)


def in_a_second(command: Submit) -> Submit:
    """It is to be started by then."""
    return replace(command, deadline_in_us=SECOND_US)


async def test_p2_a_task_that_is_too_late_hides_none_that_is_not(rig: Rig) -> None:
    late = (await rig.apply(in_a_second(submit("paid")))).task.id
    task = await rig.take()
    other = await rig.submit("free")
    await rig.pass_s(2)
    _, grants = await rig.apply(several(release(task), take()))
    assert [task.id for task in only_tasks(grants)] == [other]
    assert (await rig.task(late)).state is TaskState.DEAD


async def test_who_waits_is_not_sent_away_by_a_task_that_is_too_late(rig: Rig) -> None:
    late = (await rig.apply(in_a_second(submit()))).task.id
    task = await rig.take()
    waiting = rig.ask(take("agent-2", wait_s=60))
    await rig.pass_s(2)
    await rig.apply(release(task))
    await turns()
    assert (await rig.task(late)).state is TaskState.DEAD
    assert not waiting.done()
    task_id = await rig.submit()
    assert [task.id for task in only_tasks(await waiting)] == [task_id]


@pytest.fixture
async def narrow() -> AsyncIterator[Rig]:
    """A session may hold two leases."""
    rig = Rig("memory:", leases_per_session_max=2)
    await rig.open()
    yield rig
    await rig.close()


async def test_p7_a_session_holds_no_more_leases_than_it_may(narrow: Rig) -> None:
    ids = [await narrow.submit() for _ in range(3)]
    assert await narrow.take_all() == ids[:2]
    with pytest.raises(Exhausted):
        await narrow.take_all()


async def test_p7_one_that_waits_and_may_hold_no_more_is_told_so(narrow: Rig) -> None:
    """It must not stop the distributor."""
    asked = [narrow.ask(take(wait_s=60)) for _ in range(3)]
    await turns()
    await narrow.apply(several(submit(), submit(), submit()))
    await turns()
    assert [len(only_tasks(await one)) for one in asked[:2]] == [1, 1]
    with pytest.raises(Exhausted, match="this session holds 2 leases"):
        await asked[2]
    assert narrow.hearer.failure is None
    assert await narrow.apply(take("agent-2", slots=0)) == Grants()
