"""The file of a store that no distributor holds, such as a backup: read, and never written."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import apsw

from taskdist.backends.schema import SCHEMA_VERSION
from taskdist.backends.store_check import StoreCheck
from taskdist.backends.store_file import APPLICATION_ID, refusal, require_file, resolved
from taskdist.core.errors import StoreFailed, StoreUnusable
from taskdist.core.inspecting import Checked

LOCKS_FIRST = 0x4000_0000
LOCKS_COUNT = 512
"""The bytes that programs with SQLite lock ("File Locking And Concurrency", SQLite)."""


def check_copy(path: Path) -> Iterator[Checked]:
    """Checks it; see `StoreCheck.steps`.

    Raises:
        StoreUnusable: it is in use, missing, some other file, or of another version.
        StoreFailed: it cannot be read.
    """
    path = resolved(path)
    with _unused(path):
        try:
            # Immutable: without locks, a log, or anything else that would be written beside it.
            uri = f"file:{quote(os.fspath(path))}?immutable=1"
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            connection = apsw.Connection(uri, flags=flags)
            try:
                _require_ours(connection, path)
                yield from StoreCheck(connection, lambda: None).steps()
            finally:
                connection.close(force=True)
        except apsw.NotADBError:
            raise StoreUnusable(f"the store {path} is not a taskdist store: not SQLite") from None
        except apsw.Error as error:
            raise StoreFailed(f"the store {path} cannot be read: {error}") from error


def refuse_place_in_use(path: Path) -> None:
    """For who is about to replace this file by another store.

    Raises:
        StoreUnusable: it is in use, or a log lies beside it, which a start would take in.
    """
    path = resolved(path)
    if path.exists():
        with _unused(path):
            return
    _refuse_log(path)


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Keeps distributors, and programs that lock as SQLite does, from the file for the block."""
    locked: list[int] = []
    try:
        file = _open(path)
        locked.append(file)
        _keep_out_distributors(path, locked)
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, LOCKS_COUNT, LOCKS_FIRST)
        except (BlockingIOError, PermissionError):  # POSIX has both for a lock that is held.
            raise StoreUnusable(f"the store {path} is in use by another program") from None
        except OSError as error:
            raise refusal(path, "cannot be locked", error) from None
        _refuse_log(path)
        yield
    finally:
        for opened in locked:
            os.close(opened)


def _open(path: Path) -> int:
    require_file(path)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise refusal(path, "cannot be opened", error) from None


def _keep_out_distributors(path: Path, locked: list[int]) -> None:
    with suppress(FileNotFoundError):  # No distributor was ever here.
        owner_lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
        locked.append(owner_lock)
        try:
            fcntl.flock(owner_lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(owner_lock, 32).decode("ascii", "replace").strip() or "unknown"
            raise StoreUnusable(
                f"the store {path} is in use by a distributor (process {owner})"
            ) from None
        except OSError as error:
            raise refusal(path, "cannot be locked", error) from None


def _refuse_log(path: Path) -> None:
    with suppress(FileNotFoundError):
        if os.stat(f"{path}-wal").st_size:
            raise StoreUnusable(
                f"the store {path} is not whole without {path.name}-wal beside it, which a "
                "distributor takes in at its start: the last one did not stop well"
            )


def _require_ours(connection: apsw.Connection, path: Path) -> None:
    if connection.pragma("application_id") != APPLICATION_ID:
        raise StoreUnusable(f"the store {path} is not a taskdist store: some other SQLite file")
    version = connection.pragma("user_version")
    if version != SCHEMA_VERSION:
        made_by = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StoreUnusable(
            f"the store {path} has version {version}, made by {made_by} taskdist; "
            f"this one checks version {SCHEMA_VERSION}"
        )
