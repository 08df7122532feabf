"""Safeguards of the store and of its writer, each switched off by a patch of one function."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from taskdist.backends import journal, rows, store_file, timetable
from taskdist.backends.clock import Clock
from taskdist.backends.embedded import EmbeddedBackend
from taskdist.backends.journal import Journal
from taskdist.backends.live import Live
from taskdist.backends.log import Log
from taskdist.backends.requests import Batch, Request
from taskdist.backends.writer import Writer
from taskdist.core.errors import Unavailable
from tests.ablations.patching import put


def fsync() -> None:
    """`synchronous=OFF`: a commit returns before it is on the disk."""
    open_writer = store_file.open_writer

    def opened(path: Path | None, policy: str, tiers: str) -> apsw.Connection:
        connection = open_writer(path, policy, tiers)
        connection.pragma("synchronous", "OFF")
        return connection

    put(journal, "open_writer", opened)


def owner_lock() -> None:
    """Two distributors may have one store."""
    put(journal, "lock", lambda path: None)


def checksums() -> None:
    """Data is handed out as it is read."""
    for module in (rows, journal):
        put(module, "checksum", lambda sequence, data: 0)


def save_before_speak() -> None:
    """An answer is spoken as soon as it is decided."""
    decided = Writer._decide

    def speak(future: "asyncio.Future[Any]", answer: Any) -> None:
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def decide_and_speak(writer: Writer, request: Request) -> None:
        decided(writer, request)
        if request.answer is not None and request.reply_to is not None:
            future = request.reply_to
            future.get_loop().call_soon_threadsafe(speak, future, request.answer)

    put(Writer, "_decide", decide_and_speak)


def undo() -> None:
    """A batch that failed is rolled back on the disk, and stays in memory."""
    put(Writer, "_undo_changes", lambda writer, since: None)


def savepoint() -> None:
    """Of several that are to be done all or none, those before the refused one stay."""
    put(Journal, "rollback_to_savepoint", Journal.release_savepoint)


def fail_stop() -> None:
    """After an error of the disk the distributor refuses the batch, and goes on."""
    step = Writer.step

    def stepped(writer: Writer, requests: Sequence[Request]) -> Batch:
        try:
            return step(writer, requests)
        except apsw.IOError:
            writer._undo()
            for request in requests:
                request.answer = Unavailable("try again")
            return Batch(answered=list(requests))

    put(Writer, "step", stepped)


def monotonic_age() -> None:
    """`enqueued_at` follows the wall clock, also back."""
    run = Writer._run

    def forgetful(writer: Writer, *asked: Any, **more: Any) -> Batch:
        writer._newest_enqueued_us = 0
        return run(writer, *asked, **more)

    put(Writer, "_run", forgetful)


def pause_guard() -> None:
    """Leases age while the distributor stands still."""

    def read(clock: Clock) -> tuple[int, int]:
        now_us = clock._monotonic_ns() // 1_000
        clock._served_us += now_us - clock._last_us
        clock._last_us = now_us
        return clock._wall_ns() // 1_000, clock._served_us

    put(Clock, "read", read)


def full_term() -> None:
    """A restart gives the leases no new term."""
    leased = Journal.leased
    put(Journal, "leased", lambda store, served_us: leased(store, 0))


def slots_in_all() -> None:
    """What a session holds already counts for nothing."""
    put(Live, "free_slots", lambda live, asked: 0 if live.is_loading else asked.slots)


def take_back() -> None:
    """The leases of a caller that gave up in the moment of the answer stay."""
    put(EmbeddedBackend, "_take_back", lambda backend, answer: None)


def retention() -> None:
    """What has ended is kept for ever."""
    put(timetable.Timetable, "forgettable", lambda times, moment: [])


def checkpoints() -> None:
    """The log is never copied into the database."""
    put(Log, "checkpoint", lambda log, *, truncate=False: True)
