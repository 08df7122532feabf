"""The verbs for operators: convert, apply, convert. There is no `if` about tasks in here."""

import time
from collections.abc import Callable
from typing import Any

import structlog

from taskdist.backends.protocol import Backend
from taskdist.core import commands
from taskdist.core.commands import Command
from taskdist.core.errors import Exhausted, Refused
from taskdist.wire import convert_operations as convert
from taskdist.wire import messages as wire
from taskdist.wire.convert_operations import Operation

log = structlog.get_logger()


class OperationsService(wire.OperationsBase):
    """Serves `taskdist.v1.Operations` from a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def redrive(self, redrive_request: wire.RedriveRequest) -> wire.RedriveResponse:
        """Puts tasks back."""
        operation = convert.operation(redrive_request, convert.REDRIVABLE, _now_us())
        return convert.redriven(*await self._operate("redriven", operation, _redrive))

    async def purge(self, purge_request: wire.PurgeRequest) -> wire.PurgeResponse:
        """Removes tasks."""
        operation = convert.operation(purge_request, convert.PURGEABLE, _now_us())
        return convert.purged(*await self._operate("purged", operation, commands.Purge))

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
