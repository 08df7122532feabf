"""Keeps leases alive, from a thread and a connection of its own, so that neither a busy event loop
nor a large result in transit costs a lease.

A lease is renewed at each third of its term, counted from when a request was *sent*: by then the
distributor cannot have begun the term any later. One that could not be renewed for a whole term is
given up here, before the distributor may give it to another agent; or, if it is told so, never.
"""

import asyncio
import math
import random
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from taskdist.client import Stub
from taskdist.core.errors import Refused
from taskdist.limits import HEARTBEAT_LEASES_MAX

log = structlog.get_logger()

BEATS_PER_TERM = 3
"""Two may be lost without harm, and a restart may take two thirds of a lease."""

TRIES_PER_BEAT = 5
"""How often a failed beat is tried again before the next would be due: quick to find a restart."""

PAUSE_MIN_S = 0.01
"""The shortest pause between two such tries."""

CLOCK_STEP_S = 0.001
"""A timer may end by so much too early."""

CANCEL_AGAIN_S = 0.1
"""How long a heartbeat that was cancelled is waited for before it is cancelled again."""

GIVEN_UP = "it could not be renewed in time"
"""Why a lease is given up here, when the distributor has not said that it is over."""

Lost = Callable[[str, str], None]
"""Told of a lease that is over: its id, and why. Called on the heartbeat's own loop."""


@dataclass(slots=True)
class _Held:
    lease_s: float
    renewed_at: float
    """When the last request that renewed it was sent, by the loop's clock."""
    is_given_up: bool
    """Whether it is given up when it could not be renewed for a term."""

    @property
    def due_at(self) -> float:
        return self.renewed_at + self.lease_s / BEATS_PER_TERM

    @property
    def over_at(self) -> float:
        return self.renewed_at + self.lease_s if self.is_given_up else math.inf


