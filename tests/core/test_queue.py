"""P2: TaskQueue against a plain sorted list."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from taskdist.core.order import Lane
from taskdist.core.queue import TaskQueue
from tests.support.examples import examples

QUEUES = ("video", "text")
KINDS = ("short", "long", "live")

lanes = st.tuples(st.sampled_from(QUEUES), st.sampled_from(KINDS))
some_queues = st.lists(st.sampled_from((*QUEUES, "empty")), min_size=1, unique=True)
some_kinds = st.lists(st.sampled_from((*KINDS, "unknown")), unique=True)


class QueueAgainstList(RuleBasedStateMachine):
    """The same keys in a TaskQueue and in a list of (lane, key)."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.queue = TaskQueue()
        self.list: list[tuple[Lane, bytes]] = []
        self.keys_given: set[bytes] = set()

    def fresh(self, key: bytes) -> bytes:
        while key in self.keys_given:
            key += b"x"
        self.keys_given.add(key)
        return key

    @rule(target=entries, lane=lanes, key=st.binary(min_size=1, max_size=2))
    def add(self, lane: Lane, key: bytes) -> tuple[Lane, bytes]:
        entry = (lane, self.fresh(key))
        self.queue.add(*entry)
        self.list.append(entry)
        return entry

    @rule(lane=lanes, keys=st.lists(st.binary(min_size=1, max_size=2), max_size=4))
    def add_many(self, lane: Lane, keys: list[bytes]) -> None:
        keys = [self.fresh(key) for key in keys]
        self.queue.add_many(lane, keys)
        self.list += [(lane, key) for key in keys]

    @rule(entry=consumes(entries))
    def remove(self, entry: tuple[Lane, bytes]) -> None:
        if entry in self.list:
            self.queue.remove(*entry)
            self.list.remove(entry)
        else:
            with pytest.raises(ValueError, match=r"."):
                self.queue.remove(*entry)

    @rule(entry=entries, queues=some_queues, kinds=some_kinds)
    def discard(self, entry: tuple[Lane, bytes], queues: list[str], kinds: list[str]) -> None:
        (queue, kind), key = entry
        self.queue.discard(queues, kinds, key)
        if entry in self.list and queue in queues and (not kinds or kind in kinds):
            self.list.remove(entry)

    @rule(queues=some_queues, kinds=some_kinds, number=st.integers(1, 5))
    def first(self, queues: list[str], kinds: list[str], number: int) -> None:
        keys = sorted(
            key
            for (queue, kind), key in self.list
            if queue in queues and (not kinds or kind in kinds)
        )
        assert self.queue.first(queues, kinds, number) == keys[:number]

    @invariant()
    def every_position_is_the_place_in_the_sorted_queue(self) -> None:
        for queue in QUEUES:
            mine = sorted((key, lane) for lane, key in self.list if lane[0] == queue)
            for position, (key, lane) in enumerate(mine, 1):
                assert self.queue.position(lane, key) == position

    @invariant()
    def it_knows_its_lanes_and_its_length(self) -> None:
        used = {lane for lane, _ in self.list}
        assert len(self.queue) == len(self.list)
        assert self.queue.lane_count == len(used)
        for lane in [(queue, kind) for queue in QUEUES for kind in KINDS]:
            assert self.queue.has_lane(lane) == (lane in used)
        self.queue.check()


TestQueueAgainstList = QueueAgainstList.TestCase
TestQueueAgainstList.settings = settings(max_examples=examples(60), stateful_step_count=40)


def test_a_position_counts_the_whole_queue_whatever_the_kind() -> None:
    queue = TaskQueue()
    queue.add(("default", "short"), b"a")
    queue.add(("default", "long"), b"b")
    queue.add(("other", "short"), b"0")
    assert queue.position(("default", "long"), b"b") == 2


def test_removing_from_a_lane_that_does_not_exist_is_an_error() -> None:
    queue = TaskQueue()
    queue.add(("default", "short"), b"a")
    with pytest.raises(ValueError, match="has no keys"):
        queue.remove(("default", "long"), b"a")


@given(st.lists(st.binary(max_size=3), unique=True), st.integers(1, 8))
def test_the_first_n_of_many_lanes_are_the_n_smallest(keys: list[bytes], number: int) -> None:
    queue = TaskQueue()
    for place, key in enumerate(keys):
        queue.add(("default", KINDS[place % 3]), key)
    assert queue.first(["default"], [], number) == sorted(keys)[:number]
