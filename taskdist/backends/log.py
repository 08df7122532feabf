"""The write-ahead log of a store: how long it is, how long it takes to the disk, and when it goes
into the database."""

import time

import apsw

from taskdist.backends.store_file import BUSY_TIMEOUT_MS, PAGE_BYTES, copy_log

SLOW_SYNC_US = 4_000
"""A disk whose syncs take longer is slow. Below that they take less than a third of the time, since
the outcomes of one message and the leases for the slots that they free are 9 ms of work."""

SYNCS_REMEMBERED = 8
"""Over about so many the time of a sync is averaged, each newer one counting for more."""


class Log:
    """The log behind one connection, which is the only one that writes it.

    Args:
        connection: tells of each commit. That takes the place of SQLite's own checkpoints.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._pages = 0
        self._sync_us = 0.0
        connection.set_wal_hook(self._count)

    def bytes_in_use(self) -> int:
        """How much of it is in use. Its file does not shrink when it is reused."""
        return self._pages * PAGE_BYTES

    @property
    def is_slow(self) -> bool:
        """Whether commits wait so long for the disk that more should share each."""
        return self._sync_us > SLOW_SYNC_US

    def commit(self) -> None:
        """Makes the open transaction durable.

        Raises:
            apsw.Error: it is not.
        """
        begin_ns = time.monotonic_ns()
        self._connection.execute("COMMIT")
        took_us = (time.monotonic_ns() - begin_ns) / 1_000
        self._sync_us += (took_us - self._sync_us) / SYNCS_REMEMBERED

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """Copies it into the database as far as readers allow; may cut it to nothing.

        Returns:
            False if a reader is in the way, which is not waited for, or the disk full: the log
            stays as it is until next time.
        """
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE
        self._connection.set_busy_timeout(0)
        try:
            return copy_log(self._connection, mode)
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)

    def _count(self, connection: apsw.Connection, database: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK
