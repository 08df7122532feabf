"""The open Work streams, and what all of them have to hear: whose lease began or ended, a stop.

What happens on one of them is in `work_stream.py`.
"""

import asyncio
from collections.abc import Callable, Sequence

from taskdist.backends.protocol import Backend
from taskdist.core.commands import Change, Grant
from taskdist.core.errors import BadField, InvalidFields, Unavailable
from taskdist.core.task import Outcome
from taskdist.distributor.roster import Roster
from taskdist.distributor.transport import AnyStream, first_message
from taskdist.distributor.work_stream import WorkStream
from taskdist.wire import convert_agents
from taskdist.wire.convert_agents import Said

_SPOKEN = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.RELEASED)
"""Ends of a lease that its agent knows of, for they are its own word."""


class WorkStreams:
    """The open streams, by session: a session has one at most.

    Args:
        backend: what applies.
        take_back: undoes grants that could not be written.
        roster: knows what each session may be given.
    """

    def __init__(
        self, backend: Backend, take_back: Callable[[Sequence[Grant]], None], roster: Roster
    ) -> None:
        self._backend = backend
        self._take_back = take_back
        self._roster = roster
        self._by_session: dict[str, WorkStream] = {}
        self._stopping = False
        self._is_disk_slow = False

    def changed(self, changes: Sequence[Change]) -> None:
        """Follows the leases of the open streams."""
        if not self._by_session:
            return
        for change in changes:
            before = change.before.lease if change.before else None
            after = change.after.lease if change.after else None
            lease = before or after
            stream = self._by_session.get(lease.session) if lease else None
            if stream is None:
                continue
            if before is None and after is not None:
                stream.lease_began(after.lease_id)
            elif before is not None and after is None:
                # One that leaves no attempt was taken back: the agent never heard of it.
                attempt = change.attempt
                revoked = attempt is not None and attempt.outcome not in _SPOKEN
                stream.lease_ended(before.lease_id, revoked=revoked)
                if attempt is not None and attempt.outcome is Outcome.LOST:
                    stream.cut_off()

    def paced(self, is_disk_slow: bool) -> None:
        """Lets streams hear ahead while the disk is slow."""
        self._is_disk_slow = is_disk_slow
        for stream in self._by_session.values():
            stream.hears_ahead = is_disk_slow

    def stop(self) -> None:
        """Asks all agents to go, and those that still come: the distributor stops."""
        self._stopping = True
        for stream in self._by_session.values():
            stream.drain()

    def announced(self, session: str) -> None:
        """A session takes other kinds from now on."""
        if session in self._by_session:
            self._by_session[session].ask_anew()

    async def serve(self, stream: AnyStream) -> None:
        """Serves one stream until its agent says goodbye, or it breaks."""
        first: Said = convert_agents.said(await first_message(stream), "")
        if first.hello is None:
            raise InvalidFields([BadField("hello", "missing in the first message of a stream")])
        hello = first.hello
        wanted = (hello.agent_id, hello.session, hello.queues, hello.kinds)
        self._roster.check(*wanted, prefix="hello.")
        while (older := self._by_session.get(hello.session)) is not None:
            # Broken, though nobody noticed. What it could not write has to be back before we look.
            await older.end()
        allowed = self._roster.allowed
        work = WorkStream(self._backend, self._take_back, allowed, stream, hello)
        work.hears_ahead = self._is_disk_slow
        self._by_session[hello.session] = work
        if self._stopping:
            work.drain()
        try:
            with self._roster.asking(hello.agent_id, hello.session, *allowed(*wanted)):
                await work.run(first)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not work.why_cut_off or task is None:
                raise
            task.uncancel()
            raise Unavailable(work.why_cut_off) from None
        finally:
            if self._by_session.get(hello.session) is work:
                del self._by_session[hello.session]
            work.ended.set()
