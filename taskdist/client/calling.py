"""How a client calls: one connection, and not too many calls on it at once."""

from typing import Any, Self, TypeVar

from grpclib.client import Channel
from grpclib.const import Cardinality

from taskdist.client.connection import SERVICE, Errors, Turns, channel_to
from taskdist.core.errors import Unavailable

R = TypeVar("R")


class Caller:
    """Calls one distributor over one connection, made when it is first needed.

    Args:
        server: host:port.
        channel: a grpclib channel to use instead.
        timeout_s: how long a call may take that does not wait by design.
    """

    def __init__(self, server: str, channel: Channel | None, timeout_s: float) -> None:
        self.server = server
        self._channel = channel or channel_to(server)
        self._timeout_s = timeout_s
        self._turns = Turns(server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    async def _call(
        self,
        method: str,
        request: Any,
        response: type[R],
        timeout_s: float | None = None,
        service: str = SERVICE,
    ) -> R:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        with Errors(self.server):
            async with (
                self._turns.turn(timeout_s),
                self._channel.request(
                    f"{service}/{method}",
                    Cardinality.UNARY_UNARY,
                    type(request),
                    response,
                    timeout=timeout_s,
                ) as stream,
            ):
                await stream.send_message(request, end=True)
                message = await stream.recv_message()
            if message is None:
                raise Unavailable(f"{method}: no answer")
            return message
