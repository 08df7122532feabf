"""What the stories in these tests are told with: short verbs around the client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from taskdist.client import Stub
from taskdist.core.errors import InvalidFields
from taskdist.core.task import TaskState
from taskdist.reports import TaskReport, Work

NO_TASK = "0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00"
"""An id that no task has, and that a client may give to one."""


def now() -> float:
    """The event loop's clock, seconds."""
    return asyncio.get_running_loop().time()


async def submit(client: Stub, tier: str = "paid", seconds: float = 1, **more: Any) -> str:
    """Submits a task, by default a paid one of a second; its id."""
    placed = await client.submit(user_tier=tier, est_processing_time_s=seconds, **more)
    return placed.task_id


async def take(client: Stub, agent_id: str = "agent-1", **more: Any) -> Work:
    """Fetches a task, which there must be."""
    work = await client.fetch(agent_id=agent_id, **more)
    assert work is not None
    return work


async def succeed(client: Stub, work: Work, agent_id: str = "agent-1", **more: Any) -> str:
    """Reports a success."""
    return await client.complete(
        task_id=work.task_id, agent_id=agent_id, lease_id=work.lease_id, success=True, **more
    )


async def fail(client: Stub, work: Work, agent_id: str = "agent-1", **more: Any) -> str:
    """Reports a failure."""
    return await client.complete(
        task_id=work.task_id, agent_id=agent_id, lease_id=work.lease_id, success=False, **more
    )


async def release(client: Stub, work: Work, agent_id: str = "agent-1") -> TaskState:
    """Hands a task back."""
    return await client.release(task_id=work.task_id, agent_id=agent_id, lease_id=work.lease_id)


async def everything(client: Stub) -> list[TaskReport]:
    """All that can be seen: every task with its position, result, errors and attempts."""
    return [await client.get(task.task_id) async for task in client.list_tasks()]


@asynccontextmanager
async def nothing_changes(client: Stub) -> AsyncIterator[None]:
    """Whatever is refused inside has left no trace (P7)."""
    before = await everything(client)
    assert before, "a story in which there is nothing to change proves nothing"
    yield
    assert await everything(client) == before


def bad_fields(refusal: InvalidFields) -> set[str]:
    """The fields that a refusal names."""
    return {bad.field for bad in refusal.fields}


async def health(channel: Channel) -> int:
    """What the health service says of all."""
    async with channel.request(
        "/grpc.health.v1.Health/Check",
        Cardinality.UNARY_UNARY,
        HealthCheckRequest,
        HealthCheckResponse,
    ) as stream:
        await stream.send_message(HealthCheckRequest())
        answer = await stream.recv_message()
    assert answer is not None
    return answer.status
