"""Distributors to compare with: one that only echoes, one that keeps nothing, one on a slow disk.

Run as `python -m scripts.benching.variants VARIANT serve …`; the rest is the real command line.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import apsw

from taskdist.backends import journal
from taskdist.cli import main
from taskdist.core.commands import Change
from taskdist.distributor import service
from taskdist.wire import messages as wire
from taskdist.wire.codec import make

SLOW_SYNC_S = 0.010

_disks: list[apsw.VFS] = []
"""SQLite's disks of our own: they have to live as long as the process."""


def echo() -> None:
    """SubmitTask answers at once: what the stack can do at best."""

    async def submit_task(self: Any, request: wire.SubmitTaskRequest) -> wire.SubmitTaskResponse:
        state = wire.TaskState.READY
        return make(wire.SubmitTaskResponse, task_id="echo", status=state, queue_position=1)

    mock.patch.object(service.TaskDistributorService, "submit_task", submit_task).start()


def nothing() -> None:
    """The same queue, leases and rules over a journal that is a dict and never syncs."""
    kept: dict[int, Any] = {}

    def save(self: journal.Journal, change: Change) -> int:
        task = change.after
        assert task is not None, "its figures forget nothing"
        data = kept[task.sequence][1] if change.data is None else change.data
        kept[task.sequence] = (task.evolve(lease=None), data)
        return 0

    def tasks_with_data(self: journal.Journal, sequences: Sequence[int]) -> Iterator[Any]:
        return map(kept.__getitem__, sequences)

    mock.patch.multiple(journal.Journal, save=save, tasks_with_data=tasks_with_data).start()


def slow() -> None:
    """Each sync of the write-ahead log takes 10 ms more."""

    # By its name: once the slow one is the default, "" would be itself.
    beneath = apsw.vfs_names()[0]

    class File(apsw.VFSFile):
        def xSync(self, flags: int) -> None:  # noqa: N802 # apsw's name
            time.sleep(SLOW_SYNC_S)
            super().xSync(flags)

    class Disk(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("slow", beneath, makedefault=True)

        def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 # apsw's name
            return File(beneath, name, flags)

    _disks.append(Disk())


if __name__ == "__main__":
    {"echo": echo, "nothing": nothing, "slow": slow}[sys.argv.pop(1)]()
    main()
