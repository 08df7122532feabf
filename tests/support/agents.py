"""Agents for tests: one played by the test itself, and a distributor to run a real one against."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from taskdist.agent.context import Context
from taskdist.agent.heartbeat import TaskRunner
from taskdist.agent.registry import Registry
from taskdist.agent.runtime import Agent
from taskdist.client import Stub
from taskdist.client.connection import SERVICE
from taskdist.core.errors import Unavailable
from taskdist.distributor.server import Distributor
from taskdist.reports import TaskReport, Work
from taskdist.settings import AgentSettings, DistributorSettings
from taskdist.signals import Signals
from tests.support.channel import MemoryChannel, distributor_channel

R = TypeVar("R")

End = Callable[[Stub, Work], Awaitable[object]]
"""What a played agent does with its task."""

Handler = Callable[[Work], Awaitable[bytes]]
"""What runs `simulate` in a test."""

NAME = "played"
WAIT_S = 20
PLAY_S = 3_000
"""How long a play may take, in virtual time: a second or so."""


@contextmanager
def agent_that(end: End, *, server: str, queue: str) -> Iterator[None]:
    """Beside the block, in a thread, an agent takes one task from this queue and ends it so."""

    async def play() -> None:
        async with Stub(server) as client:
            work = await client.fetch(agent_id=NAME, queues=[queue], wait_s=WAIT_S)
            assert work is not None, f"no task came in queue {queue}"
            await end(client, work)

    with ThreadPoolExecutor(1) as thread:
        played = thread.submit(asyncio.run, play())
        yield
        played.result()


def succeeds(result: bytes) -> End:
    """It succeeds with this result."""
    return lambda client, work: client.complete(
        task_id=work.task_id, agent_id=NAME, lease_id=work.lease_id, success=True, result=result
    )


def fails(error: str) -> End:
    """It fails with this error."""
    return lambda client, work: client.complete(
        task_id=work.task_id, agent_id=NAME, lease_id=work.lease_id, success=False, error=error
    )


async def cancels(client: Stub, work: Work) -> None:
    """Somebody cancels the task while it runs."""
    await client.cancel(work.task_id)


# --- a real agent, in the same event loop as a real distributor --------------------------------


class Call(NamedTuple):
    """A call of an agent."""

    method: str
    at: float
    """When it was sent, by the loop's clock."""
    request: Any


class Network:
    """What lies between agents and a distributor: notes every call, and can break.

    Attributes:
        broken: methods whose calls fail at once, as if the connection were refused.
        silent: methods whose calls are never answered.
        deaf: methods whose calls arrive, while the answer is lost.
        odd: methods whose calls fail as nobody expects.
    """

    def __init__(self, distributor: Distributor) -> None:
        self.distributor = distributor
        self._clients: list[_NotedStub] = []
        self.calls: list[Call] = []
        self.broken: set[str] = set()
        self.silent: set[str] = set()
        self.deaf: set[str] = set()
        self.odd: set[str] = set()
        self._news = asyncio.Event()

    def connect(self) -> Stub:
        """A client on a connection of its own."""
        self._clients.append(_NotedStub(self))
        return self._clients[-1]

    def move_to(self, distributor: Distributor) -> None:
        """Cuts all connections; they lead to another distributor from now on."""
        self.distributor = distributor
        for client in self._clients:
            client.move()

    def times(self, method: str) -> list[float]:
        """When calls of this method were sent."""
        return [call.at for call in self.calls if call.method == method]

    async def wait_for_calls(self, method: str, count: int) -> None:
        """Returns once so many calls of this method were sent."""
        while len(self.times(method)) < count:
            self._news.clear()
            await self._news.wait()

    def note(self, method: str, request: Any) -> None:
        """A call is sent."""
        self.calls.append(Call(method, asyncio.get_running_loop().time(), request))
        self._news.set()


class _NotedStub(Stub):
    def __init__(self, network: Network) -> None:
        super().__init__(
            "in memory", channel=MemoryChannel(network.distributor.server), batching=False
        )
        self._network = network

    def move(self) -> None:
        """Loses the connection, and has one to wherever the network leads now."""
        self._channel.close()
        self._channel = MemoryChannel(self._network.distributor.server)

    async def _call(
        self,
        method: str,
        request: Any,
        response: type[R],
        timeout_s: float | None = None,
        service: str = SERVICE,
    ) -> R:
        network = self._network
        network.note(method, request)
        if method in network.broken:
            raise Unavailable("connection refused")
        if method in network.odd:
            raise GRPCError(Status.UNKNOWN, "Internal Server Error")
        if method in network.silent:
            await asyncio.sleep(self._timeout_s if timeout_s is None else timeout_s)
            raise Unavailable("no answer in time")
        answer = await super()._call(method, request, response, timeout_s, service)
        if method in network.deaf:
            raise Unavailable("the connection was lost")
        return answer


class Asked(Signals):
    """Signals that a test gives by hand."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked = loop.create_future()
        self.asked_again = loop.create_future()

    def terminate(self) -> None:
        """SIGTERM."""
        self._caught(signal.SIGTERM)


def simulated_by(handler: Handler) -> Registry:
    """A registry in which this runs `simulate`."""
    registry = Registry()

    @registry.handler
    async def simulate(_: bytes, ctx: Context) -> bytes:
        return await handler(ctx.task)

    return registry


class Stage:
    """A distributor, a client of it, and agents that come on."""

    unary = False
    """Whether agents use FetchTask. Every test of tests/agent runs over Work and over FetchTask."""

    def __init__(self, client: Stub, distributor: Distributor) -> None:
        self.client = client
        self.network = Network(distributor)
        self.signals = Asked()
        self._agents: list[asyncio.Task[bool]] = []
        self.runners: list[Agent] = []
        """Those that came on."""

    def agent(
        self, handler: Handler | Registry, *, name: str = "agent-1", **settings: object
    ) -> "asyncio.Task[bool]":
        """Starts an agent that runs `simulate` with this handler, or what is in this registry; what
        its `run` returns."""
        runner = Agent(
            name,
            AgentSettings.model_validate({"unary": Stage.unary, **settings}),
            handler if isinstance(handler, Registry) else simulated_by(handler),
            self.network.connect,
            TaskRunner(),
        )
        self.runners.append(runner)
        self._agents.append(asyncio.ensure_future(runner.run(self.signals)))
        return self._agents[-1]

    async def submit(self, user_tier: str = "free", est_s: float = 1, **more: Any) -> str:
        """Submits a task; its id."""
        submitted = await self.client.submit(
            user_tier=user_tier, est_processing_time_s=est_s, **more
        )
        return submitted.task_id

    async def final(self, task_id: str) -> TaskReport:
        """A task as soon as it is final."""
        async for _ in self.client.watch(task_id):
            pass
        return await self.client.get(task_id)

    async def leave(self) -> None:
        """All agents are gone, as if killed."""
        for agent in self._agents:
            agent.cancel()
        await asyncio.gather(*self._agents, return_exceptions=True)


@asynccontextmanager
async def stage(**settings: object) -> AsyncIterator[Stage]:
    """A distributor with these settings, in memory."""
    chosen = DistributorSettings.model_validate({"store": "memory:", **settings})
    async with distributor_channel(chosen) as (client, distributor):
        played = Stage(client, distributor)
        try:
            async with asyncio.timeout(PLAY_S):
                yield played
        finally:
            await played.leave()
