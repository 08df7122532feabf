"""A distributor that stops: who waits is answered, what is under way ends, the store is closed."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from structlog.testing import capture_logs

from taskdist.backends.protocol import Backend, Listener
from taskdist.client import Stub
from taskdist.core import commands
from taskdist.core.commands import Command
from taskdist.core.errors import Unavailable
from taskdist.core.queries import Query
from taskdist.core.task import TaskState
from taskdist.distributor.server import Distributor, bind
from taskdist.limits import DATA_BYTES_MAX
from taskdist.reports import Submitted
from taskdist.settings import DistributorSettings
from taskdist.wire import messages as wire
from tests.distributor.story import NO_TASK, health, now, submit, succeed, take
from tests.support.channel import MemoryChannel, connect, distributor_channel, embedded


class SlowBackend:
    """A backend whose submits take as long as the test wants."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.go_on = asyncio.Event()
        self.is_open = False

    async def open(self, listener: Listener) -> None:
        await self._inner.open(listener)
        self.is_open = True

    async def apply(self, command: Command[Any]) -> Any:
        if isinstance(command, commands.Submit):
            await self.go_on.wait()
        return await self._inner.apply(command)

    async def read(self, query: Query[Any]) -> Any:
        return await self._inner.read(query)

    async def close(self) -> None:
        await self._inner.close()
        self.is_open = False


def slow_backend() -> SlowBackend:
    return SlowBackend(embedded(DistributorSettings(store="memory:")))


async def ended(distributor: Distributor, grace_s: float) -> float:
    """Stops it; how long that took."""
    began = now()
    await distributor.stop(grace_s)
    return now() - began


@pytest.mark.virtual_time
async def test_a_stop_with_nothing_to_wait_for_takes_no_time(
    client: Stub, distributor: Distributor
) -> None:
    await submit(client)
    assert await ended(distributor, 10) == 0
    with pytest.raises(Unavailable):
        await client.get(NO_TASK)


@pytest.mark.virtual_time
async def test_long_polls_are_answered_empty_at_once(
    client: Stub, distributor: Distributor
) -> None:
    clients = [connect(distributor) for _ in range(3)]
    polls = [
        asyncio.create_task(one.fetch(agent_id="agent-1", wait_s=60)) for one in [client, *clients]
    ]
    await asyncio.sleep(1)
    assert await ended(distributor, 10) == 0
    assert await asyncio.gather(*polls) == [None] * 4
    for one in clients:
        one.close()


@pytest.mark.virtual_time
async def test_p1_a_submit_in_the_moment_of_the_stop_is_kept_or_refused_and_breaks_nothing() -> (
    None
):
    """It shares the last commit with the stop, while an agent waits for just this task."""
    backend = slow_backend()
    async with distributor_channel(backend=backend) as (client, distributor):
        poll = asyncio.create_task(client.fetch(agent_id="agent-1", wait_s=60))
        submitting = asyncio.create_task(submit(client))
        await asyncio.sleep(1)
        backend.go_on.set()
        assert await ended(distributor, 10) == 0
        assert await poll is None
        assert await submitting
        assert not distributor.failure.done()


@pytest.mark.virtual_time
async def test_a_call_under_way_ends_well() -> None:
    backend = slow_backend()
    async with distributor_channel(backend=backend) as (client, distributor):
        submitting = asyncio.create_task(
            client.submit(user_tier="paid", est_processing_time_s=1, queue="a")
        )
        await asyncio.sleep(1)
        stopping = asyncio.create_task(ended(distributor, 10))
        await asyncio.sleep(3)
        assert not stopping.done()
        assert backend.is_open
        backend.go_on.set()
        placed = await submitting
        assert isinstance(placed, Submitted)
        assert placed.state is TaskState.READY
        assert await stopping == pytest.approx(3)
        assert not backend.is_open


@pytest.mark.virtual_time
async def test_an_agent_may_report_while_the_distributor_waits_for_others() -> None:
    backend = slow_backend()
    async with distributor_channel(backend=backend) as (client, distributor):
        backend.go_on.set()
        await submit(client)
        work = await take(client)
        backend.go_on.clear()
        submitting = asyncio.create_task(submit(client))
        await asyncio.sleep(1)
        stopping = asyncio.create_task(ended(distributor, 10))
        await asyncio.sleep(1)
        assert await client.heartbeat(agent_id="agent-1", lease_ids=[work.lease_id])
        await succeed(client, work)
        with pytest.raises(Unavailable, match="the distributor is stopping"):
            await client.fetch(agent_id="agent-1", wait_s=60)
        backend.go_on.set()
        await asyncio.gather(submitting, stopping)


@pytest.mark.virtual_time
async def test_p7_a_call_that_outlasts_the_grace_is_cut_off() -> None:
    backend = slow_backend()
    async with distributor_channel(backend=backend) as (client, distributor):
        submitting = asyncio.create_task(submit(client))
        await asyncio.sleep(1)
        with capture_logs() as logs:
            assert await ended(distributor, 10) == pytest.approx(10)
        with pytest.raises(Unavailable, match="the connection was lost"):
            await submitting
        assert logs == [
            {"event": "calls cut off", "count": 1, "grace_s": 10, "log_level": "warning"}
        ]
        assert not backend.is_open


@pytest.mark.virtual_time
async def test_p7_clients_that_stay_and_do_nothing_hold_up_no_stop(
    client: Stub, distributor: Distributor
) -> None:
    """Idle, half a request, an answer not read, a health watch, a reflection stream."""
    await submit(client, data=b"x" * DATA_BYTES_MAX)
    async with connect(distributor) as idle, MemoryChannel(distributor.server) as channel:
        await idle.ping()
        calls = [
            asyncio.create_task(linger(channel, *call))
            for call in (
                ("/taskdist.v1.TaskDistributor/SubmitTask", []),
                (
                    "/taskdist.v1.TaskDistributor/FetchTask",
                    [wire.FetchTaskRequest(agent_id="agent-1")],
                ),
                ("/grpc.health.v1.Health/Watch", [HealthCheckRequest()]),
                ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", []),
            )
        ]
        await asyncio.sleep(1)
        assert await ended(distributor, 10) == pytest.approx(10)
        for call in calls:
            with pytest.raises(StreamTerminatedError):
                await call


async def linger(channel: Channel, path: str, requests: Sequence[Any]) -> None:
    """Begins a call and then neither sends nor reads."""
    request_type = type(requests[0]) if requests else wire.PingRequest
    async with channel.request(
        path, Cardinality.STREAM_STREAM, request_type, wire.PingResponse
    ) as stream:
        await stream.send_request()
        for request in requests:
            await stream.send_message(request)
        await asyncio.sleep(30)
        await stream.recv_message()


@pytest.mark.virtual_time
async def test_health_says_that_it_stops() -> None:
    backend = slow_backend()
    async with distributor_channel(backend=backend) as (client, distributor):
        serving = HealthCheckResponse.SERVING
        async with MemoryChannel(distributor.server) as channel:
            assert await health(channel) == serving
            submitting = asyncio.create_task(submit(client))
            await asyncio.sleep(1)
            stopping = asyncio.create_task(distributor.stop(10))
            await asyncio.sleep(1)
            assert await health(channel) == HealthCheckResponse.NOT_SERVING
            backend.go_on.set()
            await asyncio.gather(submitting, stopping)


@pytest.mark.virtual_time
async def test_a_lease_that_is_cut_off_before_it_is_heard_of_is_undone_before_the_end(
    tmp_path: Path,
) -> None:
    """The next distributor on this store finds the task as if nobody had had it."""
    settings = DistributorSettings(store=f"sqlite:{tmp_path}/tasks.db")
    async with distributor_channel(settings) as (client, distributor):
        task_id = await submit(client, data=b"x" * DATA_BYTES_MAX)
        async with MemoryChannel(distributor.server) as channel:
            request = wire.FetchTaskRequest(agent_id="agent-1")
            path = "/taskdist.v1.TaskDistributor/FetchTask"
            call = asyncio.create_task(linger(channel, path, [request]))
            await asyncio.sleep(1)
            assert (await client.get(task_id)).state is TaskState.LEASED
            await distributor.stop(1)
            with pytest.raises(StreamTerminatedError):
                await call
    async with distributor_channel(settings) as (client, _):
        task = await client.get(task_id)
        assert (task.state, task.attempt) == (TaskState.READY, 0)


# --- on a real socket, in real time --------------------------------------------------------------


async def test_a_stop_on_a_real_socket_with_a_store_in_a_file(tmp_path: Path) -> None:
    """Clients stay connected; the port is free and the store closed afterwards."""
    settings = DistributorSettings(listen="127.0.0.1:0", store=f"sqlite:{tmp_path}/tasks.db")
    distributor = Distributor(settings)
    await distributor.open()
    sock = bind(settings)
    await distributor.listen(sock)
    host, port = sock.getsockname()
    async with Stub(f"{host}:{port}") as client, Stub(f"{host}:{port}") as agent:
        task_id = await submit(client, queue="other")
        poll = asyncio.create_task(agent.fetch(agent_id="agent-1", wait_s=60))
        watching = asyncio.create_task(watched(client, task_id))
        for one in (client, agent, client, agent):  # once to connect, once behind those calls
            await one.ping()
        assert await ended(distributor, 10) < 5
        assert await poll is None
        with pytest.raises(Unavailable):
            await watching
        with pytest.raises(Unavailable, match="connection refused"):
            await client.ping()

    next_one = Distributor(DistributorSettings(listen=f"127.0.0.1:{port}", store=settings.store))
    await next_one.open()
    await next_one.listen(bind(next_one.settings))
    async with Stub(f"{host}:{port}") as client:
        assert (await client.get(task_id)).state is TaskState.READY
    await next_one.stop(10)


async def watched(client: Stub, task_id: str) -> list[TaskState]:
    return [report.state async for report in client.watch(task_id)]
