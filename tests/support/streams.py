"""A Work stream by hand: every message of the contract, also those that our own agent never sends.

What is heard is read with a limit on time only, and how long each message was is noted.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from grpclib.const import Cardinality

from taskdist.distributor.server import Distributor
from taskdist.limits import RESPONSE_PARTS_MAX
from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec
from tests.support.channel import MemoryChannel

WORK = "/taskdist.v1.TaskDistributor/Work"
SILENCE_S = 5
"""Longer than anything that is to come would take to come."""


class _Sized:
    @classmethod
    def FromString(cls, data: bytes) -> tuple[wire.WorkResponse, int]:  # noqa: N802 # google's
        return Codec(RESPONSE_PARTS_MAX).decode(data, wire.WorkResponse), len(data)


class Spoken:
    """An open Work stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.sizes: list[int] = []
        self.is_over = False

    async def say(self, **said: Any) -> None:
        """Sends a WorkRequest with these fields."""
        await self._stream.send_message(wire.WorkRequest(**said))

    async def end(self) -> None:
        """Ends its own side."""
        await self._stream.end()

    async def hear(self, patience_s: float = SILENCE_S) -> wire.WorkResponse | None:
        """The next message, or None at the end; there has to be one."""
        async with asyncio.timeout(patience_s):
            received = await self._stream.recv_message()
        if received is None:
            self.is_over = True
            return None
        message, size = received
        self.sizes.append(size)
        assert isinstance(message, wire.WorkResponse)
        return message

    async def all(self) -> list[wire.WorkResponse]:
        """What comes until nothing more does."""
        heard = []
        try:
            while (message := await self.hear()) is not None:
                heard.append(message)
        except TimeoutError:
            pass
        return heard


@asynccontextmanager
async def spoken(
    distributor: Distributor,
    *,
    slots: int = 1,
    queues: tuple[str, ...] = (),
    kinds: tuple[str, ...] = (),
    lease_ids: tuple[str, ...] = (),
) -> AsyncIterator[Spoken]:
    """A Work stream on a connection of its own, which has said hello. Broken off at the end."""
    channel = MemoryChannel(distributor.server)
    try:
        async with channel.request(
            WORK, Cardinality.STREAM_STREAM, wire.WorkRequest, _Sized
        ) as stream:
            work = Spoken(stream)
            hello = wire.WorkHello(
                agent_id="agent-1",
                session="s-1",
                slots=slots,
                queues=list(queues),
                kinds=list(kinds),
                lease_ids=list(lease_ids),
            )
            await work.say(hello=hello)
            yield work
            if not work.is_over:
                await stream.cancel()
    finally:
        channel.close()
