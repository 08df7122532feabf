"""The write-ahead log of a store: how long it is, and when it goes into the database."""

import apsw

from taskdist.backends.store_file import BUSY_TIMEOUT_MS, PAGE_BYTES


class Log:
    """The log behind one connection, which is the only one that writes it.

    Args:
        connection: tells of each commit. That takes the place of SQLite's own checkpoints.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._pages = 0
        connection.set_wal_hook(self._count)

    def bytes_in_use(self) -> int:
        """How much of it is in use. Its file does not shrink when it is reused."""
        return self._pages * PAGE_BYTES

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """Copies it into the database as far as readers allow; may cut it to nothing.

        Returns:
            False if a reader is in the way, which is not waited for, or the disk full: the log
            stays as it is until next time.
        """
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE
        self._connection.set_busy_timeout(0)
        try:
            self._connection.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.FullError):
            return False
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        return True

    def _count(self, connection: apsw.Connection, database: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK
