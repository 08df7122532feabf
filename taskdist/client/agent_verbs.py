"""The verbs that agents use: a part of `Stub`."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from taskdist.client import reading
from taskdist.client.calling import Caller
from taskdist.client.saying import remarks_message
from taskdist.client.work import WorkStream, open_work
from taskdist.core.offers import AnnouncedKind
from taskdist.core.task import TaskState
from taskdist.reports import Remarks, Work
from taskdist.wire import messages as wire
from taskdist.wire.codec import fields, make


class AgentVerbs(Caller):
    """What an agent says to its distributor."""

    async def announce_kinds(
        self,
        *,
        agent_id: str,
        session: str,
        queues: Sequence[str] = (),
        kinds: Sequence[AnnouncedKind],
    ) -> float:
        """Says what this session takes: from then on it is given nothing else. To be said again
        after as many seconds as it returns, and after a restart of the distributor.

        Raises:
            InvalidFields: fields are bad; each is named.
            Exhausted: too many agents are live, or too much is announced.
            Unsupported: the distributor has no such method.
        """
        request = make(
            wire.AnnounceKindsRequest,
            agent_id=agent_id,
            session=session,
            queues=list(queues),
            kinds=[
                make(wire.AnnouncedKind, name=kind.name, input_schema=kind.input_schema)
                for kind in kinds
            ],
        )
        answer = await self._call("AnnounceKinds", request, wire.AnnounceKindsResponse)
        return fields(answer).again_seconds

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
        message = await self._call("FetchTask", request, wire.FetchTaskResponse, timeout_s)
        if not fields(message).has_task:
            return None
        return reading.work(message)

    def work(
        self,
        *,
        agent_id: str,
        session: str,
        queues: Sequence[str] = (),
        kinds: Sequence[str] = (),
        slots: int,
        lease_ids: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[WorkStream]:
        """Opens a Work stream: leases come, outcomes go, in batches. See `open_work`."""
        return open_work(
            self._channel,
            self.server,
            agent_id=agent_id,
            session=session,
            queues=queues,
            kinds=kinds,
            slots=slots,
            lease_ids=lease_ids,
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
        retry_after_s: float | None = None,
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
            retry_after_seconds=retry_after_s,
        )
        return fields(await self._call("CompleteTask", request, wire.CompleteTaskResponse)).message

    async def report_progress(self, said: Remarks, *, agent_id: str) -> int:
        """Keeps what a run has to say. Returns how much of it was dropped since it came too fast.

        Raises:
            PreconditionFailed: the lease is not held any more; nothing was kept.
            InvalidFields: an entry is bad.
        """
        request = remarks_message(said, agent_id)
        answer = await self._call("ReportProgress", request, wire.ReportProgressResponse)
        return fields(answer).dropped

    async def release(self, *, task_id: str, agent_id: str, lease_id: str) -> TaskState:
        """Hands a task back unfinished. Safe to repeat.

        Raises:
            PreconditionFailed: the lease is not held any more.
        """
        request = make(
            wire.ReleaseTaskRequest, task_id=task_id, agent_id=agent_id, lease_id=lease_id
        )
        m = fields(await self._call("ReleaseTask", request, wire.ReleaseTaskResponse))
        return reading.state_of(m.status)

    async def heartbeat(
        self, *, agent_id: str, lease_ids: Sequence[str], timeout_s: float | None = None
    ) -> frozenset[str]:
        """Starts the terms of these leases anew; says which are still held."""
        request = make(wire.HeartbeatRequest, agent_id=agent_id, lease_ids=list(lease_ids))
        m = fields(await self._call("Heartbeat", request, wire.HeartbeatResponse, timeout_s))
        return frozenset(m.lease_ids)
