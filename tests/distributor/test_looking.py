"""GetTask, ListTasks and Ping: what can be seen of tasks, and of the distributor."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.core.errors import TaskNotFound
from taskdist.core.task import Outcome, TaskState
from taskdist.reports import PastAttempt
from tests.distributor.story import NO_TASK, fail, release, submit, succeed, take
from tests.support.clocks import NOON_US

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

BEGAN = datetime.fromtimestamp(NOON_US / 1e6, UTC)
"""The wall clock when a test begins."""


async def listed(client: Stub, **filters: Any) -> list[str]:
    """The ids that a list has, in its order."""
    return [task.task_id async for task in client.list_tasks(**filters)]


async def test_a_task_tells_its_whole_story(client: Stub) -> None:
    await asyncio.sleep(1)
    task_id = await submit(client, "free", 2.5, max_retries=1, kind="resize", queue="images")
    await asyncio.sleep(1)
    first = await take(client, queues=["images"], session="s-1")
    await asyncio.sleep(1)
    await fail(client, first, error="no memory")
    second = await take(client, "agent-2", queues=["images"])
    await asyncio.sleep(1.5)
    await succeed(client, second, "agent-2", result=b"small")

    task = await client.get(task_id)
    assert (task.state, task.user_tier, task.kind) == (TaskState.SUCCEEDED, "free", "resize")
    assert (task.queue, task.est_processing_time_s) == ("images", 2.5)
    assert (task.sequence, task.attempt, task.max_retries) == (1, 2, 1)
    assert (task.retry_count, task.lost_count, task.queue_position) == (1, 0, 0)
    assert (task.agent_id, task.result, task.error) == ("", b"small", "no memory")
    assert task.submitted_at == task.enqueued_at == BEGAN + timedelta(seconds=1)
    assert task.finished_at == BEGAN + timedelta(seconds=4.5)
    assert task.attempts == (
        PastAttempt(
            attempt=1,
            agent_id="agent-1",
            session="s-1",
            lease_id=first.lease_id,
            started_at=BEGAN + timedelta(seconds=2),
            ended_at=BEGAN + timedelta(seconds=3),
            outcome=Outcome.FAILED,
            error="no memory",
        ),
        PastAttempt(
            attempt=2,
            agent_id="agent-2",
            session="",
            lease_id=second.lease_id,
            started_at=BEGAN + timedelta(seconds=3),
            ended_at=BEGAN + timedelta(seconds=4.5),
            outcome=Outcome.SUCCEEDED,
            error="",
        ),
    )


async def test_a_task_that_is_not_final_has_no_end(client: Stub) -> None:
    task_id = await submit(client)
    assert (await client.get(task_id.upper())).finished_at is None


async def test_an_unknown_task_is_not_found(client: Stub) -> None:
    with pytest.raises(TaskNotFound, match=NO_TASK):
        await client.get(NO_TASK)


async def test_a_list_has_the_newest_first_and_fills_in_no_positions(client: Stub) -> None:
    old, new = await submit(client, seconds=1), await submit(client, seconds=2)
    tasks = [task async for task in client.list_tasks()]
    assert [task.task_id for task in tasks] == [new, old]
    assert [task.queue_position for task in tasks] == [0, 0]
    assert await listed(client, page_size=0) == [new, old]


async def test_an_empty_list(client: Stub) -> None:
    assert await listed(client) == []


async def test_a_list_by_state(client: Stub) -> None:
    in_state = {}
    for state in ("dead", "released", "leased", "succeeded", "cancelled", "ready"):
        in_state[state] = await submit(client, queue=state)
    await fail(client, await take(client, queues=["dead"]), retryable=False)
    await release(client, await take(client, queues=["released"]))
    await take(client, queues=["leased"])
    await succeed(client, await take(client, queues=["succeeded"]))
    await client.cancel(in_state["cancelled"])

    for state in (TaskState.DEAD, TaskState.LEASED, TaskState.SUCCEEDED, TaskState.CANCELLED):
        assert await listed(client, states=[state]) == [in_state[state]]
    ready = [in_state["ready"], in_state["released"]]
    assert await listed(client, states=[TaskState.READY]) == ready
    assert await listed(client, states=[TaskState.SCHEDULED]) == []
    assert await listed(client, states=[TaskState.READY, TaskState.DEAD, TaskState.READY]) == [
        *ready,
        in_state["dead"],
    ]
    assert await listed(client, states=list(TaskState)) == await listed(client)


async def test_p7_a_list_by_very_many_states_is_a_list_by_a_few(client: Stub) -> None:
    task_id = await submit(client)
    assert await listed(client, states=[TaskState.READY, TaskState.DEAD] * 5_000) == [task_id]


async def test_a_list_by_tier_kind_and_queue(client: Stub) -> None:
    ids = {}
    for tier in ("paid", "free"):
        for kind in ("x", "y"):
            for queue in ("a", "b"):
                ids[tier, kind, queue] = await submit(client, tier, kind=kind, queue=queue)
    everything = list(reversed(ids.values()))
    assert await listed(client) == everything
    for place, name in enumerate(("user_tier", "kind", "queue")):
        for value in {key[place] for key in ids}:
            expected = [ids[key] for key in reversed(ids) if key[place] == value]
            assert await listed(client, **{name: value}) == expected
    both = {"user_tier": "free", "kind": "x", "queue": "b"}
    assert await listed(client, **both) == [ids["free", "x", "b"]]
    assert await listed(client, user_tier="free", kind="z") == []


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 1_000])
async def test_a_list_goes_on_from_page_to_page(client: Stub, page_size: int) -> None:
    ids = [await submit(client, kind="x" if i % 3 else "y") for i in range(7)]
    assert await listed(client, page_size=page_size) == ids[::-1]
    expected = [task_id for i, task_id in enumerate(ids) if not i % 3]
    assert await listed(client, page_size=page_size, kind="y") == expected[::-1]


async def test_a_list_that_grows_while_it_is_read_repeats_nothing(client: Stub) -> None:
    old = [await submit(client) for _ in range(4)]
    seen = []
    async for task in client.list_tasks(page_size=2):
        seen.append(task.task_id)
        await submit(client)
    assert seen == old[::-1]


@pytest.mark.parametrize("length", [6, 7, 12, 13, 32, 36])
async def test_a_list_by_the_ending_of_an_id(client: Stub, length: int) -> None:
    """With or without its dashes, in small letters or capitals."""
    await submit(client)
    await submit(client, task_id=NO_TASK)
    ending = NO_TASK[-length:]
    assert await listed(client, id_ending=ending) == [NO_TASK]
    assert await listed(client, id_ending=ending.upper()) == [NO_TASK]
    assert await listed(client, id_ending=ending.replace("-", "")[-32:]) == [NO_TASK]
    assert await listed(client, id_ending="ffffff" + ending.replace("-", "")[-26:]) == []


async def test_ping_tells_the_time(client: Stub) -> None:
    before = datetime.now(UTC)
    told = await client.ping("hello")
    # The wire has microseconds, as has datetime.
    assert before <= told <= datetime.now(UTC)
