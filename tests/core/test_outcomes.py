"""How leases end, and what that leads to: P5, and what leaves the order as it was."""

from dataclasses import replace

import pytest

from taskdist.core.commands import Cancel, Done, Expire, Found, Locate, Placed, Settle, Settled
from taskdist.core.decide import decide
from taskdist.core.errors import TaskNotFound, TransitionRefused
from taskdist.core.order import strict_key
from taskdist.core.task import Attempt, Outcome, Task, TaskState
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings
from tests.core.making import SETTINGS, WALL_US, lease, leased, moment, ready, task_id
from tests.support.changes import kept

TIERS = SETTINGS.tiers


def settle(outcome: Outcome, **said: object) -> Settle:
    settle = Settle(task_id(1), "agent-1", "lease-1", outcome)
    return replace(settle, **said)  # type: ignore[arg-type] # fields of any type


def ended(
    task: Task,
    command: Settle | Cancel | Expire,
    after_s: float = 20,
    settings: DistributorSettings = SETTINGS,
) -> tuple[Task, Attempt]:
    """The task after its lease was ended, and the attempt that this made."""
    decision = decide(command, Found(tasks=[task]), moment(after_s), settings)
    (change,) = decision.changes
    assert change.before == task
    assert change.attempt is not None
    assert kept(change).lease is None
    if isinstance(command, Settle):
        assert decision.answer == Settled(command.outcome, kept(change).state)
    return kept(change), change.attempt


def lease_again(task: Task) -> Task:
    """The same task under its next lease, of the same name."""
    return task.evolve(state=TaskState.LEASED, lease=lease(), attempt=task.attempt + 1)


# --- success ----------------------------------------------------------------------------------


def test_a_success_ends_the_task_and_keeps_the_result() -> None:
    command = settle(Outcome.SUCCEEDED, result=b"42")
    decision = decide(command, Found(tasks=[leased()]), moment(20), SETTINGS)
    (change,) = decision.changes
    assert change.result == b"42"
    assert kept(change).state is TaskState.SUCCEEDED
    assert kept(change).finished_at_us == WALL_US + 20 * SECOND_US
    assert kept(change).lease is None
    assert decision.answer == Settled(Outcome.SUCCEEDED, TaskState.SUCCEEDED)


def test_an_empty_result_is_a_result() -> None:
    found = Found(tasks=[leased()])
    (change,) = decide(settle(Outcome.SUCCEEDED), found, moment(), SETTINGS).changes
    assert change.result == b""


def test_the_attempt_says_who_ran_it_and_how_it_ended() -> None:
    _, attempt = ended(leased(attempt=4), settle(Outcome.FAILED, error="out of memory"))
    assert attempt == Attempt(
        attempt=4,
        lease_id="lease-1",
        agent_id="agent-1",
        session="session-1",
        started_at_us=WALL_US,
        ended_at_us=WALL_US + 20 * SECOND_US,
        outcome=Outcome.FAILED,
        led_to=TaskState.READY,
        error="out of memory",
    )


# --- failure (P5) -----------------------------------------------------------------------------


def test_p5_a_failed_task_waits_again_at_once_with_the_age_that_it_had() -> None:
    before = leased(lost_count=1, hasty_releases=2)
    after, _ = ended(before, settle(Outcome.FAILED))
    assert after.state is TaskState.READY
    assert after.retry_count == 1
    assert after.enqueued_at_us == before.enqueued_at_us
    assert after.finished_at_us is None
    assert (after.lost_count, after.hasty_releases) == (1, 2)


@pytest.mark.parametrize("max_retries", [0, 1, 3, 100])
def test_p5_there_are_exactly_one_and_max_retries_failures(max_retries: int) -> None:
    task, failures = leased(max_retries=max_retries), 0
    while True:
        task, attempt = ended(task, settle(Outcome.FAILED))
        failures += 1
        assert attempt.led_to is task.state
        if task.state is TaskState.DEAD:
            break
        task = lease_again(task)
    assert failures == 1 + max_retries == task.retry_count
    assert task.finished_at_us is not None


def test_p5_what_is_not_retryable_is_dead_at_its_first_failure() -> None:
    after, attempt = ended(leased(), settle(Outcome.FAILED, retryable=False, error="no such file"))
    assert after.state is TaskState.DEAD
    assert after.retry_count == 1
    assert attempt.error == "no such file"


# --- lost (P5) --------------------------------------------------------------------------------


def test_p5_a_lost_lease_is_no_failure_and_leaves_the_order_as_it_was() -> None:
    before = leased(retry_count=1)
    after, attempt = ended(before, Expire())
    assert after.state is TaskState.READY
    assert (after.lost_count, after.retry_count) == (1, 1)
    assert strict_key(after, TIERS) == strict_key(before, TIERS)
    assert attempt.outcome is Outcome.LOST


