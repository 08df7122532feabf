"""What runs have said and their agent has still to tell, within bounds."""

from taskdist.limits import ENTRIES_TOGETHER_MAX
from taskdist.reports import Dropped, Entry, Progress, Remarks

UNTOLD_MAX = 4_096
"""Entries that wait while the distributor is away, some MiB; what is more is counted."""

DROPPED_TOLD_MAX = 1_000_000
"""As many as one entry may say."""


class Untold:
    """Remarks that wait to be sent, by lease, each in its order.

    Of several progresses that stand behind each other only the last is worth sending. Entries
    beyond the limit are dropped, and how many is told.
    """

    def __init__(self) -> None:
        self._task_ids: dict[str, str] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def is_long(self) -> bool:
        """Whether it takes more than one message."""
        return self._count > ENTRIES_TOGETHER_MAX

    def add(self, remarks: Remarks) -> None:
        """What a run says, after all that it said before."""
        if not remarks.entries:
            return
        self._task_ids[remarks.lease_id] = remarks.task_id
        waiting = self._entries.setdefault(remarks.lease_id, [])
        for entry in remarks.entries:
            last = waiting[-1] if waiting else None
            if isinstance(entry, Progress) and isinstance(last, Progress):
                waiting[-1] = entry
                continue
            if self._count >= UNTOLD_MAX and not isinstance(entry, Dropped):
                entry = Dropped(1)
            if isinstance(entry, Dropped) and isinstance(last, Dropped):
                waiting[-1] = Dropped(min(last.count + entry.count, DROPPED_TOLD_MAX))
                continue
            waiting.append(entry)
            self._count += 1

    def lost(self, remarks: Remarks) -> None:
        """These were taken, and may not have arrived: they count as dropped."""
        count = sum(one.count if isinstance(one, Dropped) else 1 for one in remarks.entries)
        later = self.take_of(remarks.lease_id)
        gap = Dropped(min(count, DROPPED_TOLD_MAX))
        self.add(Remarks(remarks.task_id, remarks.lease_id, (gap,)))
        for one in later:
            self.add(one)

    def take(self) -> list[Remarks]:
        """As much as fits one message, whole runs first."""
        taken: list[Remarks] = []
        room = ENTRIES_TOGETHER_MAX
        while self._entries and room:
            lease_id = next(iter(self._entries))
            taken.append(self._take(lease_id, room))
            room -= len(taken[-1].entries)
        return taken

    def take_of(self, lease_id: str) -> list[Remarks]:
        """All of one run, each part fit for one message."""
        taken = []
        while lease_id in self._entries:
            taken.append(self._take(lease_id, ENTRIES_TOGETHER_MAX))
        return taken

    def _take(self, lease_id: str, count: int) -> Remarks:
        entries = self._entries[lease_id]
        task_id = self._task_ids[lease_id]
        taken, left = tuple(entries[:count]), entries[count:]
        self._count -= len(taken)
        if left:
            self._entries[lease_id] = left
        else:
            del self._entries[lease_id], self._task_ids[lease_id]
        return Remarks(task_id, lease_id, taken)
