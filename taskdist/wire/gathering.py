"""One write to the socket for what a turn of the event loop has to say.

grpclib writes each frame by itself: three system calls for a unary call, each of which lets go of
the interpreter and has to get it back from other threads.
"""

import asyncio
from typing import Any, cast

from grpclib.protocol import H2Protocol

PARTS_MAX = 12
"""What is gathered at most: four calls. With all calls of a long turn in one write, either side
would only begin when the other is done."""


class GatheringProtocol(H2Protocol):
    """grpclib's protocol over a `GatheringTransport`, for either side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        gathering = GatheringTransport(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.BaseTransport, gathering))


class GatheringTransport:
    """A transport that keeps what is written until the event loop's next turn."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Writes at the loop's next turn, together with all else that is written until then."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        if len(self._parts) >= PARTS_MAX:
            self._flush()

    def close(self) -> None:
        """Writes what is left, then closes."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's own."""
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)
