"""P6, P7: a store may hold anything in any column. It opens, or says in one line why not; what is
bad is set aside, and everything else is served. A check of it tells, or finds nothing, and ends.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from taskdist.backends.rows import NUMBER_MAX
from taskdist.backends.schema import SCHEMA
from taskdist.backends.store_copy import check_copy
from taskdist.core import commands
from taskdist.core.errors import Damaged, Refused, StoreFailed, StoreUnusable, TaskNotFound
from taskdist.core.inspecting import Checked
from taskdist.core.queries import FollowTask, GetTask, SelectFinished
from taskdist.core.task import Backoff, Task, TaskState
from taskdist.limits import CHECK_FAULTS_TOLD_MAX
from tests.support.backends import (
    Rig,
    fail,
    note,
    only_tasks,
    page,
    submit,
    succeed,
    take,
    turns,
)
from tests.support.examples import examples
from tests.support.inspecting import checked

pytestmark = pytest.mark.proof

FIRST_GOOD = 20
"""Rows of this sequence and above are left alone."""


def every_column() -> list[tuple[str, str]]:
    """The tables of a store with their columns, as SQLite itself reads the schema."""
    connection = apsw.Connection(":memory:")
    connection.execute(SCHEMA)
    tables = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    ]
    return [
        (table, column)
        for table in tables
        for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    ]


COLUMNS = every_column()
"""Every column of every table, with the table's name."""


@dataclass(frozen=True)
class Spoilt:
    """A value that stands in a column of a row."""

    place: tuple[str, str]
    """The table and its column."""
    sequence: int
    value: Any
    as_text: bool = False
    """Whether bytes stand there as text, which they need not be."""


def spoilt() -> st.SearchStrategy[Spoilt]:
    """Anything, anywhere."""
    limits = [0, -1, 1, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63), 253_402_300_800_000_000]
    values: st.SearchStrategy[Any] = st.one_of(
        st.none(),
        st.sampled_from(limits),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from([*TaskState, *Backoff, "paid", "default", "x" * 100_000, "a\nb", ""]),
        st.binary(max_size=20),
    )
    return st.builds(
        Spoilt,
        st.sampled_from(COLUMNS),
        st.integers(1, FIRST_GOOD - 1),
        values,
        st.booleans(),
    )


async def fill(rig: Rig) -> None:
    """Tasks in every state, with all that tasks may have; then good ones, with the good tasks."""
    for _ in range(3):
        await rig.submit("paid", 1)
    first, second, _ = only_tasks(await rig.apply(take(slots=3, session="s")))
    await rig.apply(note(first, "one", "two"))
    await rig.apply(succeed(first))
    await rig.apply(fail(second, retryable=False))
    await rig.submit("paid", 2, deadline_in_s=50, idempotency_key="k", run_timeout_us=10_000_000)
    await rig.submit("paid", 2, delay_s=60)
    retried = {"backoff": Backoff.FIXED, "backoff_us": 30_000_000, "lease_us": 5_000_000}
    await rig.submit("paid", 1, **retried)
    (task,) = only_tasks(await rig.apply(take()))
    await rig.apply(fail(task))
    cancelled = await rig.submit()
    await rig.apply(commands.Cancel(cancelled))
    (newest,) = (await rig.read(page(page_size=1))).tasks
    for _ in range(newest.sequence, FIRST_GOOD - 1):
        await rig.submit("paid", 3, queue="spoilt")
    for task in only_tasks(await rig.apply(take(slots=3, queues=("spoilt",)))):
        await rig.apply(note(task, "one", "two"))
    for number in range(3):
        await rig.submit("paid", number, queue="good")


def make_filled(path: Path) -> None:
    """A store that is filled, in one file."""

    async def make() -> None:
        rig = Rig(f"sqlite:{path}")
        await rig.open()
        await fill(rig)
        await rig.close()

    asyncio.run(make())
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "delete")
    connection.close()


@pytest.fixture(scope="module")
def filled() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "filled.db"
        make_filled(path)
        yield path


def spoil(path: Path, faults: list[Spoilt]) -> None:
    """Writes the values, past all that SQLite would check, as a broken disk does."""
    connection = apsw.Connection(str(path))
    connection.pragma("writable_schema", True)
    tables = "SELECT rowid, sql FROM sqlite_schema WHERE type = 'table'"
    was = [(rowid, str(sql)) for rowid, sql in connection.execute(tables)]
    for rowid, sql in was:
        loose = sql.replace("NOT NULL", "").replace("STRICT", "").replace("), WITHOUT", ") WITHOUT")
        for named in (" TEXT", " INTEGER", " BLOB"):
            if named != " INTEGER" or "PRIMARY" not in sql:
                loose = loose.replace(named, "")
        loose = loose.rstrip().rstrip(",")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE rowid = ?", (loose, rowid))
    connection.close()
    connection = apsw.Connection(str(path))
    for fault in faults:
        value = "CAST(? AS TEXT)" if fault.as_text and isinstance(fault.value, bytes) else "?"
        table, column = fault.place
        where = "" if table == "store" else f" WHERE sequence = {fault.sequence}"
        statement = f"UPDATE OR IGNORE {table} SET {column} = {value}{where}"
        try:
            connection.execute(statement, (fault.value,))
        except apsw.MismatchError:  # A key of a row is a number, or the file is not of that form.
            continue
    connection.pragma("writable_schema", True)
    for rowid, sql in was:
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE rowid = ?", (sql, rowid))
    connection.close()


