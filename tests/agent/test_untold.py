"""What runs have said and their agent has still to tell: in its order, and bounded (P7)."""

import pytest

from taskdist.agent.untold import UNTOLD_MAX, Untold
from taskdist.reports import Dropped, Entry, LogLine, Progress, Remarks


@pytest.fixture(autouse=True)
def feed() -> None:
    """This is about neither."""


def say(untold: Untold, lease_id: str, *said: str | Entry) -> None:
    entries = tuple(LogLine(one) if isinstance(one, str) else one for one in said)
    untold.add(Remarks("task", lease_id, entries))


def taken(untold: Untold, lease_id: str) -> list[Entry]:
    return [entry for one in untold.take_of(lease_id) for entry in one.entries]


def test_each_run_keeps_its_order() -> None:
    untold = Untold()
    assert not untold
    say(untold, "a", "1", Progress(0.5), "2")
    say(untold, "b", "x")
    say(untold, "a", "3")
    assert untold
    said: list[Entry] = [LogLine("1"), Progress(0.5), LogLine("2"), LogLine("3")]
    assert taken(untold, "a") == said
    assert untold.take() == [Remarks("task", "b", (LogLine("x"),))]
    assert not untold
    assert untold.take() == []


def test_of_several_progresses_only_the_last_is_told() -> None:
    untold = Untold()
    for number in range(100):
        say(untold, "a", Progress(number / 100))
    say(untold, "a", "line", Progress(0.99), Progress(1))
    assert taken(untold, "a") == [Progress(0.99), LogLine("line"), Progress(1)]


def test_p7_what_is_too_much_is_counted() -> None:
    untold = Untold()
    say(untold, "a", *["x"] * (UNTOLD_MAX + 50))
    say(untold, "b", "y", "y")
    entries = taken(untold, "a")
    assert len(entries) == UNTOLD_MAX + 1
    assert entries[-1] == Dropped(50)
    assert taken(untold, "b") == [Dropped(2)]
    say(untold, "a", *["x"] * UNTOLD_MAX, Dropped(40), "x")
    say(untold, "b", Dropped(30))
    assert taken(untold, "a")[-1] == Dropped(41)
    assert taken(untold, "b") == [Dropped(30)]
    say(untold, "a", "again")
    assert taken(untold, "a") == [LogLine("again")]


def test_what_may_not_have_arrived_counts_as_dropped_before_what_came_later() -> None:
    untold = Untold()
    say(untold, "a", "1", "2", Dropped(3))
    (sent,) = untold.take()
    say(untold, "a", "later")
    untold.lost(sent)
    assert taken(untold, "a") == [Dropped(5), LogLine("later")]
