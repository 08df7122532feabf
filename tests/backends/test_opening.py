"""A store that cannot be used is refused in one line, and left as it was."""

import errno
import fcntl
import os
import re
import sqlite3
from pathlib import Path

import apsw
import pytest

from taskdist.backends import store_file
from taskdist.backends.journal import Journal
from taskdist.backends.schema import SCHEMA_VERSION
from taskdist.backends.store_copy import check_copy
from taskdist.backends.store_file import APPLICATION_ID
from taskdist.core.errors import StoreFailed, StoreTrouble, StoreUnusable
from tests.support.backends import Rig


async def refusal(path: Path) -> str:
    """The line that says why this store is refused."""
    with pytest.raises(StoreUnusable) as refused:
        await Rig(f"sqlite:{path}").open()
    line = str(refused.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def write(path: Path, *statements: str) -> None:
    """Runs SQL on a file that nobody has open."""
    connection = apsw.Connection(os.fspath(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def is_there(path: Path) -> bool:
    """Whether there is anything of this name."""
    return path.exists()


async def test_a_second_owner_is_refused_and_told_who_has_it(kept: Rig) -> None:
    line = await refusal(kept.path)
    assert re.search(rf"in use by another distributor \(process {os.getpid()}\)", line)
    await kept.submit()
    assert kept.hearer.failure is None


@pytest.mark.parametrize(
    ("number", "trouble"),
    [(errno.ENOLCK, StoreUnusable), (errno.EOPNOTSUPP, StoreUnusable), (errno.EIO, StoreFailed)],
)
async def test_a_lock_that_cannot_be_had_is_not_another_distributors(
    kept: Rig, monkeypatch: pytest.MonkeyPatch, number: int, trouble: type[StoreTrouble]
) -> None:
    """A file system without locks, or a disk that fails: the line names the reason. So does that of
    a check of the file."""
    await kept.submit()
    await kept.close()

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(trouble) as started:
        await Rig(kept.settings.store).open()
    with pytest.raises(trouble) as checked:
        list(check_copy(kept.path))
    for said in (started, checked):
        line = str(said.value)
        assert line == f"the store {kept.path} cannot be locked: {os.strerror(number)}"


async def test_the_lock_is_free_after_the_close(kept: Rig) -> None:
    await kept.submit()
    await kept.close()
    other = Rig(kept.settings.store)
    await other.open()
    assert len(await other.take_all()) == 1
    await other.close()


async def test_a_refused_store_is_not_locked(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 40)
    await refusal(path)
    path.unlink()
    rig = Rig(f"sqlite:{path}")
    await rig.open()
    await rig.close()


@pytest.mark.parametrize("content", [b"hello, world\n", b"\x00" * 1000, b"GIF89a" * 2000])
async def test_a_file_that_is_not_sqlites_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert "not a taskdist store" in await refusal(path)
    assert path.read_bytes() == content


async def test_the_sqlite_file_of_another_program_is_refused_and_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE task (id)")
    connection.close()
    before = path.read_bytes()
    assert "some other SQLite file" in await refusal(path)
    assert path.read_bytes() == before


async def test_a_store_of_a_newer_taskdist_is_refused_and_left_alone(kept: Rig) -> None:
    await kept.submit()
    await kept.close()
    write(kept.path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = kept.path.read_bytes()
    line = await refusal(kept.path)
    assert f"has version {SCHEMA_VERSION + 1}, made by a newer taskdist" in line
    assert kept.path.read_bytes() == before


async def test_a_store_is_for_its_owners_eyes_only(kept: Rig) -> None:
    """Data of paying users is in it."""
    await kept.submit()
    files = list(kept.path.parent.glob(f"{kept.path.name}*"))
    assert len(files) >= 3  # its log, too
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.touch()
    rig = Rig(f"sqlite:{path}")
    await rig.open()
    await rig.close()
    connection = apsw.Connection(os.fspath(path))
    assert connection.pragma("application_id") == APPLICATION_ID
    connection.close()


async def test_a_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "No such file or directory" in await refusal(tmp_path / "missing" / "tasks.db")
    assert "Not a directory" in await refusal(file / "tasks.db")
    directory = tmp_path / "directory"
    directory.mkdir()
    assert "cannot be opened" in await refusal(directory)


async def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """A pipe would keep a start waiting for a writer; beside a device there is no place for a
    lock."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        assert "cannot be opened: it is not a regular file" in await refusal(path)
        with pytest.raises(StoreUnusable, match="not a regular file"):
            list(check_copy(path))
        assert not is_there(Path(f"{path}.lock"))


async def test_a_directory_that_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for the system's refusal: root, who may run this, may write anywhere."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "cannot be used: Permission denied" in await refusal(tmp_path / "tasks.db")


async def test_a_file_that_is_read_only_is_refused(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.close()
    connect = apsw.Connection

    def connect_read_only(path: str) -> apsw.Connection:
        return connect(path, flags=apsw.SQLITE_OPEN_READONLY)

    monkeypatch.setattr(apsw, "Connection", connect_read_only)
    assert "cannot be written" in await refusal(kept.path)


async def test_a_file_that_another_program_is_writing_is_refused(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "BUSY_TIMEOUT_MS", 50)
    await kept.close()
    other = apsw.Connection(os.fspath(kept.path))
    other.execute("BEGIN IMMEDIATE")
    assert "in use by another program" in await refusal(kept.path)
    other.close(force=True)


async def test_a_damaged_store_is_a_failed_one_and_not_locked(kept: Rig) -> None:
    """People have to look at it, or bring a backup back; the lock is not in their way."""
    await kept.submit()
    await kept.close()
    write(kept.path, "DROP TABLE lease")
    for _ in range(2):
        with pytest.raises(StoreFailed, match="cannot be read") as failed:
            await Rig(kept.settings.store).open()
        assert "\n" not in str(failed.value)


async def test_a_start_writes_nothing(kept: Rig) -> None:
    """It may be on a full disk, or find damage later."""
    await kept.submit()
    await kept.close()
    before = kept.path.read_bytes()
    await kept.open()
    assert kept.path.read_bytes() == before
    assert kept.path.with_name(f"{kept.path.name}-wal").stat().st_size == 0


async def test_what_sqlite_says_of_a_damaged_schema_is_one_line(kept: Rig) -> None:
    """It tells it as it was written, in lines."""
    await kept.close()
    broken = (
        "UPDATE sqlite_schema SET sql = replace(sql, 'queue TEXT', '? TEXT') WHERE name = 'task'"
    )
    write(kept.path, f"PRAGMA writable_schema = ON; {broken}")
    with pytest.raises(StoreFailed, match="malformed database schema") as failed:
        await Rig(kept.settings.store).open()
    assert "\n" not in str(failed.value)


async def test_a_store_whose_clocks_are_gone_is_a_failed_one(kept: Rig) -> None:
    """What SQLite reads of a page that a disk has lost."""
    await kept.submit()
    await kept.close()
    lax = "replace(sql, 'newest_enqueued_us INTEGER NOT NULL', 'newest_enqueued_us INTEGER')"
    write(
        kept.path,
        f"PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = {lax} WHERE name = 'store'",
    )
    write(kept.path, "UPDATE store SET newest_enqueued_us = NULL")
    with pytest.raises(StoreFailed, match="does not say up to where it goes"):
        await Rig(kept.settings.store).open()


def test_a_journal_in_memory_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Journal(None, "strict", ("paid",)).close()
    assert list(tmp_path.iterdir()) == []
