"""grpclib's server, hardened: what it lacks is added here, each part with the reason.

What touches the private parts of grpclib's server is in this file and, below the calls, in
`peers.py`; `wire/http2.py` has those that both sides share. It knows nothing of tasks; expected
errors become statuses here, so that no method has to.
"""

import asyncio
import socket
import struct
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import grpclib.server
from grpclib import const
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline
from grpclib.protocol import H2Protocol
from grpclib.server import Server as GrpclibServer
from grpclib.server import Stream
from grpclib.utils import DeadlineWrapper

from taskdist.core.errors import BadField, Exhausted, Refused, TooLarge
from taskdist.distributor.peers import PeerProtocol
from taskdist.limits import KIB, MESSAGE_BYTES_MAX, SECOND_US
from taskdist.settings import DistributorSettings
from taskdist.wire.codec import Codec, windows
from taskdist.wire.http2 import keeping_alive
from taskdist.wire.statuses import to_status

AnyStream = Stream[Any, Any]

OUR_PATHS = "/taskdist."
"""How the paths of our own services begin."""

_PREFIX = struct.Struct(">?I")
"""Compressed or not, and the length ("Length-Prefixed-Message" of gRPC over HTTP/2)."""


class _Deadlines(DeadlineWrapper):
    """grpclib's, for deadlines that have passed as well.

    Such a call shall end as all do that come to their deadline. grpclib answers it with UNKNOWN,
    and its log has a traceback.
    """

    @contextmanager
    def start(self, deadline: Deadline) -> Iterator[None]:
        """Ends the calls inside at the deadline; at once, if that was before."""

        def end() -> None:
            self.cancel(TimeoutError("Deadline exceeded"))

        left_s = deadline.time_remaining()
        if not left_s:
            end()  # Whoever enters it now is not let in.
        timer = asyncio.get_running_loop().call_later(left_s, end)
        try:
            yield
        finally:
            timer.cancel()


grpclib.server.DeadlineWrapper = _Deadlines  # type: ignore[attr-defined] # the only seam


class Server(GrpclibServer):
    """A gRPC server for these services, with our codec, hardened, that can be drained.

    Args:
        services: what is served.
        settings: what peers may do.
    """

    def __init__(self, services: Collection[Any], settings: DistributorSettings) -> None:
        self._settings = settings
        self._connections: Counter[str] = Counter()
        self._ours: set[asyncio.Task[Any]] = set()
        """The calls under way of our own service. Health and reflection end with the connection."""
        super().__init__(
            services,
            codec=Codec(),
            # Given a codec, grpclib sends no error details unless told how.
            status_details_codec=ProtoStatusDetailsCodec(),
            config=keeping_alive(
                windows(settings.connection_window_bytes, settings.stream_window_bytes),
                settings.keepalive_us,
                settings.keepalive_timeout_us,
            ),
        )
        message_s = settings.message_us / SECOND_US
        unfinished = _Unfinished(settings.unfinished_bytes_max)

        def messages_of(stream: AnyStream) -> _Messages:
            return _Messages(stream, message_s, unfinished)

        self._mapping = {
            path: _guarded(handler, self._ours if path.startswith(OUR_PATHS) else None, messages_of)
            for path, handler in self._mapping.items()
        }
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        plain = super()._protocol_factory()
        protocol = PeerProtocol(plain, self._settings, self._connections)
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


def _guarded(
    handler: const.Handler,
    under_way: set[asyncio.Task[Any]] | None,
    messages_of: "Callable[[AnyStream], _Messages]",
) -> const.Handler:
    """The same method with expected errors as statuses, and messages within their limits.

    While it runs its task is in `under_way`.
    """

    async def call(stream: AnyStream) -> None:
        messages = messages_of(stream)
        # The instance's own, so that generated handlers call them as well.
        vars(stream)["recv_message"] = messages.receive
        vars(stream)["send_message"] = messages.send
        vars(stream._stream)["send_data"] = messages.write
        task = asyncio.current_task()
        if under_way is not None and task is not None:
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        try:
            await handler.func(stream)
        except Refused as refusal:
            wrapper = stream._stream.wrapper
            if wrapper is not None and wrapper.cancelled:
                # The call was lost meanwhile: nobody hears of it, and grpclib, which cancelled us,
                # would log a traceback for any end but a cancel.
                raise asyncio.CancelledError from None
            raise to_status(refusal) from None
        finally:
            # They hold the stream that holds them, and collections are rare.
            del vars(stream)["recv_message"], vars(stream)["send_message"]
            del vars(stream._stream)["send_data"]

    return handler._replace(func=call)


LONG_BYTES = 64 * KIB
"""Messages up to this size are not counted: 100 calls of a connection have 6 MiB of them."""


