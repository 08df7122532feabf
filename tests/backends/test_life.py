"""The life of tasks through the four methods of a backend."""

import pytest

from taskdist.core.commands import Cancel, Done, Heartbeat, Held, Locate, Resume, Settled, TakeBack
from taskdist.core.errors import (
    Exhausted,
    LeaseNotHeld,
    TaskIdTaken,
    TaskNotFound,
    TransitionRefused,
)
from taskdist.core.task import Outcome, TaskState
from taskdist.limits import ATTEMPTS_KEPT_MAX, SECOND_US
from tests.support.backends import (
    Rig,
    fail,
    fresh_id,
    lease_id_of,
    only_tasks,
    release,
    settle,
    submit,
    succeed,
    take,
)
from tests.support.changes import kept


async def test_p2_tasks_are_taken_in_the_order_of_the_mission(rig: Rig) -> None:
    free_10 = await rig.submit("free", 10)
    paid_5 = await rig.submit("paid", 5)
    free_2 = await rig.submit("free", 2)
    paid_3 = await rig.submit("paid", 3)
    assert await rig.take_all() == [paid_3, paid_5, free_2, free_10]


async def test_p2_a_submit_is_told_its_exact_position(rig: Rig) -> None:
    for tier, est_s, position in (("free", 10, 1), ("paid", 5, 1), ("free", 2, 2), ("free", 11, 4)):
        placed = await rig.apply(submit(tier, est_s))
        assert placed.position == position


async def test_p2_a_failed_task_comes_after_all_new_ones(rig: Rig) -> None:
    best = await rig.submit("paid", 0)
    await rig.apply(fail(await rig.take()))
    worst = await rig.submit("free", 100)
    assert await rig.position(best) == 2
    assert await rig.take_all() == [worst, best]


async def test_p1_data_and_result_come_back_byte_for_byte(rig: Rig) -> None:
    data, result = bytes(range(256)) * 300, b"\x00result\xff"
    task_id = await rig.submit(data=data)
    (grant,) = (await rig.apply(take())).grants
    assert grant.data == data
    settled = await rig.apply(succeed(grant.task, result))
    assert settled == Settled(Outcome.SUCCEEDED, TaskState.SUCCEEDED)
    history = await rig.history(task_id)
    assert history.result == result
    assert history.task.state is TaskState.SUCCEEDED
    assert history.task.finished_at_us == rig.time.wall_us


async def test_a_task_without_data_is_a_task(rig: Rig) -> None:
    await rig.submit(data=b"")
    (grant,) = (await rig.apply(take())).grants
    await rig.apply(succeed(grant.task, b""))
    assert grant.data == b""
    assert (await rig.history(grant.task.id)).result == b""


async def test_nobody_gets_more_tasks_than_slots(rig: Rig) -> None:
    ids = [await rig.submit() for _ in range(5)]
    two = only_tasks(await rig.apply(take(slots=2)))
    assert [task.id for task in two] == ids[:2]
    assert await rig.take_all() == ids[2:]
    assert await rig.take_all() == []


async def test_agents_get_tasks_of_their_queues_and_kinds_alone(rig: Rig) -> None:
    video = await rig.submit("paid", 0, queue="media", kind="video")
    sound = await rig.submit("free", 1, queue="media", kind="sound")
    report = await rig.submit("free", 2, queue="office", kind="report")
    kinds = ("sound", "report")
    assert await rig.take_all(queues=("office",)) == [report]
    assert await rig.take_all(queues=("media", "office"), kinds=kinds) == [sound]
    assert await rig.take_all(queues=("default",)) == []
    assert await rig.take_all(queues=("media",)) == [video]


async def test_one_take_gets_no_more_data_than_a_message_may_carry(rig: Rig) -> None:
    """P7: the rest stays for the next one."""
    ids = [await rig.submit(data=bytes(900_000)) for _ in range(3)]
    assert await rig.take_all() == ids[:2]
    assert await rig.take_all() == ids[2:]


