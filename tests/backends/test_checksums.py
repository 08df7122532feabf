"""P6: data and results carry a checksum. What does not match is set aside, never handed out."""

import os
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from taskdist.backends.rows import checksum
from taskdist.backends.schema import SCHEMA_VERSION
from taskdist.core.commands import Cancel, Purge, Redrive
from taskdist.core.errors import Damaged, LeaseNotHeld
from taskdist.core.task import Task, TaskState
from tests.backends.test_bad_rows import spoil
from tests.support.backends import Rig, fail, settle, succeed

FLIPPED = "UPDATE {0} SET {0} = x'{1}' WHERE sequence = 1"
CUT = "UPDATE {0} SET {0} = substr({0}, 2) WHERE sequence = 1"
EMPTIED = "UPDATE {0} SET {0} = x'' WHERE sequence = 1"
ZEROED = "UPDATE {0} SET {0} = x'', checksum = 0 WHERE sequence = 1"
SUM_FLIPPED = "UPDATE {0} SET checksum = checksum + 4 WHERE sequence = 1"
ANOTHERS = (
    "UPDATE {0} SET ({0}, checksum) = (SELECT {0}, checksum FROM {0} WHERE sequence = 2)"
    " WHERE sequence = 1"
)
GONE = "DELETE FROM {0} WHERE sequence = 1"

WRONG = [FLIPPED, CUT, EMPTIED, ZEROED, SUM_FLIPPED, ANOTHERS, GONE]


def wrong(how: str, table: str, content: bytes) -> str:
    """The statement that makes the first row of `data` or `result` a wrong one."""
    flipped = bytes([content[0] ^ 1]) + content[1:]
    return how.format(table, flipped.hex())


@pytest.mark.parametrize("how", WRONG)
async def test_p6_data_that_is_not_what_was_submitted_is_not_handed_out(
    kept: Rig, how: str
) -> None:
    """The task is set aside and said once; others are served, and it can still be cancelled."""
    bad = await kept.submit("paid", 1, data=b"as it was submitted")
    good = await kept.submit("paid", 2, data=b"some other data")
    with capture_logs() as logs:
        await spoil(kept, wrong(how, "data", b"as it was submitted"))
        assert await kept.take_all() == [good]
        assert await kept.take_all() == []
    said = [entry for entry in logs if entry["event"] == "row set aside"]
    assert [entry["sequence"] for entry in said] == [1]
    assert "data" in said[0]["reason"]
    assert "as it was" not in said[0]["reason"], "data is not for logs"
    assert (await kept.task(bad)).state is TaskState.READY
    await kept.apply(Cancel(bad))
    await kept.apply(Purge(bad))
    assert kept.hearer.failure is None


async def test_p6_data_that_went_bad_while_its_task_was_dead_is_not_handed_out_after_a_redrive(
    kept: Rig,
) -> None:
    bad = await kept.submit(max_retries=0)
    await kept.apply(fail(await kept.take()))
    await spoil(kept, FLIPPED.format("data", "00"))
    await kept.apply(Redrive(bad))
    assert await kept.take_all() == []
    assert kept.hearer.failure is None


async def succeeded(rig: Rig, *results: bytes) -> list[Task]:
    """As many tasks as results, as they were when their agents had them."""
    tasks = []
    for result in results:
        await rig.submit()
        tasks.append(await rig.take())
        await rig.apply(succeed(tasks[-1], result))
    return tasks


@pytest.mark.parametrize("how", WRONG)
async def test_p6_a_result_that_is_not_what_the_agent_said_is_not_told(kept: Rig, how: str) -> None:
    bad, good = await succeeded(kept, b"its own result", b"another result")
    await spoil(kept, wrong(how, "result", b"its own result"))
    with pytest.raises(Damaged, match="result") as told:
        await kept.history(bad.id)
    assert "its own" not in str(told.value)
    assert (await kept.history(good.id)).result == b"another result"
    assert kept.hearer.failure is None


