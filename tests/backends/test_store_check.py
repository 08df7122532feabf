"""A check of a store in use: it finds what is wrong, and holds nobody up (P6, P7)."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import apsw
import pytest

from taskdist.backends import store_check
from taskdist.backends.store_copy import check_copy
from taskdist.backends.store_file import PAGE_BYTES
from taskdist.core.commands import Cancel
from taskdist.core.errors import Exhausted, PreconditionFailed, Unavailable
from taskdist.core.inspecting import BackUpStore, Checked, CheckStore
from taskdist.limits import CHECK_FAULTS_TOLD_MAX
from tests.backends.test_fuzzed_rows import Spoilt, spoil
from tests.support.backends import Rig, note
from tests.support.faulty_disk import READ, Faults, faulty
from tests.support.inspecting import a_life, checked


async def test_a_store_with_tasks_in_every_state_is_sound(kept: Rig) -> None:
    tasks, attempts = await a_life(kept)
    steps = await checked(kept)
    last = steps[-1]
    assert (last.faults, last.fault_count, last.done) == ((), 0, True)
    assert (last.tasks, last.tasks_in_all, last.attempts) == (tasks, tasks, attempts)
    assert last.store_bytes >= PAGE_BYTES
    assert [step.done for step in steps[:-1]] == [False] * (len(steps) - 1)


async def test_p7_after_the_end_of_a_check_the_next_may_begin_at_once(kept: Rig) -> None:
    for _ in range(20):
        assert (await checked(kept))[-1].done


async def test_an_empty_store_is_sound(kept: Rig) -> None:
    last = (await checked(kept))[-1]
    assert (last.tasks, last.fault_count, last.done) == (0, 0, True)


DAMAGE = {
    "UPDATE task SET kind = 'no kind!' WHERE sequence = 1": "task row 1: kind",
    "UPDATE task SET id = x'00' WHERE sequence = 1": "task row 1: an id of 1 bytes",
    "UPDATE task SET state = 'leased' WHERE state = 'ready'": "leased, yet without a lease",
    "UPDATE task SET state = 'ready' WHERE state = 'leased'": "ready, yet with a lease",
    "UPDATE task SET finished_at_us = NULL WHERE state = 'dead'": "without a time when it finished",
    "UPDATE task SET due_at_us = NULL WHERE state = 'scheduled'": "without a time when it is due",
    "UPDATE task SET data_bytes = 7 WHERE sequence = 1": "yet 7 are counted",
    "UPDATE task SET retry_count = 9 WHERE state = 'ready'": "after 9 failures",
    "UPDATE task SET attempt = 0 WHERE state = 'succeeded'": "0 runs, yet 1 are accounted for",
    "UPDATE data SET data = x'00' WHERE sequence = 1": "its data does not match its checksum",
    "UPDATE result SET result = x'00'": "its result does not match its checksum",
    "DELETE FROM data WHERE sequence = 1": "task row 1: its data is missing",
    "DELETE FROM result": "succeeded, yet without a result",
    "DELETE FROM lease": "leased, yet without a lease",
    "UPDATE attempt SET outcome = 'odd'": "attempt row",
    "UPDATE attempt SET attempt = 99": "attempt 99 of",
    "INSERT INTO data (sequence, data) VALUES (77, x'00')": "data of task row 77: there is no",
    "INSERT INTO result (sequence, result) VALUES (-5, x'00')": "result of task row -5",
    "INSERT INTO lease VALUES (77, 'l', 'a', 's', 1, 1, 1, 1)": "lease of task row 77: there is no",
    "UPDATE attempt SET sequence = 77 WHERE sequence = 1": "attempt of task row 77: there is no",
    "INSERT INTO entry VALUES (1, 1, 1, 'odd', 1, NULL, 'x', 1)": "task row 1: entry row (1, 1)",
    "INSERT INTO entry VALUES (1, 1, 1, 'progress', 1, 2.0, 'x', 1)": "a fraction beyond 0 and 1",
    "INSERT INTO entry VALUES (77, 1, 1, 'log', 1, NULL, 'x', 1)": "entry of task row 77: there is",
    "UPDATE store SET last_sequence = 1": "yet the last one given is 1",
    "UPDATE store SET newest_enqueued_us = 1": "enqueued later than the newest task",
}


UNDECODABLE = {
    Spoilt(("task", "kind"), 1, b"\xff", as_text=True): "task row 1: text in it, or in what",
    Spoilt(("lease", "agent_id"), 6, b"\xff", as_text=True): "task row 6: text in it, or in what",
    Spoilt(("lease", "term_us"), 6, -1): "task row 6: lease row",
    Spoilt(("attempt", "error"), 3, b"\xff", as_text=True): "task row 3: attempt row",
    Spoilt(("data", "data"), 1, 5): "its data does not match its checksum",
    Spoilt(("data", "data"), 1, b"\xff", as_text=True): "task row 1: text in it, or in what",
    Spoilt(("result", "result"), 1, 5): "its result does not match its checksum",
    Spoilt(("entry", "text"), 10, b"\xff", as_text=True): "task row 10: entry row",
    Spoilt(("entry", "step"), 10, "x"): "task row 10: entry row",
}
"""Values that the tables would not allow, as a broken disk leaves them."""


@pytest.mark.parametrize("spoilt", UNDECODABLE, ids=str)
async def test_p6_a_row_that_cannot_be_decoded_is_a_finding_and_the_check_goes_on(
    kept: Rig, spoilt: Spoilt
) -> None:
    tasks, _ = await a_life(kept)
    await kept.submit(queue="talks")
    await kept.apply(note(await kept.take(queues=("talks",)), "a line"))
    await kept.close()
    in_one_file(kept.path)
    spoil(kept.path, [spoilt])
    await kept.open()
    steps = await checked(kept)
    faults = [fault for step in steps for fault in step.faults]
    assert any(UNDECODABLE[spoilt] in fault for fault in faults), faults
    assert all("\n" not in fault for fault in faults)
    assert (steps[-1].tasks, steps[-1].done) == (tasks + 1, True)
    assert kept.hearer.failure is None


def in_one_file(path: Path) -> None:
    """Copies the log of a store that is closed into its database, and has none from then on."""
    connection = apsw.Connection(os.fspath(path))
    connection.pragma("journal_mode", "delete")
    connection.close()


async def test_a_copy_that_does_not_say_up_to_where_it_goes(kept: Rig) -> None:
    await a_life(kept)
    await kept.close()
    in_one_file(kept.path)
    spoil(kept.path, [Spoilt(("store", "last_sequence"), 1, None)])
    faults = [fault for step in check_copy(kept.path) for fault in step.faults]
    assert "store: it does not say up to where it goes" in faults


@pytest.mark.parametrize("statement", DAMAGE)
async def test_each_kind_of_damage_is_named(kept: Rig, statement: str) -> None:
    await a_life(kept)
    await kept.close()
    connection = apsw.Connection(os.fspath(kept.path))
    connection.execute(statement)
    connection.close()
    await kept.open()
    faults = [fault for step in await checked(kept) for fault in step.faults]
    assert any(DAMAGE[statement] in fault for fault in faults), faults
    assert all("\n" not in fault for fault in faults)


async def test_a_page_of_zeros_is_found_and_the_distributor_goes_on(kept: Rig) -> None:
    """P6: damage that a check meets is a finding, and no failure of the process."""
    for _ in range(200):
        await kept.submit(data=bytes(1_000))
    await kept.close()
    pages = kept.path.stat().st_size // PAGE_BYTES
    with kept.path.open("r+b") as file:
        file.seek((pages - 2) * PAGE_BYTES)
        file.write(bytes(PAGE_BYTES))
    await kept.open()
    last = (await checked(kept))[-1]
    assert last.fault_count
    assert last.done
    assert kept.hearer.failure is None
    await kept.submit()


async def test_p7_faults_are_told_up_to_a_limit_and_all_are_counted(kept: Rig) -> None:
    for _ in range(CHECK_FAULTS_TOLD_MAX + 20):
        await kept.submit()
    await kept.close()
    connection = apsw.Connection(os.fspath(kept.path))
    connection.execute("UPDATE task SET data_bytes = 7")
    connection.close()
    await kept.open()
    steps = await checked(kept)
    assert sum(len(step.faults) for step in steps) == CHECK_FAULTS_TOLD_MAX
    assert steps[-1].fault_count == CHECK_FAULTS_TOLD_MAX + 20


async def test_a_store_in_memory_has_no_file_to_check() -> None:
    rig = Rig("memory:")
    await rig.open()
    with pytest.raises(PreconditionFailed, match="in memory"):
        await rig.read(CheckStore())
    await rig.close()


async def test_p7_the_writer_goes_on_and_a_second_check_is_refused(kept: Rig) -> None:
    """While one holds still between two steps."""
    task_id = await kept.submit()
    async with aclosing(await kept.read(CheckStore())) as steps:
        assert not (await anext(steps)).done
        with pytest.raises(Exhausted, match="a check of the store is under way, one at a time"):
            await checked(kept)
        await kept.submit()
        await kept.apply(Cancel(task_id))
        rest = [step async for step in steps]
    assert rest[-1].tasks == 2
    assert rest[-1].fault_count == 0
    await idle(kept)
    assert (await checked(kept))[-1].done


async def idle(rig: Rig) -> None:
    """Returns once no inspection is under way."""
    inspections = rig.backend._inspections
    assert inspections is not None
    await inspections.ended()


async def test_p7_a_check_that_is_cancelled_ends(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the midst of SQLite's part, which is one long step."""
    monkeypatch.setattr(store_check, "LOOK_STEPS", 1)
    await a_life(kept)
    inspections = kept.backend._inspections
    assert inspections is not None
    in_file = asyncio.Event()
    looked: list[bool] = []
    loop = asyncio.get_running_loop()
    look = inspections._look_at_log

    def slowly(inspection: Any) -> None:
        loop.call_soon_threadsafe(in_file.set)
        inspection.ends.wait(30)
        looked.append(True)
        look(inspection)

    monkeypatch.setattr(inspections, "_look_at_log", slowly)
    checking = asyncio.ensure_future(checked(kept))
    await in_file.wait()
    await kept.submit()  # The writer is not in its way.
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    await idle(kept)
    assert looked == [True]


