"""A distributor in memory: the whole of it, on connections and a clock that are the event loop's.

The server, the codec and the backend are those that are shipped; only the socket is missing, and
the writer's thread. Everything happens in one event loop, so that it goes by that loop's clock,
which may be a virtual one.
"""

import asyncio
from typing import Any

from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.protocol import H2Protocol

from taskdist.backends.clock import Clock
from taskdist.backends.embedded import EmbeddedBackend
from taskdist.backends.runner import LoopRunner
from taskdist.client import Stub
from taskdist.client.connection import Answers, GatheringChannel
from taskdist.distributor.server import Distributor
from taskdist.distributor.transport import Server
from taskdist.limits import CLIENT_KEEPALIVE_TIMEOUT_US, CLIENT_KEEPALIVE_US, SECOND_US
from taskdist.settings import DistributorSettings
from taskdist.wire.codec import windows
from taskdist.wire.http2 import keeping_alive

NOON_US = 1_750_000_000 * SECOND_US
"""Where the wall clock of a virtual loop begins: some time in June 2025."""


class _End(asyncio.Transport):
    """One end of a connection. Closing it is what a closed TCP connection is to either side."""

    def __init__(self, protocol: asyncio.Protocol, extra: dict[str, Any] | None = None) -> None:
        super().__init__(extra)
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._closing = False
        self.peer = self

    def write(self, data: Any) -> None:
        if data and not self._closing:
            self._loop.call_soon(self.peer._receive, bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose)
            self._loop.call_soon(self.peer.close)

    def _lose(self) -> None:
        self._protocol.connection_lost(None)
        del self._protocol  # as asyncio's transports do

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        """What was written arrives all the same."""

    def resume_reading(self) -> None:
        """It never stopped."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def _receive(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)


def join(near: asyncio.Protocol, far: asyncio.Protocol, address: str | None = None) -> None:
    """Connects two protocols with each other, the near one as if from this IP address."""
    extra = {"peername": (address, 50_000)} if address else None
    near_end, far_end = _End(near), _End(far, extra)
    near_end.peer, far_end.peer = far_end, near_end
    near.connection_made(near_end)
    far.connection_made(far_end)


class MemoryChannel(GatheringChannel):
    """A channel that connects to a server in the same process, again if the connection was lost."""

    def __init__(self, server: Server) -> None:
        details = ProtoStatusDetailsCodec()
        config = keeping_alive(windows(), CLIENT_KEEPALIVE_US, CLIENT_KEEPALIVE_TIMEOUT_US)
        super().__init__(codec=Answers(), status_details_codec=details, config=config)
        self._to = server

    async def _create_connection(self) -> H2Protocol:
        near, far = self._protocol_factory(), self._to._protocol_factory()
        join(near, far)
        return near


def connect(distributor: Distributor) -> Stub:
    """A client with a connection of its own. Closing it is losing that connection."""
    return Stub("in memory", channel=MemoryChannel(distributor.server), batching=False)


def embedded(settings: DistributorSettings) -> EmbeddedBackend:
    """A backend that runs in the event loop, by the event loop's clock."""
    return EmbeddedBackend(settings, loop_clock(settings), LoopRunner())


def loop_clock(settings: DistributorSettings) -> Clock:
    """A clock that goes by the running event loop's own time; in a test, virtual time."""
    loop = asyncio.get_running_loop()
    return Clock(
        settings,
        wall_ns=lambda: NOON_US * 1_000 + round(loop.time() * 1e9),
        monotonic_ns=lambda: round(loop.time() * 1e9),
    )