@pytest.mark.parametrize("how", WRONG)
async def test_p3_p6_an_outcome_is_not_compared_with_a_result_that_is_wrong(
    kept: Rig, how: str
) -> None:
    """Neither accepted as a repeat nor refused as another outcome: nobody can say which it is."""
    bad, good = await succeeded(kept, b"its own result", b"another result")
    await spoil(kept, wrong(how, "result", b"its own result"))
    for result in (b"its own result", b"", b"another result"):
        with pytest.raises(Damaged):
            await kept.apply(succeed(bad, result))
    await kept.apply(succeed(good, b"another result"))
    with pytest.raises(LeaseNotHeld):
        await kept.apply(succeed(good, b"its own result"))
    with pytest.raises(LeaseNotHeld):
        await kept.apply(settle(good, fail(good).outcome))
    assert kept.hearer.failure is None


async def test_p1_an_empty_result_is_told_as_such(rig: Rig) -> None:
    (task,) = await succeeded(rig, b"")
    assert (await rig.history(task.id)).result == b""
    await rig.apply(succeed(task, b""))
    with pytest.raises(LeaseNotHeld):
        await rig.apply(succeed(task, b"another"))


async def test_a_task_with_a_wrong_result_is_forgotten_in_time(kept: Rig) -> None:
    await succeeded(kept, b"its own result")
    await spoil(kept, GONE.format("result"))
    kept.time.jump_wall_us(kept.settings.retention_us)
    await kept.pass_s(3)
    assert kept.hearer.failure is None
    left = apsw.Connection(os.fspath(kept.path), flags=apsw.SQLITE_OPEN_READONLY)
    assert left.execute("SELECT count(*) FROM task").get == 0
    left.close()


def test_the_sum_knows_whose_it_is() -> None:
    assert checksum(1, b"") != checksum(2, b"")
    assert checksum(1, b"same data") != checksum(2, b"same data")
    assert checksum(1 << 40, b"same data") == checksum(1 << 40, b"same data")


# --- stores of version 2, which had none ------------------------------------------------------


def make_version_2(path: Path) -> None:
    """Makes a store as version 2 would have left it of one of today."""
    connection = apsw.Connection(os.fspath(path))
    assert connection.pragma("user_version") == SCHEMA_VERSION
    connection.execute("DROP TABLE entry")
    connection.execute("DELETE FROM result WHERE result = x''")
    connection.execute("ALTER TABLE data DROP COLUMN checksum")
    connection.execute("ALTER TABLE result DROP COLUMN checksum")
    connection.pragma("user_version", 2)
    connection.close()


async def test_p1_a_store_without_checksums_gets_them(kept: Rig) -> None:
    """Of every row, also of the largest and of tasks whose empty result was not kept."""
    done = await succeeded(kept, b"42", b"", bytes(300_000))
    waiting = [await kept.submit(data=data) for data in (b"", b"x", bytes(300_000))]
    dead = await kept.submit("paid", max_retries=0)
    await kept.apply(fail(await kept.take()))
    await kept.close()
    make_version_2(kept.path)
    await kept.open()
    assert kept.path.with_name("tasks.db.v2").exists()
    results = [(await kept.history(task.id)).result for task in done]
    assert results == [b"42", b"", bytes(300_000)]
    assert (await kept.history(dead)).result == b""
    assert await kept.take_all() == waiting
    await kept.apply(succeed(done[1], b""))
    await spoil(kept, FLIPPED.format("result", "00"))
    with pytest.raises(Damaged):
        await kept.history(done[0].id)


async def test_p6_data_that_is_no_blob_blocks_no_migration_and_is_not_handed_out(
    kept: Rig,
) -> None:
    """What a flipped bit in a row's header makes of it, in spite of the schema."""
    (done,) = await succeeded(kept, b"42")
    await kept.submit("paid")
    good = await kept.submit()
    await kept.close()
    make_version_2(kept.path)
    for statement in (
        "UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE type = 'table'",
        "UPDATE data SET data = 'text' WHERE sequence = 2",
        "UPDATE result SET result = '42'",
        "UPDATE sqlite_schema SET sql = sql || ' STRICT' WHERE name IN ('data', 'result')",
    ):
        connection = apsw.Connection(os.fspath(kept.path))
        connection.pragma("writable_schema", value=True)
        connection.execute(statement)
        connection.close()
    with capture_logs() as logs:
        await kept.open()
        assert await kept.take_all() == [good]
    assert [entry["sequence"] for entry in logs if entry["event"] == "row set aside"] == [2]
    with pytest.raises(Damaged):
        await kept.history(done.id)
