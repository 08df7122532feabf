"""The verbs of the contract: convert, apply, convert. There is no `if` about tasks in here."""

import asyncio
import secrets
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import structlog
import uuid_utils
from grpclib import const

from taskdist.backends.protocol import Backend
from taskdist.core import commands
from taskdist.distributor.roster import Roster
from taskdist.distributor.transport import AnyStream, first_message, is_gone
from taskdist.distributor.watches import Watches
from taskdist.distributor.watching import Watching, position_of
from taskdist.distributor.work import WorkStreams
from taskdist.limits import LEASE_TOKEN_BYTES, NAMELESS_AGENTS_REMEMBERED_MAX
from taskdist.settings import DistributorSettings
from taskdist.wire import (
    convert,
    convert_agents,
    convert_entries,
    convert_kinds,
    convert_submits,
)
from taskdist.wire import messages as wire

log = structlog.get_logger()


class TaskDistributorService(wire.TaskDistributorBase):
    """Serves `taskdist.v1.TaskDistributor` from a backend."""

    def __init__(
        self, backend: Backend, settings: DistributorSettings, watches: Watches, roster: Roster
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._roster = roster
        self._watching = Watching(backend, watches, roster)
        self.streams = WorkStreams(backend, self._take_back, roster)
        self._nameless: set[str] = set()
        self._pending: set[asyncio.Task[Any]] = set()

    def __mapping__(self) -> dict[str, const.Handler]:
        """grpclib's table of methods; these need to see their stream."""
        mapping = super().__mapping__()
        own = {
            "FetchTask": self._fetch_task,
            "WatchTask": self._watching.serve,
            "Work": self.streams.serve,
        }
        for name, method in own.items():
            path = f"/taskdist.v1.TaskDistributor/{name}"
            mapping[path] = mapping[path]._replace(func=method)
        return mapping

    # --- for clients ---

    async def submit_task(
        self, submit_task_request: wire.SubmitTaskRequest
    ) -> wire.SubmitTaskResponse:
        """Adds a task."""
        command = convert_submits.submit(submit_task_request, self._settings.tiers, _new_id())
        return convert_submits.submitted(await self._backend.apply(command))

    async def submit_tasks(
        self, submit_tasks_request: wire.SubmitTasksRequest
    ) -> wire.SubmitTasksResponse:
        """Adds tasks in one commit."""
        several, refused = convert_submits.submit_several(
            submit_tasks_request, self._settings.tiers, _new_id
        )
        answers = await self._backend.apply(several)
        return convert_submits.submitted_several(answers, refused)

    async def get_task(self, get_task_request: wire.GetTaskRequest) -> wire.GetTaskResponse:
        """All that is kept of a task."""
        history = await self._backend.read(convert.get(get_task_request))
        position = await position_of(self._backend, history.task)
        return convert.got(history, position, self._roster.why_waits(history.task))

    async def list_tasks(self, list_tasks_request: wire.ListTasksRequest) -> wire.ListTasksResponse:
        """A page of tasks."""
        return convert.listed(await self._backend.read(convert.list_tasks(list_tasks_request)))

    async def list_kinds(self, list_kinds_request: wire.ListKindsRequest) -> wire.ListKindsResponse:
        """What live agents run."""
        wanted = convert_kinds.kinds_wanted(list_kinds_request)
        return convert_kinds.kinds_listed(self._roster.kinds(wanted.queue, wanted.kind), wanted)

    async def cancel_task(
        self, cancel_task_request: wire.CancelTaskRequest
    ) -> wire.CancelTaskResponse:
        """Ends a live task."""
        return convert.cancelled(await self._backend.apply(convert.cancel(cancel_task_request)))

    async def ping(self, ping_request: wire.PingRequest) -> wire.PingResponse:
        """Echoes."""
        return convert.pong(ping_request, time.time_ns() // 1_000)

    # --- for agents ---

    async def _fetch_task(self, stream: AnyStream) -> None:
        token = secrets.token_hex(LEASE_TOKEN_BYTES)
        asked = convert_agents.take(await first_message(stream), token)
        wanted = (asked.agent_id, asked.session, asked.queues, asked.kinds)
        self._roster.check(*wanted)
        queues, kinds = self._roster.allowed(*wanted)
        with self._roster.asking(asked.agent_id, asked.session, queues, kinds):
            grants = await self._backend.apply(replace(asked, queues=queues, kinds=kinds))
        written = False
        try:
            await stream.send_message(convert_agents.fetched(grants))
            written = not is_gone(stream)
        finally:
            if grants.grants and not written:
                self._take_back(grants.grants)

    async def announce_kinds(
        self, announce_kinds_request: wire.AnnounceKindsRequest
    ) -> wire.AnnounceKindsResponse:
        """Notes what a session takes."""
        said = convert_kinds.announcement(announce_kinds_request)
        if self._roster.announce(said.agent_id, said.session, said.offer):
            self.streams.announced(said.session)
        return convert_kinds.announced(self._roster.again_s)

    async def complete_task(
        self, complete_task_request: wire.CompleteTaskRequest
    ) -> wire.CompleteTaskResponse:
        """Ends a lease well or badly."""
        command = convert_agents.complete(complete_task_request)
        self._note_nameless(command.agent_id, command.lease_id)
        return convert_agents.completed(await self._backend.apply(command))

    async def report_progress(
        self, report_progress_request: wire.ReportProgressRequest
    ) -> wire.ReportProgressResponse:
        """Keeps what a run has to say."""
        command = convert_entries.note(report_progress_request)
        self._note_nameless(command.agent_id, command.lease_id)
        return convert_entries.noted(await self._backend.apply(command))

    async def release_task(
        self, release_task_request: wire.ReleaseTaskRequest
    ) -> wire.ReleaseTaskResponse:
        """Takes a task back unfinished."""
        command = convert_agents.release(release_task_request)
        self._note_nameless(command.agent_id, command.lease_id)
        return convert_agents.released(await self._backend.apply(command))

    async def heartbeat(self, heartbeat_request: wire.HeartbeatRequest) -> wire.HeartbeatResponse:
        """Starts the terms of leases anew."""
        command = convert_agents.heartbeat(heartbeat_request)
        self._note_nameless(command.agent_id, *command.lease_ids[:1])
        return convert_agents.held(await self._backend.apply(command))

    def _take_back(self, grants: Sequence[commands.Grant]) -> None:
        """The agent never heard of these leases: they count as nothing."""
        leases = [grant.task.lease for grant in grants]
        command = commands.TakeBack(tuple(lease.lease_id for lease in leases if lease))
        self._spawn(self._backend.apply(command))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._pending.add(task)

        def done(task: asyncio.Task[Any]) -> None:
            self._pending.discard(task)
            if not task.cancelled() and (error := task.exception()):
                # The store failed or is closed; the lease runs out by itself.
                log.warning("lease not taken back", reason=str(error))

        task.add_done_callback(done)

    def _note_nameless(self, agent_id: str, lease_id: str = "") -> None:
        """Says once of each agent that it can be told apart by its name alone."""
        if lease_id or agent_id in self._nameless:
            return
        if len(self._nameless) < NAMELESS_AGENTS_REMEMBERED_MAX:
            self._nameless.add(agent_id)
            log.warning("agent sends no lease_id", agent_id=agent_id, effect="weaker fencing")


def _new_id() -> str:
    """A UUID of version 7: in the order of time, which a store inserts twice as fast."""
    return str(uuid_utils.uuid7())
