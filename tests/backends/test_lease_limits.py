"""P7: no session holds more leases than it may, however it asks for them."""

from collections.abc import AsyncIterator

import pytest

from taskdist.core.errors import Exhausted
from tests.support.backends import Rig, only_tasks, release, several, succeed, take, turns


@pytest.fixture
async def two(rig: Rig) -> AsyncIterator[Rig]:
    """A session may hold two leases."""
    await rig.restart(leases_per_session_max=2)
    yield rig
    assert rig.hearer.failure is None


async def test_p7_a_session_that_holds_all_it_may_is_refused_until_it_gives_one_up(
    two: Rig,
) -> None:
    for _ in range(4):
        await two.submit()
    first, _ = [await two.take(session="s") for _ in range(2)]
    with pytest.raises(Exhausted, match="holds 2 leases, the most that it may"):
        await two.apply(take(session="s"))
    await two.take(session="t")
    await two.apply(succeed(first))
    await two.take(session="s")


@pytest.mark.parametrize("in_all", [False, True])
async def test_p7_one_that_asks_for_more_than_it_may_hold_gets_what_it_may(
    two: Rig, in_all: bool
) -> None:
    ids = [await two.submit() for _ in range(5)]
    some = only_tasks(await two.apply(take(session="s", slots=5, in_all=in_all)))
    assert [task.id for task in some] == ids[:2]
    assert await two.position(ids[2]) == 1, "the others wait as before"


async def test_p7_one_that_waits_twice_and_may_have_one_more_is_refused_the_second_time(
    two: Rig,
) -> None:
    """The refusal comes while it is served: it is its own, and nobody else's."""
    calls = [two.ask(take(session="s", wait_s=60)) for _ in range(3)]
    calls.append(two.ask(take("agent-2", session="t", wait_s=60)))
    await turns()
    ids = [await two.submit() for _ in range(3)]
    await turns()
    assert [task.id for call in calls[:2] for task in only_tasks(await call)] == ids[:2]
    with pytest.raises(Exhausted):
        await calls[2]
    assert [task.id for task in only_tasks(await calls[3])] == ids[2:]


async def test_p7_a_take_that_rides_along_is_refused_and_the_outcomes_count(two: Rig) -> None:
    for _ in range(4):
        await two.submit()
    one, _ = only_tasks(await two.apply(take(session="s", slots=2)))
    settled, again = await two.apply(several(release(one), take(session="s", slots=2)))
    assert len(again.grants) == 1
    _, refused = await two.apply(several(release(one), take(session="s", slots=2)))
    assert isinstance(refused, Exhausted)
    assert settled.outcome
