"""P6: a bad row is set aside and reported; it blocks no start, and nobody else's task."""

import asyncio
import os

import apsw
import pytest
from structlog.testing import capture_logs

from taskdist.core.commands import Cancel, Locate, Placed
from taskdist.core.errors import Damaged, Refused
from taskdist.core.task import TaskState
from tests.support.backends import Rig, page, submit, succeed, take, turns


async def spoil(rig: Rig, *statements: str) -> None:
    """Closes the store, damages it, and opens it again."""
    await rig.close()
    connection = apsw.Connection(os.fspath(rig.path))
    for statement in statements:
        connection.execute(statement)
        assert connection.changes() > 0
    connection.close()
    await rig.open()
    await turns()


async def ask_about(rig: Rig, task_id: str) -> None:
    """What can still be said of a task is said, or refused in one line."""
    for command in (Locate(task_id), Cancel(task_id)):
        (answer,) = await asyncio.gather(rig.apply(command), return_exceptions=True)
        assert isinstance(answer, Refused | Placed)
        assert "\n" not in str(answer)


BAD = [
    "UPDATE task SET user_tier = 'no tier!' WHERE sequence = 1",
    "UPDATE task SET kind = '' WHERE sequence = 1",
    "UPDATE task SET est_processing_time_us = -1 WHERE sequence = 1",
    "UPDATE task SET enqueued_at_us = -1 WHERE sequence = 1",
    "UPDATE task SET submitted_at_us = 1 << 61 WHERE sequence = 1",
    "UPDATE task SET retry_count = -1 WHERE sequence = 1",
    "UPDATE task SET max_retries = 1000000 WHERE sequence = 1",
    "UPDATE task SET id = x'00' WHERE sequence = 1",
    "DELETE FROM data WHERE sequence = 1",
]


@pytest.mark.parametrize("statement", BAD)
async def test_p6_a_bad_row_is_set_aside_and_all_others_are_served(
    kept: Rig, statement: str
) -> None:
    bad = await kept.submit("paid", 1)
    good = [await kept.submit("paid", 2), await kept.submit("free", 1)]
    with capture_logs() as logs:
        await spoil(kept, statement)
        assert await kept.take_all() == good
    assert "row set aside" in [entry["event"] for entry in logs]
    for _ in range(2):  # It stays on disk, for people, and does no more harm the next time.
        await kept.restart()
        assert await kept.take_all() == []
        assert kept.hearer.failure is None
    await ask_about(kept, bad)
    assert kept.hearer.failure is None
    more = await kept.submit()
    assert await kept.take_all() == [more]


@pytest.mark.parametrize("statement", BAD)
async def test_p6_a_bad_row_that_was_set_aside_can_be_asked_about(
    kept: Rig, statement: str
) -> None:
    """In the same run in which it was set aside: the queue does not know it any more."""
    bad = await kept.submit()
    await spoil(kept, statement)
    assert await kept.take_all() == []
    await ask_about(kept, bad)
    assert kept.hearer.failure is None
    assert await kept.take_all() == []


async def test_p6_more_bad_rows_than_anybody_can_count_on_a_stack(kept: Rig) -> None:
    kept.runner.hold()
    calls = [kept.ask(submit("paid", 0)) for _ in range(1_500)]
    await turns()
    kept.runner.let_go()
    for call in calls:
        await call
    good = await kept.submit("free", 9)
    await spoil(kept, f"UPDATE task SET kind = 'no kind!' WHERE sequence <= {len(calls)}")
    assert await kept.take_all() == [good]


async def test_p6_what_cannot_be_decoded_is_said_to_be_damaged(kept: Rig) -> None:
    bad, good = await kept.submit(), await kept.submit()
    await spoil(kept, "UPDATE task SET state = 'confused' WHERE sequence = 1")
    with pytest.raises(Damaged):
        await kept.history(bad)
    for command in (Locate(bad), Cancel(bad)):
        with pytest.raises(Damaged):
            await kept.apply(command)
    assert [task.id for task in (await kept.read(page())).tasks] == [good]


async def test_p6_an_attempt_that_cannot_be_decoded_is_said_to_be_damaged(kept: Rig) -> None:
    task_id = await kept.submit()
    task = await kept.take()
    await kept.apply(succeed(task))
    await spoil(kept, "UPDATE attempt SET outcome = 'confused'")
    with pytest.raises(Damaged):
        await kept.history(task_id)
    with pytest.raises(Damaged):
        await kept.apply(succeed(task))
    assert kept.hearer.failure is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE task SET user_tier = 'no tier!' WHERE sequence = 1",
        "UPDATE task SET state = 'succeeded' WHERE sequence = 1",
        "UPDATE task SET state = 'ready' WHERE sequence = 1",
        "DELETE FROM task WHERE sequence = 1",
        "DELETE FROM lease WHERE sequence = 1",
    ],
)
async def test_p6_a_leased_task_that_is_bad_does_not_stop_the_others(
    kept: Rig, statement: str
) -> None:
    await kept.submit("paid")
    good = await kept.submit("free")
    await kept.take("agent-1")
    task = await kept.take("agent-2")
    await spoil(kept, statement)
    await kept.pass_s(20)
    await kept.apply(succeed(task))
    await kept.pass_s(20)
    await kept.take_all()
    await kept.pass_s(40)
    assert kept.hearer.failure is None
    assert (await kept.task(good)).state is TaskState.SUCCEEDED
    more = await kept.submit(queue="other")
    assert await kept.take_all(queues=("other",)) == [more]


async def test_p6_who_waits_is_served_behind_a_bad_row(kept: Rig) -> None:
    bad = await kept.submit("paid")
    running = await kept.take()
    await spoil(kept, "UPDATE task SET queue = 'no queue!' WHERE sequence = 1")
    waiter = kept.ask(take("agent-2", queues=("no queue!", "default"), wait_s=60))
    await turns()
    await kept.pass_s(31)
    good = await kept.submit("free")
    assert [grant.task.id for grant in (await waiter).grants] == [good]
    assert bad == running.id
