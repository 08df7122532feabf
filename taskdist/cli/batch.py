"""What `submit --batch` does, once its arguments have been read."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing

from taskdist.cli import exits, lines
from taskdist.cli.bars import Counting
from taskdist.cli.output import json_line, seconds
from taskdist.cli.verbs import check_server
from taskdist.cli.waiting import ended_dict
from taskdist.client.async_client import AsyncClient
from taskdist.client.errors import WaitTimeout
from taskdist.client.options import Options
from taskdist.client.places import renamed
from taskdist.client.saying import check
from taskdist.core.errors import Refused, TaskNotFound, Unavailable
from taskdist.core.task import TaskState
from taskdist.limits import SUBMIT_TASKS_MAX
from taskdist.reports import Submission, Submitted, TaskReport, gist

WATCHED_MAX = 500
"""A distributor serves 10,000 watches in all; each is a call that stays open."""

TURN_S = 5.0
"""So long one of more tasks is watched before the next has its turn: whatever ends is counted after
a round at the latest."""


def submit(
    server: str,
    path: str,
    kind: str,
    flags: Options,
    *,
    wait: bool,
    timeout_s: float | None,
    json: bool,
) -> int:
    """Submits the tasks of a file, and waits for their ends if told to. Returns the exit code.

    Every line is checked before the first is sent.

    Raises:
        SettingsError: the server is not HOST:PORT, or the file cannot be read.
        InvalidFields: lines are bad; each is named, with its fields.
        Refused: as the client does. How many were submitted has been said.
    """
    check_server(server)
    tasks = lines.read(path, kind, flags)

    async def with_client() -> int:
        async with AsyncClient(server) as client:
            return await Batch(client, tasks, json=json, wait=wait).run(timeout_s)

    return asyncio.run(with_client())


class Batch:
    """Tasks of a file.

    Args:
        wait: whether to wait for their ends.
        json: whether what is printed is JSON.
    """

    def __init__(
        self, client: AsyncClient, tasks: Sequence[lines.Line], *, json: bool, wait: bool
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._json = json
        self._wait = wait
        self._ids: list[str] = []
        """Of those that are submitted."""

    async def run(self, timeout_s: float | None) -> int:
        """Submits them, and waits. Returns the exit code."""
        submissions = await self._checked()
        with Counting("submitted", len(submissions)) as counting:
            try:
                await self._submit(submissions, counting)
            except Refused as refusal:
                raise self._told_by_line(refusal) from None
        if not self._wait:
            return exits.OK
        ids = list(dict.fromkeys(self._ids))  # two lines may be one task
        with Counting("finished", len(ids)) as counting:
            return await _Ends(self._client, ids, counting, json=self._json).wait(timeout_s)

    async def _checked(self) -> list[Submission]:
        submissions = []
        faults = lines.Faults()
        for task in self._tasks:
            with faults.of(task.number):
                said = await self._client.checked(task.kind, task.data, **task.options)
                check(said)
                submissions.append(said)
        faults.done()
        return submissions

    async def _submit(self, submissions: Sequence[Submission], counting: Counting) -> None:
        try:
            async with aclosing(self._client.submit_in_commits(submissions)) as commits:
                async for done in commits:
                    self._ids += [one.task_id for one in done]
                    self._give(done, counting)
                    counting.count(len(self._ids))
        except (asyncio.CancelledError, Unavailable):
            left = min(len(submissions) - len(self._ids), SUBMIT_TASKS_MAX)
            counting.note(f"cut short: of the next {left}, none or all may be submitted as well")
            raise

    def _give(self, done: Sequence[Submitted], counting: Counting) -> None:
        if not self._json:
            counting.give(*(one.task_id for one in done))
        elif not self._wait:  # else there is one value at the end of each
            told = ({"id": one.task_id, "state": str(one.state)} for one in done)
            counting.give(*map(json_line, told))

    def _told_by_line(self, refusal: Refused) -> Refused:
        return renamed(refusal, lambda place, field: lines.named(self._tasks[place].number, field))


class _Ends:
    """Waits for the ends of tasks, so many at a time."""

    def __init__(
        self, client: AsyncClient, ids: Sequence[str], counting: Counting, *, json: bool
    ) -> None:
        self._client = client
        self._waiting = deque(ids)
        self._counting = counting
        self._json = json
        self._ended = dict.fromkeys(TaskState, 0)
        self._forgotten = 0

    async def wait(self, timeout_s: float | None) -> int:
        """Returns the exit code, once all are finished or the time is over."""
        total = len(self._waiting)
        timed_out = False
        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
                for _ in range(min(total, WATCHED_MAX)):
                    group.create_task(self._wait_for_some())
        except TimeoutError:
            timed_out = True
            left = total - sum(self._ended.values()) - self._forgotten
            self._counting.note(f"{left} not finished within {seconds(timeout_s or 0)}; they go on")
        ends = {
            exits.TASK_FAILED: self._ended[TaskState.DEAD],
            exits.WAIT_TIMED_OUT: timed_out,
            exits.CANCELLED: self._ended[TaskState.CANCELLED],
            exits.NOT_FOUND: self._forgotten,
        }
        return next((code for code, count in ends.items() if count), exits.OK)

    async def _wait_for_some(self) -> None:
        while self._waiting:
            task_id = self._waiting.popleft()
            try:
                task = await self._client.handle(task_id).final(TURN_S if self._waiting else None)
            except WaitTimeout:
                self._waiting.append(task_id)
            except TaskNotFound as error:
                self._forgotten += 1
                self._counting.note(f"{error}; it was removed before its end was seen")
            else:
                self._note(task)

    def _note(self, task: TaskReport) -> None:
        self._ended[task.state] += 1
        if self._json:
            self._counting.give(json_line(ended_dict(task)))
        elif task.state is not TaskState.SUCCEEDED:
            why = f": {gist(task.error)}" if task.error else ""
            self._counting.note(f"{task.task_id} {task.state}{why}")
        failed = self._ended[TaskState.DEAD]
        cancelled = self._ended[TaskState.CANCELLED]
        told = [(failed, "failed"), (cancelled, "cancelled")]
        note = ", ".join(f"{count} {what}" for count, what in told if count)
        self._counting.count(sum(self._ended.values()), note)
