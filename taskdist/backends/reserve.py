"""Room on the disk that is kept for bad times: a file beside the store, given up when the disk is
full, so that what ends tasks can still be written; made anew once there is room again.

Its bytes are random, and synced: a file system that compresses, or that gives out room only when it
writes, would keep no room for zeros.
"""

import os
from contextlib import suppress
from pathlib import Path

import structlog

from taskdist.backends.store_file import NO_ROOM
from taskdist.limits import SECOND_US

log = structlog.get_logger()

FULL_RETRY_US = SECOND_US
"""After a full disk, when it is tried again whether there is room."""


class Reserve:
    """The reserve of one store.

    Args:
        store: the store's file; None is one in memory, which has none.
        size: its bytes; 0 is none.
        spare: how many more must be free before it is made anew, or the disk would be full at once.
    """

    def __init__(self, store: Path | None, size: int, spare: int) -> None:
        self._store = str(store)
        self._path = store.with_name(f"{store.name}-reserve") if store and size else None
        self._size = size
        self._spare = spare
        self.is_kept = self._path is None or self._is_whole(self._path)
        """Whether there is room for what comes: it is there, or none is wanted."""

        self._next_look_us = 0

    def begin(self) -> None:
        """At a start: makes it, or says that there is no room for it."""
        if not self.make():
            log.error("disk full", store=self._store, reserve="missing")

    def look(self, now_us: int) -> None:
        """Makes it again after it was given up, once there is room. Looks once a second."""
        if self.is_kept or now_us < self._next_look_us:
            return
        self._next_look_us = now_us + FULL_RETRY_US
        if self.make():
            log.info("disk has room again", store=self._store)

    def give_up(self, now_us: int = 0) -> bool:
        """Makes room of it, for a second at least. Returns whether it was still there."""
        if self._path is None or not self.is_kept:
            return False
        log.error("disk full", store=self._store, reserve="given up")
        self.is_kept = False
        self._next_look_us = now_us + FULL_RETRY_US
        self._path.unlink(missing_ok=True)
        return True

    def make(self) -> bool:
        """Makes it unless it is there. Returns whether it is.

        Raises:
            OSError: something else than a full disk was in the way.
        """
        if self._path is None or self.is_kept:
            return True
        # What a kill has left of one counts as room, and is written anew.
        self._path.unlink(missing_ok=True)
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < self._size + self._spare:
            return False
        try:
            self._write(self._path)
        except OSError as error:
            with suppress(OSError):
                self._path.unlink()
            if error.errno not in NO_ROOM:
                raise
            return False
        self.is_kept = True
        return True

    def _write(self, path: Path) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(os.urandom(self._size))
            file.flush()
            os.fsync(file.fileno())

    def _is_whole(self, path: Path) -> bool:
        try:
            return path.stat().st_size >= self._size
        except OSError:  # What is in its place, `make` meets.
            return False
