"""A store of an earlier version is copied, migrated and served; cut short, it is as it was (P1)."""

import os
import re
from hashlib import blake2b
from pathlib import Path
from struct import pack
from typing import Any

import apsw
import pytest
from structlog.testing import capture_logs

from taskdist.backends import schema, store_file
from taskdist.backends.schema import SCHEMA_VERSION
from taskdist.backends.store_file import APPLICATION_ID
from taskdist.core.commands import Heartbeat, Held
from taskdist.core.errors import Exhausted, StoreUnusable, TaskIdTaken
from taskdist.core.task import Backoff, Outcome, Task, TaskState
from taskdist.limits import MIB
from tests.support.backends import Rig, page, submit, succeed
from tests.support.clocks import NOON_US

VERSION_1 = """
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    policy TEXT NOT NULL,
    tiers TEXT NOT NULL,
    served_us INTEGER NOT NULL,
    newest_enqueued_us INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL
) STRICT;
CREATE TABLE task (
    sequence INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL,
    queue TEXT NOT NULL,
    kind TEXT NOT NULL,
    user_tier TEXT NOT NULL,
    est_processing_time_us INTEGER NOT NULL,
    retry_count INTEGER NOT NULL,
    enqueued_at_us INTEGER NOT NULL,
    max_retries INTEGER NOT NULL,
    lost_count INTEGER NOT NULL,
    hasty_releases INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    submitted_at_us INTEGER NOT NULL,
    finished_at_us INTEGER,
    content_hash BLOB
) STRICT;
CREATE TABLE data (sequence INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE result (sequence INTEGER PRIMARY KEY, result BLOB NOT NULL) STRICT;
CREATE TABLE lease (
    sequence INTEGER PRIMARY KEY,
    lease_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session TEXT NOT NULL,
    started_at_us INTEGER NOT NULL,
    started_us INTEGER NOT NULL,
    term_us INTEGER NOT NULL,
    run_timeout_us INTEGER NOT NULL
) STRICT;
CREATE TABLE attempt (
    sequence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    lease_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session TEXT NOT NULL,
    started_at_us INTEGER NOT NULL,
    ended_at_us INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    led_to TEXT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (sequence, attempt)
) STRICT, WITHOUT ROWID;
"""

IDS = [f"a000000{number}-0000-7000-8000-00000000000{number}" for number in range(1, 6)]
DATA = [b"one", b"", bytes(70_000), b"four", b"\0\xff"]
STATES = ["ready", "leased", "succeeded", "dead", "cancelled"]
RETRIES = [0, 1, 0, 4, 0]


def content(est_us: int, max_retries: int, tier: str, data: bytes) -> bytes:
    """The hash that version 1 kept of a task whose client made the id."""
    head = f"{tier}\0simulate\0default".encode()
    numbers = pack(">QQ", est_us, max_retries)
    return blake2b(numbers + head + b"\0" + data, digest_size=16).digest()


def fill(connection: apsw.Connection) -> None:
    connection.execute(
        "INSERT INTO store VALUES (1, 'strict', 'paid,free', 5000000, ?, 5)", (NOON_US,)
    )
    for place, state in enumerate(STATES):
        sequence = place + 1
        row = (
            sequence,
            bytes.fromhex(IDS[place].replace("-", "")),
            state,
            "default",
            "simulate",
            "free",
            2_500_000,
            RETRIES[place],
            NOON_US - 100 + place,
            3,
            0,
            0,
            1 if state != "ready" else 0,
            NOON_US - 100 + place,
            NOON_US if place > 1 else None,
            content(2_500_000, 3, "free", DATA[place]),
        )
        connection.execute(f"INSERT INTO task VALUES ({', '.join('?' * len(row))})", row)
        connection.execute("INSERT INTO data VALUES (?, ?)", (sequence, DATA[place]))
    connection.execute("INSERT INTO result VALUES (3, 'a result')".replace("'a result'", "x'3432'"))
    lease = (2, "lease-2", "agent-1", "s", NOON_US - 10, 4_000_000, 30_000_000, 3_600_000_000)
    connection.execute("INSERT INTO lease VALUES (?, ?, ?, ?, ?, ?, ?, ?)", lease)
    for sequence, outcome, error in ((3, "succeeded", ""), (4, "failed", "no memory")):
        attempt = (sequence, 1, f"lease-{sequence}", "agent-1", "s", NOON_US - 9, NOON_US, outcome)
        ended = (*attempt, STATES[sequence - 1], error)
        connection.execute(f"INSERT INTO attempt VALUES ({', '.join('?' * 10)})", ended)


