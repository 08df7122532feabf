"""CompleteTask and ReleaseTask: how a lease ends, and how often that may be said."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from taskdist.client import Stub
from taskdist.core.errors import InvalidFields, PreconditionFailed, TaskNotFound
from taskdist.core.task import Outcome, TaskState
from taskdist.limits import ERROR_BYTES_MAX, RESULT_BYTES_MAX
from taskdist.reports import Work
from taskdist.settings import DistributorSettings
from tests.distributor.story import (
    NO_TASK,
    bad_fields,
    everything,
    fail,
    nothing_changes,
    release,
    submit,
    succeed,
    take,
)
from tests.support.channel import distributor_channel

pytestmark = pytest.mark.virtual_time


def unnamed(work: Work) -> Work:
    """The same work, in the hands of an agent that forgets its lease_id."""
    return replace(work, lease_id="")


async def test_a_success_keeps_the_result(client: Stub) -> None:
    result = b"\0" * RESULT_BYTES_MAX
    await submit(client)
    work = await take(client)
    assert await succeed(client, work, result=result) == "succeeded; its result is kept"
    task = await client.get(work.task_id)
    assert (task.state, task.result, task.error) == (TaskState.SUCCEEDED, result, "")
    assert task.finished_at is not None
    assert await client.fetch(agent_id="agent-1") is None


async def test_p5_a_task_is_tried_four_times_and_its_errors_are_kept(client: Stub) -> None:
    await submit(client)
    for attempt in (1, 2, 3):
        said = await fail(client, await take(client), error=f"error {attempt}")
        assert said == "failed; it will be retried after all new tasks"
    said = await fail(client, await take(client), error="error 4")
    assert said == "failed; dead, its errors are kept"

    (task,) = await everything(client)
    assert (task.state, task.retry_count, task.error) == (TaskState.DEAD, 4, "error 4")
    assert [attempt.error for attempt in task.attempts] == [f"error {i}" for i in (1, 2, 3, 4)]
    assert await client.fetch(agent_id="agent-1") is None


async def test_p5_a_failure_that_is_not_retryable_is_the_last(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    await fail(client, work, error="no such file", retryable=False)
    assert (await client.get(work.task_id)).state is TaskState.DEAD


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"error": "broken", "result": b"noise"}, "broken"),
        ({"error": "", "result": b"the text"}, "the text"),
        ({"error": "", "result": b"\xff\xfe"}, "failed"),
        ({"error": ""}, "failed"),
        ({"error": "ä" * ERROR_BYTES_MAX}, "ä" * (ERROR_BYTES_MAX // 2)),
        ({"error": "x" + "ä" * ERROR_BYTES_MAX}, "x" + "ä" * (ERROR_BYTES_MAX // 2 - 1)),
    ],
    ids=["error", "result instead", "result no text", "nothing", "long", "cut in a character"],
)
async def test_what_a_failure_is_remembered_by(
    client: Stub, said: dict[str, Any], kept: str
) -> None:
    await submit(client)
    work = await take(client)
    await fail(client, work, **said)
    task = await client.get(work.task_id)
    assert (task.error, task.result) == (kept, b"")
    await fail(client, work, **said)  # the same again is accepted, cut or not (P3)


async def test_a_released_task_is_at_its_old_place_and_nothing_is_counted(
    client: Stub,
) -> None:
    first = await submit(client, seconds=1)
    await submit(client, seconds=2)
    assert await release(client, await take(client)) is TaskState.READY
    task = await client.get(first)
    assert (task.queue_position, task.retry_count, task.lost_count) == (1, 0, 0)
    assert [attempt.outcome for attempt in task.attempts] == [Outcome.RELEASED]
    again = await take(client)
    assert (again.task_id, again.attempt) == (first, 2)


async def test_p5_the_sixteenth_hasty_release_ends_a_task(client: Stub) -> None:
    await submit(client)
    states = [await release(client, await take(client)) for _ in range(16)]
    assert states == [TaskState.READY] * 15 + [TaskState.DEAD]


# --- P3: one holder, and repeats -----------------------------------------------------------------


async def test_p3_an_accepted_outcome_may_be_repeated(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    first = await succeed(client, work, result=b"42")
    async with nothing_changes(client):
        assert await succeed(client, work, result=b"42") == first


async def test_p3_also_when_the_task_has_moved_on(client: Stub) -> None:
    await submit(client)
    first = await take(client)
    said = await fail(client, first, error="first")
    second = await take(client)
    async with nothing_changes(client):
        assert await fail(client, first, error="first") == said
    handed_back = await release(client, second)
    third = await take(client, "agent-2")
    async with nothing_changes(client):
        assert await release(client, second) is handed_back
    await succeed(client, third, "agent-2")
    async with nothing_changes(client):
        assert await fail(client, first, error="first") == said
        assert await release(client, second) is handed_back


async def test_p3_another_outcome_under_an_ended_lease_is_refused(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    await succeed(client, work, result=b"42")
    async with nothing_changes(client):
        with pytest.raises(PreconditionFailed, match="agent-1 does not hold"):
            await succeed(client, work, result=b"43")
        with pytest.raises(PreconditionFailed):
            await fail(client, work, error="too late")
        with pytest.raises(PreconditionFailed):
            await release(client, work)


async def test_p3_nobody_but_the_holder_can_end_a_lease(client: Stub) -> None:
    await submit(client)
    lost = await take(client)
    await release(client, lost)
    held = await take(client, "agent-2")
    async with nothing_changes(client):
        with pytest.raises(PreconditionFailed):
            await succeed(client, held, "agent-1")  # someone else's
        with pytest.raises(PreconditionFailed):
            await succeed(client, lost, "agent-1")  # its own, but over
        with pytest.raises(PreconditionFailed):
            await release(client, lost, "agent-2")  # somebody's, but over
        with pytest.raises(PreconditionFailed):
            await client.complete(
                task_id=held.task_id, agent_id="agent-2", lease_id="é\n" * 50_000, success=True
            )
    await succeed(client, held, "agent-2")


async def test_an_outcome_of_an_unknown_task(client: Stub) -> None:
    await submit(client)
    async with nothing_changes(client):
        for end in (client.complete(**NOBODYS, success=True), client.release(**NOBODYS)):
            with pytest.raises(TaskNotFound, match=NO_TASK):
                await end


NOBODYS: dict[str, Any] = {"task_id": NO_TASK, "agent_id": "agent-1", "lease_id": "1-1"}


# --- callers without a lease_id ------------------------------------------------------------------


async def test_p3_without_a_lease_id_the_name_alone_is_tested(client: Stub) -> None:
    await submit(client)
    first = await take(client)
    await release(client, first)
    await take(client)
    async with nothing_changes(client):
        with pytest.raises(PreconditionFailed, match="agent-2 does not hold a lease"):
            await succeed(client, unnamed(first), "agent-2")
    # Weaker: this is the first run's outcome, taken for the second's.
    await succeed(client, unnamed(first))
    (task,) = await everything(client)
    assert (task.state, task.attempt) == (TaskState.SUCCEEDED, 2)
    await succeed(client, unnamed(first))


async def heartbeat(client: Stub, work: Work, agent_id: str) -> object:
    return await client.heartbeat(
        agent_id=agent_id, lease_ids=[work.lease_id] if work.lease_id else []
    )


@pytest.mark.parametrize("verb", [succeed, fail, release, heartbeat])
async def test_an_agent_without_lease_ids_is_logged_once(
    client: Stub, verb: Callable[[Stub, Work, str], Awaitable[object]]
) -> None:
    with capture_logs() as logs:
        for agent_id in ("agent-1", "agent-2", "agent-1", "agent-2"):
            await submit(client)
            await verb(client, unnamed(await take(client, agent_id)), agent_id)
    lines = [line for line in logs if line["event"] == "agent sends no lease_id"]
    assert [line["agent_id"] for line in lines] == ["agent-1", "agent-2"]


async def test_an_agent_with_lease_ids_is_not_logged(client: Stub) -> None:
    await submit(client)
    with capture_logs() as logs:
        work = await take(client)
        await heartbeat(client, work, "agent-1")
        await succeed(client, work)
    assert not logs


async def test_p3_a_distributor_may_require_lease_ids() -> None:
    settings = DistributorSettings(store="memory:", require_lease_id=True)
    async with distributor_channel(settings) as (client, _):
        await submit(client)
        work = await take(client)
        async with nothing_changes(client):
            for end in (succeed, fail, release):
                with pytest.raises(InvalidFields, match="--require-lease-id") as refusal:
                    await end(client, unnamed(work))
                assert bad_fields(refusal.value) == {"lease_id"}
            with pytest.raises(InvalidFields) as refusal:
                await client.heartbeat(agent_id="agent-1", lease_ids=[])
            assert bad_fields(refusal.value) == {"lease_ids"}
        await succeed(client, work)