class _Unfinished:
    """Bytes of long messages, of all connections, that wait for their rest or for their reader.

    grpclib makes room in its windows for whatever it has taken up, so that a hundred calls of one
    connection may keep 400 MiB for as long as a message may take.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0

    def add(self, size: int) -> None:
        """So many more.

        Raises:
            Exhausted: it is too much; nothing was added.
        """
        if self._bytes + size > self._bytes_max:
            what = f"{self._bytes} bytes of unfinished messages, of at most {self._bytes_max}"
            raise Exhausted(what)
        self._bytes += size

    def remove(self, size: int) -> None:
        """So many fewer."""
        self._bytes -= size


class _Messages:
    """The messages of one call, within their limits.

    grpclib buffers whatever length is claimed (its issue #195), waits for the rest as long as it
    takes, answers a compressed message with UNKNOWN and a traceback, and hands None to a method
    whose caller sent no message at all.

    Args:
        stream: the call.
        limit_s: how long a message may take.
        unfinished: counts what is held.
    """

    def __init__(self, stream: AnyStream, limit_s: float, unfinished: _Unfinished) -> None:
        self._stream = stream
        self._send = stream.send_message
        self._write = stream._stream.send_data
        self._limit_s = limit_s
        self._unfinished = unfinished
        self._read_bytes = 0

    async def send(self, message: Any, **options: Any) -> None:
        """Sends one.

        Raises:
            GRPCError: DEADLINE_EXCEEDED, the peer does not read it.
        """
        try:
            async with asyncio.timeout(self._limit_s):
                await self._send(message, **options)
        except TimeoutError:
            raise self._too_slow("not read") from None

    async def write(self, data: bytes, end_stream: bool = False) -> None:  # grpclib's
        """Writes a message's bytes, as the peer makes room for them.

        Raises:
            Exhausted: too much waits for its readers.
        """
        if len(data) <= LONG_BYTES:
            return await self._write(data, end_stream=end_stream)
        self._unfinished.add(len(data))
        try:
            await self._write(data, end_stream=end_stream)
        finally:
            self._unfinished.remove(len(data))

    async def receive(self) -> Any:
        """The next message; None at the end of a stream of requests.

        Raises:
            GRPCError: it is none, or does not come.
            TooLarge: its claimed length is over the limit.
        """
        is_one_of_many = self._stream._cardinality.client_streaming
        # All but the first may come any time.
        is_urgent = not (is_one_of_many and self._read_bytes)
        prefix = await self._read(_PREFIX.size, is_urgent=is_urgent)
        if not prefix:
            if is_one_of_many:
                return None
            raise GRPCError(Status.INVALID_ARGUMENT, "the call was closed without a message")
        compressed, length = _PREFIX.unpack(prefix)
        if compressed:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        if length > MESSAGE_BYTES_MAX:
            text = f"a message of {length} bytes; allowed: at most {MESSAGE_BYTES_MAX}"
            raise TooLarge([BadField("request", text)])
        is_here = self._stream._stream.data_received >= self._read_bytes + length
        whole = is_here or length <= LONG_BYTES
        data = await (self._read(length, is_urgent=True) if whole else self._read_long(length))
        if len(data) < length:
            raise _cut_short()
        return self._stream._codec.decode(data, self._stream._recv_type)

    async def _read_long(self, length: int) -> bytes:
        """In pieces, to count what has come. What is only claimed costs nothing."""
        pieces: list[bytes] = []
        left = length
        try:
            async with asyncio.timeout(self._limit_s):
                while left:
                    piece = await self._read(min(LONG_BYTES, left), is_urgent=False)
                    self._unfinished.add(len(piece))
                    pieces.append(piece)
                    left -= len(piece)
                    if not piece:
                        raise _cut_short()
        except TimeoutError:
            raise self._too_slow("not sent") from None
        finally:
            self._unfinished.remove(sum(map(len, pieces)))
        return b"".join(pieces)

    async def _read(self, size: int, *, is_urgent: bool) -> bytes:
        """So many bytes, or none at the end of the stream."""
        http2 = self._stream._stream
        self._read_bytes += size
        # Mostly it is here, and a timer would cost more than to read it.
        is_here = http2.data_received >= self._read_bytes
        limit_s = None if is_here or not is_urgent else self._limit_s
        try:
            if limit_s is None:
                return await http2.recv_data(size)
            async with asyncio.timeout(limit_s):
                return await http2.recv_data(size)
        except TimeoutError:
            raise self._too_slow("not sent") from None
        except AssertionError:  # grpclib's way to say that some came, but fewer
            raise _cut_short() from None

    def _too_slow(self, what: str) -> GRPCError:
        text = f"a message was {what} within {self._limit_s:g} s"
        return GRPCError(Status.DEADLINE_EXCEEDED, text)


def _cut_short() -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, "the call was closed within a message")
