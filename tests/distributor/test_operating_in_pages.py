"""Redrive and Purge of more tasks than one call does, through the client that goes on and on."""

import asyncio
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.core.task import TaskState
from taskdist.distributor import operations
from taskdist.limits import MIB, OPERATED_TASKS_MAX, SECOND_US
from taskdist.reports import Selection, Submission, Submitted
from tests.distributor.story import submit, take
from tests.support.clocks import NOON_US

CANCELLED = Selection(states=(TaskState.CANCELLED,), all=True)
LIMIT_S = 30


async def cancel_ready(client: Stub) -> None:
    """Ends every task that is ready."""
    ready = [task.task_id async for task in client.list_tasks(states=[TaskState.READY])]
    await asyncio.gather(*map(client.cancel, ready))


async def submit_cancelled(client: Stub, count: int) -> None:
    """Submits so many tasks, which are cancelled."""
    answers = await client.submit_many([Submission("free", 1)] * count)
    assert all(isinstance(answer, Submitted) for answer in answers)
    await cancel_ready(client)


async def test_what_ends_again_meanwhile_is_not_put_back_again(
    client: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else agents that fail at once keep a redrive going for ever (P7)."""
    count = OPERATED_TASKS_MAX + 1
    await submit_cancelled(client, count)
    await asyncio.sleep(0.1)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(operations, "_now_us", lambda: NOON_US + round(loop.time() * SECOND_US))
    call = client._call

    async def call_and_cancel(method: str, *said: Any, **more: Any) -> Any:
        answer = await call(method, *said, **more)
        if method == "Redrive":
            await asyncio.sleep(0.1)
            await cancel_ready(client)
        return answer

    monkeypatch.setattr(client, "_call", call_and_cancel)
    async with asyncio.timeout(LIMIT_S):
        assert await client.redrive(CANCELLED) == count
    assert await client.redrive(CANCELLED, count_only=True) == count


async def test_several_states_are_done_one_after_the_other(client: Stub) -> None:
    await submit_cancelled(client, 3)
    await submit(client, max_retries=0)
    work = await take(client)
    await client.complete(
        task_id=work.task_id, agent_id="agent-1", lease_id=work.lease_id, success=False
    )
    both = Selection(states=(TaskState.DEAD, TaskState.CANCELLED), all=True)
    assert await client.redrive(both, count_only=True) == 4
    assert await client.redrive(both) == 4
    await cancel_ready(client)
    assert await client.purge(both) == 4
    assert [task async for task in client.list_tasks()] == []


async def test_there_may_be_nothing_to_count(client: Stub) -> None:
    for state in (TaskState.DEAD, TaskState.CANCELLED):
        selection = Selection(states=(state,), all=True)
        assert await client.purge(selection, count_only=True) == 0
        assert await client.redrive(selection, count_only=True) == 0


async def test_p7_a_purge_of_heavy_tasks_is_many_light_commits(
    client: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"x" * MIB
    for _ in range(9):
        await client.submit(user_tier="free", est_processing_time_s=1, data=data)
    await cancel_ready(client)
    asked: list[str] = []
    call = client._call

    async def counted(method: str, *said: Any, **more: Any) -> Any:
        asked.append(method)
        return await call(method, *said, **more)

    monkeypatch.setattr(client, "_call", counted)
    assert await client.purge(CANCELLED, count_only=True) == 9
    assert asked == ["Purge"]
    assert await client.purge(CANCELLED) == 9
    assert asked == ["Purge"] * 4, "4 MiB at most in each of three"
    assert [task async for task in client.list_tasks()] == []
