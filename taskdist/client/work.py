"""The client's side of the Work stream."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from grpclib.client import Channel, Stream
from grpclib.const import Cardinality

from taskdist.client import reading
from taskdist.client.connection import SERVICE, Errors
from taskdist.client.saying import remarks_message
from taskdist.reports import Remarks, Report, WorkNews
from taskdist.wire import messages as wire
from taskdist.wire.codec import make


def failure(report: Report) -> dict[str, Any]:
    """What is said only of a failure that is no usual one."""
    said: dict[str, Any] = {}
    if not report.retryable:
        said["retryable"] = False
    if report.retry_after_s is not None:
        said["retry_after_seconds"] = report.retry_after_s
    return said


class WorkStream:
    """An open Work stream. One coroutine may send while another receives."""

    def __init__(self, stream: Stream[Any, Any]) -> None:
        self._stream = stream

    async def report(self, reports: Sequence[Report], remarks: Sequence[Remarks] = ()) -> None:
        """Says how runs ended; each gets a verdict in what is received later. Before that, what
        runs have to say while they last, which gets none."""
        outcomes = [
            make(
                wire.CompleteTaskRequest,
                task_id=report.task_id,
                lease_id=report.lease_id,
                success=not report.error,
                result=report.result,
                error=report.error,
                **failure(report),
            )
            for report in reports
        ]
        said = {"progress": list(map(remarks_message, remarks))} if remarks else {}
        await self._stream.send_message(make(wire.WorkRequest, outcomes=outcomes, **said))

    async def resize(self, slots: int) -> None:
        """Says how many tasks the agent runs at once from now on."""
        await self._stream.send_message(make(wire.WorkRequest, slots=slots))

    async def goodbye(self) -> None:
        """Asks for no more leases. Those that are on their way still come."""
        await self._stream.send_message(make(wire.WorkRequest, goodbye=True))

    async def end(self) -> None:
        """There is no more to say; the distributor answers what was said, and ends the stream."""
        await self._stream.end()

    async def receive(self) -> WorkNews | None:
        """What the distributor says next; None once it has ended the stream."""
        message = await self._stream.recv_message()
        return None if message is None else reading.work_news(message)


@asynccontextmanager
async def open_work(
    channel: Channel,
    server: str,
    *,
    agent_id: str,
    session: str,
    queues: Sequence[str],
    kinds: Sequence[str],
    slots: int,
    lease_ids: Sequence[str],
) -> AsyncIterator[WorkStream]:
    """Opens a Work stream and says hello.

    Raises:
        Unsupported: the distributor has no such method.
        Unavailable: it cannot be reached, or the stream broke. No lease has ended by that.
        InvalidFields: it does not accept this hello.
    """
    hello = make(
        wire.WorkHello,
        agent_id=agent_id,
        session=session,
        queues=list(queues),
        kinds=list(kinds),
        slots=slots,
        lease_ids=list(lease_ids),
    )
    with Errors(server):
        async with channel.request(
            f"{SERVICE}/Work", Cardinality.STREAM_STREAM, wire.WorkRequest, wire.WorkResponse
        ) as stream:
            await stream.send_message(make(wire.WorkRequest, hello=hello))
            yield WorkStream(stream)
