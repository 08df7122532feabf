"""The wiring of a distributor: a backend, the services, a socket; its start and its stop."""

import asyncio
import ipaddress
import os
import resource
import socket
from collections.abc import Sequence
from typing import Any

import structlog
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.reflection.service import ServerReflection

from taskdist.backends.embedded import EmbeddedBackend
from taskdist.backends.protocol import Backend
from taskdist.core import commands
from taskdist.core.commands import Change
from taskdist.core.task import Attempt, Outcome, Task, TaskState
from taskdist.distributor.operations import OperationsService
from taskdist.distributor.roster import Roster
from taskdist.distributor.service import TaskDistributorService
from taskdist.distributor.transport import Server, listening_socket
from taskdist.distributor.watches import Watches
from taskdist.limits import ACCEPTED_PER_TURN, ATTEMPTS_KEPT_MAX, BACKLOG, SECOND_US
from taskdist.settings import DistributorSettings, SettingsError
from taskdist.signals import Signals
from taskdist.wire.codec import descriptor_pool

log = structlog.get_logger()


class Distributor:
    """A backend and the server in front of it. Also the backend's listener.

    Args:
        settings: all that can be set.
        backend: keeps the tasks; the one that `settings.store` names unless given.
    """

    def __init__(self, settings: DistributorSettings, backend: Backend | None = None) -> None:
        self.settings = settings
        self._backend = backend or EmbeddedBackend(settings)
        self._watches = Watches(settings.watches_max)
        self._status = ServiceStatus()
        loop = asyncio.get_running_loop()
        self._roster = Roster(settings, loop.time)
        service = TaskDistributorService(self._backend, settings, self._watches, self._roster)
        self._streams = service.streams
        operations = OperationsService(self._backend)
        served: list[Any] = [service, operations]
        health = Health({OVERALL: [self._status], **{one: [self._status] for one in served}})
        services = [*served, health]
        services = ServerReflection.extend(services, pool=descriptor_pool())
        self.server = Server(services, settings)
        self.failure: asyncio.Future[BaseException] = loop.create_future()

    async def open(self) -> None:
        """Opens the store.

        Raises:
            StoreUnusable: it cannot be opened.
            StoreFailed: it is damaged.
        """
        await self._backend.open(self)
        self._status.set(True)

    async def listen(self, sock: socket.socket) -> None:
        """Serves on a bound socket."""
        # asyncio accepts as many in one turn as it is told to let wait.
        await self.server.start(sock=sock, backlog=ACCEPTED_PER_TURN)
        sock.listen(BACKLOG)

    async def stop(self, grace_s: float) -> None:
        """Answers long-polls, lets calls under way end, closes connections and the store."""
        self._status.set(False)
        self._watches.stop()
        self._streams.stop()
        if not self.failure.done():
            await self._backend.apply(commands.StopTakes())
        cut_off = await self.server.drain(grace_s)
        if cut_off:
            log.warning("calls cut off", count=cut_off, grace_s=grace_s)
        await self._backend.close()

    # --- as the backend's listener ---

    def changed(self, changes: Sequence[Change]) -> None:
        """Tells watchers, and logs what people want to know of."""
        self._watches.changed(changes)
        self._streams.changed(changes)
        self._roster.changed(changes)
        for change in changes:
            after = change.after
            if after is not None and (change.attempt or after.state is TaskState.DEAD):
                _log_end(after, change.attempt)

    def paced(self, is_disk_slow: bool) -> None:
        """Lets more outcomes of an agent share a commit while each takes long."""
        self._streams.paced(is_disk_slow)

    def failed(self, error: BaseException) -> None:
        """The store is gone: the process has to end."""
        self._status.set(False)
        if not self.failure.done():
            self.failure.set_result(error)


def _log_end(task: Task, attempt: Attempt | None) -> None:
    if attempt and attempt.outcome is Outcome.LOST:
        log.warning(
            "lease lost", task_id=task.id, agent_id=attempt.agent_id, lost_count=task.lost_count
        )
    if task.state is TaskState.DEAD:
        log.warning(
            "task dead",
            task_id=task.id,
            kind=task.kind,
            retry_count=task.retry_count,
            lost_count=task.lost_count,
            hasty_releases=task.hasty_releases,
        )
    if attempt and attempt.attempt == ATTEMPTS_KEPT_MAX + 1:
        log.warning("history cut", task_id=task.id, attempts_kept=ATTEMPTS_KEPT_MAX)


def bind(settings: DistributorSettings) -> socket.socket:
    """A socket bound to `settings.listen`.

    Raises:
        SettingsError: the address cannot be had, or is beyond loopback without `--insecure`.
    """
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    try:
        sock = listening_socket(host, int(port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"--listen {settings.listen}: {reason}") from None
    address = sock.getsockname()[0]
    if not (ipaddress.ip_address(address).is_loopback or settings.insecure):
        sock.close()
        raise SettingsError(
            f"--listen {settings.listen}: is reachable from other machines, and there are no "
            "credentials yet; listen on 127.0.0.1, or say --insecure"
        )
    return sock


async def serve(settings: DistributorSettings) -> None:
    """Runs a distributor until SIGTERM or SIGINT, or until its store fails.

    Raises:
        SettingsError, StoreUnusable: it cannot start.
        StoreFailed: the store failed.
    """
    # Each agent has two connections, and the usual 1,024 files are soon gone.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sock = bind(settings)
    try:
        distributor = Distributor(settings)
        await distributor.open()
    except BaseException:
        sock.close()
        raise
    stop = Signals()
    await distributor.listen(sock)
    host, port = sock.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    log.info("serving", address=f"{host}:{port}", store=settings.store, tiers=list(settings.tiers))
    await _first(stop.asked, distributor.failure)
    if distributor.failure.done():
        await distributor.stop(0)
        raise distributor.failure.result()
    log.info("stopping", signal=stop.asked.result().name)
    stopping = asyncio.ensure_future(distributor.stop(settings.drain_us / SECOND_US))
    await _first(stopping, stop.asked_again)
    if not stopping.done():
        # Like a SIGKILL, which loses nothing. An orderly exit would close the loop that the
        # writer's thread still speaks to.
        os._exit(128 + stop.asked_again.result())
    if distributor.failure.done():
        raise distributor.failure.result() from stopping.exception()
    stopping.result()
    log.info("stopped")


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
