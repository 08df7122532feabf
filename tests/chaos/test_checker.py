"""The checker of the kill campaign sees each broken promise, and none where none was broken."""

import pytest

from scripts.chaosing.checker import check
from tests.chaos.broken import (
    BROKEN,
    ENDED,
    Break,
    fall_silent,
    final,
    keep_long,
    lease,
    lines,
    pass_over_older,
)
from tests.chaos.story import LEASE_S, Story, good


def kinds(story: Story) -> set[str]:
    """What the checker finds."""
    return {violation.kind for violation in check(story.sorted(), LEASE_S).violations}


def test_a_good_history_has_no_violations() -> None:
    """P1 to P5: nothing is found where nothing was broken, and order and expiry are judged."""
    verdict = check(good().sorted(), LEASE_S)
    assert verdict.violations == []
    assert verdict.judged.lost == 2
    assert verdict.judged.sharply == 2
    assert verdict.ordered.leases > verdict.ordered.strictly > 50, "not while one was dead"


@pytest.mark.parametrize(("break_it", "kind"), BROKEN)
def test_what_was_broken_is_found(break_it: Break, kind: str) -> None:
    """P1 to P5: one thing of a good history was broken by hand, and the checker names it."""
    story = good()
    break_it(story)
    assert kind in kinds(story)


# --- what excuses ---


def test_tasks_may_be_passed_over_that_a_cut_stream_may_have_carried() -> None:
    """P2: a lease that its agent never heard of went back, as often as it had slots."""
    story = good()
    pass_over_older(story)
    story.agent("other.1", slots=1)
    story.add(28.35, "other.1", "stream", do="unknown", call=1)
    assert kinds(story) == set()


def test_no_more_tasks_may_be_passed_over_than_a_cut_stream_had_slots() -> None:
    """P2: the stream that was cut explains one of two."""
    story = good()
    story.submit("older still", 27.9)
    pass_over_older(story)
    story.agent("other.1", slots=1)
    story.add(28.35, "other.1", "stream", do="unknown", call=1)
    assert "order not kept" in kinds(story)


def test_a_cut_stream_excuses_nothing_once_its_agent_was_heard_again() -> None:
    """P2: its next hello put everything right."""
    story = good()
    pass_over_older(story)
    story.agent("other.1", slots=1)
    story.add(27.0, "other.1", "stream", do="unknown", call=1)
    story.add(27.1, "other.1", "stream", do="invoke", call=2, lease_ids=[])
    story.add(27.2, "other.1", "news", call=2)
    story.add(27.3, "other.1", "stream", do="ok", call=2)
    assert "order not kept" in kinds(story)


def test_what_was_taken_at_a_goodbye_may_be_passed_over() -> None:
    """P2: it was never heard of, and went back before the stream ended."""
    story = good()
    pass_over_older(story)
    story.agent("other.1", slots=1)
    story.add(28.25, "other.1", "stream", do="ok", call=1)
    assert kinds(story) == set()


def test_other_kinds_are_no_matter_to_an_agent() -> None:
    """P2: of the tasks that it may take."""
    story = good()
    story.submit("of another kind", 27.0, kind="unheard")
    assert kinds(story) == {"task did not end"}


def test_a_lease_lives_a_term_after_a_heartbeat_that_nobody_answered() -> None:
    """P4: it may have come until its connection was closed."""
    story = good()
    final(story, "lost")["attempts"][0][ENDED] += 0.1
    story.heartbeat("narrow.1", lease("lost"), 15.25, answered=False)
    assert kinds(story) == set()


def test_a_lease_does_not_age_while_the_distributor_does_nothing() -> None:
    """P4: between two moments that are known, a pause is not the lease's."""
    story = good()
    keep_long(story)
    quiet = [f"id of other {number}" for number in range(58, 72)]  # 15 s to 18.5 s
    story.lines = [
        line
        for line in story.lines
        if line.get("task_id") not in quiet
        and line.get("task", {}).get("task_id") not in quiet
        and line.get("wish", {}).get("task_id") not in quiet
        and f"id of {line.get('ref')}" not in quiet
        and not str(line.get("lease_id")).endswith(tuple(quiet))
    ]
    assert kinds(story) == set()


def test_a_stopped_distributor_may_be_silent() -> None:
    """P4: when it was stopped is in the log of faults."""
    story = good()
    fall_silent(story)
    story.distributor(25.2, "stopping")
    story.distributor(36.1, "continued")
    assert kinds(story) == set()


def test_a_wall_clock_that_was_set_back_is_said() -> None:
    """P2: then the order of the batches is not that of their times, and nothing is claimed."""
    story = good()
    for line in lines(story, "tick"):
        if line["monotonic"] > 39.5:
            line["wall"] -= 0.01
    assert not check(story.sorted(), LEASE_S).ordered.judged
