"""The Python client: the verbs of the contract as typed coroutines.

It raises the expected errors of `core.errors` and knows nothing of backends or the distributor.
Nothing is repeated here: who calls knows whether a repeat is safe, and how long it may take.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError, StreamTerminatedError

from taskdist.core.errors import Refused, Unavailable
from taskdist.core.task import Outcome, TaskState
from taskdist.reports import PastAttempt, Submitted, TaskReport, Work
from taskdist.settings import (
    CALLS_PER_CHANNEL_MAX,
    CONNECTION_WINDOW_BYTES,
    PAGE_SIZE_DEFAULT,
    STREAM_WINDOW_BYTES,
)
from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec, fields, make
from taskdist.wire.statuses import from_status

R = TypeVar("R")

_SERVICE = "/taskdist.v1.TaskDistributor"


class Client:
    """Calls one distributor over one connection, made when it is first needed.

    Args:
        server: host:port.
        channel: a grpclib channel to use instead.
        timeout_s: how long a call may take that does not wait by design.
    """

    def __init__(
        self, server: str = "", *, channel: Channel | None = None, timeout_s: float = 30
    ) -> None:
        self.server = server
        self._channel = channel or _channel(server)
        self._timeout_s = timeout_s
        # Above this every call that ends wakes all that wait for a stream.
        self._calls = asyncio.Semaphore(CALLS_PER_CHANNEL_MAX)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    # --- for those who submit ---

    async def submit(
        self,
        *,
        user_tier: str,
        est_processing_time_s: float,
        data: bytes = b"",
        kind: str = "",
        queue: str = "",
        task_id: str = "",
        max_retries: int | None = None,
    ) -> Submitted:
        """Adds a task. With a `task_id` of your own it is safe to repeat.

        Raises:
            InvalidFields, TooLarge: fields are bad; each is named.
            TaskIdTaken: the id belongs to a different task.
            Exhausted: too much waits, or the disk is full.
            Unavailable: the distributor cannot be reached; the outcome is unknown.
        """
        request = make(
            wire.SubmitTaskRequest,
            user_tier=user_tier,
            est_processing_time=est_processing_time_s,
            data=data,
            kind=kind,
            queue=queue,
            task_id=task_id,
            max_retries=max_retries,
        )
        m = fields(await self._call("SubmitTask", request, wire.SubmitTaskResponse))
        return Submitted(m.task_id, _state(m.status), m.queue_position)

    async def get(self, task_id: str) -> TaskReport:
        """A task with its result, its last error and its attempts.

        Raises:
            TaskNotFound: there is no such task.
        """
        request = make(wire.GetTaskRequest, task_id=task_id)
        m = fields(await self._call("GetTask", request, wire.GetTaskResponse))
        attempts = tuple(_attempt(attempt) for attempt in m.attempts)
        return _report(m.task, result=m.result, error=m.error, attempts=attempts)

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
                yield _report(task)
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
        return _state(
            fields(await self._call("CancelTask", request, wire.CancelTaskResponse)).status
        )

    async def watch(self, task_id: str) -> AsyncIterator[TaskReport]:
        """The task as it is, and again after each change, until it is final.

        Raises:
            TaskNotFound: there is no such task.
            Unavailable: the connection was lost; watch again.
        """
        request = make(wire.WatchTaskRequest, task_id=task_id)
        with _Errors(self.server):
            async with self._channel.request(
                f"{_SERVICE}/WatchTask",
                Cardinality.UNARY_STREAM,
                wire.WatchTaskRequest,
                wire.WatchTaskResponse,
            ) as stream:
                await stream.send_message(request, end=True)
                async for message in stream:
                    m = fields(message)
                    yield _report(m.task, result=m.result, error=m.error)

    async def ping(self, message: str = "") -> datetime:
        """The distributor's wall clock."""
        request = make(wire.PingRequest, message=message)
        return fields(await self._call("Ping", request, wire.PingResponse)).timestamp

    # --- for agents ---

    async def fetch(
        self,
        *,
        agent_id: str,
        session: str = "",
        queues: Sequence[str] = (),
        kinds: Sequence[str] = (),
        wait_s: float = 0,
    ) -> Work | None:
        """The next task under a lease, or None if none was ready in time."""
        request = make(
            wire.FetchTaskRequest,
            agent_id=agent_id,
            session=session,
            queues=list(queues),
            kinds=list(kinds),
            wait_seconds=wait_s,
        )
        timeout_s = self._timeout_s + wait_s
        m = fields(await self._call("FetchTask", request, wire.FetchTaskResponse, timeout_s))
        if not m.has_task:
            return None
        return Work(
            task_id=m.task_id,
            kind=m.kind,
            queue=m.queue,
            user_tier=m.user_tier,
            est_processing_time_s=m.est_processing_time,
            data=m.data,
            sequence=m.sequence,
            attempt=m.attempt,
            retry_count=m.retry_count,
            lease_id=m.lease_id,
            lease_s=m.lease_seconds,
            run_timeout_s=m.run_timeout_seconds,
        )

    async def complete(
        self,
        *,
        task_id: str,
        agent_id: str,
        lease_id: str,
        success: bool,
        result: bytes = b"",
        error: str = "",
        retryable: bool = True,
    ) -> str:
        """Reports how a run ended; says what became of the task. Safe to repeat.

        Raises:
            PreconditionFailed: the lease is not held any more; the outcome counts for nothing.
        """
        request = make(
            wire.CompleteTaskRequest,
            task_id=task_id,
            agent_id=agent_id,
            lease_id=lease_id,
            success=success,
            result=result,
            error=error,
            retryable=retryable,
        )
        return fields(await self._call("CompleteTask", request, wire.CompleteTaskResponse)).message

    async def release(self, *, task_id: str, agent_id: str, lease_id: str) -> TaskState:
        """Hands a task back unfinished. Safe to repeat.

        Raises:
            PreconditionFailed: the lease is not held any more.
        """
        request = make(
            wire.ReleaseTaskRequest, task_id=task_id, agent_id=agent_id, lease_id=lease_id
        )
        m = fields(await self._call("ReleaseTask", request, wire.ReleaseTaskResponse))
        return _state(m.status)

    async def heartbeat(
        self, *, agent_id: str, lease_ids: Sequence[str], timeout_s: float | None = None
    ) -> frozenset[str]:
        """Starts the terms of these leases anew; says which are still held."""
        request = make(wire.HeartbeatRequest, agent_id=agent_id, lease_ids=list(lease_ids))
        m = fields(await self._call("Heartbeat", request, wire.HeartbeatResponse, timeout_s))
        return frozenset(m.lease_ids)

    async def _call(
        self, method: str, request: Any, response: type[R], timeout_s: float | None = None
    ) -> R:
        with _Errors(self.server):
            async with (
                self._calls,
                self._channel.request(
                    f"{_SERVICE}/{method}",
                    Cardinality.UNARY_UNARY,
                    type(request),
                    response,
                    timeout=self._timeout_s if timeout_s is None else timeout_s,
                ) as stream,
            ):
                await stream.send_message(request, end=True)
                message = await stream.recv_message()
            if message is None:
                raise Unavailable(f"{method}: no answer")
            return message


