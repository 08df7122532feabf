"""P6 as callers see it: after the store fails nothing is acknowledged; a full disk only refuses."""

import asyncio

import apsw
import pytest
from grpclib.health.v1.health_pb2 import HealthCheckResponse

from taskdist.backends.embedded import EmbeddedBackend
from taskdist.core.errors import Exhausted, StoreFailed, Unavailable
from taskdist.core.task import TaskState
from taskdist.distributor import server
from taskdist.limits import DATA_BYTES_MAX
from taskdist.settings import DistributorSettings
from tests.distributor.story import everything, health, nothing_changes, now, submit, succeed, take
from tests.support.agents import Asked
from tests.support.channel import MemoryChannel, distributor_channel, embedded

SETTINGS = DistributorSettings(store="memory:")


def connection(backend: EmbeddedBackend) -> apsw.Connection:
    """Where the backend writes to."""
    return backend._writer._journal.connection


@pytest.mark.virtual_time
async def test_p6_after_the_store_failed_nothing_is_acknowledged() -> None:
    backend = embedded(SETTINGS)
    async with distributor_channel(SETTINGS, backend) as (client, distributor):
        await submit(client)
        work = await take(client)
        poll = asyncio.create_task(client.fetch(agent_id="agent-2", wait_s=60))
        await asyncio.sleep(1)
        connection(backend).execute("DROP TABLE data")
        with pytest.raises(Unavailable, match="the store failed"):
            await submit(client)

        failed_at = now()
        for call in (
            poll,
            succeed(client, work),
            client.heartbeat(agent_id="agent-1", lease_ids=[work.lease_id]),
            client.fetch(agent_id="agent-1"),
            client.get(work.task_id),
            client.cancel(work.task_id),
            anext(client.list_tasks()),
            anext(client.watch(work.task_id)),
        ):
            with pytest.raises(Unavailable, match="the store failed"):
                await call
        assert now() == failed_at

        await client.ping()  # touches no store
        async with MemoryChannel(distributor.server) as channel:
            assert await health(channel) == HealthCheckResponse.NOT_SERVING
        assert isinstance(distributor.failure.result(), StoreFailed)
        await distributor.stop(0)


@pytest.mark.virtual_time
async def test_p6_a_full_disk_refuses_what_needs_room_and_takes_what_ends() -> None:
    backend = embedded(SETTINGS)
    async with distributor_channel(SETTINGS, backend) as (client, distributor):
        await submit(client)
        work = await take(client)
        journal = connection(backend)
        journal.pragma("max_page_count", journal.pragma("page_count") + 2)
        async with nothing_changes(client):
            for _ in range(3):
                with pytest.raises(Exhausted, match="the disk of the distributor's store is full"):
                    await submit(client, data=b"x" * DATA_BYTES_MAX)
        await succeed(client, work)
        assert not distributor.failure.done()

        journal.pragma("max_page_count", 1 << 30)
        task_id = await submit(client, data=b"x" * DATA_BYTES_MAX)
        states = {task.task_id: task.state for task in await everything(client)}
        assert states == {work.task_id: TaskState.SUCCEEDED, task_id: TaskState.READY}


async def test_p6_a_store_that_fails_during_the_stop_is_why_the_process_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not the calls that were refused for it: the exit code is 74."""
    signals = Asked()
    monkeypatch.setattr(server, "Signals", lambda: signals)

    async def close(backend: EmbeddedBackend) -> None:
        backend._fail(apsw.IOError("a disk that is gone"))
        await backend._runner.finished()
        raise Unavailable("the store failed")

    monkeypatch.setattr(EmbeddedBackend, "close", close)
    signals.terminate()
    with pytest.raises(StoreFailed, match="a disk that is gone"):
        await server.serve(DistributorSettings(listen="127.0.0.1:0", store="memory:"))
