"""A backup holds what was acknowledged before it, is sound, and holds nobody up (P1, P7)."""

import asyncio
import os
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from threading import current_thread

import apsw
import pytest

from taskdist.backends.store_copy import check_copy
from taskdist.core.errors import Exhausted, PreconditionFailed, Unavailable
from taskdist.core.inspecting import BackUpStore, CheckStore
from taskdist.limits import BACKUP_CHUNK_BYTES, SECOND_US
from tests.support.backends import Rig, page, release
from tests.support.faulty_disk import READ, WRITE, Faults, faulty
from tests.support.inspecting import a_life, backed_up, checked


async def restored(rig: Rig, path: Path) -> Rig:
    """A distributor's backend on this file, with the time going on."""
    other = Rig(f"sqlite:{path}")
    other.time = rig.time
    await other.open()
    return other


async def write_backup(rig: Rig, path: Path) -> bytes:
    """Takes a backup and writes it to this file; its bytes."""
    parts = await backed_up(rig)
    content = b"".join(part.chunk for part in parts)
    path.write_bytes(content)  # noqa: ASYNC240 # a test
    assert parts[-1].sha256 == sha256(content).digest()
    assert {part.total_bytes for part in parts if part.chunk} == {len(content)}
    assert max(len(part.chunk) for part in parts) <= BACKUP_CHUNK_BYTES
    return content


