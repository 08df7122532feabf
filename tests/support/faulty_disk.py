"""A disk with faults under SQLite, for tests: an SQLite VFS, made the default one.

What is wrong with it stands in a file, read at every deed, so that a test can change it while the
process under test runs; `faulty_serve.py` runs a distributor on such a disk.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import apsw
import pytest
from typing_extensions import Buffer

NAME = "faulty"

READ, SHORT, WRITE, SYNC, OPEN = "read", "short", "write", "sync", "open"
"""Faults: an I/O error at each of these deeds, OPEN at that of the log, whose file comes and goes.
SHORT is a read that brings half of what it should."""

QUOTA = "quota"
"""What fails does so for a quota (EDQUOT): SQLite has no name of its own for that."""

DIRECTORY = "directory"
"""The directory may not be written: no file comes or goes, those that are there stay as usable."""

_CODES = {
    READ: apsw.SQLITE_IOERR_READ,
    WRITE: apsw.SQLITE_IOERR_WRITE,
    SYNC: apsw.SQLITE_IOERR_FSYNC,
    OPEN: apsw.SQLITE_CANTOPEN,
}


def io_error(deed: str) -> apsw.Error:
    """The error of SQLite's own disk when this fails."""
    error = apsw.exception_for(_CODES[deed])
    error.args = ("disk I/O error",)
    return cast(apsw.Error, error)


class Faults:
    """What is wrong with the disk.

    Args:
        path: the file in which it stands. Its directory is the disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, *faults: str) -> None:
        """These faults from now on, and no others."""
        new = self._path.with_suffix(".new")
        new.write_text(" ".join(faults))
        new.rename(self._path)

    def fill(self, room: int = 0, *more: str) -> None:
        """The disk is full, but for so many bytes; QUOTA: what its owner may have of it."""
        self.set(f"full={self.used() + room}", *more)

    def check(self, deed: str) -> None:
        """Raises the error that SQLite's own disk has for it, if this deed fails now."""
        if deed in self._now():
            raise io_error(deed)

    def is_fixed(self) -> bool:
        """Whether no file may come or go."""
        return DIRECTORY in self._now()

    def refuse_new(self, path: str) -> None:
        """Raises the system's error if this file is not there, and may not be made."""
        if self.is_fixed() and not os.path.exists(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def number(self) -> int:
        """The system's number of what fails."""
        if self.is_fixed():
            return errno.EACCES
        return errno.EDQUOT if QUOTA in self._now() else errno.EIO

    def full(self) -> apsw.Error:
        """What SQLite's own disk says when it is full."""
        if QUOTA in self._now():
            return io_error(WRITE)
        return apsw.FullError("database or disk is full")

    def is_short(self) -> bool:
        """Whether reads are short now."""
        return SHORT in self._now()

    def room(self) -> int:
        """Bytes that are free."""
        for fault in self._now():
            if fault.startswith("full="):
                return max(0, int(fault.removeprefix("full=")) - self.used())
        return 1 << 40

    def used(self) -> int:
        """Bytes of all files on the disk; they come and go."""
        total = 0
        for entry in os.scandir(self._path.parent):
            if entry.name.startswith("tasks.db"):
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    continue
        return total

    def _now(self) -> list[str]:
        try:
            return self._path.read_text().split()
        except FileNotFoundError:
            return []


@contextmanager
def faulty(faults: Faults) -> Iterator[None]:
    """Every store that is opened in this process meanwhile is on this disk."""
    disk = _Disk(faults)

    def statvfs(_: object) -> Any:
        return SimpleNamespace(f_bavail=faults.room(), f_frsize=1)

    make, unlink = os.open, os.unlink

    def open_or_refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            faults.refuse_new(path)
        return make(path, flags, *more, **named)

    def unlink_or_refuse(path: Any, **named: Any) -> None:
        if faults.is_fixed():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        unlink(path, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "statvfs", statvfs)
        patch.setattr(os, "open", open_or_refuse)
        patch.setattr(os, "unlink", unlink_or_refuse)
        try:
            yield
        finally:
            disk.unregister()


class _Disk(apsw.VFS):
    def __init__(self, faults: Faults) -> None:
        self._usual = apsw.vfs_names()[0]
        super().__init__(NAME, base=self._usual, makedefault=True)
        self._faults = faults

    def xOpen(  # noqa: N802 # SQLite's
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        filename = name.filename() if isinstance(name, apsw.URIFilename) else name
        if filename and filename.endswith("-wal"):
            self._faults.check(OPEN)
        if filename and flags[0] & apsw.SQLITE_OPEN_CREATE:
            try:
                self._faults.refuse_new(filename)
            except PermissionError as error:
                refused = apsw.exception_for(apsw.SQLITE_CANTOPEN)
                refused.args = ("unable to open database file",)
                raise refused from error
        return _File(self._usual, name, flags, self._faults)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 # SQLite's
        if not self._faults.is_fixed():  # SQLite lets such an error pass, and apsw does not.
            super().xDelete(filename, syncdir)

    def xGetLastError(self) -> tuple[int, str]:  # noqa: N802 # SQLite's
        number = self._faults.number()
        return number, os.strerror(number)

    def excepthook(self, *_: object) -> bool:
        """It is raised by what called SQLite, too."""
        return True


class _File(apsw.VFSFile):
    def __init__(
        self, usual: str, name: str | apsw.URIFilename | None, flags: list[int], faults: Faults
    ) -> None:
        super().__init__(usual, name, flags)
        self._faults = faults

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 # SQLite's
        self._faults.check(READ)
        data = super().xRead(amount, offset)
        return data[: len(data) // 2] if self._faults.is_short() else data

    def xWrite(self, data: Buffer, offset: int) -> None:  # noqa: N802 # SQLite's
        self._faults.check(WRITE)
        growth = offset + memoryview(data).nbytes - self.xFileSize()
        if growth > 0 and growth > self._faults.room():
            raise self._faults.full()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 # SQLite's
        self._faults.check(SYNC)
        super().xSync(flags)

    def excepthook(self, *_: object) -> bool:
        """It is raised by what called SQLite, too."""
        return True
