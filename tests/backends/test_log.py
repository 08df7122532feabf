"""P7: the write-ahead log goes into the database again and again, and does not grow for ever."""

from pathlib import Path

from taskdist.limits import KIB, MIB
from taskdist.settings import DistributorSettings
from tests.support.backends import Rig, turns

EVERY = 256 * KIB
STEPS = 100
DATA = bytes(64 * KIB)


def log_bytes(rig: Rig) -> int:
    """The size of its file."""
    return Path(f"{rig.path}-wal").stat().st_size


async def test_p7_the_log_stays_small(tmp_path: Path) -> None:
    """However much is written without a pause: here, 6 MiB; and cut to nothing in the first one."""
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", checkpoint_bytes=EVERY)
    await rig.open()
    for _ in range(STEPS):
        await rig.submit(data=DATA)
        assert log_bytes(rig) < MIB
    idle_us = DistributorSettings().idle_checkpoint_us
    rig.time.pass_us(idle_us)
    rig.runner.wake()
    await turns()
    assert log_bytes(rig) == 0
    await rig.close()