async def test_p6_a_store_that_fails_meanwhile_ends_the_check(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.submit()
    async with aclosing(await kept.read(CheckStore())) as steps:
        await anext(steps)
        kept.backend._fail(apsw.IOError("disk I/O error"))
        with pytest.raises(Unavailable, match="the store failed"):
            await anext(steps)
    with pytest.raises(Unavailable, match="the store failed"):
        await kept.read(CheckStore())


@pytest.mark.parametrize("query", [CheckStore(), BackUpStore()], ids=["check", "backup"])
async def test_p6_a_disk_that_fails_as_an_inspection_ends_is_told_without_a_traceback(
    tmp_path: Path, query: CheckStore | BackUpStore
) -> None:
    """The last connection to the file that is closed reads, and that fails, too."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    faults = Faults(tmp_path / "faults")
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", backup_free_bytes_min=0)
    with faulty(faults):
        await rig.open()
        for _ in range(100):
            await rig.submit(data=bytes(50_000))
        await rig.restart()
        await rig.submit()
        async with aclosing(await rig.read(query)) as steps:
            await anext(steps)
            faults.set(READ)
            rig.backend._fail(apsw.IOError("disk I/O error"))
            with pytest.raises(Unavailable, match="the store failed"):
                await anext(steps)
        await rig.close()
        faults.set()
    assert not errors


async def test_an_error_of_the_disk_that_a_check_meets_is_one_of_the_store(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: it is not only the check's."""

    def steps(check: store_check.StoreCheck) -> AsyncIterator[Checked]:
        raise apsw.IOError("disk I/O error")

    monkeypatch.setattr(store_check.StoreCheck, "steps", steps)
    with pytest.raises(Unavailable, match="the store failed"):
        await checked(kept)
    assert kept.hearer.failure is not None


async def test_a_stop_ends_the_check_first(kept: Rig) -> None:
    await kept.submit()
    async with aclosing(await kept.read(CheckStore())) as steps:
        await anext(steps)
        closing = asyncio.ensure_future(kept.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="stopping"):
            [step async for step in steps]
    await closing
    assert not os.path.exists(f"{kept.path}-wal"), "closed well"  # noqa: ASYNC240 # in a test


async def test_p7_a_log_that_grows_too_large_meanwhile_ends_the_check(tmp_path: Path) -> None:
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", snapshot_log_bytes_max=8 << 20)
    await rig.open()
    assert rig.backend._inspections is not None
    rig.backend._inspections._log_bytes = lambda: 9 << 20
    with pytest.raises(Exhausted, match="snapshot_log_bytes_max"):
        await checked(rig)
    await rig.close()
