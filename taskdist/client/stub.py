"""The verbs of the contract as typed coroutines: what agents, the command line and the clients for
people (`async_client.py`, `sync_client.py`) are made of.

It raises the expected errors of `core.errors` and knows nothing of backends or the distributor.
Nothing is repeated here but batches of submits, whose tasks have ids: who calls knows whether a
repeat is safe, and how long it may take.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any, Unpack

import uuid_utils
from grpclib.client import Channel
from grpclib.const import Cardinality

from taskdist.client import reading
from taskdist.client.agent_verbs import AgentVerbs
from taskdist.client.batching import Batcher
from taskdist.client.connection import OPERATIONS, SERVICE, Errors
from taskdist.client.inspecting import Inspecting
from taskdist.client.saying import Said, selection_message, submit_request
from taskdist.core.errors import Refused, Unavailable
from taskdist.core.offers import KindReport
from taskdist.core.task import TaskState
from taskdist.limits import PAGE_SIZE_DEFAULT
from taskdist.reports import News, Selection, Submission, Submitted, TaskReport
from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec, fields, make

_codec = Codec()

BATCH_PAUSES_S = (0.1, 0.4, 1.6)
"""Pauses before a batch is sent again, in all enough for a short restart."""


class Stub(AgentVerbs, Inspecting):
    """Calls one distributor over one connection, made when it is first needed.

    Args:
        server: host:port.
        channel: a grpclib channel to use instead.
        timeout_s: how long a call may take that does not wait by design.
        batching: whether concurrent submits share a call, see `batching.py`. It costs a lone one a
            millisecond, and makes many of them several times faster.
    """

    def __init__(
        self,
        server: str = "",
        *,
        channel: Channel | None = None,
        timeout_s: float = 30,
        batching: bool = True,
    ) -> None:
        super().__init__(server, channel, timeout_s)
        self._batcher = Batcher(self._submit_batch) if batching else None

    # --- for those who submit ---

    async def submit(self, **said: Unpack[Said]) -> Submitted:
        """Adds a task, with the fields of `Submission`. With a `task_id` or an `idempotency_key` of
        your own it is safe to repeat.

        Raises:
            InvalidFields, TooLarge: fields are bad; each is named.
            TaskIdTaken: the id or the key belongs to a different task.
            Exhausted: too much waits, or the disk is full.
            Unavailable: the distributor cannot be reached; the outcome is unknown.
        """
        return await self.add(Submission(**said))

    async def add(self, submission: Submission) -> Submitted:
        """As `submit`, of a value."""
        if self._batcher is not None:
            submission = _with_id(submission)
            # Encoded here, so that what cannot be is this caller's error and nobody else's.
            encoded = _codec.encode(submit_request(submission), wire.SubmitTaskRequest)
            return await self._batcher.submit(submission, len(encoded))
        request = submit_request(submission)
        return reading.submitted(await self._call("SubmitTask", request, wire.SubmitTaskResponse))

    async def submit_many(
        self, submissions: Sequence[Submission], *, atomic: bool = True, positions: bool = False
    ) -> list[Submitted | Refused]:
        """Adds up to 1,000 tasks in one commit; an answer for each, in their order.

        With `task_id`s of your own it is safe to repeat.

        Args:
            atomic: all or nothing: then a refusal is raised, and no task is added.
            positions: whether `queue_position` is wanted; it is 0 otherwise.

        Raises:
            Refused: as `submit` does; a field is named `tasks[3].user_tier`.
        """
        request = make(
            wire.SubmitTasksRequest,
            tasks=[submit_request(submission) for submission in submissions],
            atomic=atomic,
            positions=positions,
        )
        m = fields(await self._call("SubmitTasks", request, wire.SubmitTasksResponse))
        return [reading.submitted_or_refused(result) for result in m.results]

    async def get(self, task_id: str) -> TaskReport:
        """A task with its result, its last error and its attempts.

        Raises:
            TaskNotFound: there is no such task.
        """
        request = make(wire.GetTaskRequest, task_id=task_id)
        m = fields(await self._call("GetTask", request, wire.GetTaskResponse))
        attempts = tuple(reading.past_attempt(attempt) for attempt in m.attempts)
        return reading.report(
            m.task,
            result=m.result,
            error=m.error,
            attempts=attempts,
            progress=reading.progress(m.progress),
        )

    async def list_tasks(
        self,
        *,
        states: Sequence[TaskState] = (),
        user_tier: str = "",
        kind: str = "",
        queue: str = "",
        id_ending: str = "",
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> AsyncIterator[TaskReport]:
        """Tasks that pass every filter that is set, newest first, fetched page by page."""
        cursor = ""
        while True:
            request = make(
                wire.ListTasksRequest,
                states=[wire.TaskState[state.name] for state in states],
                user_tier=user_tier,
                kind=kind,
                queue=queue,
                id_ending=id_ending,
                page_size=page_size,
                cursor=cursor,
            )
            m = fields(await self._call("ListTasks", request, wire.ListTasksResponse))
            for task in m.tasks:
                yield reading.report(task)
            cursor = m.next_cursor
            if not cursor:
                return

    async def list_kinds(self, *, queue: str = "", kind: str = "") -> AsyncIterator[KindReport]:
        """The kinds that live agents run, by name; of this queue and name, if those are set."""
        cursor = ""
        while True:
            request = make(wire.ListKindsRequest, queue=queue, kind=kind, cursor=cursor)
            m = fields(await self._call("ListKinds", request, wire.ListKindsResponse))
            for report in m.kinds:
                yield reading.kind_report(report)
            cursor = m.next_cursor
            if not cursor:
                return

    async def cancel(self, task_id: str) -> TaskState:
        """Ends a live task.

        Raises:
            TaskNotFound: there is no such task.
            PreconditionFailed: it is finished.
        """
        request = make(wire.CancelTaskRequest, task_id=task_id)
        return reading.state_of(
            fields(await self._call("CancelTask", request, wire.CancelTaskResponse)).status
        )

    async def watch(self, task_id: str) -> AsyncGenerator[TaskReport]:
        """The task as it is, and again after each change, until it is final.

        Raises:
            TaskNotFound: there is no such task.
            Unavailable: the connection was lost; watch again.
        """
        async with aclosing(self.follow(task_id, entries=False)) as following:
            async for news in following:
                if news.task is not None:
                    yield news.task

    async def follow(
        self, task_id: str, *, entries: bool = True, after: int | None = None
    ) -> AsyncGenerator[News, None]:
        """The task as it is, each change of its state and what its agents say, until it is final.

        Args:
            entries: whether what agents say is wanted.
            after: the number of the last news that was read, to miss and repeat nothing after a
                connection was lost; 0: from the beginning; None: from the present on.

        Raises:
            TaskNotFound: there is no such task.
            Unavailable: the connection was lost; follow again.
        """
        request = make(wire.WatchTaskRequest, task_id=task_id, entries=entries, after=after)
        with Errors(self.server):
            async with (
                self._turns.turn(self._timeout_s),
                self._channel.request(
                    f"{SERVICE}/WatchTask",
                    Cardinality.UNARY_STREAM,
                    wire.WatchTaskRequest,
                    wire.WatchTaskResponse,
                ) as stream,
            ):
                await stream.send_message(request, end=True)
                async for message in stream:
                    yield reading.news(message)

    async def ping(self, message: str = "") -> datetime:
        """The distributor's wall clock."""
        request = make(wire.PingRequest, message=message)
        return fields(await self._call("Ping", request, wire.PingResponse)).timestamp

    # --- for operators ---

    async def redrive(self, selection: Selection, *, count_only: bool = False) -> int:
        """Puts dead or cancelled tasks back, as if submitted now; says how many.

        Args:
            count_only: changes nothing; says how many it would be.

        Raises:
            InvalidFields: the selection is bad, or empty.
            TaskNotFound, PreconditionFailed: one that was named cannot be; none was put back.
            Exhausted: no more may wait; some may have been put back.
        """
        return await self._operate(
            "Redrive", wire.RedriveRequest, wire.RedriveResponse, selection, count_only=count_only
        )

    async def purge(self, selection: Selection, *, count_only: bool = False) -> int:
        """Removes finished tasks for good; says how many.

        Args:
            count_only: changes nothing; says how many it would be.

        Raises:
            InvalidFields: the selection is bad, or empty.
            TaskNotFound, PreconditionFailed: one that was named cannot be; none was removed.
        """
        return await self._operate(
            "Purge", wire.PurgeRequest, wire.PurgeResponse, selection, count_only=count_only
        )

    async def _operate(
        self,
        method: str,
        request: type[Any],
        response: type[wire.RedriveResponse | wire.PurgeResponse],
        selection: Selection,
        *,
        count_only: bool,
    ) -> int:
        count = 0
        cursor = ""
        while True:
            asked = make(
                request,
                selection=selection_message(selection),
                count_only=count_only,
                cursor=cursor,
            )
            m = fields(await self._call(method, asked, response, service=OPERATIONS))
            count += m.count
            cursor = m.next_cursor
            if not cursor:
                return count

    async def _submit_batch(
        self, submissions: Sequence[Submission]
    ) -> Sequence[Submitted | Refused]:
        """Submits each for itself. Their ids are ours, so a lost outcome can be asked for again."""
        for pause_s in BATCH_PAUSES_S:
            try:
                return await self.submit_many(submissions, atomic=False, positions=True)
            except Unavailable:
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
        return await self.submit_many(submissions, atomic=False, positions=True)


def _with_id(submission: Submission) -> Submission:
    if submission.task_id:
        return submission
    return replace(submission, task_id=str(uuid_utils.uuid7()))
