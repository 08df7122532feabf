"""Micro-batching: concurrent submits of one client share a SubmitTasks.

A submit waits for at most a millisecond for others to join it; while two batches are under way the
next one gathers, so that under load batches grow by themselves. Each task has an id of the client's
making and an answer of its own (`atomic=false`): one bad task harms no other, and an outcome that
got lost can be asked for again by submitting the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from taskdist.core.errors import Refused
from taskdist.limits import SUBMIT_BATCH_BYTES_MAX, SUBMIT_TASKS_MAX
from taskdist.reports import Submission, Submitted

Send = Callable[[Sequence[Submission]], Awaitable[Sequence[Submitted | Refused]]]
"""Submits several tasks, each for itself."""

WINDOW_S = 0.001
"""How long the first submit of a batch waits for others: less than a sync takes on many disks."""

BATCHES_UNDER_WAY = 2
"""One on its way while another is written: more would only make them smaller."""


class _Waiting(NamedTuple):
    submission: Submission
    size_bytes: int
    answer: asyncio.Future[Submitted]


class Batcher:
    """Gathers submits into batches.

    Args:
        send: submits a batch.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[_Waiting] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, submission: Submission, size_bytes: int) -> Submitted:
        """Submits a task, whose request has this size, with others.

        Raises:
            Refused: this one was refused, or the batch could not be sent.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Submitted] = loop.create_future()
        self._waiting.append(_Waiting(submission, size_bytes, answer))
        if len(self._waiting) >= SUBMIT_TASKS_MAX:
            self._begin()
        elif self._timer is None and len(self._under_way) < BATCHES_UNDER_WAY:
            self._timer = loop.call_later(WINDOW_S, self._begin)
        return await answer

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sizes = (one.size_bytes for one in self._waiting[:SUBMIT_TASKS_MAX])
        count = fitting(sizes, SUBMIT_BATCH_BYTES_MAX)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        if batch:
            task = asyncio.ensure_future(self._submit(batch))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._waiting:
            self._begin()

    async def _submit(self, batch: list[_Waiting]) -> None:
        results: Sequence[Submitted | Exception]
        try:
            results = await self._send([one.submission for one in batch])
        except Exception as error:  # Whatever it is, each caller has to hear of it.
            results = [error] * len(batch)
        for one, result in zip(batch, results, strict=True):
            if one.answer.done():
                continue
            if isinstance(result, Exception):
                one.answer.set_exception(result)
            else:
                one.answer.set_result(result)


def fitting(sizes: Iterable[int], bytes_max: int) -> int:
    """How many of these, from the first on, fit one message. The first always does."""
    total = count = 0
    for size in sizes:
        total += size
        if count and total > bytes_max:
            break
        count += 1
    return count