class _Errors:
    """Turns what grpclib raises into the expected errors. What is none of them passes through."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        expected: Refused | None = None
        if isinstance(error, GRPCError):
            # A status that is none of ours comes from something between us, or from a bug there.
            text = f"{self._server}: {error.status.name}: {error.message or 'no reason given'}"
            expected = from_status(error) or Unavailable(text)
            if error.status in (Status.DEADLINE_EXCEEDED, Status.CANCELLED):
                expected = Unavailable(f"{self._server}: no answer in time")
        elif isinstance(error, TimeoutError):
            expected = Unavailable(f"{self._server}: no answer in time")
        elif isinstance(error, OSError):
            # asyncio puts the address into strerror: "Connect call failed ('127.0.0.1', 50051)".
            reason = "connection refused" if isinstance(error, ConnectionRefusedError) else error
            expected = Unavailable(f"{self._server}: {reason}")
        elif isinstance(error, StreamTerminatedError):
            expected = Unavailable(f"{self._server}: the connection was lost")
        if expected is not None:
            raise expected from error


def _channel(server: str) -> Channel:
    host, _, port = server.rpartition(":")
    return Channel(
        host.strip("[]"),
        int(port),
        codec=Codec(),
        status_details_codec=ProtoStatusDetailsCodec(),
        config=Configuration(
            http2_connection_window_size=CONNECTION_WINDOW_BYTES,
            http2_stream_window_size=STREAM_WINDOW_BYTES,
        ),
    )


def _state(state: wire.TaskState) -> TaskState:
    return TaskState[str(state.name)]


def _report(task: wire.Task, **more: Any) -> TaskReport:
    m = fields(task)
    state = _state(m.state)
    return TaskReport(
        task_id=m.task_id,
        state=state,
        user_tier=m.user_tier,
        est_processing_time_s=m.est_processing_time,
        kind=m.kind,
        queue=m.queue,
        sequence=m.sequence,
        retry_count=m.retry_count,
        max_retries=m.max_retries,
        lost_count=m.lost_count,
        attempt=m.attempt,
        queue_position=m.queue_position,
        submitted_at=m.submitted_at,
        enqueued_at=m.enqueued_at,
        # An unset timestamp reads as 1970.
        finished_at=m.finished_at if state.is_final else None,
        agent_id=m.agent_id,
        **more,
    )


def _attempt(attempt: wire.Attempt) -> PastAttempt:
    m = fields(attempt)
    return PastAttempt(
        attempt=m.attempt,
        agent_id=m.agent_id,
        session=m.session,
        lease_id=m.lease_id,
        started_at=m.started_at,
        ended_at=m.ended_at,
        outcome=Outcome[str(m.outcome.name)],
        error=m.error,
    )
