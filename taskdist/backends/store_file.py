"""The file of a store: who owns it, whether it is ours, and how its connections are set.

`synchronous=FULL`: a commit that returns is on disk. NORMAL may lose commits of a write-ahead log
on power loss (SQLite's documentation, "PRAGMA synchronous").
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import cast

import apsw
import structlog

from taskdist.backends import schema
from taskdist.backends.rows import NUMBER_MAX
from taskdist.backends.schema import SCHEMA_VERSION
from taskdist.core.errors import StoreFailed, StoreHasNoRoom, StoreTrouble, StoreUnusable

log = structlog.get_logger()

APPLICATION_ID = 0x7461736B
"""`task`, in the header of every journal: SQLite's way to tell whose file it is."""

BUSY_TIMEOUT_MS = 5_000
"""How long to wait for another program's lock, such as a backup's, which is no failure."""

CATCH_UP_ROUNDS = 3
"""After which little is left, unless more is written than the disk can copy."""

PAGE_BYTES = 4096
"""SQLite's default, set all the same: the log is counted in pages."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file cannot grow: the disk, a quota or a limit is full."""


def resolved(path: Path) -> Path:
    """The file that is meant, behind all links: by another name it would have another lock.

    Raises:
        StoreUnusable: the links go round in a circle.
    """
    try:
        return path.resolve()
    except (RuntimeError, OSError):  # The first up to Python 3.12.
        raise StoreUnusable(f"the store {path} cannot be used: a link to itself") from None


def require_file(path: Path) -> None:
    """A store is a file, or not there yet. To open a pipe might wait for ever.

    Raises:
        StoreUnusable: there is something else.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # Whoever opens it says why.
        return
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise StoreUnusable(f"the store {path} cannot be opened: it is {what}")


def refusal(path: Path | None, what: str, error: OSError) -> StoreTrouble:
    """What to raise for an error of the system: a disk that fails, or something for people."""
    kind = StoreFailed if error.errno == errno.EIO else StoreUnusable
    return kind(f"the store {path} {what}: {error.strerror}")


def open_reader(path: Path) -> apsw.Connection:
    """A second connection, for reading only."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.pragma("mmap_size", 0)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def catch_up(path: Path, log_bytes: Callable[[], int], few_bytes: int) -> None:
    """Copies a log that has grown into its database, beside the writer, and leaves the rest to it.

    Once somebody has held the log for long, the writer's next checkpoint would keep everybody
    waiting for as long as it takes; this one keeps nobody. Each round is as long as what was
    written during the one before.

    Raises:
        apsw.Error: the store failed.
    """
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.pragma("mmap_size", 0)
        connection.pragma("synchronous", "FULL")
        for _ in range(CATCH_UP_ROUNDS):
            if log_bytes() > few_bytes:
                copy_log(connection, apsw.SQLITE_CHECKPOINT_PASSIVE)  # The writer may be at it.
    finally:
        connection.close()


def copy_log(connection: apsw.Connection, mode: int) -> bool:
    """Copies the log into the database, in one of SQLite's modes of a checkpoint.

    Returns:
        False if somebody is in the way, or there is no room: the log stays as it is.

    Raises:
        apsw.Error: the store failed.
    """
    try:
        connection.wal_checkpoint(mode=mode)
    except (apsw.BusyError, apsw.FullError, apsw.IOError) as error:
        if isinstance(error, apsw.BusyError) or is_for_want_of_room(error, connection):
            return False
        raise
    return True


