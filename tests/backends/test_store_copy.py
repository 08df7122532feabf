"""A file that no distributor holds is checked without a write to it, or refused in one line."""

import asyncio
import fcntl
import os
from pathlib import Path

import apsw
import pytest

from taskdist.backends.schema import SCHEMA_VERSION
from taskdist.backends.store_copy import check_copy, refuse_place_in_use
from taskdist.backends.store_file import PAGE_BYTES
from taskdist.core.errors import StoreFailed, StoreUnusable
from taskdist.core.inspecting import Checked
from tests.support.backends import Rig, copy_store
from tests.support.inspecting import a_life


def last_of(path: Path) -> Checked:
    """What a check says at its end."""
    *_, last = check_copy(path)
    return last


def refused(path: Path) -> str:
    """Why it is refused, in one line."""
    with pytest.raises(StoreUnusable) as refusal:
        last_of(path)
    text = str(refusal.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """All files with when they were changed, and what is in them."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.iterdir()}


async def stopped(kept: Rig) -> tuple[Path, int]:
    """The store of a distributor that has stopped, and how many tasks it has."""
    tasks, _ = await a_life(kept)
    await kept.close()
    return kept.path, tasks


async def test_a_stopped_store_is_checked_and_nothing_is_written(kept: Rig) -> None:
    path, tasks = await stopped(kept)
    before = tree(path.parent)
    last = last_of(path)
    assert (last.tasks, last.fault_count, last.done) == (tasks, 0, True)
    assert tree(path.parent) == before
    path.chmod(0o400)
    assert last_of(path).done


async def test_damage_is_found_as_in_a_store_in_use(kept: Rig) -> None:
    path, _ = await stopped(kept)
    connection = apsw.Connection(os.fspath(path))
    connection.execute("DELETE FROM data WHERE sequence = 1")
    connection.close()
    assert last_of(path).fault_count == 1
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3 * PAGE_BYTES)
    with pytest.raises(StoreFailed, match="malformed"):
        last_of(path)


async def test_a_store_in_use_is_refused(kept: Rig) -> None:
    """By any name, and also as the place of a backup."""
    await kept.submit()
    link = kept.path.with_name("link.db")
    link.symlink_to(kept.path)  # a test
    assert f"in use by a distributor (process {os.getpid()})" in refused(kept.path)
    with pytest.raises(StoreUnusable, match="in use by a distributor"):
        last_of(link)
    with pytest.raises(StoreUnusable, match="in use by a distributor"):
        refuse_place_in_use(kept.path)
    await kept.submit()


async def test_while_it_is_checked_no_distributor_starts_on_it(kept: Rig) -> None:
    path, _ = await stopped(kept)
    steps = check_copy(path)
    next(steps)
    with pytest.raises(StoreUnusable, match="in use by another"):
        await kept.open()
    assert list(steps)[-1].done
    await kept.open()


async def test_what_a_kill_leaves_is_refused_for_its_log(kept: Rig) -> None:
    """It is not whole without, and to read it would write."""
    await a_life(kept)
    copy = copy_store(kept.path)
    assert f"not whole without {copy.name}-wal" in refused(copy)
    copy.unlink()  # a test
    with pytest.raises(StoreUnusable, match="-wal"):
        refuse_place_in_use(copy)
    refuse_place_in_use(kept.path.with_name("new.db"))


async def test_a_program_that_writes_to_it_is_respected(kept: Rig) -> None:
    path, _ = await stopped(kept)
    program = await asyncio.create_subprocess_exec(
        "/usr/bin/env",
        "python3",
        "-c",
        "import fcntl, sys; f = open(sys.argv[1], 'r+b');"
        "fcntl.lockf(f, fcntl.LOCK_EX, 1, 0x40000001); print(flush=True); input()",
        os.fspath(path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    await program.stdout.readline()
    assert "in use by another program" in refused(path)
    await program.communicate(b"\n")
    assert last_of(path).done


@pytest.mark.parametrize(
    ("version", "says"), [(SCHEMA_VERSION + 1, "a newer"), (SCHEMA_VERSION - 1, "an older")]
)
async def test_another_version_is_refused(kept: Rig, version: int, says: str) -> None:
    path, _ = await stopped(kept)
    connection = apsw.Connection(os.fspath(path))
    connection.pragma("user_version", version)
    connection.close()
    assert f"has version {version}, made by {says} taskdist" in refused(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    assert "No such file" in refused(path)
    path.write_bytes(b"")
    assert "some other SQLite file" in refused(path)
    path.write_bytes(b"not SQLite at all" * 1_000)
    assert "not SQLite" in refused(path)
    assert "is a directory" in refused(tmp_path)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert "not SQLite" in refused(path)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    circle = tmp_path / "circle.db"
    circle.symlink_to(circle)
    refused(circle)
    with pytest.raises(StoreUnusable):
        refuse_place_in_use(circle)
