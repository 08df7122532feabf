"""LeaseTable: the live leases, each with its task, and which of them are due to end.

A heartbeat costs O(1): it changes the lease and leaves its entry in the timetable where it was. An
entry that comes up too early is put back at the lease's true end. Every lease has one entry that
counts; the timetable is a heap, in which those that do not count any more stay until they come up
or are too many. (A sorted list, which can drop them at once, takes ten times as long.)
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import TypeVar

from taskdist.core.task import Task

K = TypeVar("K", bound=Hashable)

STALE_MAX = 1_000
"""Entries that do not count which the timetable may have, besides as many as count: 0.1 MiB. More
of them are dropped at once, which takes a look at each entry that counts."""


class LeaseTable:
    """The leased tasks, by lease, by task, by agent and by session."""

    def __init__(self) -> None:
        self._by_lease: dict[str, Task] = {}
        self._by_task: dict[str, Task] = {}
        self._by_agent: defaultdict[str, set[str]] = defaultdict(set)
        self._by_session: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._timetable: list[tuple[int, str]] = []
        self._entries: dict[str, int] = {}
        """Of each lease the time of the entry that counts."""

    def __len__(self) -> int:
        return len(self._by_lease)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._by_lease.values())

    def of_lease(self, lease_id: str) -> Task | None:
        """The task under this lease."""
        return self._by_lease.get(lease_id)

    def of_task(self, task_id: str) -> Task | None:
        """The leased task with this id."""
        return self._by_task.get(task_id)

    def of_agent(self, agent_id: str) -> list[Task]:
        """The tasks whose leases this agent holds."""
        return [self._by_lease[lease_id] for lease_id in sorted(self._by_agent.get(agent_id, ()))]

    def of_session(self, agent_id: str, session: str) -> list[Task]:
        """The tasks whose leases this session of an agent holds."""
        held = self._by_session.get((agent_id, session), ())
        return [self._by_lease[lease_id] for lease_id in sorted(held)]

    def count_of_session(self, agent_id: str, session: str) -> int:
        """How many leases it holds."""
        return len(self._by_session.get((agent_id, session), ()))

    def put(self, task: Task) -> None:
        """Adds a leased task, or replaces it by a later version under the same lease."""
        lease = task.lease
        assert lease is not None
        self._by_lease[lease.lease_id] = task
        self._by_task[task.id] = task
        entry_us = self._entries.get(lease.lease_id)
        if entry_us is None:
            self._by_agent[lease.agent_id].add(lease.lease_id)
            self._by_session[lease.agent_id, lease.session].add(lease.lease_id)
        if entry_us is None or entry_us > lease.expires_us:
            self._schedule(lease.lease_id, lease.expires_us)

    def remove(self, task: Task) -> None:
        """Takes a leased task out."""
        lease = task.lease
        assert lease is not None
        del self._by_lease[lease.lease_id]
        del self._by_task[task.id]
        _drop(self._by_agent, lease.agent_id, lease.lease_id)
        _drop(self._by_session, (lease.agent_id, lease.session), lease.lease_id)
        del self._entries[lease.lease_id]
        if len(self._timetable) > 2 * len(self._entries) + STALE_MAX:
            self._timetable = [(at_us, lease_id) for lease_id, at_us in self._entries.items()]
            heapify(self._timetable)

    def due(self, now_us: int, count: int) -> list[Task]:
        """The tasks whose lease's time is up, the earliest first, as many at most."""
        over: list[tuple[int, str]] = []
        while len(over) < count and (first := self._first()) and first[0] <= now_us:
            _, lease_id = first
            expires_us = self._expires_us(lease_id)
            if expires_us <= now_us:
                over.append((expires_us, lease_id))
                self._schedule(lease_id, now_us + 1)  # Out of the way for now.
            else:
                self._schedule(lease_id, expires_us)
        return [self._by_lease[lease_id] for _, lease_id in sorted(over)]

    def next_due_us(self) -> int | None:
        """A time before which no lease is due; None when there are no leases."""
        first = self._first()
        return first[0] if first else None

    def _first(self) -> tuple[int, str] | None:
        """The earliest entry that counts."""
        while self._timetable:
            at_us, lease_id = self._timetable[0]
            if self._entries.get(lease_id) == at_us:
                return self._timetable[0]
            heappop(self._timetable)
        return None

    def _expires_us(self, lease_id: str) -> int:
        lease = self._by_lease[lease_id].lease
        assert lease is not None
        return lease.expires_us

    def _schedule(self, lease_id: str, at_us: int) -> None:
        """From now on this entry is the one of this lease that counts."""
        self._entries[lease_id] = at_us
        heappush(self._timetable, (at_us, lease_id))


def _drop(index: dict[K, set[str]], key: K, lease_id: str) -> None:
    held = index[key]
    held.remove(lease_id)
    if not held:
        del index[key]
