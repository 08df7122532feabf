"""The embedded backend: one process, one writer thread, one file. No broker.

Commands wait as requests, undecided, while a commit is under way; then all that wait share the next
one (group commit). Reads of a file have a connection and a thread of their own. This file is the
traffic between the event loop and those threads; `writer.py` does the work.
"""

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from taskdist.backends import reading
from taskdist.backends.clock import Clock
from taskdist.backends.inspections import Inspections
from taskdist.backends.journal import Journal
from taskdist.backends.protocol import Listener
from taskdist.backends.requests import Batch, Request, Withdraw
from taskdist.backends.runner import Runner, ThreadRunner
from taskdist.backends.store_file import open_reader, refusal
from taskdist.backends.writer import Writer
from taskdist.core import commands
from taskdist.core.commands import Command, Grants
from taskdist.core.errors import (
    Exhausted,
    PreconditionFailed,
    StoreFailed,
    Unavailable,
)
from taskdist.core.inspecting import BackUpStore, CheckStore
from taskdist.core.queries import Query
from taskdist.settings import DistributorSettings

A = TypeVar("A")

POLICY = "strict"

SLOW_DISK_FACTOR = 2
"""How many times the rows of a usual batch one may have while a sync takes as long as they do."""

REQUEST_BYTES = 512
"""What a request weighs besides its data."""