def open_copies() -> list[str]:
    """The copies that this process has open, by the names that they had."""
    links = [os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    return [link for link in links if ".backup" in link]


async def test_p1_a_backup_is_the_whole_store(kept: Rig, tmp_path: Path) -> None:
    """Also what is only in the write-ahead log so far. A restored one goes on from there."""
    await a_life(kept)
    path = tmp_path / "backup.db"
    await write_backup(kept, path)
    before = await kept.read(page())
    histories = [await kept.history(task.id) for task in before.tasks]
    *_, last = check_copy(path)
    assert (last.fault_count, last.done, last.tasks) == (0, True, len(histories))
    order = await kept.take_all(queues=("default", "retried", "leased"))
    await kept.close()

    again = await restored(kept, path)
    for history in histories:
        told = await again.history(history.task.id)
        assert (told.task.evolve(lease=None), told.result, told.attempts) == (
            history.task.evolve(lease=None),
            history.result,
            history.attempts,
        )
    assert await again.take_all(queues=("default", "retried", "leased")) == order
    await again.pass_s(31)
    (leased,) = [one.task for one in histories if one.task.lease]
    assert (await again.take(queues=("leased",))).id == leased.id, "it comes back after its term"
    await again.close()


async def test_p1_what_is_written_meanwhile_does_not_tear_it(kept: Rig, tmp_path: Path) -> None:
    """The copy is of one moment, after the call began, however long it is read."""
    first = [await kept.submit(data=os.urandom(100_000)) for _ in range(60)]
    copied = []
    async with aclosing(await kept.read(BackUpStore())) as parts:
        async for part in parts:
            copied.append(part.chunk)
            await kept.submit(data=bytes(1_000))
            await kept.apply(release(await kept.take()))
    path = tmp_path / "backup.db"
    path.write_bytes(b"".join(copied))
    *_, last = check_copy(path)
    assert last.fault_count == 0
    again = await restored(kept, path)
    ids = {task.id for task in (await again.read(page(page_size=1_000))).tasks}
    assert set(first) <= ids
    await again.close()


async def test_p7_the_copy_has_no_name_and_is_gone_with_the_call(kept: Rig, tmp_path: Path) -> None:
    await kept.submit(data=bytes(1_000_000))
    left = tmp_path / "tasks.db.backup"
    left.write_bytes(b"of one that was killed")
    async with aclosing(await kept.read(BackUpStore())) as parts:
        async for part in parts:
            assert not left.exists()  # a test
            if part.chunk:
                break
        assert open_copies()
    assert kept.backend._inspections is not None
    await kept.backend._inspections.ended()
    assert not open_copies()
    assert (await checked(kept))[-1].done


async def test_p7_one_at_a_time(kept: Rig) -> None:
    await kept.submit()
    async with aclosing(await kept.read(BackUpStore())) as parts:
        await anext(parts)
        for query in (BackUpStore(), CheckStore()):
            with pytest.raises(Exhausted, match="a backup of the store is under way"):
                await anext(await kept.read(query))


async def test_p7_without_room_no_copy_is_begun(tmp_path: Path) -> None:
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", backup_free_bytes_min=1 << 60)
    await rig.open()
    with pytest.raises(PreconditionFailed, match=r"no room in .*: the copy has \d+ bytes"):
        await backed_up(rig)
    await rig.close()
    assert not list(tmp_path.glob("*.backup"))  # noqa: ASYNC240 # a test


async def test_a_directory_of_its_own(tmp_path: Path) -> None:
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", backup_directory=str(tmp_path / "elsewhere"))
    await rig.open()
    with pytest.raises(PreconditionFailed, match=r"no copy can be made in .*elsewhere: No such"):
        await backed_up(rig)
    (tmp_path / "elsewhere").mkdir()
    assert rig.backend._inspections is not None
    await rig.backend._inspections.ended()
    assert (await backed_up(rig))[-1].sha256
    assert rig.hearer.failure is None
    await rig.close()


async def test_p7_the_log_is_held_no_longer_than_the_copy_is_made(
    kept: Rig, tmp_path: Path
) -> None:
    """A slow reader of the bytes costs room for the copy, and not for the log."""
    for _ in range(5):
        await kept.submit(data=bytes(1_000_000))
    async with aclosing(await kept.read(BackUpStore())) as parts:
        async for part in parts:
            if part.chunk:
                break
        assert kept.backend._writer.checkpoint(truncate=True)


async def test_p7_the_writer_does_not_wait_for_who_holds_the_log(kept: Rig) -> None:
    """It cuts the log later."""
    await kept.submit()
    reader = apsw.Connection(os.fspath(kept.path))
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM task").get == 1
    await kept.submit()
    writer = kept.backend._writer
    assert not writer.checkpoint(truncate=True)
    reader.execute("COMMIT")
    assert writer.checkpoint(truncate=True)
    reader.close()


async def test_p7_a_log_that_has_grown_is_not_left_to_the_writer(kept: Rig) -> None:
    """All that was written while it was held is in the database before the bytes are sent."""
    async with aclosing(await kept.read(BackUpStore())) as parts:
        await anext(parts)  # The snapshot is held.
        for _ in range(10):
            await kept.submit(data=bytes(1_000_000))
        assert kept.backend._writer.log_bytes() > kept.settings.checkpoint_bytes
        assert kept.path.stat().st_size < 5_000_000, "held back"  # a test
        async for part in parts:
            if part.chunk:
                break
        assert kept.path.stat().st_size > 10_000_000  # a test
    assert kept.hearer.failure is None


async def test_p7_it_may_not_take_for_ever(kept: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly it is read."""
    await kept.submit()
    async with aclosing(await kept.read(BackUpStore())) as parts:
        await anext(parts)
        loop = asyncio.get_running_loop()
        later_s = loop.time() + kept.settings.inspection_us / SECOND_US + 1
        monkeypatch.setattr(loop, "time", lambda: later_s)
        with pytest.raises(Exhausted, match="the backup took longer than inspection_us allows"):
            await anext(parts)
        monkeypatch.undo()


@pytest.mark.parametrize("fault", [READ, WRITE])
async def test_p6_an_error_of_the_disk_is_the_stores_or_the_copys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A store that cannot be read has failed, whoever reads it; a copy that cannot be written has
    not been made, and nothing more."""
    faults = Faults(tmp_path / "faults")
    check = faults.check
    # Nobody else's deeds fail: those are theirs to notice.
    monkeypatch.setattr(
        faults,
        "check",
        lambda deed: check(deed) if current_thread().name.startswith("backup") else None,
    )
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", backup_free_bytes_min=0)
    with faulty(faults):
        await rig.open()
        for _ in range(20):
            await rig.submit(data=bytes(50_000))
        await rig.restart()
        await rig.submit()
        async with aclosing(await rig.read(BackUpStore())) as parts:
            await anext(parts)
            faults.set(fault)
            with pytest.raises(Unavailable if fault == READ else PreconditionFailed):
                async for _ in parts:
                    pass
        faults.set()
        assert (rig.hearer.failure is not None) == (fault == READ)
        await rig.close()
