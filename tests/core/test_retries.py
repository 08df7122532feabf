"""P5: how long a failed task waits, and when it does not come back at all."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.commands import Change, Found, Settle
from taskdist.core.decide import decide
from taskdist.core.retries import retry_delay_us
from taskdist.core.task import Backoff, Outcome, Task, TaskState
from taskdist.limits import DELAY_MAX_US, MAX_RETRIES_MAX, SECOND_US
from tests.core.making import SERVED_US, SETTINGS, WALL_US, leased, moment, ready, task_id
from tests.support.changes import kept

FIXED: dict[str, Any] = {"backoff": Backoff.FIXED, "backoff_us": 3 * SECOND_US}
DOUBLED: dict[str, Any] = {
    "backoff": Backoff.EXPONENTIAL,
    "backoff_us": SECOND_US,
    "backoff_max_us": 10 * SECOND_US,
}


def pauses_s(**said: Any) -> list[float]:
    task = ready(**said)
    return [retry_delay_us(task, failures) / SECOND_US for failures in (1, 2, 3, 4, 5, 6, 101)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [0] * 7),
        ({"backoff_us": 5, "backoff_max_us": 5, "backoff_jitter_percent": 50}, [0] * 7),
        (FIXED, [3] * 7),
        ({**FIXED, "backoff_max_us": 1}, [3] * 7),
        (DOUBLED, [1, 2, 4, 8, 10, 10, 10]),
        ({**DOUBLED, "backoff_max_us": SECOND_US}, [1] * 7),
        ({**DOUBLED, "backoff_us": DELAY_MAX_US, "backoff_max_us": DELAY_MAX_US}, [31_536_000] * 7),
    ],
)
def test_p5_the_pauses_of_each_policy(said: dict[str, Any], expected: list[float]) -> None:
    assert pauses_s(**said) == expected


@given(
    st.integers(1, 10**6),
    st.integers(1, 1 + MAX_RETRIES_MAX),
    st.integers(0, 100),
    st.integers(1_000, DELAY_MAX_US),
)
def test_p5_jitter_takes_off_so_much_at_most_and_is_the_same_again(
    number: int, failures: int, percent: int, pause_us: int
) -> None:
    task = ready(number, **{**FIXED, "backoff_us": pause_us, "backoff_jitter_percent": percent})
    drawn_us = retry_delay_us(task, failures)
    assert pause_us * (100 - percent) // 100 <= drawn_us <= pause_us
    assert drawn_us > 0, "never none at all"
    assert retry_delay_us(task.evolve(attempt=9, sequence=1), failures) == drawn_us


def test_p5_jitter_brings_tasks_that_failed_together_apart_and_stays_below_the_cap() -> None:
    tasks = [ready(n, **{**DOUBLED, "backoff_jitter_percent": 50}) for n in range(1, 401)]
    drawn = [retry_delay_us(task, 7) for task in tasks]
    assert len(set(drawn)) > 390
    assert 5 * SECOND_US <= min(drawn) < 5.2 * SECOND_US
    assert 9.8 * SECOND_US < max(drawn) <= 10 * SECOND_US
    assert len({retry_delay_us(tasks[0], failures) for failures in range(5, 50)}) > 40


def failed(task: Task, **said: Any) -> Change:
    settle = Settle(task_id(1), "agent-1", "lease-1", Outcome.FAILED, error="an error")
    found = Found(tasks=[task])
    (change,) = decide(replace(settle, **said), found, moment(20), SETTINGS).changes
    return change


def test_p5_a_failed_task_waits_by_the_served_clock_and_is_told_by_the_wall_clock() -> None:
    before = leased(**FIXED)
    change = failed(before)
    after = kept(change)
    assert after.state is TaskState.SCHEDULED
    assert after.backoff_until_us == SERVED_US + 23 * SECOND_US
    assert after.due_at_us == WALL_US + 23 * SECOND_US
    assert (after.retry_count, after.lease, after.finished_at_us) == (1, None, None)
    assert after.enqueued_at_us == before.enqueued_at_us
    assert change.attempt
    assert change.attempt.led_to is TaskState.SCHEDULED


@pytest.mark.parametrize(
    ("said", "state", "pause_s"),
    [
        ({}, TaskState.SCHEDULED, 3),
        ({"retry_after_us": 0}, TaskState.READY, None),
        ({"retry_after_us": SECOND_US}, TaskState.SCHEDULED, 1),
        ({"retry_after_us": DELAY_MAX_US}, TaskState.SCHEDULED, 31_536_000),
        ({"retryable": False}, TaskState.DEAD, None),
        ({"retryable": False, "retry_after_us": SECOND_US}, TaskState.DEAD, None),
    ],
)
def test_p5_what_the_agent_says_of_the_retry_is_over_the_backoff(
    said: dict[str, Any], state: TaskState, pause_s: float | None
) -> None:
    after = kept(failed(leased(**FIXED), **said))
    assert after.state is state
    expected_us = None if pause_s is None else SERVED_US + (20 + pause_s) * SECOND_US
    assert after.backoff_until_us == expected_us
    assert (after.due_at_us is None) is (pause_s is None)
    assert (after.finished_at_us is None) is (state is not TaskState.DEAD)


@pytest.mark.parametrize("max_retries", [0, 1, 100])
@pytest.mark.parametrize("said", [{}, {"retry_after_us": SECOND_US}])
def test_p5_the_last_failure_is_the_last_whatever_its_agent_hopes(
    max_retries: int, said: dict[str, Any]
) -> None:
    last = leased(max_retries=max_retries, retry_count=max_retries, **DOUBLED)
    after = kept(failed(last, **said))
    assert (after.state, after.retry_count) == (TaskState.DEAD, max_retries + 1)
    assert after.due_at_us is after.backoff_until_us is None
    if max_retries:
        one_more = leased(max_retries=max_retries, retry_count=max_retries - 1, **DOUBLED)
        assert kept(failed(one_more, **said)).state is TaskState.SCHEDULED
