"""The agent's life: tasks come from a feed, are run and reported; and its end, the drain.

It takes no more tasks than it has free slots for, so that none waits here while a better one comes
to the distributor (P2). A run ends in one of three ways: with an outcome, which is reported until
the distributor has taken or refused it; with its lease lost, which leaves nothing to say; or handed
back, in a drain.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from taskdist.agent import hooks
from taskdist.agent.context import Context
from taskdist.agent.execution import Execution
from taskdist.agent.feeds import Feed, Streaming, patiently
from taskdist.agent.fetching import Fetching
from taskdist.agent.handlers import Failed, check_size, end_of, failure
from taskdist.agent.heartbeat import GIVEN_UP, Heartbeat, Runner, ThreadRunner
from taskdist.agent.idle import Idleness
from taskdist.agent.registry import Registry
from taskdist.agent.sink import BoundedSink
from taskdist.client import Stub
from taskdist.core.errors import (
    InvalidFields,
    PreconditionFailed,
    Refused,
    TaskNotFound,
    Unsupported,
)
from taskdist.limits import SECOND_US
from taskdist.reports import Remarks, Report, Work, gist
from taskdist.settings import AgentSettings
from taskdist.signals import Signals

log = structlog.get_logger()

SESSION_BYTES = 8
"""Random bytes in the name of a session: no two agents draw the same."""

GIVEN_UP_HAND_BACK_S = 3_600.0
"""How long it tries to hand back a task whose lease it gave up while the distributor was away."""

HAND_BACK_S = 5.0
"""How long a drain tries to hand a task back. If it cannot, the lease runs out by itself."""


@dataclass(slots=True)
class _Run:
    """A task in a slot."""

    work: Work
    task: asyncio.Task[None]
    is_handling: bool = True
    """Its handler runs; after that it is being reported."""
    lost: str = ""
    """Why the lease is over, if it is."""
    handed_back: bool = False
    timed_out: bool = False

    def time_out(self) -> None:
        """It took too long."""
        self.timed_out = True
        self.stop()

    def stop(self) -> None:
        """Stops the handler. An outcome that is on its way is the distributor's to judge."""
        if self.is_handling:
            self.task.cancel()


