"""P6: a full disk is no failure. The batch is undone; what frees or ends something gets through."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from taskdist.backends.clock import Clocks
from taskdist.backends.journal import Journal
from taskdist.backends.log import Log
from taskdist.core.commands import Cancel, Grants, Heartbeat, Held, Settled, StopTakes
from taskdist.core.errors import Exhausted, StoreFull, TaskNotFound
from taskdist.core.task import TaskState
from tests.support.backends import (
    Rig,
    fail,
    lease_id_of,
    only_tasks,
    page,
    release,
    several,
    submit,
    succeed,
    take,
    turns,
)

LARGE = bytes(500_000)


class Disk:
    """The room that the journals of a test have: SQLite's own limit on their pages."""

    def __init__(self) -> None:
        self.journals: list[Journal] = []

    @contextmanager
    def full(self) -> Iterator[None]:
        """No journal can grow by a page meanwhile. Small rows still fit in the pages there are."""
        connection = self.journals[-1].connection
        connection.pragma("max_page_count", connection.pragma("page_count"))
        yield
        connection.pragma("max_page_count", 1 << 30)


@pytest.fixture
async def disk(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under `rig`."""
    disk = Disk()
    load = Journal.__init__

    def note(journal: Journal, *arguments: Any) -> None:
        load(journal, *arguments)
        disk.journals.append(journal)

    monkeypatch.setattr(Journal, "__init__", note)
    await rig.close()
    await rig.open()
    return disk


@contextmanager
def no_room_for_the_log() -> Iterator[list[bool]]:
    """Every commit fails while the list is not empty, and each that does takes one out."""
    fails: list[bool] = []
    commit = Journal.commit

    def commit_or_fail(journal: Journal, clocks: Clocks) -> None:
        if journal.connection.in_transaction and fails and fails.pop():
            raise apsw.FullError("database or disk is full")
        commit(journal, clocks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "commit", commit_or_fail)
        yield fails


class NoRoomForTheDatabase:
    """A connection to a file that cannot grow."""

    def set_wal_hook(self, _: object) -> None:
        """Nothing is committed here."""

    def set_busy_timeout(self, _: int) -> None:
        """Nobody is waited for here."""

    def wal_checkpoint(self, **_: object) -> None:
        raise apsw.FullError("database or disk is full")


async def test_p6_a_submit_that_does_not_fit_is_refused_and_changes_nothing(
    rig: Rig, disk: Disk
) -> None:
    task_id = await rig.submit()
    with disk.full():
        for _ in range(2):
            with pytest.raises(StoreFull):
                await rig.apply(submit("paid", data=LARGE))
        assert await rig.position(task_id) == 1
        assert len((await rig.read(page())).tasks) == 1
    assert rig.hearer.failure is None
    assert issubclass(StoreFull, Exhausted), "it is worth trying again"


async def test_p6_when_there_is_room_again_all_goes_on(rig: Rig, disk: Disk) -> None:
    with disk.full(), pytest.raises(StoreFull):
        await rig.apply(submit(data=LARGE))
    placed = await rig.apply(submit(data=LARGE))
    (grant,) = (await rig.apply(take())).grants
    assert (grant.task.id, grant.data) == (placed.task.id, LARGE)


async def test_p6_outcomes_of_the_batch_are_tried_alone(rig: Rig, disk: Disk) -> None:
    for _ in range(4):
        await rig.submit()
    one, two, three = only_tasks(await rig.apply(take(slots=3)))
    waiting = await rig.submit(queue="other")
    heard = len(rig.hearer.changes)
    rig.runner.hold()
    calls = {
        "submit": rig.ask(submit()),
        "succeed": rig.ask(succeed(one, b"42")),
        "large": rig.ask(submit(data=LARGE)),
        "fail": rig.ask(fail(two)),
        "release": rig.ask(release(three)),
        "take": rig.ask(take("agent-2")),
        "cancel": rig.ask(Cancel(waiting)),
        "heartbeat": rig.ask(Heartbeat("agent-1", tuple(map(lease_id_of, (one, two, three))))),
    }
    await turns()
    with disk.full():
        rig.runner.let_go()
        answers = dict(
            zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True)
        )
    refused = [name for name, answer in answers.items() if isinstance(answer, StoreFull)]
    assert refused == ["submit", "large", "take"]
    assert (await rig.history(one.id)).result == b"42"
    assert (await rig.task(two.id)).retry_count == 1
    assert (await rig.task(three.id)).hasty_releases == 1
    assert (await rig.task(waiting)).state is TaskState.CANCELLED
    assert answers["heartbeat"] == Held(())
    assert len(rig.hearer.changes) == heard + 4, "nobody hears of what was undone"


async def test_p6_outcomes_are_taken_and_the_take_among_them_is_refused(
    rig: Rig, disk: Disk
) -> None:
    for _ in range(4):
        await rig.submit()
    one, two = only_tasks(await rig.apply(take(slots=2)))
    rig.runner.hold()
    together = rig.ask(several(succeed(one), fail(two), take(slots=2)))
    refused = rig.ask(submit(data=LARGE))
    await turns()
    with disk.full():
        rig.runner.let_go()
        answers = await together
    with pytest.raises(StoreFull):
        await refused
    assert [type(answer) for answer in answers] == [Settled, Settled, StoreFull]
    assert (await rig.history(one.id)).result == b"a result"
    assert (await rig.task(two.id)).retry_count == 1
    assert len(await rig.take_all()) == 3, "nothing was leased"


async def test_p6_an_outcome_that_does_not_fit_is_in_no_others_way(rig: Rig, disk: Disk) -> None:
    """Of those that came together, each is tried again alone."""
    for _ in range(3):
        await rig.submit()
    one, two, three = only_tasks(await rig.apply(take(slots=3)))
    with disk.full():
        answers = await rig.apply(several(fail(one), succeed(two, LARGE), release(three), take()))
    assert [type(answer) for answer in answers] == [Settled, StoreFull, Settled, StoreFull]
    assert (await rig.task(one.id)).retry_count == 1
    assert (await rig.task(two.id)).state is TaskState.LEASED
    assert (await rig.task(three.id)).state is TaskState.READY
    assert rig.hearer.failure is None


async def test_p6_an_outcome_that_does_not_fit_even_alone_is_refused_and_stays_possible(
    rig: Rig, disk: Disk
) -> None:
    await rig.submit()
    task = await rig.take()
    with disk.full(), pytest.raises(StoreFull):
        await rig.apply(succeed(task, LARGE))
    assert (await rig.task(task.id)).state is TaskState.LEASED
    await rig.apply(succeed(task, LARGE))
    assert (await rig.history(task.id)).result == LARGE


async def test_p6_a_commit_that_fails_undoes_the_whole_batch(kept: Rig) -> None:
    """Memory is what the disk is: afterwards it goes on as a fresh writer would."""
    for est_s in (3, 1, 2):
        await kept.submit("free", est_s)
    task = await kept.take()
    with no_room_for_the_log() as fails:
        kept.runner.hold()
        calls = [
            kept.ask(submit("paid")),
            kept.ask(take("agent-2", slots=2)),
            kept.ask(fail(task)),
        ]
        await turns()
        fails += [True, True]  # The whole batch, and the outcome alone.
        kept.runner.let_go()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreFull] * 3
        here = [await kept.task(task.id) for task in (await kept.read(page())).tasks]
        positions = [await kept.position(task.id) for task in here]
    await kept.crash()
    assert [await kept.task(task.id) for task in here] == here
    assert [await kept.position(task.id) for task in here] == positions == [1, 0, 2]
    assert await kept.apply(Heartbeat("agent-1", ())) == Held((lease_id_of(task),))


async def test_p6_agents_that_wait_are_not_told_of_leases_that_were_undone(
    rig: Rig, disk: Disk
) -> None:
    waiter = rig.ask(take("agent-2", wait_s=60))
    other = rig.ask(take("agent-3", queues=("other",), wait_s=60))
    await turns()
    rig.runner.hold()
    calls = [rig.ask(submit()), rig.ask(submit(data=LARGE))]
    await turns()
    with disk.full():
        rig.runner.let_go()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreFull] * 2
        await turns()
        if waiter.done():  # Its lease was part of the batch: refused, it will come again.
            with pytest.raises(StoreFull):
                await waiter
    assert not other.done()
    task_id = await rig.submit(queue="other")
    assert [task.id for task in only_tasks(await other)] == [task_id]
    waiter.cancel()


async def test_p4_leases_that_end_while_the_disk_is_full_end_when_there_is_room(
    kept: Rig,
) -> None:
    await kept.submit()
    task = await kept.take()
    with no_room_for_the_log() as fails:
        fails += [True] * 5
        await kept.pass_s(32)
        assert len(fails) == 2, "tried once a second, not at every look"
        assert (await kept.task(task.id)).state is TaskState.LEASED
        await kept.pass_s(3)
        assert fails == []
    now = await kept.task(task.id)
    assert (now.state, now.lost_count) == (TaskState.READY, 1)


def test_p6_a_checkpoint_that_finds_no_room_is_no_failure() -> None:
    """All is in the log; it goes into the database another time."""
    log = Log(cast(apsw.Connection, NoRoomForTheDatabase()))
    assert not log.checkpoint()
    assert not log.checkpoint(truncate=True)


async def test_p6_a_stop_with_a_full_disk_is_clean(kept: Rig) -> None:
    waiter = kept.ask(take(wait_s=60))
    task_id = await kept.submit(queue="other")
    with no_room_for_the_log() as fails:
        fails += [True] * 10
        await kept.apply(StopTakes())
        assert await waiter == Grants()
        await kept.close()
        assert kept.hearer.failure is None
    await kept.open()
    assert await kept.take_all(queues=("other",)) == [task_id]


def test_the_limit_of_sqlite_is_a_full_disk_to_it(tmp_path: Path) -> None:
    """What these tests stand on."""
    connection = apsw.Connection(str(tmp_path / "any.db"))
    connection.execute("CREATE TABLE t (x)")
    connection.pragma("max_page_count", connection.pragma("page_count"))
    with pytest.raises(apsw.FullError):
        connection.execute("INSERT INTO t VALUES (?)", (LARGE,))
    connection.close()


async def test_after_a_full_disk_old_tasks_are_still_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await rig.submit()
    await rig.apply(succeed(await rig.take()))
    rig.time.jump_wall_us(rig.settings.retention_us)
    look = Journal.tasks_where
    full = ["once"]

    def look_or_fail(journal: Journal, which: str, more: str = "") -> object:
        if "finished_at_us" in which and full:
            full.clear()
            raise apsw.FullError("database or disk is full")
        return look(journal, which, more)

    monkeypatch.setattr(Journal, "tasks_where", look_or_fail)
    await rig.pass_s(3)
    assert full == []
    with pytest.raises(TaskNotFound):
        await rig.task(task_id)
