"""SubmitTask: what is said of a task, its place in the order, and repeats."""

from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.core.errors import Exhausted, TaskIdTaken
from taskdist.core.task import TaskState
from taskdist.limits import DATA_BYTES_MAX
from taskdist.reports import Submitted
from taskdist.settings import DistributorSettings
from tests.distributor.story import NO_TASK, fail, nothing_changes, submit, take
from tests.support.channel import distributor_channel

pytestmark = pytest.mark.virtual_time


async def drained(client: Stub, queue: str = "default") -> list[str]:
    """The ids in the order in which an agent gets them."""
    ids = []
    while work := await client.fetch(agent_id="agent-1", queues=[queue]):
        ids.append(work.task_id)
    return ids


async def test_a_task_has_an_id_a_state_and_a_position(client: Stub) -> None:
    first = await client.submit(user_tier="paid", est_processing_time_s=1)
    second = await client.submit(user_tier="paid", est_processing_time_s=2)
    assert first.task_id < second.task_id, "time-ordered ids"
    assert (first.state, first.queue_position) == (TaskState.READY, 1)
    assert (second.state, second.queue_position) == (TaskState.READY, 2)


async def test_what_is_not_said_has_its_default(client: Stub) -> None:
    task = await client.get(await submit(client, "free", 0))
    assert (task.kind, task.queue, task.max_retries) == ("simulate", "default", 3)
    assert task.est_processing_time_s == 0


async def test_zero_retries_is_not_the_default(client: Stub) -> None:
    task = await client.get(await submit(client, max_retries=0))
    assert task.max_retries == 0


async def test_p2_the_order_is_the_one_of_the_mission(client: Stub) -> None:
    """New before retry, paid before free, shorter before longer, older before newer."""
    retried = await submit(client, "paid", 0)
    await fail(client, await take(client))
    free_10 = await submit(client, "free", 10)
    paid_5 = await submit(client, "paid", 5)
    free_2 = await submit(client, "free", 2)
    paid_3 = await submit(client, "paid", 3)
    paid_3_newer = await submit(client, "paid", 3)

    order = [paid_3, paid_3_newer, paid_5, free_2, free_10, retried]
    positions = [(await client.get(task_id)).queue_position for task_id in order]
    assert positions == [1, 2, 3, 4, 5, 6]
    assert await drained(client) == order


async def test_p2_a_better_task_that_comes_late_goes_before(client: Stub) -> None:
    waiting = await submit(client, "free", 1)
    late = await client.submit(user_tier="paid", est_processing_time_s=9)
    assert late.queue_position == 1
    assert (await client.get(waiting)).queue_position == 2


async def test_a_position_counts_all_kinds_of_its_queue_and_no_other_queue(
    client: Stub,
) -> None:
    await submit(client, seconds=1, kind="a")
    await submit(client, seconds=2, kind="b")
    await submit(client, seconds=1, queue="other")
    third = await client.submit(user_tier="paid", est_processing_time_s=3, kind="c")
    assert third.queue_position == 3


@pytest.mark.parametrize("data", [b"", b"\0\xff\n{}", b"x" * DATA_BYTES_MAX], ids=len)
async def test_p1_data_arrives_byte_for_byte(client: Stub, data: bytes) -> None:
    await submit(client, data=data)
    assert (await take(client)).data == data


# --- repeats with an id of the client's making ---------------------------------------------------

SAID: dict[str, Any] = {
    "user_tier": "paid",
    "est_processing_time_s": 2.5,
    "data": b"some",
    "kind": "resize",
    "queue": "images",
    "max_retries": 1,
}


async def test_a_repeat_is_the_same_task_as_it_stands_now(client: Stub) -> None:
    placed = await client.submit(task_id=NO_TASK, **SAID)
    assert placed == Submitted(NO_TASK, TaskState.READY, 1)
    await client.submit(user_tier="paid", est_processing_time_s=1, queue="images")
    assert await client.submit(task_id=NO_TASK, **SAID) == Submitted(NO_TASK, TaskState.READY, 2)
    await client.cancel(NO_TASK)
    again = await client.submit(task_id=NO_TASK, **SAID)
    assert again == Submitted(NO_TASK, TaskState.CANCELLED, 0)


async def test_a_repeat_may_write_the_id_in_capitals(client: Stub) -> None:
    placed = await client.submit(task_id=NO_TASK.upper(), **SAID)
    assert placed.task_id == NO_TASK
    with pytest.raises(TaskIdTaken):
        await client.submit(task_id=NO_TASK, **{**SAID, "data": b"other"})


@pytest.mark.parametrize(
    "other",
    [
        {"user_tier": "free"},
        {"est_processing_time_s": 2.500001},
        {"data": b"somf"},
        {"kind": "crop"},
        {"queue": "photos"},
        {"max_retries": 2},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_p7_an_id_with_other_content_is_refused(client: Stub, other: dict[str, Any]) -> None:
    await client.submit(task_id=NO_TASK, **SAID)
    async with nothing_changes(client):
        with pytest.raises(TaskIdTaken, match=NO_TASK):
            await client.submit(task_id=NO_TASK, **{**SAID, **other})


async def test_an_id_that_the_distributor_made_is_not_the_clients_to_repeat(
    client: Stub,
) -> None:
    made = await client.submit(**SAID)
    async with nothing_changes(client):
        with pytest.raises(TaskIdTaken):
            await client.submit(task_id=made.task_id, **SAID)


async def test_p7_no_more_may_wait_than_the_limit() -> None:
    settings = DistributorSettings(store="memory:", tasks_waiting_max=2)
    async with distributor_channel(settings) as (client, _):
        kept = await client.submit(task_id=NO_TASK, **SAID)
        await submit(client)
        async with nothing_changes(client):
            with pytest.raises(Exhausted, match="2 tasks are waiting"):
                await submit(client)
        assert await client.submit(task_id=NO_TASK, **SAID) == kept, "a repeat adds nothing"
        await take(client)
        await submit(client)
