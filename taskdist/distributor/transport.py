"""grpclib's server, hardened: what it lacks is added here, each part with the reason.

What touches the private parts of grpclib's server is in this file; `wire/http2.py` has those that
both sides share. It knows nothing of tasks; expected
errors become statuses here, so that no method has to.
"""

import asyncio
import socket
import struct
import weakref
from collections.abc import Collection
from typing import Any

from grpclib import const
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server as GrpclibServer
from grpclib.server import Stream

from taskdist.core.errors import BadField, Refused, TooLarge
from taskdist.settings import (
    MESSAGE_BYTES_MAX,
)
from taskdist.wire.codec import Codec, windows
from taskdist.wire.http2 import GatheringProtocol
from taskdist.wire.statuses import to_status

AnyStream = Stream[Any, Any]

OUR_PATHS = "/taskdist."
"""How the paths of our own services begin."""

_PREFIX = struct.Struct(">?I")
"""Compressed or not, and the length ("Length-Prefixed-Message" of gRPC over HTTP/2)."""


class Server(GrpclibServer):
    """A gRPC server for these services, with our codec, that can be drained."""

    def __init__(self, services: Collection[Any]) -> None:
        self._ours: set[asyncio.Task[Any]] = set()
        """The calls under way of our own service. Health and reflection end with the connection."""
        super().__init__(
            services,
            codec=Codec(),
            # Given a codec, grpclib sends no error details unless told how.
            status_details_codec=ProtoStatusDetailsCodec(),
            config=windows(),
        )
        self._mapping = {
            path: _guarded(handler, self._ours if path.startswith(OUR_PATHS) else None)
            for path, handler in self._mapping.items()
        }
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        protocol = GatheringProtocol(super()._protocol_factory())
        self._protocols.add(protocol)
        return protocol

    async def drain(self, grace_s: float) -> int:
        """Stops listening, lets the calls under way end, then closes every connection.

        grpclib's own close cuts calls off, and on Python 3.12 and newer waits for ever for clients
        that stay connected (its issue #148). No GOAWAY is sent: grpclib's clients would drop their
        calls under way.

        Returns:
            How many calls were cut off because they outlasted the grace.
        """
        if self._server is not None:
            self._server.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while self._ours and (left := end - loop.time()) > 0:
            await asyncio.wait(self._ours, timeout=left)
        outlasted = len(self._ours)
        for protocol in list(self._protocols):
            if hasattr(protocol, "connection"):
                protocol.connection.close()
        cut_off = self._calls()
        for call in cut_off:
            call.cancel()
        if cut_off:
            await asyncio.wait(cut_off)
        return outlasted

    def _calls(self) -> set[asyncio.Task[None]]:
        handlers = list(self._handlers)
        return {
            call
            for h in handlers
            for call in (*h._tasks.values(), *h._cancelled)
            if not call.done()
        }


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket for a server.

    asyncio switches Nagle's delay off only when the protocol is said outright (44 ms a call
    otherwise); SO_REUSEADDR lets a distributor start right after one was killed.

    Raises:
        OSError: the address is in use, unknown or not allowed.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()  # of two that start at once, both may bind, and one hears so only here
    except BaseException:
        sock.close()
        raise
    return sock


async def first_message(stream: AnyStream) -> Any:
    """The request of a unary method, or the first of a stream.

    Raises:
        GRPCError: INVALID_ARGUMENT, there is none.
    """
    message = await stream.recv_message()
    if message is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the call was closed without a message")
    return message


def is_gone(stream: AnyStream) -> bool:
    """Whether the caller's connection is closed, so that what is written goes nowhere."""
    return stream._stream._transport.is_closing()


def _guarded(handler: const.Handler, under_way: set[asyncio.Task[Any]] | None) -> const.Handler:
    """The same method with expected errors as statuses, and messages read with a limit.

    While it runs its task is in `under_way`.
    """

    async def call(stream: AnyStream) -> None:
        # The instance's own, so that generated handlers call it as well.
        vars(stream)["recv_message"] = lambda: _receive(stream)
        task = asyncio.current_task()
        if under_way is not None and task is not None:
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        try:
            await handler.func(stream)
        except Refused as refusal:
            raise to_status(refusal) from None

    return handler._replace(func=call)


async def _receive(stream: AnyStream) -> Any:
    """The next message; None at the end of a stream of requests.

    grpclib buffers whatever length is claimed (its issue #195), answers a compressed message with
    UNKNOWN and a traceback, and hands None to a method whose caller sent no message at all.
    """
    prefix = await _read(stream, _PREFIX.size)
    if not prefix:
        if stream._cardinality.client_streaming:
            return None
        raise GRPCError(Status.INVALID_ARGUMENT, "the call was closed without a message")
    compressed, length = _PREFIX.unpack(prefix)
    if compressed:
        raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported")
    if length > MESSAGE_BYTES_MAX:
        text = f"a message of {length} bytes; allowed: at most {MESSAGE_BYTES_MAX}"
        raise TooLarge([BadField("request", text)])
    data = await _read(stream, length)
    if len(data) < length:
        raise _cut_short()
    return stream._codec.decode(data, stream._recv_type)


async def _read(stream: AnyStream, size: int) -> bytes:
    """So many bytes, or none at the end of the stream."""
    try:
        return await stream._stream.recv_data(size)
    except AssertionError:  # grpclib's way to say that some came, but fewer
        raise _cut_short() from None


def _cut_short() -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, "the call was closed within a message")
