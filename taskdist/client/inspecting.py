"""The client's verbs about a whole store: is it sound, and a copy of it."""

from collections.abc import AsyncIterator
from typing import Any

from grpclib.const import Cardinality

from taskdist.client.calling import Caller
from taskdist.client.connection import OPERATIONS, Errors
from taskdist.core.inspecting import BackupPart, Checked
from taskdist.wire import messages as wire
from taskdist.wire.codec import fields, make


class Inspecting(Caller):
    """What an operator asks about a whole store: a part of `Stub`."""

    async def check_store(self) -> AsyncIterator[Checked]:
        """Checks the store: how far that is, and what it found, until one is `done`.

        Raises:
            Exhausted: another inspection is under way, or too much is written meanwhile.
            PreconditionFailed: the store is in memory.
            Unavailable: the distributor cannot be reached, or the connection was lost.
        """
        messages = self._inspect("CheckStore", wire.CheckStoreRequest, wire.CheckStoreResponse)
        async for m in messages:
            yield Checked(
                store_bytes=m.store_bytes,
                tasks=m.tasks,
                tasks_in_all=m.tasks_in_all,
                attempts=m.attempts,
                faults=tuple(m.faults),
                fault_count=m.fault_count,
                done=m.done,
            )

    async def backup_store(self) -> AsyncIterator[BackupPart]:
        """A copy of the store with all that was acknowledged before: how far it is, then its
        bytes, in order. The last part has `sha256`.

        Raises:
            Exhausted, Unavailable: as `check_store` does.
            PreconditionFailed: the store is in memory, or there is no room for the copy.
        """
        messages = self._inspect("BackupStore", wire.BackupStoreRequest, wire.BackupStoreResponse)
        async for m in messages:
            yield BackupPart(m.total_bytes, m.copied_bytes, m.chunk, m.sha256)

    async def _inspect(
        self, method: str, request: type[Any], response: type[Any]
    ) -> AsyncIterator[Any]:
        with Errors(self.server):
            async with self._channel.request(
                f"{OPERATIONS}/{method}", Cardinality.UNARY_STREAM, request, response
            ) as stream:
                await stream.send_message(make(request), end=True)
                async for message in stream:
                    yield fields(message)
