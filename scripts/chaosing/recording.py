"""A client of an agent that records every call: before it is made, and how it ended.

`ok` and `fail` are answers of the distributor. All else is `unknown`: a call that was cut off may
have been done or not.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

from scripts.chaosing.history import Recorder, digest
from taskdist.client import Stub
from taskdist.client.work import WorkStream
from taskdist.core.errors import Exhausted, Refused, Unavailable
from taskdist.core.task import TaskState
from taskdist.reports import Remarks, Report, Work, WorkNews

UNANSWERED = (Unavailable, Exhausted)
"""After these the agent asks again."""

_numbers = count(1)


class RecordingClient(Stub):
    """The calls of an agent.

    Args:
        session: of the agent, for what its heartbeat's client records.
    """

    def __init__(self, server: str, record: Recorder, timeout_s: float) -> None:
        super().__init__(server, timeout_s=timeout_s)
        self._record = record

    async def fetch(self, **asked: Any) -> Work | None:
        """See `Stub.fetch`."""
        number = next(_numbers)
        self._record.write("fetch", do="invoke", call=number)
        lease_id = None
        answered = False
        try:
            work = await super().fetch(**asked)
            answered = True
            if work is not None:
                lease_id = work.lease_id
                _record_lease(self._record, work)
            return work
        finally:
            do = "ok" if answered else "unknown"
            self._record.write("fetch", do=do, call=number, lease_id=lease_id)

    async def complete(self, *, task_id: str, lease_id: str, **more: Any) -> str:
        """See `Stub.complete`."""
        said = {name: more[name] for name in ("result", "error", "retryable", "retry_after_s")}
        report = Report(task_id, lease_id, **said)
        _record_outcome(self._record, report)
        try:
            message = await super().complete(task_id=task_id, lease_id=lease_id, **more)
        except Refused as reason:
            _record_verdict(self._record, lease_id, reason)
            raise
        _record_verdict(self._record, lease_id, None)
        return message

    async def release(self, *, task_id: str, agent_id: str, lease_id: str) -> TaskState:
        """See `Stub.release`."""
        said = {"task_id": task_id, "lease_id": lease_id, "outcome": "RELEASED"}
        self._record.write("outcome", do="invoke", **said)
        try:
            state = await super().release(task_id=task_id, agent_id=agent_id, lease_id=lease_id)
        except Refused as reason:
            _record_verdict(self._record, lease_id, reason)
            raise
        _record_verdict(self._record, lease_id, None)
        return state

    async def heartbeat(
        self, *, agent_id: str, lease_ids: Sequence[str], timeout_s: float | None = None
    ) -> frozenset[str]:
        """See `Stub.heartbeat`."""
        number = next(_numbers)
        self._record.write("heartbeat", do="invoke", call=number, lease_ids=list(lease_ids))
        try:
            held = await super().heartbeat(
                agent_id=agent_id, lease_ids=lease_ids, timeout_s=timeout_s
            )
        except BaseException:
            self._record.write("heartbeat", do="unknown", call=number)
            raise
        self._record.write("heartbeat", do="ok", call=number, lease_ids=sorted(held))
        return held

    def work(self, **asked: Any) -> AbstractAsyncContextManager[WorkStream]:
        """See `Stub.work`."""
        return self._recorded_work(asked)

    @asynccontextmanager
    async def _recorded_work(self, asked: dict[str, Any]) -> AsyncIterator[WorkStream]:
        number = next(_numbers)
        held = list(asked["lease_ids"])
        self._record.write("stream", do="invoke", call=number, lease_ids=held)
        well = False
        try:
            async with super().work(**asked) as stream:
                yield _RecordingStream(stream, self._record, number)
                well = True
        finally:
            self._record.write("stream", do="ok" if well else "unknown", call=number)


class _RecordingStream(WorkStream):
    """A Work stream whose words are recorded, in both directions."""

    def __init__(self, stream: WorkStream, record: Recorder, number: int) -> None:
        super().__init__(stream._stream)
        self._record = record
        self._number = number

    async def report(self, reports: Sequence[Report], remarks: Sequence[Remarks] = ()) -> None:
        """See `WorkStream.report`."""
        for report in reports:
            _record_outcome(self._record, report)
        await super().report(reports, remarks)

    async def receive(self) -> WorkNews | None:
        """See `WorkStream.receive`."""
        news = await super().receive()
        if news is not None:
            self._record.write("news", call=self._number)
            for work in news.leases:
                _record_lease(self._record, work, self._number)
            for verdict in news.verdicts:
                _record_verdict(self._record, verdict.lease_id, verdict.refusal)
        return news


def _record_lease(record: Recorder, work: Work, stream: int | None = None) -> None:
    record.write(
        "lease",
        task_id=work.task_id,
        lease_id=work.lease_id,
        attempt=work.attempt,
        digest=digest(work.data),
        stream=stream,
    )


def _record_outcome(record: Recorder, report: Report) -> None:
    record.write(
        "outcome",
        do="invoke",
        task_id=report.task_id,
        lease_id=report.lease_id,
        outcome="FAILED" if report.error else "SUCCEEDED",
        digest=digest(report.error.encode() if report.error else report.result),
        retryable=report.retryable,
        retry_after_s=report.retry_after_s,
    )


def _record_verdict(record: Recorder, lease_id: str, refusal: Refused | None) -> None:
    if refusal is None:
        record.write("outcome", do="ok", lease_id=lease_id)
    else:
        do = "unknown" if isinstance(refusal, UNANSWERED) else "fail"
        why = f"{type(refusal).__name__}: {refusal}"
        record.write("outcome", do=do, lease_id=lease_id, why=why)
