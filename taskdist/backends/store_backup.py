"""A copy of a store at one moment, made beside the writer, and then read in pieces.

The copy is a file without a name: it is gone with its last reader, also when that is killed.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from time import monotonic_ns

import apsw

from taskdist.backends.store_file import PAGE_BYTES, open_reader
from taskdist.core.errors import PreconditionFailed
from taskdist.core.inspecting import BackupPart
from taskdist.limits import BACKUP_CHUNK_BYTES

PAGES_AT_ONCE = 64
"""Copied without a look at whether the backup is still wanted: less than a millisecond's work."""

OF_THE_COPY = (
    apsw.SQLITE_IOERR_WRITE,
    apsw.SQLITE_IOERR_TRUNCATE,
    apsw.SQLITE_IOERR_FSYNC,
)
"""I/O errors that are the copy's: the store is only read, and the copy is only written. SQLite says
both of the same connection."""

TELL_NS = 50_000_000
"""How often it says how far the copy is."""


def back_up(
    path: Path,
    directory: Path,
    free_bytes_min: int,
    look: Callable[[], None],
    released: Callable[[], None],
) -> Iterator[BackupPart]:
    """Copies some, and says how far it is; then the bytes; at the end what they add up to.

    Args:
        path: the store.
        directory: where the copy is made.
        free_bytes_min: what it leaves free there.
        look: called every few milliseconds while the snapshot is held; what it raises ends it.
        released: called once it is held no more.

    Raises:
        PreconditionFailed: the copy cannot be made there.
        apsw.Error: the store cannot be read.
    """
    copy = directory / f"{path.name}.backup"
    try:
        # Nobody else has it: the store's owner makes one at a time. One may be left by a SIGKILL.
        copy.unlink(missing_ok=True)
        file = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PreconditionFailed(f"no copy can be made in {directory}: {error.strerror}") from None
    try:
        yield from _copy(path, copy, free_bytes_min, look)
        released()
        yield from _read(file)
    finally:
        os.close(file)


def _copy(
    path: Path, copy: Path, free_bytes_min: int, look: Callable[[], None]
) -> Iterator[BackupPart]:
    directory = copy.parent
    with closing(open_reader(path)) as source, closing(apsw.Connection(os.fspath(copy))) as target:
        target.pragma("journal_mode", "off")  # Nobody will ever open it again.
        target.pragma("synchronous", "off")
        copy.unlink()
        source.execute("BEGIN")  # The snapshot, once something is read from it.
        total_bytes = source.pragma("page_count") * PAGE_BYTES
        free_bytes = _free_bytes(directory)
        if free_bytes - total_bytes < free_bytes_min:
            raise PreconditionFailed(
                f"no room in {directory}: the copy has {total_bytes} bytes, of {free_bytes} that "
                f"are free, and has to leave {free_bytes_min}"
            )
        yield BackupPart(total_bytes, 0)
        try:
            with target.backup("main", source, "main") as backup:
                told_ns = monotonic_ns()
                while not backup.done:
                    look()
                    backup.step(PAGES_AT_ONCE)
                    if monotonic_ns() - told_ns > TELL_NS:
                        told_ns = monotonic_ns()
                        copied = backup.page_count - backup.remaining
                        yield BackupPart(total_bytes, copied * PAGE_BYTES)
        except (apsw.FullError, apsw.IOError) as error:
            code = getattr(error, "extendedresult", 0)
            if isinstance(error, apsw.IOError) and code not in OF_THE_COPY:
                raise
            raise PreconditionFailed(f"no copy can be made in {directory}: {error}") from None


def _read(file: int) -> Iterator[BackupPart]:
    total_bytes = os.fstat(file).st_size
    sum_ = sha256()
    at = 0
    while chunk := os.pread(file, BACKUP_CHUNK_BYTES, at):
        sum_.update(chunk)
        at += len(chunk)
        yield BackupPart(total_bytes, total_bytes, chunk)
    yield BackupPart(total_bytes, total_bytes, sha256=sum_.digest())


def _free_bytes(directory: Path) -> int:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize
