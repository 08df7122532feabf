"""P2: the four rules, each of which alone decides, in this order; then the sequence."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.order import Ranked, sequence_of, strict_key
from taskdist.core.task import Task
from taskdist.limits import EST_PROCESSING_TIME_MAX_US, TIERS_MAX
from tests.core.making import ready

TIERS = ("paid", "free")


def before(first: dict[str, Any], second: dict[str, Any], tiers: tuple[str, ...] = TIERS) -> bool:
    """Whether the first task is dispatched before the second."""
    return strict_key(ready(**first), tiers) < strict_key(ready(**second), tiers)


def test_rule_1_new_comes_before_retry_whatever_the_other_rules_say() -> None:
    worst_new = {
        "user_tier": "free",
        "est_processing_time_us": EST_PROCESSING_TIME_MAX_US,
        "enqueued_at_us": 2_000,
        "sequence": 9,
    }
    best_retry = {
        "retry_count": 1,
        "user_tier": "paid",
        "est_processing_time_us": 0,
        "enqueued_at_us": 1_000,
        "sequence": 1,
    }
    assert before(worst_new, best_retry)


def test_rule_1_looks_at_whether_it_was_retried_and_not_how_often() -> None:
    assert before({"retry_count": 3, "sequence": 1}, {"retry_count": 1, "sequence": 2})


def test_rule_2_paid_comes_before_free_whatever_the_times_are() -> None:
    assert before(
        {"user_tier": "paid", "est_processing_time_us": 10_000_000, "enqueued_at_us": 9},
        {"user_tier": "free", "est_processing_time_us": 1, "enqueued_at_us": 1},
    )


def test_rule_3_the_shorter_comes_before_the_longer_whatever_their_age() -> None:
    assert before(
        {"est_processing_time_us": 1_999_999, "enqueued_at_us": 9},
        {"est_processing_time_us": 2_000_000, "enqueued_at_us": 1},
    )


def test_rule_4_the_older_comes_before_the_younger() -> None:
    assert before({"enqueued_at_us": 1, "sequence": 9}, {"enqueued_at_us": 2, "sequence": 1})


def test_a_tie_goes_to_the_one_submitted_first() -> None:
    assert before({"sequence": 255}, {"sequence": 256})


def test_losses_and_hand_backs_change_nothing() -> None:
    moved = ready(lost_count=2, hasty_releases=9, attempt=11)
    assert strict_key(moved, TIERS) == strict_key(ready(), TIERS)


@pytest.mark.parametrize("tier", ["gold", "PAID"])
def test_a_tier_that_is_not_listed_comes_last(tier: str) -> None:
    assert before({"user_tier": "free"}, {"user_tier": tier})


def test_a_tier_that_is_not_listed_comes_last_even_behind_the_most_tiers_there_can_be() -> None:
    tiers = tuple(f"tier-{rank}" for rank in range(TIERS_MAX))
    assert before({"user_tier": tiers[-1]}, {"user_tier": "gold"}, tiers)


def test_the_tiers_rank_as_they_are_listed() -> None:
    assert before({"user_tier": "free"}, {"user_tier": "paid"}, ("free", "paid"))


numbers = st.one_of(st.integers(0, 3), st.sampled_from([255, 256, 2**32, 2**56 - 1, 2**63 - 1]))
ranked = st.builds(
    Ranked,
    retry_count=st.integers(0, 3),
    user_tier=st.sampled_from(["paid", "free", "gold"]),
    est_processing_time_us=numbers,
    enqueued_at_us=numbers,
    sequence=numbers,
)


def as_rules_say(task: Ranked) -> tuple[bool, int, int, int, int]:
    rank = {"paid": 0, "free": 1}.get(task.user_tier, 2)
    return (
        task.retry_count > 0,
        rank,
        task.est_processing_time_us,
        task.enqueued_at_us,
        task.sequence,
    )


@given(ranked, ranked)
def test_the_order_of_the_bytes_is_the_order_of_the_rules(one: Ranked, other: Ranked) -> None:
    keys = strict_key(one, TIERS), strict_key(other, TIERS)
    rules = as_rules_say(one), as_rules_say(other)
    assert (keys[0] < keys[1]) == (rules[0] < rules[1])
    assert (keys[0] == keys[1]) == (rules[0] == rules[1])


@given(ranked)
def test_a_key_ends_with_the_sequence(task: Ranked) -> None:
    key = strict_key(task, TIERS)
    assert len(key) == 26
    assert sequence_of(key) == task.sequence


@given(ranked)
def test_a_row_and_its_task_have_the_same_key(row: Ranked) -> None:
    est_us = min(row.est_processing_time_us, EST_PROCESSING_TIME_MAX_US)
    row = row._replace(est_processing_time_us=est_us)
    task: Task = ready(**row._asdict())
    assert strict_key(task, TIERS) == strict_key(row, TIERS)
