"""A disk that remembers in which order it was told what: SQLite's usual one, with a record.

Under SQLite and below everything of ours, as its default "VFS", so that the code under test opens
its files as it always does. What a loss of power could have left of them: `power_loss.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeAlias

import apsw
from typing_extensions import Buffer

NAME = "recording"

Flags: TypeAlias = list[int]


class Deed(StrEnum):
    """What a disk is told to do."""

    CREATE = "create"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    SYNC_ALL = "sync all"
    """A sync of this file and of the directory, with all that was created and deleted in it."""
    DELETE = "delete"
    DELETE_SYNCED = "delete synced"
    """… and a sync of the directory."""


class Told(NamedTuple):
    """One thing that it was told."""

    deed: Deed
    file: str
    """The end of its name: nothing is the database, `-wal` its log, `-journal` its journal."""
    offset: int = 0
    """Of a write; the new size of a truncate."""
    data: bytes = b""


@contextmanager
def recorded(path: Path) -> Iterator[list[Told]]:
    """All that SQLite writes meanwhile, in this process, of the database at this path."""
    record: list[Told] = []
    disk = _Disk(path, record)
    try:
        yield record
    finally:
        disk.unregister()


class _Disk(apsw.VFS):
    def __init__(self, path: Path, record: list[Told]) -> None:
        # By its name: from here on the default is this one.
        self._usual = apsw.vfs_names()[0]
        super().__init__(NAME, base=self._usual, makedefault=True)
        self._path = str(path.resolve())  # as the journal opens it
        self._record = record

    def xOpen(  # noqa: N802 # SQLite's
        self, name: str | apsw.URIFilename | None, flags: Flags
    ) -> apsw.VFSFile:
        filename = name.filename() if isinstance(name, apsw.URIFilename) else name
        if filename is None or not filename.startswith(self._path):
            return apsw.VFSFile(self._usual, name, flags)
        path = Path(filename)
        ending = filename.removeprefix(self._path)
        # The database itself is made, empty, before SQLite opens it.
        is_new = not path.exists() or (not ending and not path.stat().st_size)
        file = _File(self._usual, name, flags, ending, self._record)
        if is_new:
            self._record.append(Told(Deed.CREATE, ending))
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 # SQLite's
        super().xDelete(filename, syncdir)
        ending = filename.removeprefix(self._path)
        self._record.append(Told(Deed.DELETE_SYNCED if syncdir else Deed.DELETE, ending))


class _File(apsw.VFSFile):
    def __init__(
        self,
        usual: str,
        name: str | apsw.URIFilename | None,
        flags: Flags,
        ending: str,
        record: list[Told],
    ) -> None:
        super().__init__(usual, name, flags)
        self._ending = ending
        self._record = record
        # SQLite's own disk also syncs the directory, the first time that it syncs a journal or a
        # log which it may have made (os_unix.c, UNIXFILE_DIRSYNC).
        self._syncs_all = bool(ending) and bool(flags[0] & apsw.SQLITE_OPEN_CREATE)

    def xWrite(self, data: Buffer, offset: int) -> None:  # noqa: N802 # SQLite's
        super().xWrite(data, offset)
        self._record.append(Told(Deed.WRITE, self._ending, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 # SQLite's
        super().xTruncate(newsize)
        self._record.append(Told(Deed.TRUNCATE, self._ending, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802 # SQLite's
        super().xSync(flags)
        self._record.append(Told(Deed.SYNC_ALL if self._syncs_all else Deed.SYNC, self._ending))
        self._syncs_all = False
