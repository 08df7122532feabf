"""TaskQueue: which ready task is next, and at which position each one is.

It holds sort keys only, in one sorted list per lane, and knows nothing of tasks. Every operation is
O(log n) in the keys of a lane, times the lanes that it looks at. Each key is in it at most once.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice

from sortedcontainers import SortedList

from taskdist.core.order import Lane


class TaskQueue:
    """The ready tasks' keys, by lane."""

    def __init__(self) -> None:
        self._queues: dict[str, dict[str, SortedList[bytes]]] = {}
        self._length = 0
        self._lane_count = 0

    def __len__(self) -> int:
        return self._length

    @property
    def lane_count(self) -> int:
        """How many lanes have a key."""
        return self._lane_count

    def has_lane(self, lane: Lane) -> bool:
        """Whether a key is in this lane."""
        queue, kind = lane
        return kind in self._queues.get(queue, ())

    def add(self, lane: Lane, key: bytes) -> None:
        """Adds a key that is not in it."""
        self._lane(lane).add(key)
        self._length += 1

    def add_many(self, lane: Lane, keys: Sequence[bytes]) -> None:
        """Adds keys that are not in it; much faster than one by one when they are many."""
        if keys:
            self._lane(lane).update(keys)
            self._length += len(keys)

    def remove(self, lane: Lane, key: bytes) -> None:
        """Takes a key out.

        Raises:
            ValueError: it is not in this lane.
        """
        queue, kind = lane
        kinds = self._queues.get(queue, {})
        if kind not in kinds:
            raise ValueError(f"{lane} has no keys")
        keys = kinds[kind]
        keys.remove(key)
        self._length -= 1
        if not keys:
            self._lane_count -= 1
            del kinds[kind]
            if not kinds:
                del self._queues[queue]

    def discard(self, queues: Iterable[str], kinds: Sequence[str], key: bytes) -> None:
        """Takes a key out of whichever of these lanes it is in."""
        for lane in [lane for lane, keys in self._lanes(queues, kinds) if key in keys]:
            self.remove(lane, key)

    def first(self, queues: Iterable[str], kinds: Sequence[str], count: int = 1) -> list[bytes]:
        """The `count` smallest keys in these queues, of these kinds (none means any), in order."""
        lanes = [keys for _, keys in self._lanes(queues, kinds)]
        if count == 1:
            return [min(keys[0] for keys in lanes)] if lanes else []
        if len(lanes) == 1:
            return list(lanes[0].islice(0, count))
        return list(islice(merge(*lanes), count))

    def position(self, lane: Lane, key: bytes) -> int:
        """1 when the key is the smallest of all in its queue, whatever their kind; and so on."""
        queue, _ = lane
        lanes = self._queues.get(queue, {}).values()
        return 1 + sum(keys.bisect_left(key) for keys in lanes)

    def check(self) -> None:
        """Asserts that its parts agree. For tests, after every step."""
        lanes = [keys for kinds in self._queues.values() for keys in kinds.values()]
        assert all(self._queues.values()), "a queue without lanes"
        assert all(lanes), "a lane without keys"
        assert self._lane_count == len(lanes)
        assert self._length == sum(map(len, lanes))
        for keys in lanes:
            assert list(keys) == sorted(set(keys))

    def _lane(self, lane: Lane) -> "SortedList[bytes]":
        queue, kind = lane
        kinds = self._queues.setdefault(queue, {})
        if kind not in kinds:
            kinds[kind] = SortedList()
            self._lane_count += 1
        return kinds[kind]

    def _lanes(
        self, queues: Iterable[str], kinds: Sequence[str]
    ) -> "Iterator[tuple[Lane, SortedList[bytes]]]":
        for queue in queues:
            found = self._queues.get(queue, {})
            for kind in kinds or found:
                if kind in found:
                    yield (queue, kind), found[kind]