async def test_p5_after_the_last_retry_a_task_is_dead_with_its_errors_kept(rig: Rig) -> None:
    task_id = await rig.submit(max_retries=2)
    led_to = []
    for number in (1, 2, 3):
        settled = await rig.apply(fail(await rig.take(), f"error {number}"))
        led_to.append(settled.led_to)
    assert led_to == [TaskState.READY, TaskState.READY, TaskState.DEAD]
    assert await rig.take_all() == []
    history = await rig.history(task_id)
    assert [attempt.error for attempt in history.attempts] == ["error 1", "error 2", "error 3"]
    assert history.error == "error 3"
    assert history.task.retry_count == 3


async def test_p3_whoever_lost_the_lease_changes_nothing(rig: Rig) -> None:
    await rig.submit()
    lost = await rig.take("agent-1")
    await rig.pass_s(31)
    now = await rig.take("agent-2")
    assert now.id == lost.id
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.RELEASED):
        with pytest.raises(LeaseNotHeld):
            await rig.apply(settle(lost, outcome))
    assert await rig.apply(Heartbeat("agent-1", (lease_id_of(lost),))) == Held(())
    assert (await rig.task(now.id)).state is TaskState.LEASED
    await rig.apply(succeed(now))


async def test_p3_a_repeated_outcome_answers_the_same_while_another_runs_the_task(rig: Rig) -> None:
    await rig.submit()
    first = await rig.take("agent-1")
    answer = await rig.apply(fail(first))
    second = await rig.take("agent-2")
    assert await rig.apply(fail(first)) == answer
    without_id = settle(first, Outcome.FAILED, lease_id="", error="an error")
    assert await rig.apply(without_id) == answer
    with pytest.raises(LeaseNotHeld):
        await rig.apply(fail(first, "another error"))
    await rig.apply(succeed(second, b"42"))
    assert await rig.apply(fail(first)) == answer
    again = await rig.apply(succeed(second, b"42"))
    assert again == Settled(Outcome.SUCCEEDED, TaskState.SUCCEEDED)
    with pytest.raises(LeaseNotHeld):
        await rig.apply(succeed(second, b"43"))
    assert (await rig.history(first.id)).result == b"42"


async def test_p3_without_a_lease_id_the_agents_last_outcome_can_be_repeated(rig: Rig) -> None:
    await rig.submit()
    await rig.apply(fail(await rig.take("agent-1"), "first"))
    task = await rig.take("agent-1")
    await rig.apply(fail(task, "second"))
    repeat = settle(task, Outcome.FAILED, lease_id="", error="second")
    assert (await rig.apply(repeat)).led_to is TaskState.READY
    with pytest.raises(LeaseNotHeld):
        await rig.apply(settle(task, Outcome.FAILED, lease_id="", error="first"))


async def test_a_handed_back_task_is_next_again(rig: Rig) -> None:
    handed_back = await rig.submit("paid", 1)
    await rig.submit("paid", 2)
    await rig.apply(release(await rig.take()))
    task = await rig.task(handed_back)
    assert (task.retry_count, task.lost_count, task.hasty_releases) == (0, 0, 1)
    assert (await rig.take()).id == handed_back


async def test_p5_at_most_128_attempts_are_kept_and_the_last_ones(rig: Rig) -> None:
    task_id = await rig.submit()
    for _ in range(ATTEMPTS_KEPT_MAX + 2):
        task = await rig.take()
        await rig.pass_s(10, tick_us=SECOND_US)  # Not hasty.
        await rig.apply(release(task))
    attempts = (await rig.history(task_id)).attempts
    assert [attempt.attempt for attempt in attempts] == list(range(3, ATTEMPTS_KEPT_MAX + 3))


