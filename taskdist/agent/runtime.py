"""The agent's life: fetch when a slot is free, run, report; and its end, the drain.

It takes no more tasks than it has free slots for, so that none waits here while a better one comes
to the distributor (P2). A run ends in one of three ways: with an outcome, which is reported until
the distributor has taken or refused it; with its lease lost, which leaves nothing to say; or handed
back, in a drain.
"""

import asyncio
import random
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import stamina
import structlog

from taskdist.agent.handlers import Handler
from taskdist.agent.heartbeat import Heartbeat, Runner, ThreadRunner
from taskdist.client import Client
from taskdist.core.errors import (
    Exhausted,
    InvalidFields,
    PreconditionFailed,
    Refused,
    TaskNotFound,
    Unavailable,
)
from taskdist.reports import Work
from taskdist.settings import SECOND_US, AgentSettings
from taskdist.signals import Signals

log = structlog.get_logger()

T = TypeVar("T")

SESSION_BYTES = 8
"""Random bytes in the name of a session: no two agents draw the same."""

HAND_BACK_S = 5.0
"""How long a drain tries to hand a task back. If it cannot, the lease runs out by itself."""

# stamina logs each retry with the call's arguments, which here may be a task's data.
stamina.instrumentation.set_on_retry_hooks(())


@dataclass(slots=True)
class _Run:
    """A task in a slot."""

    work: Work
    handling: asyncio.Task[bytes]
    lost: str = ""
    """Why the lease is over, if it is."""
    handed_back: bool = False


