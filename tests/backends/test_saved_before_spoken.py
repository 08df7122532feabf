"""P1: no answer before the commit, and a commit is a commit."""

import asyncio
import os
import threading
from pathlib import Path

import apsw
import pytest

from taskdist.backends.clock import Clocks
from taskdist.backends.journal import Journal
from taskdist.backends.runner import ThreadRunner
from taskdist.core.commands import Cancel, Command, Submit
from tests.support.backends import Rig, fail, release, submit, succeed, take, turns


def states_on_disk(path: Path) -> list[str]:
    """What a second connection sees now."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [state for (state,) in connection.execute("SELECT state FROM task")]
    finally:
        connection.close()


async def test_p1_whatever_is_answered_is_on_the_disk_at_that_moment(kept: Rig) -> None:
    """Also with the writer in a thread of its own."""
    await kept.close()
    await kept.open(ThreadRunner("writer"))
    seen = []

    async def ask(command: Command[object]) -> None:
        await kept.apply(command)
        seen.append(states_on_disk(kept.path))

    await ask(submit())
    task = await kept.take()
    seen.append(states_on_disk(kept.path))
    await ask(release(task))
    task = await kept.take()
    await ask(fail(task))
    task = await kept.take()
    await ask(succeed(task))
    await ask(submit())
    await ask(Cancel((await kept.take()).id))
    assert seen == [
        ["ready"],
        ["leased"],
        ["ready"],
        ["ready"],
        ["succeeded"],
        ["succeeded", "ready"],
        ["succeeded", "cancelled"],
    ]


async def test_p1_while_the_commit_is_under_way_nothing_is_said(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    commit = Journal.commit

    def slow_commit(journal: Journal, clocks: Clocks) -> None:
        if journal.connection.in_transaction:
            begun.set()
            go_on.wait()
        commit(journal, clocks)

    await kept.close()
    await kept.open(ThreadRunner("writer"))
    waiter = kept.ask(take(wait_s=60))
    await kept.apply(Cancel(await kept.submit(queue="other")))
    monkeypatch.setattr(Journal, "commit", slow_commit)
    heard = len(kept.hearer.changes)
    call = kept.ask(submit())
    await asyncio.to_thread(begun.wait)
    await turns(100)
    try:
        assert not call.done()
        assert not waiter.done()
        assert len(kept.hearer.changes) == heard
    finally:
        go_on.set()
    task = (await call).task
    (grant,) = (await waiter).grants
    assert grant.task.id == task.id
    assert len(kept.hearer.changes) == heard + 2


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[Clocks]:
    """The commits so far that had something to save."""
    commits = []
    commit = Journal.commit

    def counted_commit(journal: Journal, clocks: Clocks) -> None:
        if journal.connection.in_transaction:
            commits.append(clocks)
        commit(journal, clocks)

    monkeypatch.setattr(Journal, "commit", counted_commit)
    return commits


async def positions(rig: Rig, submits: list[Submit]) -> list[int]:
    """Asks all at once, as if they had come during one commit."""
    rig.runner.hold()
    calls = [rig.ask(command) for command in submits]
    await turns()
    rig.runner.let_go()
    return [placed.position for placed in await asyncio.gather(*calls)]


async def test_p1_all_that_came_during_a_commit_share_the_next(
    kept: Rig, commits: list[Clocks]
) -> None:
    """Group commit: many answers, one wait for the disk."""
    submits = [submit() for _ in range(100)]
    assert await positions(kept, submits) == list(range(1, 101)), "in the order of arrival"
    assert len(commits) == 1


@pytest.mark.parametrize(("number", "data"), [(25, b""), (7, bytes(900_000))])
async def test_p7_what_is_too_much_for_a_batch_goes_into_the_next(
    tmp_path: Path, commits: list[Clocks], number: int, data: bytes
) -> None:
    """So that no answer waits long behind the others."""
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", batch_rows_max=10, batch_bytes_max=3_000_000)
    await rig.open()
    submits = [submit(data=data) for _ in range(number)]
    assert await positions(rig, submits) == list(range(1, number + 1))
    assert len(commits) == 3
    await rig.close()


def test_p1_a_commit_waits_until_the_data_is_on_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "tasks.db", "strict", ("paid", "free"))
    assert journal.connection.pragma("journal_mode") == "wal"
    assert journal.connection.pragma("synchronous") == 2, "FULL"
    journal.close()
