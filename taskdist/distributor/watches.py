"""Who watches which task, and the changes that each has still to hear of."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from taskdist.core.commands import Change
from taskdist.core.errors import Exhausted, Unavailable
from taskdist.core.task import Attempt, Task
from taskdist.limits import WATCH_CHANGES_KEPT_MAX

Seen = tuple[Task, Attempt | None]
"""A task after a change, and the attempt that ended with it."""


class Watch:
    """One watcher's changes of one task, oldest first. Keeps the newest if it reads too slowly."""

    def __init__(self) -> None:
        self._changes: deque[Seen] = deque(maxlen=WATCH_CHANGES_KEPT_MAX)
        self._news = asyncio.Event()
        self._stopped = False
        self._has_changed = False

    def put(self, seen: Seen) -> None:
        """Adds a change."""
        self._changes.append(seen)
        self._has_changed = True
        self._news.set()

    def stir(self) -> None:
        """An agent has said something, which is not queued here: it is in the store."""
        self._news.set()

    def stop(self) -> None:
        """Ends the watch from the distributor's side."""
        self._stopped = True
        self._news.set()

    async def next(self) -> Seen:
        """The next change, once there is one.

        Raises:
            Unavailable: the distributor is stopping.
        """
        while not self._changes:
            if self._stopped:
                raise Unavailable("the distributor is stopping")
            await self._news.wait()
            self._news.clear()
        return self._changes.popleft()

    async def stirred(self) -> bool:
        """Returns once anything has happened; whether the state has changed.

        Raises:
            Unavailable: the distributor is stopping.
        """
        if self._stopped:
            raise Unavailable("the distributor is stopping")
        await self._news.wait()
        self._news.clear()
        has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def end(self) -> Seen | None:
        """The first end of the task among the changes that were not asked for."""
        return next((seen for seen in self._changes if seen[0].state.is_final), None)


class Watches:
    """All watches, by task.

    Args:
        limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_task: dict[str, list[Watch]] = {}
        self._count = 0
        self._stopped = False

    def changed(self, changes: Sequence[Change]) -> None:
        """Tells those who watch. A heartbeat is no change of state."""
        if not self._by_task:
            return
        for change in changes:
            before, after = change.before, change.after
            if after is not None and (before is None or before.state is not after.state):
                for watch in self._by_task.get(after.id, ()):
                    watch.put((after, change.attempt))
            elif change.entries and after is not None:
                for watch in self._by_task.get(after.id, ()):
                    watch.stir()

    def stop(self) -> None:
        """Ends all watches, and any that still come."""
        self._stopped = True
        for watches in self._by_task.values():
            for watch in watches:
                watch.stop()

    @contextmanager
    def of(self, task_id: str) -> Iterator[Watch]:
        """A watch for as long as the block lasts.

        Raises:
            Exhausted: there are too many already.
        """
        if self._count >= self._limit:
            raise Exhausted(f"{self._count} watches are open, the most that may be")
        watch = Watch()
        if self._stopped:
            watch.stop()
        self._by_task.setdefault(task_id, []).append(watch)
        self._count += 1
        try:
            yield watch
        finally:
            self._count -= 1
            self._by_task[task_id].remove(watch)
            if not self._by_task[task_id]:
                del self._by_task[task_id]
