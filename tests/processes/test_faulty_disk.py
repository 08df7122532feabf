"""P6, in the real process: `taskdist serve` on a disk that is full, fails, or cannot be opened.

The disk is SQLite's, with faults that the test switches on and off while the process runs.
"""

import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from taskdist.cli.exits import STORE_FAILED, USAGE
from taskdist.client import Stub
from taskdist.core.errors import Exhausted, Refused, Unavailable
from taskdist.core.task import TaskState
from taskdist.limits import KIB
from taskdist.reports import Submission, Work
from tests.support.faulty_disk import DIRECTORY, OPEN, QUOTA, READ, SHORT, SYNC, WRITE, Faults
from tests.support.processes import Processes, Serving, Spawned

SMALL = {"TASKDIST_RESERVE_BYTES": str(512 * KIB), "TASKDIST_CHECKPOINT_BYTES": str(128 * KIB)}
LARGE = bytes(100_000)


@pytest.fixture
def faults(processes: Processes) -> Faults:
    """What is wrong with the disk of what `processes` runs."""
    path = processes.directory / "faults"
    processes.program = (sys.executable, "-m", "tests.support.faulty_serve", str(path))
    return Faults(path)


async def submit(client: Stub, data: bytes = b"some") -> str:
    """The id of a new task."""
    said = await client.submit(user_tier="free", est_processing_time_s=1, data=data)
    return said.task_id


async def submitted(client: Stub, count: int) -> list[str]:
    """The ids of so many new tasks, each with data of its own."""
    return [await submit(client, f"data {i}".encode()) for i in range(count)]


async def taken(client: Stub) -> Work:
    """The next task, which must be there."""
    work = await client.fetch(agent_id="tester")
    assert work is not None
    return work


async def complete(client: Stub, work: Work, result: bytes = b"done") -> None:
    """Its agent says that it succeeded."""
    await client.complete(
        task_id=work.task_id,
        agent_id="tester",
        lease_id=work.lease_id,
        success=True,
        result=result,
    )


def one_line(ended: Spawned) -> str:
    """The only line that it said to people, and the last."""
    (line,) = ended.texts()
    assert line.startswith("taskdist: ")
    assert str(ended.logged("Traceback")) == "[]"
    return line


async def fill(client: Stub, faults: Faults, *more: str) -> None:
    """The disk becomes full, and the distributor notices."""
    faults.fill(0, *more)
    with pytest.raises(Exhausted):
        await client.submit_many([Submission("paid", 1, data=LARGE)] * 20)


@pytest.mark.parametrize("more", [[], [QUOTA]], ids=["full", "quota"])
async def test_p6_a_full_disk(processes: Processes, faults: Faults, more: list[str]) -> None:
    """Submits and leases are refused, outcomes accepted; a stop and a start in that condition
    change nothing; with room all goes on, and nothing acknowledged is missing."""
    serving = processes.serve(**SMALL)
    async with Stub(serving.address) as client:
        ids = await submitted(client, 30)
        works = [await taken(client) for _ in range(20)]
        await fill(client, faults, *more)
        serving.wait_for("disk full", reserve="given up")
        for _ in range(3):
            with pytest.raises(Exhausted, match="disk"):
                await submit(client)
            with pytest.raises(Exhausted, match="disk"):
                await client.fetch(agent_id="tester")
        for work in works[:10]:
            await complete(client, work)
    for half in (works[10:15], works[15:]):
        serving.terminate()
        assert serving.wait_end() == 0
        faults.fill(64 * KIB, *more)
        serving = processes.serve(**SMALL)
        serving.wait_for("disk full", reserve="missing")
        async with Stub(serving.address) as client:
            for work in half:
                await complete(client, work)
            with pytest.raises(Exhausted):
                await submit(client)
    faults.set()
    serving.wait_for("disk has room again")
    async with Stub(serving.address) as client:
        for work in works:
            assert (await client.get(work.task_id)).result == b"done"
        left = [await taken(client) for _ in range(10)]
        assert [work.task_id for work in left] == ids[20:]
        assert [work.data for work in left] == [f"data {i}".encode() for i in range(20, 30)]
        await submitted(client, 1)


