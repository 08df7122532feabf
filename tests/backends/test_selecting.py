"""What operators mean, read page by page (P7), and a bad row among it, which blocks nobody (P6)."""

import os
from collections.abc import Sequence
from typing import Any

import apsw
import pytest

from taskdist.backends import reading
from taskdist.core.commands import Cancel
from taskdist.core.queries import Selected, SelectFinished
from taskdist.core.task import TaskState
from tests.support.backends import Rig, fail, succeed

LAST_US = 1 << 60


def select(
    states: Sequence[TaskState] = (TaskState.DEAD,),
    *,
    user_tier: str = "",
    kind: str = "",
    queue: str = "",
    before_us: int = LAST_US,
    limit: int = 500,
    after: tuple[int, int, int] | None = None,
    bytes_max: int = 0,
) -> SelectFinished:
    return SelectFinished(tuple(states), user_tier, kind, queue, before_us, limit, after, bytes_max)


async def all_pages(rig: Rig, limit: int, states: Sequence[TaskState]) -> list[Selected]:
    pages = [await rig.read(select(states, limit=limit))]
    while pages[-1].next_after:
        pages.append(await rig.read(select(states, limit=limit, after=pages[-1].next_after)))
    return pages


async def dead(rig: Rig, **said: Any) -> str:
    task_id = await rig.submit(**said)
    task = await rig.take(queues=(said.get("queue", "default"),))
    assert task.id == task_id
    await rig.apply(fail(task, retryable=False))
    return task_id


@pytest.mark.parametrize("limit", [0, 1, 500])
async def test_p7_where_there_is_nothing_nothing_is_found(rig: Rig, limit: int) -> None:
    await rig.submit()
    states = (TaskState.DEAD, TaskState.CANCELLED)
    pages = await all_pages(rig, limit, states)
    assert [(page.task_ids, page.count) for page in pages] == [((), 0), ((), 0)]
    assert rig.hearer.failure is None


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 500])
async def test_p7_pages_name_each_task_once_the_oldest_of_each_state_first(
    rig: Rig, limit: int
) -> None:
    ends, cancelled = [], []
    for number in range(7):
        if number % 2:
            await rig.pass_s(1)
        ends.append(await dead(rig))
        cancelled.append(await rig.submit())
        await rig.apply(Cancel(cancelled[-1]))
    await rig.submit()
    done = await rig.take()
    await rig.apply(succeed(done))
    pages = await all_pages(rig, limit, (TaskState.CANCELLED, TaskState.DEAD))
    assert [task_id for page in pages for task_id in page.task_ids] == cancelled + ends
    assert all(page.count == len(page.task_ids) <= limit for page in pages)


async def test_p7_a_rare_filter_looks_at_few_rows_at_a_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE_ROWS_SCANNED_MAX", 3)
    for _ in range(7):
        await dead(rig)
    rare = await dead(rig, queue="rare")
    pages, after = [], None
    while True:
        pages.append(await rig.read(select(queue="rare", after=after)))
        after = pages[-1].next_after
        if after is None:
            break
    assert [page.task_ids for page in pages] == [(), (), (rare,)]
    counts, after = [], None
    while True:
        page = await rig.read(select(limit=0, after=after))
        counts.append(page.count)
        after = page.next_after
        if after is None:
            break
    assert counts == [3, 3, 2]


async def test_every_filter_narrows(rig: Rig) -> None:
    old = await dead(rig, user_tier="paid", kind="a", queue="x")
    at_us = rig.time.wall_us
    await rig.pass_s(1)
    new = await dead(rig, user_tier="free", kind="b", queue="y")
    wanted = [
        (select(), (old, new)),
        (select(user_tier="paid"), (old,)),
        (select(kind="b"), (new,)),
        (select(queue="x"), (old,)),
        (select(queue="x", kind="b"), ()),
        (select(before_us=at_us), (old,)),
        (select(before_us=at_us - 1), ()),
        (select([TaskState.SUCCEEDED]), ()),
    ]
    for query, ids in wanted:
        assert (await rig.read(query)).task_ids == ids, query
    assert await rig.read(select(after=(9, 0, 0))) == Selected((), 0, None)


async def test_p6_a_bad_row_is_counted_and_not_in_the_way_of_the_others(kept: Rig) -> None:
    ids = [await dead(kept) for _ in range(3)]
    await kept.close()
    connection = apsw.Connection(os.fspath(kept.path))
    connection.execute("UPDATE task SET id = x'00' WHERE sequence = 2")
    connection.close()
    await kept.open()
    assert (await kept.read(select())).task_ids == (ids[0], ids[2])
    assert (await kept.read(select(limit=0))).count == 3
    pages = await all_pages(kept, 1, (TaskState.DEAD,))
    assert [page.task_ids for page in pages if page.task_ids] == [(ids[0],), (ids[2],)]


async def test_p7_a_page_of_what_is_to_be_removed_is_as_light_as_it_may_be(rig: Rig) -> None:
    """Data and results count; what is too heavy by itself is a page by itself."""
    ids = [await rig.submit(data=b"x" * size) for size in (600, 100, 300, 2_000, 10)]
    for _ in ids:
        await rig.apply(succeed(await rig.take(), result=b"y" * 200))
    pages: list[tuple[str, ...]] = []
    after: tuple[int, int, int] | None = None
    while not pages or after:
        page = await rig.read(select([TaskState.SUCCEEDED], after=after, bytes_max=1_100))
        pages.append(page.task_ids)
        after = page.next_after
    assert [one for page in pages for one in page] == ids
    assert list(map(len, pages)) == [2, 1, 1, 1]