def lock(path: Path) -> int:
    """Takes the owner lock: a file of our own, since SQLite's locks come and go with connections.

    Returns:
        The open file; the lock lasts until it is closed, or the process ends.

    Raises:
        StoreUnusable: another distributor has it, it is no file, or there can be no lock.
        StoreFailed: an I/O error.
    """
    require_file(path)
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise refusal(path, "cannot be used", error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # In this order: on a full disk the block that it has is there to be written again.
        os.truncate(lock, os.pwrite(lock, f"{os.getpid()}\n".encode(), 0))
    except BlockingIOError:
        owner = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise StoreUnusable(
            f"the store {path} is in use by another distributor (process {owner})"
        ) from None
    except OSError as error:
        if error.errno not in NO_ROOM:  # Then nobody is told who has it; it is had all the same.
            os.close(lock)
            raise refusal(path, "cannot be locked", error) from None
    return lock


def is_for_want_of_room(error: BaseException, connection: apsw.Connection) -> bool:
    """Whether what this connection could not do is for want of room on the disk.

    SQLite says so itself of a disk that is full, but not of a quota, nor where its index of the log
    grows. Only a write counts: after a sync that failed nobody knows what is on the disk.
    """
    if isinstance(error, apsw.IOError):
        code = getattr(error, "extendedresult", 0)
        if code == apsw.SQLITE_IOERR_WRITE:
            return connection.system_errno in NO_ROOM
        return bool(code == apsw.SQLITE_IOERR_SHMSIZE)
    return isinstance(error, apsw.FullError)


def unlock(owner_lock: int) -> None:
    """Gives the owner lock up."""
    os.close(owner_lock)


def close_without_writing(connection: apsw.Connection) -> None:
    """Closes it and leaves the log, which SQLite would copy: the disk may do anything now, or the
    file is not ours."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close(force=True)


def open_writer(path: Path | None, policy: str, tiers: str) -> apsw.Connection:
    """The connection that writes. Makes the store if there is none; None is one in memory.

    Raises:
        StoreUnusable: it is for people to put right.
        StoreFailed: the file is damaged.
    """
    if path is not None:
        _make(path)
    try:
        connection = apsw.Connection(os.fspath(path) if path else ":memory:")
    except apsw.CantOpenError as error:
        raise StoreUnusable(f"the store {path} cannot be opened: {error}") from None
    except apsw.Error as error:
        raise StoreFailed(f"the store {path} cannot be read: {error}") from error
    try:
        _prepare(connection, path, policy, tiers)
    except BaseException as error:
        has_failed = connection.system_errno == errno.EIO
        is_full = is_for_want_of_room(error, connection)
        close_without_writing(connection)
        if isinstance(error, apsw.CantOpenError) and has_failed:
            raise StoreFailed(f"the store {path} cannot be read: disk I/O error") from error
        if isinstance(error, apsw.NotADBError):
            raise StoreUnusable(f"the store {path} is not a taskdist store: not SQLite") from None
        if isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError | apsw.PermissionsError):
            raise StoreUnusable(f"the store {path} cannot be written: {error}") from None
        if is_full:
            raise StoreHasNoRoom(f"the store {path} cannot be used: its disk is full") from None
        if isinstance(error, apsw.BusyError):
            raise StoreUnusable(f"the store {path} is in use by another program") from None
        if isinstance(error, OSError):
            raise refusal(path, "cannot be copied", error) from None
        if isinstance(error, apsw.Error | UnicodeDecodeError):
            raise StoreFailed(f"the store {path} cannot be read: {error}") from error
        raise
    return connection


def _make(path: Path) -> None:
    """Makes the file, if there is none, for its owner's eyes only; SQLite's others follow it."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno == errno.EIO:
            raise StoreFailed(f"the store {path} cannot be read: {error.strerror}") from None
        # The rest SQLite says in its words.
        return
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size and not path.stat().st_size:
        # SQLite would remove the log, and with it what is left.
        raise StoreFailed(f"the store {path} is damaged: it is empty, and its log {log} is not")


def knows_its_clocks(connection: apsw.Connection) -> bool:
    """Whether the row of the store is whole. A damaged page may read as NULLs, or as anything."""
    columns = ("served_us", "newest_enqueued_us", "last_sequence")
    numbers = (f"CASE typeof({column}) WHEN 'integer' THEN {column} END" for column in columns)
    rows = connection.execute(f"SELECT {', '.join(numbers)} FROM store").fetchall()
    return len(rows) == 1 and all(
        isinstance(number, int) and 0 <= number <= NUMBER_MAX for number in rows[0]
    )


def _prepare(connection: apsw.Connection, path: Path | None, policy: str, tiers: str) -> None:
    owner = connection.pragma("application_id")
    version = connection.pragma("user_version")
    # One that was killed in its first start has a page, and nothing on it.
    is_new = owner == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    if not is_new and owner != APPLICATION_ID:
        raise StoreUnusable(f"the store {path} is not a taskdist store: some other SQLite file")
    if version > SCHEMA_VERSION:
        raise StoreUnusable(
            f"the store {path} has version {version}, made by a newer taskdist; "
            f"this one reads up to {SCHEMA_VERSION}"
        )
    if not is_new and version < 1:
        raise StoreUnusable(f"the store {path} is damaged: it does not say its version")
    if not is_new and not knows_its_clocks(connection):
        raise StoreFailed(f"the store {path} is damaged: it does not say up to where it goes")
    if path is not None and connection.readonly("main"):
        raise StoreUnusable(f"the store {path} cannot be written: it is read-only")
    connection.pragma("mmap_size", 0)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    if path is not None:
        connection.pragma("page_size", PAGE_BYTES)
        connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    if not is_new and version < SCHEMA_VERSION and path is not None:
        _back_up(connection, path, version)
    connection.execute("BEGIN IMMEDIATE")
    if is_new:
        connection.pragma("application_id", APPLICATION_ID)
        schema.create(connection)
        connection.execute("INSERT INTO store VALUES (1, ?, ?, 0, 0, 0)", (policy, tiers))
    else:
        schema.migrate(connection, version)
        _record(connection, policy, tiers)
    connection.execute("COMMIT")


def _record(connection: apsw.Connection, policy: str, tiers: str) -> None:
    """Keeps by what the order is made; says so if it was made otherwise before."""
    # As bytes, since on a damaged page they may be no text, and nothing else depends on them.
    kept = "SELECT CAST(policy AS BLOB), CAST(tiers AS BLOB) FROM store"
    before = cast("tuple[bytes | None, ...]", connection.execute(kept).fetchone())
    if before != (policy.encode(), tiers.encode()):
        was = tuple(part and part.decode(errors="replace") for part in before)
        log.warning("order changed", policy=policy, tiers=tiers, before=was)
        connection.execute("UPDATE store SET policy = ?, tiers = ?", (policy, tiers))


def _back_up(connection: apsw.Connection, path: Path, version: int) -> None:
    """Copies a store beside it before it is migrated; one that is there already is older, or the
    same after a start that was cut short, and is replaced once the new one is whole."""
    copy = path.with_name(f"{path.name}.v{version}")
    unfinished = path.with_name(f"{path.name}.v{version}.part")
    log.info("store is migrated", store=str(path), version=version, backup=str(copy))
    unfinished.unlink(missing_ok=True)
    _make(unfinished)
    target = apsw.Connection(os.fspath(unfinished))
    with target.backup("main", connection, "main") as backup:
        backup.step()
    target.pragma("synchronous", "FULL")
    target.close()
    _sync(unfinished)
    unfinished.rename(copy)
    _sync(copy.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
