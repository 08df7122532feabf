"""Reads: one task, and pages of many, filtered, bounded, newest first."""

import asyncio

import pytest

from taskdist.backends import reading
from taskdist.core.commands import Cancel
from taskdist.core.errors import TaskNotFound
from taskdist.core.queries import ListTasks, TaskPage
from taskdist.core.task import Lease, TaskState
from tests.support.backends import Rig, fail, fresh_id, page, submit, succeed, take, turns


def ids(found: TaskPage) -> list[str]:
    return [task.id for task in found.tasks]


async def pages(rig: Rig, query: ListTasks) -> list[list[str]]:
    """All pages of a list, by its cursor."""
    found, all_pages = await rig.read(query), []
    while True:
        all_pages.append(ids(found))
        if found.next_before is None:
            return all_pages
        query = page(
            states=query.states,
            kind=query.kind,
            page_size=query.page_size,
            before=found.next_before,
        )
        found = await rig.read(query)


async def test_a_history_tells_who_ran_the_task_when_and_how_it_ended(rig: Rig) -> None:
    task_id = await rig.submit()
    first = await rig.take("agent-1", session="session-1")
    await rig.pass_s(2)
    await rig.apply(fail(first, "out of memory"))
    await rig.pass_s(2)
    second = await rig.take("agent-2", session="session-2")
    running = await rig.history(task_id)
    assert running.task == second.evolve(lease=running.task.lease)
    assert isinstance(running.task.lease, Lease)
    assert running.task.lease.agent_id == "agent-2"
    assert running.result == b""
    await rig.apply(succeed(second, b"42"))
    history = await rig.history(task_id)
    assert history.task.lease is None
    assert history.result == b"42"
    assert history.error == "out of memory", "the last error stays, for people"
    assert [
        (attempt.attempt, attempt.agent_id, attempt.session, attempt.outcome, attempt.error)
        for attempt in history.attempts
    ] == [
        (1, "agent-1", "session-1", "failed", "out of memory"),
        (2, "agent-2", "session-2", "succeeded", ""),
    ]
    one, two = history.attempts
    assert one.ended_at_us - one.started_at_us == 2_000_000
    assert two.started_at_us - one.ended_at_us == 2_000_000


async def test_a_list_is_newest_first(rig: Rig) -> None:
    submitted = [await rig.submit() for _ in range(3)]
    found = await rig.read(page())
    assert ids(found) == submitted[::-1]
    assert found.next_before is None


async def test_an_empty_store_has_an_empty_list(rig: Rig) -> None:
    assert await rig.read(page()) == TaskPage((), None)


async def test_a_list_is_filtered_by_state_tier_kind_and_queue(rig: Rig) -> None:
    paid = await rig.submit("paid", kind="video", queue="media")
    free = await rig.submit("free", kind="sound", queue="media")
    done = await rig.submit("free", kind="sound", queue="office")
    gone = await rig.submit("paid", kind="report", queue="office")
    await rig.apply(succeed(await rig.take(queues=("office",), kinds=("sound",))))
    await rig.apply(Cancel(gone))
    for filtered, wanted in (
        (page(states=[TaskState.READY]), [free, paid]),
        (page(states=[TaskState.SUCCEEDED, TaskState.CANCELLED]), [gone, done]),
        (page(states=[TaskState.DEAD]), []),
        (page(user_tier="paid"), [gone, paid]),
        (page(kind="sound"), [done, free]),
        (page(queue="media"), [free, paid]),
        (page(user_tier="free", queue="media", kind="sound"), [free]),
        (page(user_tier="paid", kind="sound"), []),
        (page(user_tier="gold"), []),
    ):
        assert ids(await rig.read(filtered)) == wanted