async def test_cancel_ends_a_task_that_waits_and_one_that_runs(rig: Rig) -> None:
    running, waiting = await rig.submit("paid"), await rig.submit("free")
    task = await rig.take()
    for task_id in (running, waiting):
        placed = await rig.apply(Cancel(task_id))
        assert placed.task.state is TaskState.CANCELLED
        assert placed.position == 0
        with pytest.raises(
            TransitionRefused, match="cancel is not possible: the task is cancelled"
        ):
            await rig.apply(Cancel(task_id))
    assert await rig.take_all() == []
    assert await rig.apply(Heartbeat("agent-1", (lease_id_of(task),))) == Held(())
    with pytest.raises(LeaseNotHeld, match="which is cancelled"):
        await rig.apply(succeed(task))
    (attempt,) = (await rig.history(running)).attempts
    assert attempt.outcome is Outcome.CANCELLED


async def test_a_client_may_repeat_a_submit_blindly(rig: Rig) -> None:
    command = submit("free", 5, task_id=fresh_id())
    first = await rig.apply(command)
    await rig.submit("paid")
    again = await rig.apply(command)
    assert again.task == first.task
    assert (first.position, again.position) == (1, 2)
    with pytest.raises(TaskIdTaken):
        await rig.apply(submit("free", 6, task_id=first.task.id))
    await rig.take_all()
    assert (await rig.apply(command)).task.state is TaskState.LEASED


async def test_leases_that_were_not_heard_of_are_undone_exactly(rig: Rig) -> None:
    task_id = await rig.submit()
    before = await rig.task(task_id)
    task = await rig.take()
    assert await rig.apply(TakeBack((lease_id_of(task), "another"))) == Done()
    history = await rig.history(task_id)
    assert history.task == before
    assert history.attempts == ()


async def test_p4_a_session_that_is_back_keeps_what_it_names_and_the_rest_is_undone(
    rig: Rig,
) -> None:
    """What it does not name it never heard of. Another session's leases it cannot name."""
    for _ in range(3):
        await rig.submit()
    held, unheard = await rig.take(session="s"), await rig.take(session="s")
    others = await rig.take(session="t")
    named = (lease_id_of(held), lease_id_of(others))
    assert await rig.apply(Resume("agent-1", "s", named)) == Held(named[:1])
    assert [(await rig.task(one.id)).state for one in (held, unheard, others)] == [
        TaskState.LEASED,
        TaskState.READY,
        TaskState.LEASED,
    ]
    again = await rig.take()
    assert (again.id, again.attempt, again.lost_count) == (unheard.id, 1, 0)
    assert (await rig.history(unheard.id)).attempts == ()


async def test_what_is_unknown_is_not_found(rig: Rig) -> None:
    unknown = fresh_id()
    await rig.submit()
    task = await rig.take()
    for command in (Cancel(unknown), Locate(unknown), succeed(task.evolve(id=unknown))):
        with pytest.raises(TaskNotFound, match=unknown):
            await rig.apply(command)
    with pytest.raises(TaskNotFound):
        await rig.history(unknown)


async def test_p7_as_many_lanes_as_may_be_and_no_more(rig: Rig) -> None:
    last = ""
    for number in range(1_000):
        last = await rig.submit(queue=f"queue-{number % 10}", kind=f"kind-{number}")
    with pytest.raises(Exhausted):
        await rig.submit(kind="one-more")
    await rig.submit(queue="queue-9", kind="kind-999")  # No new lane.
    await rig.apply(Cancel(last))
    await rig.apply(Cancel((await rig.take(queues=("queue-0",))).id))
    await rig.submit(kind="one-more")


async def test_the_listener_hears_of_every_change_in_order(rig: Rig) -> None:
    task_id = await rig.submit()
    task = await rig.take()
    await rig.apply(fail(task))
    changes = rig.hearer.changes
    assert {kept(change).id for change in changes} == {task_id}
    states = [(change.before and change.before.state, kept(change).state) for change in changes]
    assert states == [
        (None, TaskState.READY),
        (TaskState.READY, TaskState.LEASED),
        (TaskState.LEASED, TaskState.READY),
    ]
    assert rig.hearer.failure is None