def make(path: Path, *, filled: bool = True) -> None:
    """A store as version 1 made it."""
    connection = apsw.Connection(os.fspath(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", 1)
    connection.execute(VERSION_1)
    if filled:
        fill(connection)
    connection.close()


@pytest.fixture
def old(tmp_path: Path) -> Rig:
    """A distributor that is to open a store of version 1."""
    path = tmp_path / "tasks.db"
    make(path)
    return Rig(f"sqlite:{path}")


def content_of(path: Path) -> dict[str, list[Any]]:
    """Every row of every table."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    tables = ("store", "task", "data", "result", "lease", "attempt")
    rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    rows["version"] = [connection.pragma("user_version")]
    connection.close()
    return rows


def shape_of(path: Path) -> dict[str, Any]:
    """The schema, whatever the order of its columns and the layout of its text."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    shape: dict[str, Any] = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema"):
        text = " ".join((sql or "").split())
        if kind == "table":
            columns = connection.execute(f"PRAGMA table_xinfo({name})").fetchall()
            ending = re.search(r"\)([^)]*)$", text)
            shape[name] = ({column[1:] for column in columns}, ending and ending[1])
        else:
            shape[name] = text
    shape["version"] = connection.pragma("user_version")
    connection.close()
    return shape


async def test_p1_all_tasks_are_as_they_were(old: Rig) -> None:
    with capture_logs() as logs:
        await old.open()
    assert [entry["version"] for entry in logs if entry["event"] == "store is migrated"] == [1]
    for place, task_id in enumerate(IDS):
        task = await old.task(task_id)
        assert task.evolve(lease=None) == Task(
            id=task_id,
            user_tier="free",
            est_processing_time_us=2_500_000,
            backoff=Backoff.NONE,
            data_bytes=len(DATA[place]),
            content_hash=content(2_500_000, 3, "free", DATA[place]),
            sequence=place + 1,
            state=TaskState(STATES[place]),
            retry_count=RETRIES[place],
            attempt=0 if place == 0 else 1,
            submitted_at_us=NOON_US - 100 + place,
            enqueued_at_us=NOON_US - 100 + place,
            finished_at_us=NOON_US if place > 1 else None,
        )
    assert (await old.history(IDS[2])).result == b"42"
    dead = await old.history(IDS[3])
    assert (dead.error, dead.attempts[0].outcome) == ("no memory", Outcome.FAILED)
    await old.close()


async def test_p1_a_migrated_store_is_served_on(old: Rig) -> None:
    await old.open()
    assert await old.apply(Heartbeat("agent-1", ("lease-2",))) == Held(("lease-2",))
    await old.apply(succeed(await old.task(IDS[1])))
    assert await old.take_all() == [IDS[0]]
    for place, task_id in enumerate(IDS):
        again = await old.apply(submit("free", 2.5, task_id=task_id, data=DATA[place]))
        assert again.task.id == task_id, "a client's repeat of before the migration agrees"
        with pytest.raises(TaskIdTaken):
            await old.apply(submit("free", 2.5, task_id=task_id, data=b"other"))
    later = await old.submit("free", 1, delay_s=5, idempotency_key="k", deadline_in_s=60)
    await old.restart()
    await old.pass_s(6)
    assert await old.take_all() == [later]
    assert len((await old.read(page())).tasks) == 6
    assert old.hearer.failure is None
    await old.close()


async def test_p7_the_data_that_waits_is_counted(old: Rig) -> None:
    old.settings = old.settings.model_copy(update={"waiting_bytes_max": MIB})
    connection = apsw.Connection(os.fspath(old.path))
    connection.execute("UPDATE data SET data = zeroblob(?) WHERE sequence = 1", (MIB - 1,))
    connection.close()
    await old.open()
    with pytest.raises(Exhausted, match="1048575 bytes"):
        await old.submit(data=b"xx")
    await old.submit(data=b"x")
    await old.close()


async def test_a_readable_copy_of_the_old_store_is_left_and_nothing_else(old: Rig) -> None:
    before = content_of(old.path)
    await old.open()
    await old.submit()
    await old.close()
    names = {path.name for path in old.path.parent.iterdir()}
    assert names <= {"tasks.db", "tasks.db.lock", "tasks.db.v1", "tasks.db-wal", "tasks.db-shm"}
    copy = old.path.with_name("tasks.db.v1")
    assert content_of(copy) == before
    assert before["version"] == [1]
    await old.restart()
    await old.close()
    assert content_of(copy) == before, "no later start touches it"


async def test_a_copy_can_be_served_itself(old: Rig) -> None:
    """What people do who go back, and then forward again."""
    await old.open()
    await old.close()
    copy = Rig(f"sqlite:{old.path}.v1")
    await copy.open()
    assert await copy.take_all() == [IDS[0]]
    await copy.close()


CUTS = {
    "before the copy": (store_file, "_back_up"),
    "in the copy": (store_file, "_sync"),
    "before the migration": (schema, "migrate"),
    "before the commit": (store_file, "_record"),
}


@pytest.mark.parametrize("cut", CUTS)
async def test_p1_a_migration_that_is_cut_short_leaves_the_old_store_whole(
    old: Rig, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    before = content_of(old.path)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*CUTS[cut], kill)
        for _ in range(2):
            with pytest.raises(Killed):
                await old.open()
            assert content_of(old.path) == before
    await old.open()
    assert await old.take_all() == [IDS[0]]
    await old.close()
    assert content_of(old.path.with_name("tasks.db.v1")) == before
    assert not list(old.path.parent.glob("*.part*"))


async def test_p6_a_migration_that_finds_no_room_is_refused_and_leaves_all_as_it_was(
    old: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content_of(old.path)

    def no_room(*_: object) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrate", no_room)
        with pytest.raises(StoreUnusable, match="its disk is full"):
            await old.open()
    assert content_of(old.path) == before
    await old.open()
    await old.close()


async def test_a_copy_that_cannot_be_made_is_refused_in_one_line(old: Rig) -> None:
    before = content_of(old.path)
    old.path.with_name("tasks.db.v1").mkdir()
    with pytest.raises(StoreUnusable) as refused:
        await old.open()
    assert "\n" not in str(refused.value)
    assert content_of(old.path) == before


async def test_the_schema_of_a_migrated_store_is_that_of_a_new_one(
    old: Rig, tmp_path: Path
) -> None:
    new = Rig(f"sqlite:{tmp_path / 'new.db'}")
    for rig in (old, new):
        await rig.open()
        await rig.close()
    assert shape_of(old.path) == shape_of(new.path)


async def test_an_empty_store_of_version_1_is_migrated_too(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    make(path, filled=False)
    connection = apsw.Connection(os.fspath(path))
    connection.execute("INSERT INTO store VALUES (1, 'strict', 'paid,free', 0, 0, 0)")
    connection.close()
    rig = Rig(f"sqlite:{path}")
    await rig.open()
    task_id = await rig.submit()
    assert await rig.take_all() == [task_id]
    await rig.close()


async def test_a_store_of_a_later_version_is_refused_and_neither_changed_nor_copied(
    old: Rig,
) -> None:
    connection = apsw.Connection(os.fspath(old.path))
    connection.pragma("user_version", SCHEMA_VERSION + 1)
    connection.close()
    before = old.path.read_bytes()
    with pytest.raises(
        StoreUnusable, match=f"has version {SCHEMA_VERSION + 1}, made by a newer taskdist"
    ):
        await old.open()
    assert old.path.read_bytes() == before
    assert not list(old.path.parent.glob("*.v*"))


def test_no_statement_relies_on_the_order_of_columns() -> None:
    """It differs between a migrated store and a new one: `*` is only for what is named outside."""
    for path in (Path(schema.__file__).parent).glob("*.py"):
        for line in path.read_text().splitlines():
            if "SELECT *" in line:
                assert "scanned" in path.read_text(), path
            assert not re.search(r"INSERT INTO (?!store)\w+ VALUES", line), path
