"""WatchTask: how a task's life is told while it goes on.

Who wants no more than the states from now on is told each change as it comes. Who also wants what
agents say, or goes on from an earlier place, is told from the store: a change only says that there
is something new. So a slow reader costs no memory, and nobody misses anything.
"""

import asyncio

from taskdist.backends.protocol import Backend
from taskdist.core import commands
from taskdist.core.errors import TaskNotFound
from taskdist.core.queries import FollowTask, GetTask, Place, TaskHistory
from taskdist.core.task import Attempt, Task, TaskState
from taskdist.core.telling import Told, news, number_of, place_in_life, place_of
from taskdist.distributor.roster import Roster
from taskdist.distributor.transport import AnyStream, first_message
from taskdist.distributor.watches import Watch, Watches
from taskdist.limits import ENTRIES_PAGE_MAX
from taskdist.wire import convert, convert_entries

SAID_PAUSE_S = 0.05
"""How long what agents say waits for more of it, before each of its watchers reads the store."""


async def position_of(backend: Backend, task: Task) -> int:
    """Where a task stands in its queue; 0 when it is not ready."""
    if task.state is not TaskState.READY:
        return 0
    return (await backend.apply(commands.Locate(task.id))).position


class Watching:
    """Serves WatchTask.

    Args:
        backend: where tasks are kept.
        watches: who is told when one changes.
        roster: knows why one waits.
    """

    def __init__(self, backend: Backend, watches: Watches, roster: Roster) -> None:
        self._backend = backend
        self._watches = watches
        self._roster = roster

    async def serve(self, stream: AnyStream) -> None:
        """Tells a task's life to its end."""
        asked = convert.watching(await first_message(stream))
        with self._watches.of(asked.task_id) as watch:
            if asked.entries or asked.after is not None:
                after = None if asked.after is None else place_of(asked.after)
                limit = ENTRIES_PAGE_MAX if asked.entries else 0
                await self._follow(stream, watch, asked.task_id, after, limit)
            else:
                await self._watch(stream, watch, asked.task_id)

    # --- states, as they come ---

    async def _watch(self, stream: AnyStream, watch: Watch, task_id: str) -> None:
        history = await self._backend.read(GetTask(task_id))
        task, error, attempt = history.task, history.error, None
        while not task.state.is_final:
            await self._tell(stream, task, b"", error)
            seen = place_in_life(task)
            task, attempt = await watch.next()
            # The read may have been ahead of what the watch is told.
            while place_in_life(task) <= seen and not task.state.is_final:
                task, attempt = await watch.next()
            error = attempt.error if attempt and attempt.error else error
        if history.task is not task:
            history = await self._ended(task, attempt)
        await self._tell(stream, task, history.result, history.error)

    async def _ended(self, task: Task, attempt: Attempt | None) -> TaskHistory:
        """All that is kept of a task that has come to this end, whatever followed since: it may be
        put back already, or forgotten."""
        last = () if attempt is None else (attempt,)
        try:
            history = await self._backend.read(GetTask(task.id))
        except TaskNotFound:
            return TaskHistory(task, b"", last)
        if history.task.state is not task.state:
            until = [one for one in history.attempts if one.attempt <= task.attempt]
            return TaskHistory(task, b"", tuple(until))
        return history

    # --- all that is kept, from any place on ---

    async def _follow(
        self, stream: AnyStream, watch: Watch, task_id: str, after: Place | None, limit: int
    ) -> None:
        if after is None:
            after = await self._begin(stream, task_id)
        while True:
            try:
                followed = await self._backend.read(FollowTask(task_id, after, limit))
            except TaskNotFound:
                seen = watch.end()
                if seen is None:
                    raise
                history = await self._ended(*seen)  # It is removed already.
                await self._tell(stream, history.task, b"", history.error)
                return
            for told in news(followed, after):
                await self._tell_one(stream, told, followed.history)
                after = max(after, place_of(told.number))
            if followed.is_more:
                continue
            if followed.history.task.state.is_final:
                return
            if not await watch.stirred():
                # However talkative the agent is, its watchers leave room for other readers (P7).
                await asyncio.sleep(SAID_PAUSE_S)

    async def _begin(self, stream: AnyStream, task_id: str) -> Place:
        """Tells the present; where it is in the life, what has been said included."""
        followed = await self._backend.read(FollowTask(task_id, (0, 0), 0))
        history = followed.history
        place = max(place_in_life(history.task), followed.newest)
        if not history.task.state.is_final:  # The end is told in any case.
            number = number_of(place)
            await self._tell(stream, history.task, b"", history.error, number)
        return place

    async def _tell_one(self, stream: AnyStream, told: Told, present: TaskHistory) -> None:
        history = told.history
        if history is None:
            await stream.send_message(convert_entries.entry_watched(told))
        elif history is present:
            await self._tell(stream, history.task, history.result, history.error)
        else:
            past = convert.watched(history.task, 0, b"", history.error, number=told.number)
            await stream.send_message(past)

    async def _tell(
        self, stream: AnyStream, task: Task, result: bytes, error: str, number: int = 0
    ) -> None:
        """The present state."""
        position, why = await self._position(task), self._roster.why_waits(task)
        number = number or number_of(place_in_life(task))
        await stream.send_message(convert.watched(task, position, result, error, why, number))

    async def _position(self, task: Task) -> int:
        try:
            return await position_of(self._backend, task)
        except TaskNotFound:  # It is removed already, and its end comes next.
            return 0