@pytest.mark.parametrize("max_lost", [1, 2, 3])
def test_p5_the_max_lost_th_lost_lease_ends_the_task(max_lost: int) -> None:
    settings = SETTINGS.model_copy(update={"max_lost": max_lost})
    task, losses = leased(), 0
    while True:
        task, _ = ended(task, Expire(), settings=settings)
        losses += 1
        if task.state is TaskState.DEAD:
            break
        task = lease_again(task)
    assert losses == max_lost == task.lost_count
    assert task.retry_count == 0


def test_p5_the_default_is_three_lost_leases() -> None:
    assert SETTINGS.max_lost == 3


def test_all_that_are_due_expire_together() -> None:
    tasks = [leased(1), leased(2, lost_count=2)]
    decision = decide(Expire(), Found(tasks=tasks), moment(31), SETTINGS)
    assert decision.answer == Done()
    assert [kept(change).state for change in decision.changes] == [TaskState.READY, TaskState.DEAD]


# --- hand-backs (P5) --------------------------------------------------------------------------


def test_p5_a_hand_back_is_no_failure_and_leaves_the_order_as_it_was() -> None:
    before = leased(retry_count=2, lost_count=1)
    after, attempt = ended(before, settle(Outcome.RELEASED))
    assert after.state is TaskState.READY
    assert (after.retry_count, after.lost_count) == (2, 1)
    assert strict_key(after, TIERS) == strict_key(before, TIERS)
    assert attempt.outcome is Outcome.RELEASED


def test_p5_the_16th_hasty_hand_back_ends_the_task() -> None:
    task = leased()
    for _ in range(15):
        task, _ = ended(task, settle(Outcome.RELEASED), after_s=9.999)
        assert task.state is TaskState.READY
        task = lease_again(task)
    task, attempt = ended(task, settle(Outcome.RELEASED), after_s=9.999)
    assert task.state is attempt.led_to is TaskState.DEAD
    assert task.finished_at_us is not None


def test_p5_a_hand_back_after_ten_seconds_is_not_counted() -> None:
    task = leased(hasty_releases=15)
    for _ in range(20):
        task, _ = ended(task, settle(Outcome.RELEASED), after_s=10)
        assert task.state is TaskState.READY
        assert task.hasty_releases == 15
        task = lease_again(task)


def test_p5_haste_goes_by_the_served_clock_and_not_by_the_wall() -> None:
    at = replace(moment(1), wall_us=WALL_US + 3_600 * SECOND_US)
    found = Found(tasks=[leased()])
    (change,) = decide(settle(Outcome.RELEASED), found, at, SETTINGS).changes
    assert kept(change).hasty_releases == 1


# --- cancel -----------------------------------------------------------------------------------


def test_cancelling_a_leased_task_ends_its_lease() -> None:
    after, attempt = ended(leased(), Cancel(task_id(1)))
    assert after.state is TaskState.CANCELLED
    assert after.finished_at_us == WALL_US + 20 * SECOND_US
    assert attempt.outcome is Outcome.CANCELLED
    assert attempt.led_to is TaskState.CANCELLED


@pytest.mark.parametrize("state", [TaskState.READY, TaskState.SCHEDULED])
def test_a_waiting_task_can_be_cancelled(state: TaskState) -> None:
    task = ready(state=state)
    decision = decide(Cancel(task.id), Found(tasks=[task]), moment(), SETTINGS)
    (change,) = decision.changes
    assert kept(change) == task.evolve(state=TaskState.CANCELLED, finished_at_us=WALL_US)
    assert change.attempt is None
    assert decision.answer == Placed(kept(change))


@pytest.mark.parametrize("state", [state for state in TaskState if state.is_final])
def test_p5_a_final_task_cannot_be_cancelled(state: TaskState) -> None:
    task = ready(state=state, finished_at_us=WALL_US)
    with pytest.raises(TransitionRefused, match=f"cancel is not possible: the task is {state}"):
        decide(Cancel(task.id), Found(tasks=[task]), moment(), SETTINGS)


# --- where it is ------------------------------------------------------------------------------


def test_locating_a_task_changes_nothing() -> None:
    task = ready()
    decision = decide(Locate(task.id), Found(tasks=[task]), moment(), SETTINGS)
    assert decision.answer == Placed(task)
    assert decision.changes == []


@pytest.mark.parametrize(
    "command", [Cancel(task_id(1)), Locate(task_id(1)), settle(Outcome.SUCCEEDED)]
)
def test_an_unknown_task_is_not_found(command: Cancel | Locate | Settle) -> None:
    with pytest.raises(TaskNotFound, match=task_id(1)):
        decide(command, Found(), moment(), SETTINGS)