async def test_p6_a_limit_of_the_system_on_its_files(processes: Processes) -> None:
    """The system's own refusal, of which SQLite only says that it is an I/O error."""
    serving = processes.serve(**SMALL)
    async with Stub(serving.address) as client:
        ids = await submitted(client, 20)
        works = [await taken(client) for _ in range(10)]
        _, hard = resource.prlimit(serving.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(serving.pid, resource.RLIMIT_FSIZE, (400 * KIB, hard))
        with pytest.raises(Exhausted):
            await client.submit_many([Submission("paid", 1, data=LARGE)] * 20)
        for work in works:
            await complete(client, work)
        with pytest.raises(Exhausted, match="disk"):
            await submit(client)
        resource.prlimit(serving.pid, resource.RLIMIT_FSIZE, (hard, hard))
        serving.wait_for("disk has room again")
        assert [(await taken(client)).task_id for _ in range(10)] == ids[10:]
    serving.kill()
    serving = processes.serve(**SMALL)
    async with Stub(serving.address) as client:
        for work in works:
            assert (await client.get(work.task_id)).result == b"done"


async def refused(client: Stub) -> None:
    """Whatever is asked is refused, or goes unanswered when the process ends first."""
    for call in (submit(client), client.fetch(agent_id="tester")):
        with pytest.raises((Refused, OSError)) as error:
            await call
        assert isinstance(error.value, Unavailable | OSError)


@pytest.mark.parametrize(
    "found", [[WRITE], [SYNC], [SYNC, QUOTA]], ids=["write", "sync", "sync beyond a quota"]
)
async def test_p1_p6_a_disk_that_fails(
    processes: Processes, faults: Faults, found: list[str]
) -> None:
    """Nothing is acknowledged or leased any more, one line, exit 74; a restart on a sound disk
    serves every acknowledged task. A sync that failed is that whatever its reason: what of the
    batch is on the disk, nobody knows."""
    serving = processes.serve()
    async with Stub(serving.address) as client:
        ids = await submitted(client, 5)
        work = await taken(client)
        await complete(client, work)
        held = await taken(client)
        faults.set(*found)
        await refused(client)
    assert serving.wait_end() == STORE_FAILED
    assert "I/O error" in one_line(serving)
    faults.set()
    serving = processes.serve()
    async with Stub(serving.address) as client:
        assert (await client.get(work.task_id)).result == b"done"
        assert (await client.get(held.task_id)).state is TaskState.LEASED
        await complete(client, held)
        assert [(await taken(client)).task_id for _ in range(3)] == ids[2:]
        assert {task.task_id async for task in client.list_tasks()} >= set(ids)


async def take_and_compare(client: Stub, numbers: Iterable[int]) -> None:
    """Takes the tasks whose data says these numbers, in this order."""
    for i in numbers:
        assert (await taken(client)).data == bytes([i]) * 60_000


@pytest.mark.parametrize("fault", [READ, SHORT])
async def test_p6_reads_that_fail_serve_no_wrong_byte(
    processes: Processes, faults: Faults, fault: str
) -> None:
    serving = processes.serve()
    async with Stub(serving.address) as client:
        ids = [await submit(client, bytes([i]) * 60_000) for i in range(80)]
    serving.terminate()
    assert serving.wait_end() == 0
    serving = processes.serve()  # Nothing of it is in memory any more.
    faults.set(fault)
    async with Stub(serving.address) as client:
        with pytest.raises((Refused, OSError)):
            await take_and_compare(client, range(80))
    assert serving.wait_end() == STORE_FAILED
    one_line(serving)
    faults.set()
    serving = processes.serve()
    async with Stub(serving.address) as client:
        states = [(await client.get(task_id)).state for task_id in ids]
        assert set(states) <= {TaskState.READY, TaskState.LEASED}
        ready = [i for i, state in enumerate(states) if state is TaskState.READY]
        await take_and_compare(client, ready)


def contents(directory: Path) -> dict[str, bytes]:
    """All files of the store, with what is in them."""
    return {path.name: path.read_bytes() for path in directory.glob("tasks.db*")}


def bytes_of(directory: Path) -> dict[str, bytes]:
    """What the files of the store are."""
    return {name: (directory / name).read_bytes() for name in ("tasks.db", "tasks.db-wal")}


@pytest.mark.parametrize("fault", [OPEN, READ, SHORT])
async def test_p6_a_start_on_a_disk_that_fails(
    processes: Processes, faults: Faults, fault: str
) -> None:
    serving: Serving = processes.serve()
    async with Stub(serving.address) as client:
        ids = await submitted(client, 3)
    serving.kill()
    before = bytes_of(processes.directory)
    faults.set(fault)
    failed = processes.spawn("serve", "--listen", "127.0.0.1:0", "--store", processes.store())
    assert failed.wait_end() == STORE_FAILED, str(failed)
    assert processes.store().removeprefix("sqlite:") in one_line(failed)
    assert bytes_of(processes.directory) == before
    faults.set()
    serving = processes.serve()
    async with Stub(serving.address) as client:
        assert [(await taken(client)).task_id for _ in ids] == ids


@pytest.mark.parametrize(
    ("found", "code", "says"),
    [
        ([WRITE], STORE_FAILED, "I/O error"),
        (["full=0"], 2, "its disk is full"),
        (["full=0", QUOTA], 2, "its disk is full"),
    ],
    ids=["write", "full", "quota"],
)
async def test_p6_a_first_start_that_cannot_write_its_store(
    processes: Processes, faults: Faults, found: list[str], code: int, says: str
) -> None:
    faults.set(*found)
    failed = processes.spawn("serve", "--listen", "127.0.0.1:0", "--store", processes.store())
    assert failed.wait_end() == code, str(failed)
    assert says in one_line(failed)
    faults.set()
    async with Stub(processes.serve().address) as client:
        await submit(client)


async def test_p6_a_directory_made_read_only_while_it_serves_is_no_trouble(
    processes: Processes, faults: Faults
) -> None:
    """Its files are open. A stop leaves the log where it is, with nothing in it."""
    serving = processes.serve(**SMALL)
    async with Stub(serving.address) as client:
        ids = await submitted(client, 3)
        faults.set(DIRECTORY)
        await complete(client, await taken(client))
        ids.append(await submit(client, LARGE))
        serving.terminate()
        assert serving.wait_end() == 0, str(serving)
    assert serving.texts() == []
    assert bytes_of(processes.directory)["tasks.db-wal"] == b""
    faults.set()
    serving = processes.serve(**SMALL)
    async with Stub(serving.address) as client:
        assert [(await taken(client)).task_id for _ in ids[1:]] == ids[1:]
        assert (await client.get(ids[0])).state is TaskState.SUCCEEDED


async def test_p6_a_start_in_a_directory_that_is_read_only_is_refused(
    processes: Processes, faults: Faults
) -> None:
    """One line, exit 2, nothing changed; and nothing is in the way once it may be written."""
    serving = processes.serve(**SMALL)
    async with Stub(serving.address) as client:
        ids = await submitted(client, 3)
    serving.terminate()
    assert serving.wait_end() == 0
    before = contents(processes.directory)
    faults.set(DIRECTORY)
    failed = processes.spawn(
        "serve", "--listen", "127.0.0.1:0", "--store", processes.store(), **SMALL
    )
    assert failed.wait_end() == USAGE, str(failed)
    assert "tasks.db cannot be written: unable to open database file" in one_line(failed)
    after = contents(processes.directory)
    assert after.pop("tasks.db.lock") == f"{failed.pid}\n".encode()
    assert after == {name: data for name, data in before.items() if name != "tasks.db.lock"}
    faults.set()
    serving = processes.serve(**SMALL)
    async with Stub(serving.address) as client:
        assert [(await taken(client)).task_id for _ in ids] == ids