class Heartbeat:
    """The leases of one agent.

    Args:
        agent_id: the agent.
        connect: makes the client; called on the loop on which `run` runs.
        lost: told of leases that are over.
        gives_up: whether a lease that could not be renewed for a term is over. If not, it is tried
            for until the distributor says so.
    """

    def __init__(
        self, agent_id: str, connect: Callable[[], Stub], lost: Lost, *, gives_up: bool = True
    ) -> None:
        self._agent_id = agent_id
        self._connect = connect
        self._lost = lost
        self._gives_up = gives_up
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._asleep_until: float | None = None
        """When it looks at the leases next, by the loop's clock; None: when it is woken."""

    def hold(self, lease_id: str, lease_s: float, since: float) -> None:
        """Keeps a lease alive from now on. May be called from any thread.

        Args:
            since: when the request that got it was sent, by the clock of asyncio's loops.
        """
        held = _Held(lease_s, since, self._gives_up)
        with self._lock:
            self._held[lease_id] = held
        # Waking costs a system call, and most leases are over before their first beat.
        if self._asleep_until is None or held.due_at < self._asleep_until:
            self._wake()

    def drop(self, lease_id: str) -> None:
        """Lets a lease be; it has ended. May be called from any thread."""
        with self._lock:
            self._held.pop(lease_id, None)

    def left_s(self, lease_id: str) -> float:
        """Until a lease is over if it is not renewed from now on; 0 if it is not held."""
        with self._lock:
            held = self._held.get(lease_id)
        if held is None or self._loop is None:
            return 0.0
        return max(0.0, held.renewed_at + held.lease_s - self._loop.time())

    async def run(self) -> None:
        """Beats until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        client = self._connect()
        try:
            while True:
                await self._sleep_until_due()
                self._give_up_what_is_over()
                if not await self._beat(client):
                    await asyncio.sleep(self._pause_s())
        finally:
            client.close()

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def _sleep_until_due(self) -> None:
        assert self._loop is not None
        while True:
            held = self._snapshot()
            if held:
                left = min(lease.due_at for lease in held.values()) - self._loop.time()
                if left <= CLOCK_STEP_S:
                    return
            else:
                left = None
            self._asleep_until = None if left is None else self._loop.time() + left
            self._news.clear()
            with suppress(TimeoutError):  # Then what it waited for is due, or over by now.
                await asyncio.wait_for(self._news.wait(), left)

    async def _beat(self, client: Stub) -> bool:
        """One heartbeat for all that is held; False if the distributor did not answer."""
        assert self._loop is not None
        held = self._snapshot()
        lease_ids = list(held)
        for start in range(0, len(lease_ids), HEARTBEAT_LEASES_MAX):
            part = lease_ids[start : start + HEARTBEAT_LEASES_MAX]
            timeout_s = min(held[lease_id].lease_s for lease_id in part) / BEATS_PER_TERM
            timeout_s = min(timeout_s, self._left_s())
            sent_at = self._loop.time()
            try:
                alive = await client.heartbeat(
                    agent_id=self._agent_id, lease_ids=part, timeout_s=timeout_s
                )
            except Exception as reason:  # Whatever it is, without beats every lease would be lost.
                text = str(reason) if isinstance(reason, Refused) else repr(reason)
                log.warning("heartbeat failed", reason=text, leases=len(part))
                return False
            self._note(part, alive, sent_at)
        return True

    def _note(self, asked: list[str], alive: frozenset[str], sent_at: float) -> None:
        for lease_id in asked:
            with self._lock:
                held = self._held.get(lease_id)
                if held is None:
                    continue
                if lease_id in alive:
                    held.renewed_at = sent_at
                    continue
                del self._held[lease_id]
            self._lost(lease_id, "the distributor says that it is over")

    def _give_up_what_is_over(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for lease_id, held in self._snapshot().items():
            if held.over_at <= now:
                self.drop(lease_id)
                self._lost(lease_id, GIVEN_UP)

    def _pause_s(self) -> float:
        """Before a failed beat is tried again: a fraction of the time between two, with jitter.

        Shorter towards the end of a lease, so that a distributor that is back just before it is
        found in time.
        """
        held = self._snapshot().values()
        lease_s = min((lease.lease_s for lease in held), default=1.0)
        pause_s = lease_s / BEATS_PER_TERM / TRIES_PER_BEAT * random.uniform(0.5, 1.0)
        left_s = self._left_s()
        return min(pause_s, left_s, max(left_s / 2, PAUSE_MIN_S))

    def _left_s(self) -> float:
        """Until the first lease is over, and has to be given up, whatever is being waited for."""
        assert self._loop is not None
        over_at = min((lease.over_at for lease in self._snapshot().values()), default=math.inf)
        return max(0.0, over_at - self._loop.time())

    def _snapshot(self) -> dict[str, _Held]:
        with self._lock:
            return dict(self._held)


class Runner(Protocol):
    """Runs a coroutine until it is stopped."""

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins."""

    def stop(self) -> None:
        """Cancels it."""


class ThreadRunner:
    """Runs it on a loop of its own in a thread of its own: in production."""

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins, and returns once the loop is there."""
        ready = threading.Event()

        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.ensure_future(work())
            ready.set()
            await asyncio.wait([self._task])
            if not self._task.cancelled() and (error := self._task.exception()):
                log.error("heartbeat died", exc_info=error)

        self._thread = threading.Thread(
            target=asyncio.run, args=(run(),), name="heartbeat", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Cancels it and waits for the thread. More than once, if need be: a cancel in the instant
        in which a call's time is up is taken for that, and forgotten."""
        while self._thread.is_alive():
            with suppress(RuntimeError):  # The loop is closed; the thread is about to end.
                self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(CANCEL_AGAIN_S)


class TaskRunner:
    """Runs it as a task of the running loop: under a virtual clock."""

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins at the loop's next turn."""
        self._task = asyncio.ensure_future(work())

    def stop(self) -> None:
        """Cancels it."""
        self._task.cancel()
