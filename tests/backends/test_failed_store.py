"""P6: fail-stop. After an error of the store nothing more is acknowledged, and nothing leased."""

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from taskdist.backends import live, reading
from taskdist.backends.clock import Clocks
from taskdist.backends.journal import Journal
from taskdist.backends.runner import ThreadRunner
from taskdist.core.commands import Heartbeat, Locate
from taskdist.core.errors import StoreFailed, Unavailable
from tests.support.backends import Rig, fresh_id, page, submit, succeed, take, turns


def break_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is broken: an error at the next commit."""

    def commit(journal: Journal, clocks: Clocks) -> None:
        if journal.connection.in_transaction:
            raise apsw.IOError("disk I/O error")

    monkeypatch.setattr(Journal, "commit", commit)


async def refused(rig: Rig) -> None:
    """Whatever is asked now is refused."""
    for command in (
        submit(),
        take(),
        take(wait_s=60),
        Heartbeat("agent-1", ()),
        Locate(fresh_id()),
    ):
        with pytest.raises(Unavailable, match="the store failed"):
            await rig.backend.apply(command)
    with pytest.raises(Unavailable):
        await rig.read(page())


async def test_p6_after_an_io_error_nothing_is_acknowledged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.submit()
    task = await rig.take()
    heard = len(rig.hearer.changes)
    break_commits(monkeypatch)
    with pytest.raises(Unavailable, match="the store failed"):
        await rig.apply(succeed(task))
    await refused(rig)
    assert len(rig.hearer.changes) == heard
    failure = rig.hearer.failure
    assert isinstance(failure, StoreFailed)
    assert isinstance(failure.__cause__, apsw.IOError)
    assert "\n" not in str(failure)
    assert rig.settings.store in str(failure)


async def test_p6_a_commit_that_works_again_changes_nothing_about_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit after a failed fsync succeeds, and must not be trusted."""
    with monkeypatch.context() as patch:
        break_commits(patch)
        with pytest.raises(Unavailable):
            await rig.submit()
    await refused(rig)


async def test_p6_everybody_who_was_asking_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in the batch, those that it was about to serve, those who wait, those in line."""
    served = rig.ask(take("agent-1", wait_s=60))
    waits = rig.ask(take("agent-2", queues=("other",), wait_s=60))
    await turns()
    break_commits(monkeypatch)
    rig.runner.hold()
    submitted = rig.ask(submit())
    await turns()
    rig.runner.let_go()
    late = rig.ask(take("agent-3", wait_s=60))
    calls = (served, waits, submitted, late)
    await turns(50)
    assert all(call.done() for call in calls)
    for call in calls:
        with pytest.raises(Unavailable):
            await call


async def test_p6_who_waited_long_enough_at_that_moment_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait and a lease end in one batch, and the end of the lease cannot be saved."""
    await rig.submit()
    await rig.take()
    waiter = rig.ask(take("agent-2", queues=("other",), wait_s=30))
    await turns()
    await rig.pass_s(29.75)
    break_commits(monkeypatch)
    await rig.pass_s(0.5)
    assert waiter.done()
    with pytest.raises(Unavailable):
        await waiter


@pytest.mark.parametrize("when", ["while it loads", "right after"])
async def test_p6_those_who_waited_for_the_load_are_told(
    kept: Rig, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for _ in range(20):
        await kept.submit()
    task = await kept.take()
    monkeypatch.setattr(live, "LOAD_ROWS", 1)
    await kept.restart()
    calls: list[asyncio.Task[Any]] = [kept.ask(submit()), kept.ask(take(wait_s=60))]
    await turns(2)
    kept.runner.hold()
    assert not any(call.done() for call in calls)
    if when == "while it loads":
        calls.append(kept.ask(succeed(task)))
    await turns()
    break_commits(monkeypatch)
    kept.runner.let_go()
    await turns(100)
    assert all(call.done() for call in calls)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}


async def test_p1_p6_what_was_refused_may_be_on_the_disk_or_not_and_what_was_said_is(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await kept.submit("free", 1)
    with monkeypatch.context() as patch:
        break_commits(patch)
        with pytest.raises(Unavailable):
            await kept.submit("paid", 1)
        await kept.close()
    await kept.open()
    assert await kept.take_all() == [said]


async def test_p6_a_failed_store_can_be_closed_and_gives_up_its_lock(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_commits(patch)
        with pytest.raises(Unavailable):
            await kept.submit()
        await kept.close()
    other = Rig(kept.settings.store)
    await other.open()
    await other.close()


async def test_p6_an_error_while_closing_is_a_failure_too(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener hears of it, and the close ends."""
    await kept.submit()
    with monkeypatch.context() as patch:
        break_commits(patch)
        await kept.close()
    assert isinstance(kept.hearer.failure, StoreFailed)


async def test_p6_an_error_during_the_last_batch_is_a_failure_and_the_close_ends(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_commits(patch)
        kept.runner.hold()
        call = kept.ask(submit())
        await turns()
        await kept.close()
        with pytest.raises(Unavailable):
            await call
    assert isinstance(kept.hearer.failure, StoreFailed)
    await kept.open()
    assert await kept.take_all() == []


async def test_p6_an_error_of_a_read_is_a_failure_of_the_store(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.submit()

    def read(*_: object) -> None:
        raise apsw.CorruptError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(reading, "run", read)
        with pytest.raises(Unavailable):
            await kept.read(page())
    await refused(kept)
    assert isinstance(kept.hearer.failure, StoreFailed)


async def test_p6_a_bug_stops_the_writer_too_and_is_not_taken_for_the_store(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Journal, "commit", commit)
    with pytest.raises(Unavailable):
        await rig.submit()
    assert isinstance(rig.hearer.failure, ZeroDivisionError)


async def test_p6_the_same_with_the_writer_in_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}")
    await rig.open(ThreadRunner("writer"))
    waiter = rig.ask(take(wait_s=60))
    await rig.submit(queue="other")
    break_commits(monkeypatch)
    with pytest.raises(Unavailable):
        await rig.submit()
    with pytest.raises(Unavailable):
        await waiter
    await refused(rig)
    await rig.close()
    assert isinstance(rig.hearer.failure, StoreFailed)