def findings(path: Path) -> int:
    """How much a check of the file finds, a refusal included, each in one line; it writes none."""
    before, found = path.read_bytes(), 1
    try:
        found = in_lines(list(check_copy(path)))
    except (StoreUnusable, StoreFailed) as reason:
        said = str(reason)
    else:
        said = ""
    assert len(said.splitlines()) <= 1
    assert path.read_bytes() == before
    return found


def in_lines(steps: list[Checked]) -> int:
    """How much a check that came to its end has found."""
    assert steps[-1].done
    lines = [fault for step in steps for fault in step.faults]
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert len(lines) == min(steps[-1].fault_count, CHECK_FAULTS_TOLD_MAX)
    return steps[-1].fault_count


async def live(path: Path) -> None:
    """Checks the store, opens it and does everything with everything; good tasks are not disturbed.

    What a start refuses, or what is set aside as all is read, the check has found.
    """
    found = findings(path)
    damaged: list[str] = []
    rig = Rig(f"sqlite:{path}")
    with capture_logs() as logs:
        try:
            await rig.open()
        except (StoreUnusable, StoreFailed) as reason:
            said = str(reason)
        else:
            said = ""
            damaged += await read_all(rig)
    damaged += [line["reason"] for line in logs if line["event"] == "row set aside"]
    assert found or not (said or damaged)
    if said:
        assert len(said.splitlines()) == 1
        return
    try:
        in_lines(await checked(rig))
        await serve(rig)
        in_lines(await checked(rig))
    finally:
        assert rig.hearer.failure is None, rig.hearer.failure
        await rig.close()


async def read_all(rig: Rig) -> list[str]:
    """Reads each task that can be listed, and its result. Says what could not be read."""
    damaged = []
    for task in (await rig.read(page(page_size=1_000))).tasks:
        with suppress(TaskNotFound):  # An old one may be forgotten meanwhile.
            try:
                await rig.read(GetTask(task.id))
            except Damaged as reason:
                damaged.append(str(reason))
    return damaged


async def serve(rig: Rig) -> None:
    """All that a distributor does in its life."""
    await turns()
    good = only_tasks(await rig.apply(take(slots=9, queues=("good",))))
    assert [task.est_processing_time_us for task in good] == [0, 1_000_000, 2_000_000]
    for task in good:
        await rig.apply(succeed(task))
    listed = (await rig.read(page(page_size=1_000))).tasks
    assert {task.id for task in good} <= {task.id for task in listed}
    taken: list[Task] = []
    for task in listed:
        await ask(rig, commands.Locate(task.id))
        await look(rig, GetTask(task.id))
        await look(rig, FollowTask(task.id, (0, 0), 100))
    taken += only_tasks(await rig.apply(take(slots=99, queues=("default", "spoilt"))))
    for task in taken:
        await ask(rig, note(task, "three"))
        await ask(rig, fail(task))
    for task in listed:
        with suppress(Refused):
            now = (await rig.read(GetTask(task.id))).task
            if now.lease:
                await rig.apply(note(now, "three"))
    for task in listed:
        await ask(rig, commands.Cancel(task.id))
        await ask(rig, commands.Redrive(task.id))
        await ask(rig, submit(task_id=task.id))
    await ask(rig, submit("paid", 2, idempotency_key="k"))
    for bytes_max in (0, 1_000):
        every = SelectFinished(tuple(TaskState), "", "", "", 1 << 60, 100, None, bytes_max)
        await look(rig, every)
    await rig.apply(commands.Heartbeat("agent-1", ()))
    await rig.pass_s(100, tick_us=10_000_000)
    for task in listed:
        await ask(rig, commands.Purge(task.id))
    rig.time.pass_us(60 * 86_400 * 1_000_000)
    await rig.pass_s(3, tick_us=1_000_000)
    await rig.submit("free", 9, queue="new")
    assert len(await rig.take_all(queues=("new",))) == 1


async def ask(rig: Rig, command: commands.Command[Any]) -> None:
    """Whatever is said of it, it is said."""
    with suppress(Refused):
        await rig.apply(command)


async def look(rig: Rig, query: Any) -> None:
    """Whatever is read of it, it is read, or refused."""
    with suppress(Refused):
        await rig.read(query)


@settings(max_examples=examples(40), deadline=None)
@given(faults=st.lists(spoilt(), min_size=1, max_size=4))
@example([Spoilt(("task", "queue"), 2, b"-")])  # Was taken for a name, and stopped the store.
@example([Spoilt(("task", "sequence"), 4, 0)])  # Was never loaded, and a cancel stopped the store.
@example([Spoilt(("task", "sequence"), 11, NUMBER_MAX + 1)])  # Likewise.
@example([Spoilt(("task", "finished_at_us"), 1, 0)])  # Is forgotten at once.
@example([Spoilt(("task", "data_bytes"), 1, None)])  # Was not to be weighed.
@example([Spoilt(("task", "id"), 1, None)])  # Was not to be named, and had a page fail.
@example([Spoilt(("store", "served_us"), 1, -1)])  # Was refused at a start, and found sound.
@example([Spoilt(("store", "tiers"), 1, b"\xff", as_text=True)])  # Was refused at each start.
def test_p6_any_value_in_any_column(filled: Path, faults: list[Spoilt]) -> None:
    """… of any of SQLite's types, also those that the table's own would not allow."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tasks.db"
        shutil.copy(filled, path)
        spoil(path, faults)
        asyncio.run(live(path))
