"""The connection under a client: how it is made, and what its failures are called."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from h2.connection import H2Connection
from h2.settings import SettingCodes

from taskdist.core.errors import Refused, Unavailable, Unsupported
from taskdist.limits import (
    CALLS_PER_CHANNEL_MAX,
    CLIENT_KEEPALIVE_TIMEOUT_US,
    CLIENT_KEEPALIVE_US,
    CONNECT_MAX_US,
    FRAME_BYTES_MAX,
    RESPONSE_PARTS_MAX,
    SECOND_US,
)
from taskdist.settings import check_address
from taskdist.wire.codec import Codec, windows
from taskdist.wire.http2 import GatheringProtocol, keeping_alive
from taskdist.wire.statuses import from_status

M = TypeVar("M")

_NO_SUCH_METHOD = "Missing content-type header"
"""What grpclib's client makes of its server's answer to a method that it lacks."""

_CUT_SHORT = "Received less data than expected"
"""What grpclib says, in an AssertionError, of a message that ends too early."""

STREAM_ID_LAST = H2Connection.HIGHEST_ALLOWED_STREAM_ID - 2 * CALLS_PER_CHANNEL_MAX
"""After this number of a call its connection is replaced: some may wait for theirs already."""

SERVICE = "/taskdist.v1.TaskDistributor"
OPERATIONS = "/taskdist.v1.Operations"


class Errors:
    """Turns what grpclib raises into the expected errors. What is none of them passes through."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        task = asyncio.current_task()
        self._cancels = task.cancelling() if task else 0

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        expected: Refused | None = None
        if isinstance(error, GRPCError):
            # A status that is none of ours comes from something between us, or from a bug there.
            text = f"{self._server}: {error.status.name}: {error.message or 'no reason given'}"
            expected = from_status(error) or Unavailable(text)
            if error.status is Status.UNKNOWN and error.message == _NO_SUCH_METHOD:
                expected = Unsupported(f"{self._server}: it does not have this method")
            if error.status in (Status.DEADLINE_EXCEEDED, Status.CANCELLED):
                expected = Unavailable(f"{self._server}: no answer in time")
        elif isinstance(error, TimeoutError):
            expected = Unavailable(f"{self._server}: no answer in time")
        elif isinstance(error, OSError):
            # asyncio puts the address into strerror: "Connect call failed ('127.0.0.1', 50051)".
            refused = isinstance(error, ConnectionRefusedError)
            reason = "connection refused; does a distributor listen there?" if refused else error
            expected = Unavailable(f"{self._server}: {reason}")
        elif isinstance(error, StreamTerminatedError):
            expected = Unavailable(f"{self._server}: the connection was lost")
        elif isinstance(error, AssertionError) and str(error) == _CUT_SHORT:
            expected = Unavailable(f"{self._server}: an answer was cut short")
        if expected is not None:
            self._take_back_cancel()
            raise expected from error

    def _take_back_cancel(self) -> None:
        """grpclib wakes a call by cancelling its task, and leaves that counted.

        Without this a later timeout of the caller would take the old cancel for its own.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling() > self._cancels:
            task.uncancel()


class Turns:
    """So many calls at once on a connection; others wait.

    Args:
        server: host:port.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._free = asyncio.Semaphore(CALLS_PER_CHANNEL_MAX)

    @asynccontextmanager
    async def turn(self, timeout_s: float) -> AsyncIterator[None]:
        """A call's turn, once it comes.

        Raises:
            Unavailable: it does not come in time.
        """
        if not self._free.locked():
            await self._free.acquire()
        else:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._free.acquire()
            except TimeoutError:
                reason = f"{CALLS_PER_CHANNEL_MAX} calls are under way on this connection"
                raise Unavailable(f"{self._server}: {reason}") from None
        try:
            yield
        finally:
            self._free.release()


class Answers(Codec):
    """The codec of a client: bytes that are no answer of ours come from somebody else."""

    def __init__(self) -> None:
        super().__init__(RESPONSE_PARTS_MAX)

    def decode(self, data: bytes, message_type: type[M]) -> M:
        """Parses an answer.

        Raises:
            Unavailable: it is none.
        """
        try:
            return super().decode(data, message_type)
        except GRPCError as error:
            raise Unavailable(f"what answers is no distributor: {error.message}") from None


class GatheringChannel(Channel):
    """grpclib's channel, with `GatheringProtocol`, large frames, and a limit for connecting."""

    async def __connect__(self) -> H2Protocol:
        """A connection that has numbers for more calls: HTTP/2 has 2^30 of them for each, which an
        agent may use up within days, and grpclib never makes another connection for it."""
        used_up = self._protocol
        if used_up is not None and self._connected:
            http2 = used_up.connection._connection
            if http2.highest_outbound_stream_id > STREAM_ID_LAST:
                used_up.processor.close("no numbers for more calls")
        return await super().__connect__()

    async def _create_connection(self) -> H2Protocol:
        async with asyncio.timeout(CONNECT_MAX_US / SECOND_US):
            return await super()._create_connection()

    def _protocol_factory(self) -> H2Protocol:
        said = {SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES_MAX}
        return GatheringProtocol(super()._protocol_factory(), said)


def channel_to(server: str) -> Channel:
    """A connection to host:port, made when it is first needed.

    Raises:
        ValueError: it is not HOST:PORT.
    """
    host, _, port = check_address(server).rpartition(":")
    return GatheringChannel(
        host.strip("[]"),
        int(port),
        codec=Answers(),
        status_details_codec=ProtoStatusDetailsCodec(),
        config=keeping_alive(windows(), CLIENT_KEEPALIVE_US, CLIENT_KEEPALIVE_TIMEOUT_US),
    )
