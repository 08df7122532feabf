"""Distributors to compare with: one that only echoes, one that keeps nothing, one on a slow disk.

Run as `python -m scripts.benching.variants VARIANT serve …`; the rest is the real command line.
"""

import sys
import time
from typing import Any

import apsw

from taskdist.backends import embedded, journal
from taskdist.cli import main
from taskdist.core.commands import Change
from taskdist.distributor import service
from taskdist.wire import messages as wire
from taskdist.wire.codec import make

SLOW_SYNC_S = 0.010


def echo() -> None:
    """SubmitTask answers at once: what the stack can do at best."""

    async def submit_task(self: Any, request: wire.SubmitTaskRequest) -> wire.SubmitTaskResponse:
        state = wire.TaskState.READY
        return make(wire.SubmitTaskResponse, task_id="echo", status=state, queue_position=1)

    service.TaskDistributorService.submit_task = submit_task  # type: ignore[assignment, method-assign]


def nothing() -> None:
    """The same queue, leases and rules over a journal that is a dict and never syncs."""
    kept: dict[int, Any] = {}

    def save(self: journal.Journal, change: Change) -> int:
        task = change.after
        data = kept[task.sequence][1] if change.data is None else change.data
        kept[task.sequence] = (task.evolve(lease=None), data)
        return 0

    journal.Journal.save = save  # type: ignore[method-assign]
    journal.Journal.tasks_with_data = (  # type: ignore[method-assign]
        lambda self, sequences: (kept[sequence] for sequence in sequences)
    )


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

        def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
            return File(beneath, name, flags)

    embedded.slow_disk = Disk()  # type: ignore[attr-defined] # it lives as long as the process


if __name__ == "__main__":
    {"echo": echo, "nothing": nothing, "slow": slow}[sys.argv.pop(1)]()
    main()
