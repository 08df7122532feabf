"""A whole taskdist in a test: distributor, agents and a client in the test's own event loop.

All are the real ones. The distributor keeps its tasks in memory, connections are in memory too, and
time is that of the loop: on a virtual one a minute of backoff passes at once.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import looptime

from taskdist.agent.heartbeat import TaskRunner
from taskdist.agent.registry import Registry
from taskdist.agent.runtime import Agent
from taskdist.client.async_client import AsyncClient
from taskdist.core.errors import Unavailable
from taskdist.distributor.server import Distributor
from taskdist.settings import AgentSettings, DistributorSettings
from taskdist.signals import Signals
from taskdist.testing.memory import connect, embedded

IDLE_TURNS = 10
"""Turns of a loop in which nothing happens, before its virtual clock jumps to what is due next: so
that all that one event leads to has happened by then. A chain of calls in memory takes three."""


@contextmanager
def virtual_time() -> Iterator[None]:
    """Within it the running loop's clock jumps to whatever is due next; it does not wait.

    While a thread works that was started by `run_in_executor`, time passes as outside.

    Raises:
        RuntimeError: the loop is none of asyncio's own, such as uvloop's.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        raise RuntimeError(
            f"virtual time needs asyncio's own event loop; this is {type(loop).__name__}"
        )
    if getattr(loop, "looptime_on", False):
        yield  # It is virtual already.
        return
    virtual = looptime.patch_event_loop(loop, start=loop.time(), noop_cycles=IDLE_TURNS)
    virtual.setup_looptime(start=loop.time(), noop_cycles=IDLE_TURNS, _enabled=True)
    try:
        yield
    finally:
        virtual.setup_looptime(_enabled=False)


class Playground:
    """A distributor, a client of it, and agents that come and go.

    Args:
        settings: the distributor's, in the words of its flags: lease="5s".

    Attributes:
        client: submits tasks and waits for them.
        distributor: the real one.
    """

    client: AsyncClient
    distributor: Distributor

    def __init__(self, **settings: Any) -> None:
        self._settings = DistributorSettings.load({"store": "memory:", **settings}, environ={})
        self._agents: list[PlayedAgent] = []

    async def __aenter__(self) -> Self:
        self.distributor = Distributor(self._settings, embedded(self._settings))
        await self.distributor.open()
        self.client = AsyncClient(connect=lambda: connect(self.distributor))
        return self

    async def __aexit__(self, *error: object) -> None:
        for agent in self._agents:
            await agent.kill()
        self.client.close()
        with suppress(Unavailable):  # The test has stopped it.
            await self.distributor.stop(0)
        for agent in self._agents:
            agent.check()

    def agent(self, registry: Registry, name: str = "agent-1", **settings: Any) -> "PlayedAgent":
        """Starts an agent.

        Args:
            registry: what it runs.
            name: its name in histories.
            settings: an agent's, in the words of its flags: slots=4.
        """
        runner = Agent(
            name,
            AgentSettings.load(settings, environ={}),
            registry,
            lambda: connect(self.distributor),
            TaskRunner(),
        )
        # What waits for an agent that has failed would wait for ever.
        self._agents.append(PlayedAgent(runner, self.client.close))
        return self._agents[-1]


class PlayedAgent:
    """A real agent in a playground. Made by `Playground.agent`."""

    def __init__(self, agent: Agent, failed: Callable[[], None]) -> None:
        self._signals = _Given()
        self._failed = failed
        self._error: Exception | None = None
        """Why it ended, until the test was told."""
        self._running = asyncio.ensure_future(self._run(agent))

    async def _run(self, agent: Agent) -> None:
        try:
            await agent.run(self._signals)
        except Exception as error:
            self._error = error
            self._failed()

    def check(self) -> None:
        """Raises why it ended by itself, if it did and nobody was told: such as a hook that failed,
        or a command that does not exist."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def stop(self) -> None:
        """As SIGTERM does: it takes no more, finishes what it runs, or hands it back in the end.
        Raises what `check` does."""
        self._signals.give(signal.SIGTERM)
        await self._running
        self.check()

    async def kill(self) -> None:
        """As SIGKILL does: it is gone without a word, and its leases run out."""
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({self._running})


class _Given(Signals):
    """Signals that come from the test instead of the system."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked = loop.create_future()
        self.asked_again = loop.create_future()

    def give(self, received: signal.Signals) -> None:
        """This one has come."""
        self._caught(received)
