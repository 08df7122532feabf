"""Whom to wake: the longest waiting of those that may take the task, and nobody else."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskdist.core.order import Lane
from taskdist.core.waiting import WaitingAgents
from tests.support.examples import examples

VIDEO: Lane = ("media", "video")
SOUND: Lane = ("media", "sound")
TEXT: Lane = ("office", "text")


class Waiter:
    """Told apart by identity alone: two are never equal, and hash as one for good measure."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return self.name


def line_of(*waits: tuple[str, tuple[str, ...], tuple[str, ...]]) -> WaitingAgents[Waiter]:
    line: WaitingAgents[Waiter] = WaitingAgents()
    for name, queues, kinds in waits:
        line.add(Waiter(name), queues, kinds, until_us=100)
    return line


def first(line: WaitingAgents[Waiter], *lanes: Lane) -> str | None:
    waiter = line.first(lanes)
    return waiter.name if waiter else None


def test_the_longest_waiting_comes_first() -> None:
    line = line_of(("early", ("media",), ("video",)), ("late", ("media",), ("video",)))
    assert first(line, VIDEO) == "early"


def test_one_that_takes_any_kind_waits_in_the_same_line() -> None:
    line = line_of(
        ("any", ("media",), ()),
        ("video", ("media",), ("video",)),
        ("any-later", ("media",), ()),
    )
    assert first(line, VIDEO) == "any"
    any_kind = line.first([VIDEO])
    assert any_kind is not None
    assert line.discard(any_kind)
    assert first(line, VIDEO) == "video"
    assert first(line, SOUND) == "any-later"


def test_only_lanes_that_they_named_wake_them() -> None:
    line = line_of(("video", ("media",), ("video",)), ("office", ("office",), ()))
    assert first(line, SOUND) is None
    assert first(line, ("office", "unheard-of")) == "office"
    assert first(line, ("other", "video")) is None
    assert first(line) is None


def test_of_several_lanes_the_longest_waiting_of_all_is_first() -> None:
    line = line_of(("text", ("office",), ("text",)), ("video", ("media",), ("video",)))
    assert first(line, VIDEO, TEXT) == "text"


def test_a_queue_named_twice_is_one_place_in_the_line() -> None:
    line: WaitingAgents[Waiter] = WaitingAgents()
    waiter = Waiter("twice")
    line.add(waiter, ("media", "media"), ("video", "video"), 100)
    assert line.discard(waiter)
    assert first(line, VIDEO) is None


def test_whoever_waited_long_enough_is_due_at_that_microsecond() -> None:
    line: WaitingAgents[Waiter] = WaitingAgents()
    for name, until_us in (("b", 200), ("a", 100), ("c", 300)):
        line.add(Waiter(name), ("media",), (), until_us)
    assert line.next_due_us() == 100
    assert line.due(99) == []
    assert [waiter.name for waiter in line.due(200)] == ["a", "b"]
    assert len(line) == 3, "to ask who is due takes nobody out"


def test_nobody_waits_in_an_empty_line() -> None:
    line: WaitingAgents[Waiter] = WaitingAgents()
    assert line.next_due_us() is None
    assert line.all() == []
    assert line.discard(Waiter("stranger")) is False


class LineAgainstList(RuleBasedStateMachine):
    """The same agents in a WaitingAgents and in a list of (waiter, queues, kinds, until)."""

    def __init__(self) -> None:
        super().__init__()
        self.line: WaitingAgents[Waiter] = WaitingAgents()
        self.list: list[tuple[Waiter, list[str], list[str], int]] = []

    @rule(
        queues=st.lists(st.sampled_from(["media", "office"]), min_size=1, max_size=3),
        kinds=st.lists(st.sampled_from(["video", "sound", "text"]), max_size=3),
        until_us=st.integers(0, 50),
    )
    def begin_to_wait(self, queues: list[str], kinds: list[str], until_us: int) -> None:
        waiter = Waiter(f"agent-{len(self.list)}")
        self.line.add(waiter, queues, kinds, until_us)
        self.list.append((waiter, queues, kinds, until_us))

    @precondition(lambda self: self.list)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter, *_ = self.list.pop(data.draw(st.integers(0, len(self.list) - 1)))
        assert self.line.discard(waiter) is True
        assert self.line.discard(waiter) is False

    @rule(lanes=st.lists(st.sampled_from([VIDEO, SOUND, TEXT, ("media", "text")])))
    def wake(self, lanes: list[Lane]) -> None:
        able = [
            waiter
            for waiter, queues, kinds, _ in self.list
            if any(queue in queues and (not kinds or kind in kinds) for queue, kind in lanes)
        ]
        assert self.line.first(lanes) is (able[0] if able else None)

    @rule(now_us=st.integers(0, 60))
    def time_out(self, now_us: int) -> None:
        over = [waiter for waiter, _, _, until_us in self.list if until_us <= now_us]
        assert set(map(id, self.line.due(now_us))) == set(map(id, over))

    @invariant()
    def all_are_there_in_the_order_in_which_they_came(self) -> None:
        assert self.line.all() == [waiter for waiter, *_ in self.list]
        assert len(self.line) == len(self.list)
        ends = [until_us for *_, until_us in self.list]
        assert self.line.next_due_us() == min(ends, default=None)


TestLineAgainstList = LineAgainstList.TestCase
TestLineAgainstList.settings = settings(max_examples=examples(60), stateful_step_count=40)
