"""A disk whose syncs take long is noticed, and more shares each commit then."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from taskdist.core.commands import Several
from tests.support.backends import Rig, submit, turns

SYNC_S = 0.01
"""Of the slow disk; a real one, for nothing else notices real time here."""


class _File(apsw.VFSFile):
    def __init__(self, disk: "SlowDisk", *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._disk = disk

    def xSync(self, flags: int) -> None:  # noqa: N802 # apsw's name
        time.sleep(self._disk.sync_s)
        super().xSync(flags)


class SlowDisk(apsw.VFS):
    """SQLite's own, but that syncs may take longer. The default while it lives."""

    def __init__(self) -> None:
        self._beneath = apsw.vfs_names()[0]
        super().__init__("slow", self._beneath, makedefault=True)
        self.sync_s = SYNC_S

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _File(self, self._beneath, name, flags)


@pytest.fixture
def disk() -> Iterator[SlowDisk]:
    """The disk of all stores that are opened in the test."""
    disk = SlowDisk()
    yield disk
    disk.unregister()


async def is_slow_after(rig: Rig, commits: int) -> bool:
    for _ in range(commits):
        await rig.submit()
    return rig.hearer.is_disk_slow


async def test_a_slow_disk_is_told_of_and_so_is_one_that_recovers(
    disk: SlowDisk, tmp_path: Path
) -> None:
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}")
    await rig.open()
    assert not await is_slow_after(rig, commits=2), "one or two slow syncs are none to speak of"
    assert await is_slow_after(rig, commits=10)
    disk.sync_s = 0
    assert not await is_slow_after(rig, commits=30)
    await rig.close()


async def test_p7_twice_as_much_shares_a_commit_of_a_slow_disk(
    disk: SlowDisk, tmp_path: Path
) -> None:
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", batch_rows_max=10)

    async def commits() -> int:
        rig.runner.hold()
        asks = [rig.ask(Several(tuple(submit() for _ in range(5)), atomic=False)) for _ in range(8)]
        await turns()
        told: list[int] = []
        rig.hearer.when_changed = lambda: told.append(1)
        rig.runner.let_go()
        await asyncio.gather(*asks)
        return len(told)

    await rig.open()
    disk.sync_s = 0
    assert await commits() == 4
    disk.sync_s = SYNC_S
    assert await is_slow_after(rig, commits=12)
    assert await commits() == 2
    await rig.close()