class EmbeddedBackend:
    """A `Backend` on a journal of its own: the file of `settings.store`, or memory.

    Args:
        settings: the store and its limits.
        clock: tells the time; the machine's unless given.
        runner: calls the writer; a thread unless given.
    """

    def __init__(
        self,
        settings: DistributorSettings,
        clock: Clock | None = None,
        runner: Runner | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or Clock(settings)
        self._runner = runner or ThreadRunner("writer")
        self._inbox = _Inbox(settings)
        self._checkpoints = _Checkpoints(settings)
        self._is_disk_slow = False
        self._failure: BaseException | None = None
        self._closing = False
        self._ending = False
        self._reader: ThreadPoolExecutor | None = None
        self._inspections: Inspections | None = None

    async def open(self, listener: Listener) -> None:
        """Opens the journal and starts to load what waits in it."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        settings = self._settings
        kind, _, name = settings.store.partition(":")
        path = Path(name) if kind == "sqlite" else None
        journal = Journal(
            path, POLICY, settings.tiers, settings.reserve_bytes, settings.checkpoint_bytes
        )
        try:
            self._writer = Writer(journal, self._clock, settings)
            if path:
                self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
                self._connection = await self._in_reader(open_reader, path)
                self._inspections = Inspections(path, settings, self._writer.log_bytes, self._fail)
        except apsw.Error as error:
            journal.abandon()
            raise StoreFailed(f"the store {path} cannot be read: {error}") from error
        except OSError as error:
            journal.abandon()
            raise refusal(path, "has no reserve", error) from None
        self._runner.start(self._step)

    async def apply(self, command: Command[A]) -> A:
        """See `Backend.apply`."""
        return cast(A, await self._ask(command))

    async def read(self, query: Query[A]) -> A:
        """See `Backend.read`."""
        if isinstance(query, CheckStore | BackUpStore):
            self._check_open()
            if self._inspections is None:
                raise PreconditionFailed("the store is in memory: there is no file to look at")
            return cast(A, self._inspections.run(query))
        if self._reader is None:
            return cast(A, await self._ask(query))
        self._check_open()
        try:
            return cast(A, await self._in_reader(reading.run, query, self._connection))
        except apsw.Error as error:
            self._fail(error)
            raise Unavailable("the store failed") from error

    async def close(self) -> None:
        """See `Backend.close`."""
        if self._failure is None:
            self._check_open()
        self._closing = True
        if self._failure is None:
            # Once this is answered, so is all that came before it, and leases that nobody was left
            # to hear of have been asked back.
            with suppress(Unavailable):  # The store failed meanwhile; the listener hears of it.
                await self._wait_for(Request(commands.StopTakes()))
        if self._inspections is not None:
            self._inspections.stop("the distributor is stopping")
            await self._inspections.ended()
        if self._reader is not None:
            # Before the writer: the last connection copies the log, and this one may not write.
            if self._failure is None:
                await self._in_reader(self._connection.close)
            self._reader.shutdown(wait=False)
        self._ending = True
        self._runner.wake()
        await self._runner.finished()

    # --- on the event loop ---

    async def _ask(self, asked: Command[Any] | Query[Any]) -> Any:
        self._check_open()
        request = Request(asked, data_bytes=_weight(asked), rows=_rows(asked))
        try:
            return await self._wait_for(request)
        except asyncio.CancelledError:
            future = request.reply_to
            if future.done() and not future.cancelled():
                self._take_back(request.answer)  # Answered in this same turn of the loop.
            elif isinstance(asked, commands.Take):
                self._post(Withdraw(request))
            raise

    async def _wait_for(self, request: Request) -> Any:
        request.reply_to = future = self._loop.create_future()
        self._inbox.put(request, always=isinstance(request.asked, commands.StopTakes))
        self._runner.wake()
        return await future

    def _post(self, command: Command[Any]) -> None:
        """Asks without waiting for the answer."""
        if not self._ending and self._failure is None:
            self._inbox.put(Request(command), always=True)
            self._runner.wake()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise Unavailable("the store failed")
        if self._closing:
            raise Unavailable("the distributor is stopping")

    def _speak(self, batch: Batch) -> None:
        """The batch is durable: answers those who asked, then tells the listener."""
        for request in batch.answered:
            future = request.reply_to
            if future is None or future.done():
                self._take_back(request.answer)
            elif self._failure is not None:
                future.set_exception(Unavailable("the store failed"))
            elif isinstance(request.answer, BaseException):
                future.set_exception(request.answer)
            else:
                future.set_result(request.answer)
        if batch.changes and self._failure is None:
            self._listener.changed(batch.changes)
        if batch.is_disk_slow != self._is_disk_slow:
            self._is_disk_slow = batch.is_disk_slow
            self._listener.paced(batch.is_disk_slow)

    def _take_back(self, answer: Any) -> None:
        """Nobody is left to hear of the leases in this answer."""
        answers = answer if isinstance(answer, tuple) else (answer,)
        leases = [
            grant.task.lease for one in answers if isinstance(one, Grants) for grant in one.grants
        ]
        if leases:
            self._post(commands.TakeBack(tuple(lease.lease_id for lease in leases if lease)))

    def _fail(self, error: BaseException) -> None:
        """Fail-stop (P6): nothing is acknowledged from here on."""
        if self._failure is not None:
            return
        self._failure = error
        if self._inspections is not None:
            self._inspections.stop("the store failed")
        self._runner.wake()
        self._refuse(self._inbox.take_all())
        if isinstance(error, apsw.Error | OSError):
            failed = StoreFailed(f"the store {self._settings.store} failed: {error}")
            failed.__cause__ = error
            self._listener.failed(failed)
        else:
            self._listener.failed(error)

    async def _in_reader(self, function: Any, *arguments: Any) -> Any:
        return await self._loop.run_in_executor(self._reader, function, *arguments)

    # --- in the writer's thread ---

    def _step(self) -> float | None:
        requests = self._inbox.take()
        try:
            if self._failure is not None:
                self._refuse([*requests, *self._writer.abandon()])
                return None
            if self._writer.is_loading:
                self._writer.load_some()
            batch = self._writer.step(requests)
            self._inbox.deferred_bytes = self._writer.deferred_bytes
            self._inbox.is_disk_slow = batch.is_disk_slow
            if batch.answered or batch.changes:
                self._loop.call_soon_threadsafe(self._speak, batch)
            self._checkpoints.after(batch, self._writer)
            if self._ending and not len(self._inbox):
                self._writer.close()
                return None
        except Exception as error:  # The store's failure or a bug: both stop the writer for good.
            self._loop.call_soon_threadsafe(self._fail, error)
            self._refuse([*requests, *self._writer.abandon()])
            return None
        return 0.0 if len(self._inbox) else self._writer.next_due_us() / 1e6

    def _refuse(self, requests: list[Request]) -> None:
        for request in requests:
            request.answer = Unavailable("the store failed")
        self._loop.call_soon_threadsafe(self._speak, Batch(answered=requests))


class _Inbox:
    """The requests that wait for the writer, and how much they weigh. Shared by two threads."""

    def __init__(self, settings: DistributorSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._requests: deque[Request] = deque()
        self._bytes = 0
        self.deferred_bytes = 0
        """Of requests that were taken and that the writer cannot decide yet."""
        self.is_disk_slow = False

    def __len__(self) -> int:
        return len(self._requests)

    def put(self, request: Request, *, always: bool = False) -> None:
        """Adds a request.

        Raises:
            Exhausted: the inbox is full, and it is not one that must be heard `always`.
        """
        with self._lock:
            waiting_bytes = self._bytes + self.deferred_bytes
            if waiting_bytes > self._settings.inbox_bytes_max and not always:
                raise Exhausted(f"requests of {waiting_bytes} bytes wait for the disk")
            self._requests.append(request)
            self._bytes += request.data_bytes

    def take(self) -> list[Request]:
        """The oldest requests, as many as one batch may have."""
        taken: list[Request] = []
        weight = rows = 0
        rows_max = self._settings.batch_rows_max * (SLOW_DISK_FACTOR if self.is_disk_slow else 1)
        with self._lock:
            while self._requests:
                weight += self._requests[0].data_bytes
                rows += self._requests[0].rows
                is_full = weight > self._settings.batch_bytes_max
                if taken and (is_full or rows > rows_max):
                    break
                taken.append(self._requests.popleft())
                self._bytes -= taken[-1].data_bytes
        return taken

    def take_all(self) -> list[Request]:
        """All that is left."""
        with self._lock:
            taken = list(self._requests)
            self._requests.clear()
            self._bytes = 0
        return taken


class _Checkpoints:
    """When the writer copies the log into the database: often while busy, wholly when idle."""

    def __init__(self, settings: DistributorSettings) -> None:
        self._settings = settings
        self._log_bytes = 0
        self._idle_since_us: int | None = None

    def after(self, batch: Batch, writer: Writer) -> None:
        """Called after each batch, when nobody waits for it any more."""
        now_us = batch.moment.served_us
        if batch.rows:
            self._idle_since_us = now_us
            size = writer.log_bytes()
            if size - self._log_bytes >= self._settings.checkpoint_bytes:
                writer.checkpoint()
                self._log_bytes = size
            elif size < self._log_bytes:
                self._log_bytes = size
        elif self._idle_since_us is not None:
            idle_us = now_us - self._idle_since_us
            is_idle = idle_us >= self._settings.idle_checkpoint_us
            if is_idle and writer.checkpoint(truncate=True):
                self._log_bytes = 0
                self._idle_since_us = None


def _weight(asked: Command[Any] | Query[Any]) -> int:
    match asked:
        case commands.Submit():
            return REQUEST_BYTES + len(asked.data)
        case commands.Settle():
            return REQUEST_BYTES + len(asked.result) + len(asked.error) + len(asked.lease_id)
        case commands.Note():
            return sum(REQUEST_BYTES + len(remark.text) for remark in asked.remarks)
        case commands.Heartbeat():
            return REQUEST_BYTES + sum(map(len, asked.lease_ids))
        case commands.Several():
            return sum(map(_weight, asked.commands))
    return REQUEST_BYTES


def _rows(asked: Command[Any] | Query[Any]) -> int:
    if isinstance(asked, commands.Note):
        return max(1, len(asked.remarks))
    return len(asked.commands) if isinstance(asked, commands.Several) else 1
