"""Redrive and Purge: which tasks they mean, how they go on, and what they refuse (P7)."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.client.connection import OPERATIONS
from taskdist.core.errors import Exhausted, InvalidFields, PreconditionFailed, TaskNotFound
from taskdist.core.task import TaskState
from taskdist.distributor import operations
from taskdist.limits import OPERATED_TASKS_MAX
from taskdist.reports import Selection, Submission
from taskdist.settings import DistributorSettings
from taskdist.wire import messages as wire
from tests.distributor.story import (
    NO_TASK,
    bad_fields,
    everything,
    fail,
    nothing_changes,
    submit,
    succeed,
    take,
)
from tests.support.channel import distributor_channel
from tests.support.clocks import NOON_US

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

ALL = Selection(all=True)
READY, DEAD, CANCELLED = TaskState.READY, TaskState.DEAD, TaskState.CANCELLED


async def dead(client: Stub, tier: str = "paid", **said: Any) -> str:
    task_id = await submit(client, tier, **said)
    await fail(client, await take(client, queues=[said.get("queue", "default")]), retryable=False)
    return task_id


async def many_cancelled(client: Stub, count: int, queue: str = "many") -> list[str]:
    """So many tasks, at once, that were cancelled."""
    ids: list[str] = []
    for start in range(0, count, 1_000):
        some = [Submission("paid", 1, queue=queue)] * min(1_000, count - start)
        ids += [one.task_id for one in await client.submit_many(some) if hasattr(one, "task_id")]
    for task_id in ids:
        await client.cancel(task_id)
    return ids


async def states_of(client: Stub, ids: Sequence[str]) -> list[TaskState]:
    return [(await client.get(task_id)).state for task_id in ids]


async def redrive(client: Stub, cursor: str = "", **said: Any) -> wire.RedriveResponse:
    """One call."""
    count_only = said.pop("count_only", False)
    request = wire.RedriveRequest(
        selection=wire.TaskSelection(**said), count_only=count_only, cursor=cursor
    )
    answer = await client._call("Redrive", request, wire.RedriveResponse, service=OPERATIONS)
    assert isinstance(answer, wire.RedriveResponse)
    return answer


# --- by id ---------------------------------------------------------------------------------------


async def test_tasks_by_id_are_put_back_and_removed(client: Stub) -> None:
    one, two = await dead(client), await submit(client)
    await client.cancel(two)
    assert await client.redrive(Selection(task_ids=(one, two.upper(), one))) == 2
    task = await client.get(one)
    assert (task.state, task.retry_count, task.queue_position) == (READY, 0, 1)
    assert [attempt.outcome for attempt in task.attempts] == ["failed"]
    for task_id in (one, two):
        await client.cancel(task_id)
    assert await client.purge(Selection(task_ids=(one, two))) == 2
    for task_id in (one, two):
        with pytest.raises(TaskNotFound):
            await client.get(task_id)


async def test_p7_if_one_that_is_named_cannot_be_done_none_is(client: Stub) -> None:
    one, two, ready = await dead(client), await dead(client), await submit(client)
    for last, refusal in ((NO_TASK, TaskNotFound), (ready, PreconditionFailed)):
        async with nothing_changes(client):
            for verb in (client.redrive, client.purge):
                with pytest.raises(refusal):
                    await verb(Selection(task_ids=(one, two, last)))
    assert await states_of(client, (one, two)) == [DEAD, DEAD]


async def test_a_task_that_succeeded_is_removed_and_never_put_back(client: Stub) -> None:
    task_id = await submit(client)
    await succeed(client, await take(client))
    with pytest.raises(PreconditionFailed, match="redrive is not possible"):
        await client.redrive(Selection(task_ids=(task_id,)))
    assert await client.purge(Selection(states=(TaskState.SUCCEEDED,), all=True)) == 1


# --- by filter -----------------------------------------------------------------------------------


async def test_a_filter_means_dead_tasks_unless_it_says_otherwise(client: Stub) -> None:
    ids = [
        await dead(client),
        await dead(client, "free", kind="k", queue="q"),
        await submit(client),
    ]
    await client.cancel(ids[2])
    counts = [
        (ALL, 2),
        (Selection(user_tier="free"), 1),
        (Selection(kind="k"), 1),
        (Selection(queue="q"), 1),
        (Selection(queue="q", user_tier="paid"), 0),
        (Selection(states=(CANCELLED,), all=True), 1),
        (Selection(states=(CANCELLED, DEAD), all=True), 3),
        (Selection(states=(CANCELLED,), queue="q"), 0),
    ]
    for selection, count in counts:
        async with nothing_changes(client):
            assert await client.redrive(selection, count_only=True) == count, selection
            assert await client.purge(selection, count_only=True) == count, selection
    assert await client.redrive(Selection(kind="k")) == 1
    assert await states_of(client, ids) == [DEAD, READY, CANCELLED]
    assert await client.purge(Selection(states=(DEAD, CANCELLED), all=True)) == 2
    assert [task.task_id for task in await everything(client)] == [ids[1]]
    assert await client.redrive(ALL) == await client.purge(ALL) == 0


async def test_p7_counting_where_there_is_nothing(client: Stub) -> None:
    for selection in (ALL, Selection(states=(CANCELLED, DEAD), all=True)):
        assert await client.redrive(selection, count_only=True) == 0
        assert await client.purge(selection, count_only=True) == 0
    await client.ping()


async def test_by_age(client: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the wall clock, as finished_at is."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(operations, "_now_us", lambda: NOON_US + round(loop.time() * 1e6))
    old = await dead(client)
    await asyncio.sleep(60)
    new = await dead(client)
    assert await client.redrive(Selection(age_s=61)) == 0
    assert await client.redrive(Selection(age_s=30)) == 1
    assert await states_of(client, (old, new)) == [READY, DEAD]


@pytest.mark.parametrize("count", [OPERATED_TASKS_MAX, 2 * OPERATED_TASKS_MAX + 7])
async def test_p7_many_are_done_in_pages(client: Stub, count: int) -> None:
    ids = await many_cancelled(client, count)
    await many_cancelled(client, 1, queue="other")
    said: dict[str, Any] = {"states": [wire.TaskState["CANCELLED"]], "queue": "many"}
    assert (await redrive(client, count_only=True, **said)).count == count
    first = await redrive(client, **said)
    assert first.count == OPERATED_TASKS_MAX
    cancelled = [task.task_id async for task in client.list_tasks(states=[CANCELLED], queue="many")]
    assert cancelled[::-1] == ids[OPERATED_TASKS_MAX:], "the oldest first"
    total, cursor, calls = first.count, first.next_cursor, 1
    while cursor:
        page = await redrive(client, cursor, **said)
        total, cursor, calls = total + page.count, page.next_cursor, calls + 1
    assert total == count
    assert calls == count // OPERATED_TASKS_MAX + 1
    assert await client.redrive(Selection(states=(CANCELLED,), all=True)) == 1


async def test_p7_a_repeat_after_a_lost_answer_finds_what_is_left(client: Stub) -> None:
    await many_cancelled(client, OPERATED_TASKS_MAX + 3)
    said: dict[str, Any] = {"states": [wire.TaskState["CANCELLED"]], "all": True}
    await redrive(client, **said)
    assert (await redrive(client, **said)).count == 3


async def test_p7_a_redrive_that_meets_a_full_queue_keeps_what_it_did() -> None:
    settings = DistributorSettings(store="memory:", tasks_waiting_max=5)
    async with distributor_channel(settings) as (client, _):
        ids = [await submit(client) for _ in range(4)]
        for task_id in ids:
            await client.cancel(task_id)
        for _ in range(3):
            await submit(client)
        named = Selection(task_ids=tuple(ids))
        async with nothing_changes(client):
            with pytest.raises(Exhausted, match="5 tasks are waiting"):
                await client.redrive(named)
        cancelled = Selection(states=(CANCELLED,), all=True)
        with pytest.raises(Exhausted, match="5 tasks are waiting"):
            await client.redrive(cancelled)
        assert await states_of(client, ids) == [READY, READY, CANCELLED, CANCELLED]
        await take(client)
        with pytest.raises(Exhausted):
            await client.redrive(cancelled)
        assert await states_of(client, ids) == [TaskState.LEASED, READY, READY, CANCELLED]


# --- what is refused -----------------------------------------------------------------------------

UNSPECIFIED, WIRE_READY = wire.TaskState["UNSPECIFIED"], wire.TaskState["READY"]


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        ({}, {"selection.all"}),
        ({"states": [wire.TaskState["DEAD"]]}, {"selection.all"}),
        ({"task_ids": ["1"]}, {"selection.task_ids"}),
        ({"task_ids": [NO_TASK] * 501}, {"selection.task_ids"}),
        ({"task_ids": [NO_TASK], "all": True}, {"selection.task_ids"}),
        ({"task_ids": [NO_TASK], "queue": "q"}, {"selection.task_ids"}),
        ({"states": [WIRE_READY], "all": True}, {"selection.states"}),
        ({"states": [wire.TaskState["SUCCEEDED"]], "all": True}, {"selection.states"}),
        ({"states": [UNSPECIFIED], "all": True}, {"selection.states"}),
        ({"states": [wire.TaskState["DEAD"], 99], "all": True}, {"selection.states"}),
        ({"age_seconds": -1.0, "all": True}, {"selection.age_seconds"}),
        ({"age_seconds": float("nan"), "all": True}, {"selection.age_seconds"}),
        ({"age_seconds": 1e9, "all": True}, {"selection.age_seconds"}),
        (
            {"user_tier": "a b", "kind": "a b", "queue": "a b"},
            {"selection.user_tier", "selection.kind", "selection.queue"},
        ),
    ],
)
async def test_p7_a_bad_selection_is_refused_by_name(
    client: Stub, said: dict[str, Any], fields: set[str]
) -> None:
    await dead(client)
    async with nothing_changes(client):
        with pytest.raises(InvalidFields) as refused:
            await redrive(client, **said)
    assert bad_fields(refused.value) == fields


@pytest.mark.parametrize("cursor", ["x", "0", "3.0.0", "0.1", "0.-1.0", "0.1.1\n", "0.٣.1"])
async def test_p7_a_cursor_that_was_never_given_is_refused(client: Stub, cursor: str) -> None:
    await dead(client)
    async with nothing_changes(client):
        with pytest.raises(InvalidFields) as refused:
            await redrive(client, cursor, all=True)
    assert bad_fields(refused.value) == {"cursor"}


async def test_p7_a_cursor_of_another_selection_harms_nobody(client: Stub) -> None:
    await dead(client)
    far = "2.999999999999999999.999999999999999999.999999999999999999"
    assert (await redrive(client, far, all=True)) == wire.RedriveResponse()


async def test_p7_no_selection_at_all_is_none_of_everything(client: Stub) -> None:
    await dead(client)
    async with nothing_changes(client):
        with pytest.raises(InvalidFields, match="required to mean all tasks"):
            await client._call("Purge", wire.PurgeRequest(), wire.PurgeResponse, service=OPERATIONS)
