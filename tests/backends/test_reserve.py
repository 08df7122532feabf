"""P6: on a full disk outcomes are accepted from a reserve, and nothing new is begun until there is
room for it again."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from taskdist.backends.reserve import Reserve
from taskdist.core.commands import Cancel, Heartbeat, Held, Redrive, TakeBack
from taskdist.core.errors import Exhausted, StoreFailed, StoreFull, StoreUnusable
from taskdist.core.task import TaskState
from taskdist.limits import KIB
from tests.support.backends import (
    Rig,
    fail,
    lease_id_of,
    only_tasks,
    release,
    several,
    submit,
    succeed,
    take,
    turns,
)
from tests.support.faulty_disk import Faults, faulty

RESERVE = 512 * KIB
SPARE = 128 * KIB
LARGE = bytes(100_000)


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[tuple[Rig, Faults]]:
    """An open backend with a reserve, and the disk that it is on."""
    faults = Faults(tmp_path / "faults")
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", reserve_bytes=RESERVE, checkpoint_bytes=SPARE)
    with faulty(faults):
        await rig.open()
        yield rig, faults
        await rig.close()


def reserve_of(rig: Rig) -> Path:
    """Where it is when it is there."""
    return rig.path.with_name("tasks.db-reserve")


async def fill(rig: Rig, faults: Faults) -> None:
    """The disk becomes full, and the backend notices."""
    faults.fill()
    calls = [rig.ask(submit("paid", queue="filler", data=LARGE)) for _ in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[-1], StoreFull)
    assert not reserve_of(rig).exists()


async def test_p6_outcomes_are_accepted_from_the_reserve(full: tuple[Rig, Faults]) -> None:
    rig, faults = full
    for _ in range(203):
        await rig.submit()
    one, two, three, *rest = only_tasks(await rig.apply(take(slots=203)))
    with capture_logs() as logs:
        await fill(rig, faults)
        await rig.apply(succeed(one, b"42"))
        await rig.apply(fail(two))
        await rig.apply(release(three))
        for task in rest:  # Each in a commit of its own: many times what the log may hold.
            await rig.apply(succeed(task, bytes(500)))
    said = [entry for entry in logs if entry["log_level"] == "error"]
    assert [(entry["event"], entry["reserve"]) for entry in said] == [("disk full", "given up")]
    await rig.crash()
    assert (await rig.history(one.id)).result == b"42"
    assert (await rig.task(two.id)).retry_count == 1
    assert (await rig.task(three.id)).state is TaskState.READY
    for task in rest:
        assert (await rig.history(task.id)).result == bytes(500)


async def test_p6_nothing_new_is_begun_until_there_is_room_for_the_reserve(
    full: tuple[Rig, Faults],
) -> None:
    """Also what would fit into what the reserve has left; and it does not come and go."""
    rig, faults = full
    dead, waiting = await rig.submit("paid", max_retries=0), await rig.submit()
    await rig.apply(fail(await rig.take()))
    waiter = rig.ask(take("agent-2", queues=("other",), wait_s=60))
    await turns()
    await fill(rig, faults)
    for room in (0, RESERVE, RESERVE + SPARE - 1):
        faults.fill(room)
        await rig.pass_s(3)
        assert not reserve_of(rig).exists()
        for asked in (submit(), take(), take(wait_s=60), Redrive(dead)):
            with pytest.raises(StoreFull):
                await rig.backend.apply(asked)
    faults.fill(RESERVE + SPARE)
    with capture_logs() as logs:
        await rig.pass_s(1.5)
    assert [entry["event"] for entry in logs] == ["disk has room again"]
    assert reserve_of(rig).stat().st_size == RESERVE
    assert not waiter.done(), "who waits has waited on"
    other = await rig.submit(queue="other")
    assert [task.id for task in only_tasks(await waiter)] == [other]
    assert await rig.take_all() == [waiting]


async def test_p2_who_waits_is_served_once_there_is_room(full: tuple[Rig, Faults]) -> None:
    """What became ready meanwhile is not forgotten."""
    rig, faults = full
    task_id = await rig.submit()
    task = await rig.take()
    waiter = rig.ask(take("agent-2", wait_s=60))
    await turns()
    await fill(rig, faults)
    await rig.apply(fail(task))
    await rig.pass_s(2)
    assert not waiter.done()
    faults.set()
    await rig.pass_s(1.5)
    assert [task.id for task in only_tasks(await waiter)] == [task_id]


async def test_p4_p6_what_ends_by_itself_ends_on_a_full_disk(full: tuple[Rig, Faults]) -> None:
    rig, faults = full
    lost, over = await rig.submit(), await rig.submit(deadline_in_s=20, queue="other")
    cancelled, back = await rig.submit(), await rig.submit()
    first = await rig.take()
    await rig.apply(Cancel(cancelled))
    second = await rig.take("agent-2")
    await fill(rig, faults)
    held = await rig.apply(Heartbeat("agent-1", (lease_id_of(first),)))
    assert held == Held((lease_id_of(first),))
    await rig.apply(TakeBack((lease_id_of(second),)))
    await rig.pass_s(32)
    assert (await rig.task(lost)).lost_count == 1
    assert (await rig.task(over)).state is TaskState.DEAD
    assert (await rig.task(back)).attempt == 0
    assert rig.hearer.failure is None


async def test_p6_an_outcome_beyond_the_reserve_is_refused_and_stays_possible(
    full: tuple[Rig, Faults],
) -> None:
    rig, faults = full
    for _ in range(10):
        await rig.submit()
    tasks = only_tasks(await rig.apply(take(slots=10)))
    await fill(rig, faults)
    calls = [rig.ask(several(succeed(task, LARGE))) for task in tasks]
    answers = [answer for (answer,) in await asyncio.gather(*calls)]
    refused = [
        task for task, answer in zip(tasks, answers, strict=True) if isinstance(answer, StoreFull)
    ]
    assert 3 <= len(refused) <= 9
    faults.set()
    await rig.pass_s(1.5)
    for task in refused:
        await rig.apply(succeed(task, LARGE))
    for task in tasks:
        assert (await rig.history(task.id)).result == LARGE


async def test_p6_two_stops_and_starts_on_a_full_disk(full: tuple[Rig, Faults]) -> None:
    """What can be served is: reads and outcomes."""
    rig, faults = full
    for _ in range(3):
        await rig.submit()
    tasks = only_tasks(await rig.apply(take(slots=2)))
    await fill(rig, faults)
    for task in tasks:
        await rig.close()
        faults.fill(64 * KIB)
        with capture_logs() as logs:
            await rig.open()
        assert ("disk full", "missing") in [
            (entry["event"], entry.get("reserve")) for entry in logs
        ]
        with pytest.raises(Exhausted):
            await rig.submit()
        await rig.apply(succeed(task, b"42"))
        assert (await rig.history(task.id)).result == b"42"
    await rig.close()
    faults.set()
    await rig.open()
    assert reserve_of(rig).exists()
    assert len(await rig.take_all()) == 1


async def test_the_reserve_is_given_up_where_a_start_needs_it(full: tuple[Rig, Faults]) -> None:
    rig, faults = full
    task_id = await rig.submit()
    await rig.close()
    faults.fill()
    rig.settings = rig.settings.model_copy(update={"tiers": ("free", "paid")})
    await rig.open()  # It writes down the order of the tiers.
    assert not reserve_of(rig).exists()
    assert (await rig.task(task_id)).state is TaskState.READY


async def test_without_a_reserve_a_start_that_needs_room_is_refused_in_one_line(
    full: tuple[Rig, Faults],
) -> None:
    rig, faults = full
    await rig.close()
    reserve_of(rig).unlink()
    faults.fill()
    rig.settings = rig.settings.model_copy(update={"tiers": ("free", "paid")})
    with pytest.raises(StoreUnusable, match="its disk is full"):
        await rig.open()
    faults.set()
    await rig.open()


async def test_a_reserve_is_of_real_bytes_and_kept_over_restarts(
    full: tuple[Rig, Faults],
) -> None:
    rig, _ = full
    before = reserve_of(rig).read_bytes()
    assert len(set(before)) == 256, "nothing that could be compressed"
    assert reserve_of(rig).stat().st_blocks * 512 >= RESERVE
    assert reserve_of(rig).stat().st_mode & 0o777 == 0o600
    await rig.restart()
    assert reserve_of(rig).read_bytes() == before
    await rig.close()
    reserve_of(rig).write_bytes(before[:100])  # What a kill leaves.
    await rig.open()
    assert len(reserve_of(rig).read_bytes()) == RESERVE


def test_a_store_in_memory_has_none() -> None:
    in_memory = Reserve(None, RESERVE, 0)
    assert in_memory.is_kept
    assert not in_memory.give_up()
    assert in_memory.make()


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, StoreFailed), (errno.EACCES, StoreUnusable)]
)
async def test_p6_a_reserve_that_cannot_be_made_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    """An I/O error is one also here."""

    def fsync(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", reserve_bytes=RESERVE)
    with pytest.raises(kind, match="has no reserve") as error:
        await rig.open()
    assert len(str(error.value).splitlines()) == 1


async def test_a_link_to_itself_in_the_place_of_a_reserve_makes_way(tmp_path: Path) -> None:
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", reserve_bytes=RESERVE)
    reserve_of(rig).symlink_to(reserve_of(rig))
    await rig.open()
    assert reserve_of(rig).stat().st_size == RESERVE
    await rig.close()