async def test_pages_follow_each_other_without_gap_or_repeat(rig: Rig) -> None:
    submitted = [await rig.submit(kind=f"kind-{number % 2}") for number in range(7)]
    newest_first = submitted[::-1]
    assert await pages(rig, page(page_size=3)) == [
        newest_first[:3],
        newest_first[3:6],
        newest_first[6:],
    ]
    assert await pages(rig, page(page_size=7)) == [newest_first]
    assert await pages(rig, page(page_size=2, kind="kind-0")) == [
        newest_first[0:4:2],
        newest_first[4:8:2],
    ]


async def test_tasks_submitted_while_somebody_pages_do_not_disturb_the_pages(rig: Rig) -> None:
    submitted = [await rig.submit() for _ in range(4)]
    first = await rig.read(page(page_size=2))
    await rig.submit()
    second = await rig.read(page(page_size=2, before=first.next_before))
    assert ids(first) + ids(second) == submitted[::-1]


async def test_p7_a_page_looks_at_a_bounded_number_of_rows_and_says_where_to_go_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE_ROWS_SCANNED_MAX", 4)
    rare = await rig.submit(kind="rare")
    for _ in range(9):
        await rig.submit()
    found = await pages(rig, page(kind="rare"))
    assert found == [[], [], [rare]]
    assert await pages(rig, page(kind="unheard-of")) == [[], [], []]
    frequent = await pages(rig, page(kind="simulate", page_size=3))
    assert [len(one) for one in frequent] == [3, 3, 3, 0]


@pytest.mark.parametrize("ending", ["00ab", "1200ab", "00AB"])
async def test_a_task_is_found_by_the_ending_of_its_id(rig: Rig, ending: str) -> None:
    wanted = "00000000-0000-7000-8000-0000001200ab"
    await rig.submit(task_id="00000000-0000-7000-8000-0000001200ac")
    await rig.submit(task_id=wanted)
    assert ids(await rig.read(page(id_ending=ending))) == [wanted]
    assert ids(await rig.read(page(id_ending="1" + ending))) == []


async def test_an_ending_may_be_as_long_as_the_id_and_go_across_its_dashes(rig: Rig) -> None:
    wanted = "00000000-0000-7000-8000-0000001200ab"
    await rig.submit(task_id=wanted)
    for ending in (wanted.replace("-", ""), "80000000001200ab"):
        assert ids(await rig.read(page(id_ending=ending))) == [wanted]


async def test_several_tasks_may_share_an_ending(rig: Rig) -> None:
    both = [f"0000000{number}-0000-7000-8000-00000000abcd" for number in (1, 2)]
    for task_id in both:
        await rig.submit(task_id=task_id)
    assert ids(await rig.read(page(id_ending="00abcd"))) == both[::-1]


async def test_p1_a_read_sees_nothing_that_is_not_committed(kept: Rig) -> None:
    """Reads do not wait for the writer, nor does the writer wait for them."""
    task_id = await kept.submit()
    kept.runner.hold()
    taken = kept.ask(take())
    await turns()
    assert (await kept.task(task_id)).state is TaskState.READY
    kept.runner.let_go()
    await taken
    assert (await kept.task(task_id)).state is TaskState.LEASED


async def test_what_was_answered_is_seen_by_the_next_read(rig: Rig) -> None:
    task_id = await rig.submit(max_retries=20)
    for number in range(1, 20):
        await rig.apply(fail(await rig.take(), f"error {number}"))
        history = await rig.history(task_id)
        assert (history.task.retry_count, history.error) == (number, f"error {number}")


async def test_a_read_that_finds_nothing_undoes_nothing_of_the_batch_it_shares(rig: Rig) -> None:
    """In memory, reads go through the writer, into the middle of its transactions."""
    rig.runner.hold()
    before = rig.ask(submit())
    read = asyncio.ensure_future(rig.history(fresh_id()))
    after = rig.ask(submit())
    await turns()
    rig.runner.let_go()
    with pytest.raises(TaskNotFound):
        await read
    submitted = [(await call).task.id for call in (before, after)]
    assert await rig.take_all() == submitted