class Agent:
    """Works for one distributor until it is told to stop.

    Args:
        agent_id: its name.
        settings: all that can be set.
        handlers: what runs each kind.
        connect: makes a client; called once on each loop that needs one.
        heartbeat_runner: runs the heartbeat; a thread unless given.
    """

    def __init__(
        self,
        agent_id: str,
        settings: AgentSettings,
        handlers: Mapping[str, Handler],
        connect: Callable[[], Client],
        heartbeat_runner: Runner | None = None,
    ) -> None:
        self.agent_id = agent_id
        self._settings = settings
        self._handlers = handlers
        self._client = connect()
        self._loop = asyncio.get_running_loop()
        self._session = secrets.token_hex(SESSION_BYTES)
        self._heartbeat = Heartbeat(agent_id, connect, self._lost_elsewhere)
        self._heartbeat_runner = heartbeat_runner or ThreadRunner()
        self._runs: dict[str, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(settings.slots)
        self._is_away = False
        """Whether the distributor did not answer when last called."""

    async def run(self, signals: Signals) -> bool:
        """Works until the first signal, then drains.

        Returns:
            Whether the drain ran its course; False if a second signal cut it short.

        Raises:
            InvalidFields: the distributor does not accept this agent's name, queues or kinds.
        """
        log.info(
            "agent started",
            agent_id=self.agent_id,
            session=self._session,
            server=self._settings.server,
            slots=self._settings.slots,
            kinds=sorted(self._handlers),
        )
        self._heartbeat_runner.start(self._heartbeat.run)
        fetching = asyncio.ensure_future(self._fetch_and_run())
        try:
            await _first(fetching, signals.asked)
            if fetching.done():
                fetching.result()
            log.info("draining", agent_id=self.agent_id, running=len(self._runs))
            fetching.cancel()
            await asyncio.wait([fetching])
            finished = await self._drain(signals)
        finally:
            fetching.cancel()
            self._heartbeat_runner.stop()
            self._client.close()
        log.info("agent stopped", agent_id=self.agent_id)
        return finished

    async def _drain(self, signals: Signals) -> bool:
        timeout = asyncio.ensure_future(asyncio.sleep(self._settings.drain_timeout_us / SECOND_US))
        while self._tasks:
            finished = asyncio.ensure_future(asyncio.wait(self._tasks))
            await _first(finished, timeout, signals.asked_again)
            if not finished.done():
                break
        timeout.cancel()
        for run in self._runs.values():
            run.handed_back = True
            run.handling.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HAND_BACK_S)
        return not signals.asked_again.done()

    async def _fetch_and_run(self) -> None:
        while True:
            await self._free.acquire()
            try:
                work, since = await self._patiently(self._fetch)
            except BaseException:
                self._free.release()
                raise
            if work is None:
                self._free.release()
                continue
            task = asyncio.ensure_future(self._run(work, since))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fetch(self) -> tuple[Work | None, float]:
        """A task, and since when its lease may run: no earlier than it was asked for."""
        asked_at = self._loop.time()
        work = await self._client.fetch(
            agent_id=self.agent_id,
            session=self._session,
            queues=self._settings.queues,
            kinds=sorted(self._handlers),
            # No long-poll before it is known to be back: it would say so only at its end.
            wait_s=0 if self._is_away else self._settings.wait_us / SECOND_US,
        )
        got_at = self._loop.time()
        waited_long = work is not None and got_at - asked_at > work.lease_s / 3
        return work, got_at if waited_long else asked_at

    # --- one task ---

    async def _run(self, work: Work, since: float) -> None:
        handling = asyncio.ensure_future(self._handle(work))
        run = self._runs[work.lease_id] = _Run(work, handling)
        self._heartbeat.hold(work.lease_id, work.lease_s, since)
        log.info(
            "task started",
            **self._names(work),
            kind=work.kind,
            user_tier=work.user_tier,
            est_processing_time=work.est_processing_time_s,
            sequence=work.sequence,
            retry_count=work.retry_count,
        )
        try:
            await asyncio.wait([handling])
            await self._finish(run)
        finally:
            self._heartbeat.drop(work.lease_id)
            del self._runs[work.lease_id]
            self._free.release()

    async def _handle(self, work: Work) -> bytes:
        limit = asyncio.timeout(work.run_timeout_s)
        try:
            async with limit:
                return await self._handlers[work.kind](work)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"not done within {work.run_timeout_s} s") from error

    async def _finish(self, run: _Run) -> None:
        work = run.work
        if run.lost:
            log.warning("lease lost", **self._names(work), reason=run.lost)
        elif run.handed_back and run.handling.cancelled():
            await self._hand_back(work)
        else:
            await self._report(work, run.handling)

    async def _report(self, work: Work, handling: asyncio.Task[bytes]) -> None:
        """Reports until the distributor has answered: repeating an outcome is safe."""
        error = _error_text(handling)
        result = b"" if error else handling.result()
        try:
            try:
                message = await self._patiently(lambda: self._complete(work, result, error))
            except InvalidFields as refusal:
                # The result cannot be kept, and would not be the next time.
                error = f"the outcome was not accepted: {refusal}"
                message = await self._patiently(lambda: self._complete(work, b"", error))
        except (PreconditionFailed, TaskNotFound) as refusal:
            log.warning("outcome refused", **self._names(work), reason=str(refusal))
            return
        event = "task failed" if error else "task succeeded"
        last_line = {"error": error.strip().rsplit("\n", 1)[-1]} if error else {}
        log.info(event, **self._names(work), message=message, **last_line)

    async def _complete(self, work: Work, result: bytes, error: str) -> str:
        return await self._client.complete(
            task_id=work.task_id,
            agent_id=self.agent_id,
            lease_id=work.lease_id,
            success=not error,
            result=result,
            error=error,
        )

    async def _hand_back(self, work: Work) -> None:
        try:
            async with asyncio.timeout(HAND_BACK_S):
                await self._patiently(
                    lambda: self._client.release(
                        task_id=work.task_id, agent_id=self.agent_id, lease_id=work.lease_id
                    )
                )
        except (Refused, TimeoutError) as reason:
            log.warning("task not handed back", **self._names(work), reason=str(reason))
        else:
            log.info("task handed back", **self._names(work))

    # --- what goes wrong ---

    def _lost_elsewhere(self, lease_id: str, reason: str) -> None:
        """The heartbeat, in its thread, found a lease over."""
        self._loop.call_soon_threadsafe(self._lost, lease_id, reason)

    def _lost(self, lease_id: str, reason: str) -> None:
        """Stops the handler. An outcome that is on its way is the distributor's to judge."""
        run = self._runs.get(lease_id)
        if run is not None and not run.handling.done():
            run.lost = reason
            run.handling.cancel()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Calls until the distributor answers, with pauses that grow and vary."""
        backoff = _Backoff(self._settings)
        async for attempt in stamina.retry_context(on=backoff, attempts=None, timeout=None):
            with attempt:
                try:
                    answer = await call()
                except _Backoff.worth_waiting_for as reason:
                    if attempt.num == 1:
                        log.warning("distributor lost", reason=str(reason))
                    self._is_away = isinstance(reason, Unavailable)
                    raise
                if attempt.num > 1:
                    log.info("distributor back", tries=attempt.num)
                self._is_away = False
                return answer
        raise AssertionError("stamina gave up, which it was told not to")

    def _names(self, work: Work) -> dict[str, object]:
        return {"task_id": work.task_id, "agent_id": self.agent_id, "attempt": work.attempt}


class _Backoff:
    """stamina's pause after an error: doubled each time, up to half of it left to chance.

    stamina's own has no jitter once it has reached its longest pause, and that is where a thousand
    agents would meet.
    """

    worth_waiting_for = (Unavailable, Exhausted)

    def __init__(self, settings: AgentSettings) -> None:
        self._pause_s = settings.backoff_us / SECOND_US
        self._longest_s = settings.backoff_max_us / SECOND_US

    def __call__(self, error: Exception) -> float | bool:
        if not isinstance(error, self.worth_waiting_for):
            return False
        pause_s = min(self._pause_s, self._longest_s)
        self._pause_s *= 2
        return random.uniform(pause_s / 2, pause_s)


def _error_text(handling: asyncio.Task[bytes]) -> str:
    """What went wrong, with its traceback; nothing if nothing did."""
    if handling.cancelled():
        return "the handler cancelled itself"
    error = handling.exception()
    return "".join(traceback.format_exception(error)) if error else ""


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
