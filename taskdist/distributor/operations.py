"""The verbs for operators: convert, apply, convert. There is no `if` about tasks in here."""

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import structlog
from grpclib import const

from taskdist.backends.protocol import Backend
from taskdist.core import commands
from taskdist.core.commands import Command
from taskdist.core.errors import Exhausted, Refused
from taskdist.core.inspecting import BackUpStore, CheckStore
from taskdist.distributor.transport import AnyStream, first_message
from taskdist.wire import convert_operations as convert
from taskdist.wire import messages as wire
from taskdist.wire.convert_operations import Operation

log = structlog.get_logger()


class OperationsService(wire.OperationsBase):
    """Serves `taskdist.v1.Operations` from a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __mapping__(self) -> dict[str, const.Handler]:
        """grpclib's table of methods; a generated stream would end only when it is collected."""
        mapping = super().__mapping__()
        own = {"CheckStore": self._check_store, "BackupStore": self._backup_store}
        for name, method in own.items():
            path = f"/taskdist.v1.Operations/{name}"
            mapping[path] = mapping[path]._replace(func=method)
        return mapping

    async def redrive(self, redrive_request: wire.RedriveRequest) -> wire.RedriveResponse:
        """Puts tasks back."""
        operation = convert.operation(redrive_request, convert.REDRIVABLE, _now_us())
        return convert.redriven(*await self._operate("redriven", operation, _redrive))

    async def purge(self, purge_request: wire.PurgeRequest) -> wire.PurgeResponse:
        """Removes tasks."""
        operation = convert.operation(purge_request, convert.PURGEABLE, _now_us())
        return convert.purged(*await self._operate("purged", operation, commands.Purge))

    async def _check_store(self, stream: AnyStream) -> None:
        await first_message(stream)
        async with aclosing(await self._backend.read(CheckStore())) as steps:
            async for step in steps:
                await stream.send_message(convert.checked(step))
                if step.done:
                    tell = log.error if step.fault_count else log.info
                    tell("store checked", tasks=step.tasks, faults=step.fault_count)

    async def _backup_store(self, stream: AnyStream) -> None:
        await first_message(stream)
        async with aclosing(await self._backend.read(BackUpStore())) as parts:
            async for part in parts:
                await stream.send_message(convert.backed_up(part))
                if part.sha256:
                    log.info("store backed up", bytes=part.total_bytes, sha256=part.sha256.hex())

    async def _operate(
        self, done: str, operation: Operation, command: Callable[[str], Command[Any]]
    ) -> tuple[int, str]:
        """Returns how many it was done to, or would be, and where the next call goes on.

        Raises:
            Exhausted: no more may wait. Those that were put back stay so.
            Refused: it cannot be done to one of those that were named.
        """
        if operation.task_ids:
            await self._apply(command, operation.task_ids, atomic=True)
            log.info(f"tasks {done}", count=len(operation.task_ids))
            return len(operation.task_ids), ""
        page = await self._backend.read(operation.query)
        cursor = convert.next_cursor(page, operation.query)
        if operation.count_only:
            return page.count, cursor
        answers = await self._apply(command, page.task_ids, atomic=False)
        # What has moved on since it was read is left alone.
        count = sum(not isinstance(answer, Refused) for answer in answers)
        log.info(f"tasks {done}", count=count)
        for answer in answers:
            if isinstance(answer, Exhausted):
                raise answer
        return count, cursor

    async def _apply(
        self, command: Callable[[str], Command[Any]], task_ids: tuple[str, ...], *, atomic: bool
    ) -> tuple[Any, ...]:
        return await self._backend.apply(
            commands.Several(tuple(map(command, task_ids)), atomic=atomic)
        )


def _redrive(task_id: str) -> commands.Redrive:
    return commands.Redrive(task_id, position_wanted=False)


def _now_us() -> int:
    return time.time_ns() // 1_000
