"""WaitingAgents: agents that found nothing and wait, by lane, the longest waiting first.

Not here: what they get. When a task becomes ready, the one to wake is the first that may take it,
and nobody else. Time is the served clock.
"""

from collections.abc import Sequence
from itertools import count
from typing import Generic, TypeVar

from sortedcontainers import SortedList

from taskdist.core.order import Lane
from taskdist.core.values import value

W = TypeVar("W")

_ANY = ""
"""Stands for any kind in an index; no kind has an empty name."""


@value
class _Place(Generic[W]):
    number: int
    waiter: W
    lanes: tuple[Lane, ...]
    until_us: int


class WaitingAgents(Generic[W]):
    """A line of waiters. A waiter is anything with an identity: it is handed back as it came."""

    def __init__(self) -> None:
        self._numbers = count()
        self._places: dict[int, _Place[W]] = {}
        self._numbers_of: dict[int, int] = {}
        self._by_lane: dict[Lane, dict[int, None]] = {}
        self._timetable: SortedList[tuple[int, int]] = SortedList()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, waiter: W, queues: Sequence[str], kinds: Sequence[str], until_us: int) -> None:
        """Puts a waiter, not in it yet, at the end of the line."""
        number = next(self._numbers)
        lanes = tuple({(queue, kind): None for queue in queues for kind in kinds or (_ANY,)})
        self._places[number] = _Place(number, waiter, lanes, until_us)
        self._numbers_of[id(waiter)] = number
        for lane in lanes:
            self._by_lane.setdefault(lane, {})[number] = None
        self._timetable.add((until_us, number))

    def discard(self, waiter: W) -> bool:
        """Takes a waiter out; False if it was not in."""
        number = self._numbers_of.pop(id(waiter), None)
        if number is None:
            return False
        place = self._places.pop(number)
        for lane in place.lanes:
            numbers = self._by_lane[lane]
            del numbers[number]
            if not numbers:
                del self._by_lane[lane]
        self._timetable.remove((place.until_us, number))
        return True

    def first(self, lanes: Sequence[Lane]) -> W | None:
        """The longest waiting of those that may take from any of these lanes."""
        places = (lane for queue, kind in lanes for lane in ((queue, kind), (queue, _ANY)))
        numbers = [next(iter(self._by_lane[lane])) for lane in places if lane in self._by_lane]
        return self._places[min(numbers)].waiter if numbers else None

    def due(self, now_us: int) -> list[W]:
        """Those who have waited long enough."""
        over = self._timetable.irange(maximum=(now_us + 1, 0), inclusive=(True, False))
        return [self._places[number].waiter for _, number in over]

    def all(self) -> list[W]:
        """All of them, the longest waiting first."""
        return [self._places[number].waiter for number in sorted(self._places)]

    def next_due_us(self) -> int | None:
        """When the next one has waited long enough; None when nobody waits."""
        return self._timetable[0][0] if self._timetable else None
