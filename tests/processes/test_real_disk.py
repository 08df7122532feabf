"""P6 on a real disk, with --deep: a small tmpfs that fills up, I/O errors of the system's calls
(strace), files that may not be written. Needs root, mount, strace and chattr; fails without them.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskdist.cli.exits import STORE_FAILED, USAGE
from taskdist.client import Stub
from taskdist.core.errors import Exhausted
from taskdist.core.task import TaskState
from taskdist.limits import KIB, MIB
from taskdist.reports import Submission
from tests.processes.test_faulty_disk import complete, one_line, refused, submit, submitted, taken
from tests.support.processes import Processes, Serving

pytestmark = pytest.mark.deep

SMALL = {
    "TASKDIST_RESERVE_BYTES": str(512 * KIB),
    "TASKDIST_CHECKPOINT_BYTES": str(256 * KIB),
    "TASKDIST_LEASE": "10m",
}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all of its room."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4 * KIB)):
                pass
        except OSError:
            return filler
    raise AssertionError("no end of the disk")


async def test_p6_a_real_disk_that_is_full(processes: Processes, small: Path) -> None:
    store = f"sqlite:{small}/tasks.db"
    serving = processes.serve(store=store, **SMALL)
    async with Stub(serving.address) as client:
        ids = await submitted(client, 30)
        works = [await taken(client) for _ in range(20)]
        filler = fill(small)
        with pytest.raises(Exhausted):
            await client.submit_many([Submission("paid", 1, data=bytes(50_000))] * 40)
        with pytest.raises(Exhausted):
            await client.fetch(agent_id="tester")
        for work in works[:10]:
            await complete(client, work)
    serving.terminate()
    assert serving.wait_end() == 0
    fill(small)
    failed = processes.spawn("serve", "--listen", "127.0.0.1:0", "--store", store, **SMALL)
    assert failed.wait_end() == USAGE, str(failed)
    assert "its disk is full" in one_line(failed), "the reserve is gone, and there is nothing"
    filler.unlink()
    serving = processes.serve(store=store, **SMALL)
    async with Stub(serving.address) as client:
        for work in works[:10]:
            assert (await client.get(work.task_id)).result == b"done"
        for work in works[10:]:
            await complete(client, work)
        assert {(await client.get(task_id)).state for task_id in ids[20:]} == {TaskState.READY}
        await submit(client)


async def test_p6_a_start_on_a_full_disk_has_the_reserve(processes: Processes, small: Path) -> None:
    store = f"sqlite:{small}/tasks.db"
    serving = processes.serve(store=store, **SMALL)
    async with Stub(serving.address) as client:
        ids = await submitted(client, 3)
        works = [await taken(client) for _ in range(2)]
    serving.terminate()
    assert serving.wait_end() == 0
    filler = fill(small)
    serving = processes.serve(store=store, **SMALL)
    async with Stub(serving.address) as client:
        for work in works:
            await complete(client, work)
        with pytest.raises(Exhausted):
            await client.fetch(agent_id="tester")
        filler.unlink()
        serving.wait_for("disk has room again")
        assert (await taken(client)).task_id == ids[2]


@contextmanager
def injected(serving: Serving, calls: str, path: Path) -> Iterator[None]:
    """These calls of a process fail with EIO, on this file; to its end."""
    strace = subprocess.Popen(
        [
            *("strace", "-f", "-p", str(serving.pid), "-P", str(path), "-o", "/dev/null"),
            *("-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO"),
        ],
        stderr=subprocess.PIPE,
    )
    assert strace.stderr is not None
    with strace:
        assert b"attached" in strace.stderr.readline()
        yield
        serving.wait_end()


@pytest.mark.parametrize("calls", ["pwrite64", "fsync,fdatasync"])
async def test_p1_p6_the_systems_own_io_errors(processes: Processes, calls: str) -> None:
    serving = processes.serve()
    log = processes.directory / "tasks.db-wal"
    async with Stub(serving.address) as client:
        ids = await submitted(client, 5)
        with injected(serving, calls, log):
            await refused(client)
    assert serving.wait_end() == STORE_FAILED
    assert "disk I/O error" in one_line(serving)
    serving = processes.serve()
    async with Stub(serving.address) as client:
        assert [(await taken(client)).task_id for _ in ids] == ids


@pytest.mark.parametrize("name", ["tasks.db", "tasks.db-wal", "tasks.db.lock"])
async def test_p6_the_systems_own_errors_of_an_open(processes: Processes, name: str) -> None:
    serving = processes.serve()
    async with Stub(serving.address) as client:
        ids = await submitted(client, 3)
    serving.kill()
    path = processes.directory / name
    before = path.read_bytes()
    program = processes.program
    processes.program = (
        *("strace", "-D", "-f", "-o", "/dev/null", "-P", str(path)),
        *("-e", "trace=openat,open", "-e", "inject=openat,open:error=EIO", *program),
    )
    failed = processes.spawn("serve", "--listen", "127.0.0.1:0", "--store", processes.store())
    assert failed.wait_end() == STORE_FAILED, str(failed)
    one_line(failed)
    assert path.read_bytes() == before or name == "tasks.db.lock"
    processes.program = program
    serving = processes.serve()
    async with Stub(serving.address) as client:
        assert [(await taken(client)).task_id for _ in ids] == ids


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Not even root may write it."""
    subprocess.run(["chattr", "+i", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.parametrize("name", ["", "tasks.db", "tasks.db.lock"])
async def test_p6_what_may_not_be_written_is_refused(processes: Processes, name: str) -> None:
    """The directory, and each file: one line, exit 2, nothing changed."""
    serving = processes.serve()
    async with Stub(serving.address) as client:
        ids = await submitted(client, 3)
    serving.terminate()
    assert serving.wait_end() == 0
    (processes.directory / "tasks.db.lock").unlink(missing_ok=name == "")
    if name:
        (processes.directory / name).touch()
    before = (processes.directory / "tasks.db").read_bytes()
    with immutable(processes.directory / name):
        failed = processes.spawn("serve", "--listen", "127.0.0.1:0", "--store", processes.store())
        assert failed.wait_end() == USAGE, str(failed)
    one_line(failed)
    assert (processes.directory / "tasks.db").read_bytes() == before
    serving = processes.serve()
    async with Stub(serving.address) as client:
        assert [(await taken(client)).task_id for _ in ids] == ids


async def test_p6_a_directory_made_read_only_while_it_serves_is_no_trouble(
    processes: Processes,
) -> None:
    """Its files are open. A stop leaves the log, and the next start has it."""
    serving = processes.serve()
    async with Stub(serving.address) as client:
        ids = await submitted(client, 3)
        with immutable(processes.directory):
            ids.append(await submit(client, bytes(MIB // 2)))
            serving.terminate()
            assert serving.wait_end() == 0, str(serving)
    assert os.path.exists(processes.directory / "tasks.db")  # noqa: ASYNC240 # the loop has nothing else to do
    serving = processes.serve()
    async with Stub(serving.address) as client:
        assert [(await taken(client)).task_id for _ in ids] == ids