class Agent:
    """Works for one distributor until it is told to stop. Also its feed's desk.

    Args:
        agent_id: its name.
        settings: all that can be set.
        registry: what it can run.
        connect: makes a client; called once on each loop that needs one.
        heartbeat_runner: runs the heartbeat; a thread unless given.
    """

    def __init__(
        self,
        agent_id: str,
        settings: AgentSettings,
        registry: Registry,
        connect: Callable[[], Stub],
        heartbeat_runner: Runner | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.session = secrets.token_hex(SESSION_BYTES)
        self.kinds: Sequence[str] = registry.kinds
        self.input_schemas: Mapping[str, dict[str, Any] | None] = {
            handler.name: handler.input_schema for handler in registry
        }
        self._settings = settings
        self._registry = registry
        self._client = connect()
        self._loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(
            agent_id, connect, self._lost_elsewhere, gives_up=settings.on_doubt == "stop"
        )
        self._heartbeat_runner = heartbeat_runner or ThreadRunner()
        self._feed: Feed = Streaming(self, settings, self._client)
        if settings.unary:
            self._feed = Fetching(self, settings, self._client)
        self._sink = BoundedSink(settings, self._said_elsewhere)
        grace_s = settings.stop_grace_us / SECOND_US
        self._execution = Execution(self._sink, grace_s, self._slots_kept)
        self._kept = 0
        """Slots of runs that are over, and whose functions have not returned."""
        self._idleness: Idleness | None = None
        if settings.exit_when_idle:
            self._idleness = Idleness(self, settings, self._client)
        self._runs: dict[str, _Run] = {}
        self._left_to_expire: set[str] = set()  # leases that could not be handed back
        self._room = asyncio.Event()
        self._room.set()
        self._draining = False

    async def run(self, signals: Signals) -> bool:
        """Works until the first signal, or until it is idle if it is to end then, and drains.

        Returns:
            Whether the drain ran its course; False if a second signal cut it short.

        Raises:
            InvalidFields: the distributor does not accept this agent's name, queues or kinds.
            RegistryError: a hook failed, or a command does not exist. No task was taken.
        """
        starting = asyncio.ensure_future(hooks.start(self._registry, self._execution.in_thread))
        try:
            await _first(starting, signals.asked)
            if starting.done():
                starting.result()
                await self._work_until(signals)
                await hooks.stop(self._registry, self._execution.in_thread)
        finally:
            starting.cancel()
            self._client.close()
            await self._execution.close()
        log.info("agent stopped", agent_id=self.agent_id)
        return not signals.asked_again.done()

    async def _work_until(self, signals: Signals) -> None:
        log.info(
            "agent started",
            agent_id=self.agent_id,
            session=self.session,
            server=self._settings.server,
            slots=self._settings.slots,
            kinds=self.kinds,
        )
        self._heartbeat_runner.start(self._heartbeat.run)
        feeding = asyncio.ensure_future(self._feed_forever())
        idle = asyncio.ensure_future(self._idleness.comes() if self._idleness else _never())
        try:
            await _first(feeding, idle, signals.asked)
            for ended in (feeding, idle):
                if ended.done():
                    ended.result()
            await self._drain(signals, feeding)
        finally:
            tasks = [feeding, idle, *(run.task for run in self._runs.values())]
            for task in tasks:
                task.cancel()
            # So that what they started is killed; and before the connection is closed, for a cancel
            # in the instant in which that is lost would be forgotten.
            await asyncio.wait(tasks, timeout=HAND_BACK_S)
            self._heartbeat_runner.stop()

    async def _feed_forever(self) -> None:
        try:
            await self._feed.run()
        except Unsupported:
            log.info("distributor lacks Work; using FetchTask", agent_id=self.agent_id)
            self._feed = Fetching(self, self._settings, self._client)
            await self._feed.run()

    async def _drain(self, signals: Signals, feeding: asyncio.Task[None]) -> None:
        log.info("draining", agent_id=self.agent_id, running=len(self._runs))
        self._draining = True
        self._feed.leave()
        timeout = asyncio.ensure_future(asyncio.sleep(self._settings.drain_timeout_us / SECOND_US))
        await self._runs_end(timeout, signals.asked_again)
        timeout.cancel()
        for run in self._runs.values():
            run.handed_back = True
            run.stop()
        stopping_s = self._settings.stop_grace_us / SECOND_US + HAND_BACK_S
        await self._runs_end(asyncio.ensure_future(asyncio.sleep(stopping_s)))
        await self._feed.finish()
        await asyncio.wait({feeding}, timeout=HAND_BACK_S)
        # What came between goodbye and the end of the stream.
        await self._runs_end(asyncio.ensure_future(asyncio.sleep(HAND_BACK_S)))

    async def _runs_end(self, *or_until: asyncio.Future[Any]) -> None:
        """Waits until no task runs, or one of these is done."""
        while self._runs:
            ended = asyncio.ensure_future(asyncio.wait([run.task for run in self._runs.values()]))
            await _first(ended, *or_until)
            if not ended.done():
                ended.cancel()
                return

    # --- as its feed's desk ---

    @property
    def slots(self) -> int:
        """How many tasks it runs at once, now: fewer while functions do not return."""
        return max(0, self._settings.slots - self._kept)

    def held(self) -> list[str]:
        """The leases to name in a hello: what is not named goes back as if never run (P5)."""
        return [*self._runs, *self._left_to_expire]

    def begin(self, work: Work, since: float) -> None:
        """Runs a task; its lease runs since then. One that comes in a drain is handed back, as is
        one that comes for a slot which was lost in the same moment."""
        is_taken = not (self._draining or (self._kept and not self._has_free_slot()))
        task = asyncio.ensure_future(self._work(work) if is_taken else self._hand_back(work))
        self._runs[work.lease_id] = _Run(work, task, is_handling=is_taken)
        task.add_done_callback(lambda _: self._end(work.lease_id))
        self._heartbeat.hold(work.lease_id, work.lease_s, since)
        self._look_for_room()

    def lost(self, lease_id: str, reason: str) -> None:
        """A lease is over: stops its handler."""
        self._left_to_expire.discard(lease_id)
        run = self._runs.get(lease_id)
        if run is not None and run.is_handling:
            run.lost = reason
            run.stop()

    async def free_slot(self) -> None:
        """Returns once fewer tasks run than there are slots."""
        await self._room.wait()

    @property
    def is_busy(self) -> bool:
        """Whether anything runs, or does not return."""
        return bool(self._runs or self._kept)

    def _has_free_slot(self) -> bool:
        return sum(run.is_handling for run in self._runs.values()) < self.slots

    def _look_for_room(self) -> None:
        if len(self._runs) < self.slots:
            self._room.set()
        else:
            self._room.clear()

    def _slots_kept(self, count: int) -> None:
        if count > self._kept:
            log.warning("a function does not return", agent_id=self.agent_id, slots_kept=count)
        else:
            log.info("a function has returned", agent_id=self.agent_id, slots_kept=count)
        self._kept = count
        self._look_for_room()
        self._feed.resize()

    def _end(self, lease_id: str) -> None:
        self._heartbeat.drop(lease_id)
        del self._runs[lease_id]
        self._look_for_room()

    def _lost_elsewhere(self, lease_id: str, reason: str) -> None:
        """The heartbeat, in its thread, found a lease over."""
        self._loop.call_soon_threadsafe(self.lost, lease_id, reason)

    def _said_elsewhere(self) -> None:
        """A handler, in whatever thread, has something to say."""
        with suppress(RuntimeError):  # The loop is closed: a thread outlived its agent.
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        """Hands on what runs have said. What comes after the end of its run is nobody's."""
        for lease_id, entries in self._sink.take().items():
            run = self._runs.get(lease_id)
            if run is not None:
                self._feed.tell(Remarks(run.work.task_id, lease_id, entries))

    # --- one task ---

    async def _work(self, work: Work) -> None:
        run = self._runs[work.lease_id]
        log.info(
            "task started",
            **self._names(work),
            kind=work.kind,
            user_tier=work.user_tier,
            est_processing_time=work.est_processing_time_s,
            sequence=work.sequence,
            retry_count=work.retry_count,
        )
        report = await self._outcome(run)
        run.is_handling = False
        self._tell()
        if run.lost:
            log.warning("lease lost", **self._names(work), reason=run.lost)
            if run.lost == GIVEN_UP:
                # The distributor may still hold it for us, and would count it as lost in the end.
                await self._hand_back(work, GIVEN_UP_HAND_BACK_S)
        elif run.handed_back and report.error:
            await self._hand_back(work)
        else:
            await self._report(work, report)

    async def _outcome(self, run: _Run) -> Report:
        """Runs the handler; how it ended."""
        work = run.work
        handler = self._registry[work.kind]
        limit_s = min(handler.timeout_s or work.run_timeout_s, work.run_timeout_s)
        ctx = Context(work, limit_s, self._sink, self._heartbeat.left_s, self._loop.time)
        # A timer of our own costs a quarter of asyncio.timeout, for each task.
        limit = self._loop.call_later(limit_s, run.time_out)
        try:
            result = await self._execution.run(handler, ctx)
            if run.timed_out:
                raise Failed("it was stopped, and returned all the same\n")
            check_size(result)
            return Report(work.task_id, work.lease_id, result, "")
        except asyncio.CancelledError as reason:
            if run.task.cancelling():
                if not (run.lost or run.handed_back or run.timed_out):
                    raise  # The agent itself is ended.
                run.task.uncancel()
            # A program that was stopped has said how it ended; of a function it is where it stood.
            stopped = str(reason) or failure(reason).error
            failed = Failed(stopped if run.timed_out else "the handler cancelled itself")
        except GeneratorExit:
            raise
        except BaseException as reason:  # Of people's code; a SystemExit, too, ends only its run.
            failed = failure(reason)
        finally:
            limit.cancel()
        error = failed.error
        if run.timed_out:
            error += f"TimeoutError: not done within {limit_s} s\n"
        retryable = failed.retryable and not self._is_last(work)
        after_s = failed.retry_after_s
        return Report(work.task_id, work.lease_id, b"", end_of(error), retryable, after_s)

    def _is_last(self, work: Work) -> bool:
        """Whether its handler allows no retry after this run."""
        most = self._registry[work.kind].max_retries
        return most is not None and work.retry_count >= most

    async def _report(self, work: Work, report: Report) -> None:
        try:
            try:
                message = await self._feed.settle(report)
            except InvalidFields as refusal:
                # The result cannot be kept, and would not be the next time.
                error = f"{report.error}the outcome was not accepted: {refusal}"
                retryable = report.retryable and not self._is_last(work)
                report = Report(work.task_id, work.lease_id, b"", end_of(error), retryable)
                message = await self._feed.settle(report)
        except (PreconditionFailed, TaskNotFound) as refusal:
            log.warning("outcome refused", **self._names(work), reason=str(refusal))
            return
        if report.error:
            if self._idleness is not None:
                self._idleness.failed(work.task_id)
            log.info("task failed", **self._names(work), message=message, error=gist(report.error))
        else:
            log.info("task succeeded", **self._names(work), message=message)

    async def _hand_back(self, work: Work, patience_s: float = HAND_BACK_S) -> None:
        said = {"task_id": work.task_id, "agent_id": self.agent_id, "lease_id": work.lease_id}
        try:
            async with asyncio.timeout(patience_s):
                await patiently(self._settings, lambda: self._client.release(**said))
        except (Refused, TimeoutError) as reason:
            if isinstance(reason, TimeoutError):
                self._left_to_expire.add(work.lease_id)
            log.warning("task not handed back", **self._names(work), reason=str(reason))
        else:
            log.info("task handed back", **self._names(work))

    def _names(self, work: Work) -> dict[str, object]:
        return {"task_id": work.task_id, "agent_id": self.agent_id, "attempt": work.attempt}


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
