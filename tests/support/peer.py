"""A peer that speaks raw HTTP/2 to a whole distributor in memory, and may be as bad as it likes."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, TrailersReceived
from h2.settings import SettingCodes

from taskdist.client import Stub
from taskdist.distributor.server import Distributor
from taskdist.settings import DistributorSettings
from tests.support.channel import distributor_channel, join

SERVICE = "/taskdist.v1.TaskDistributor/"
EMPTY_MESSAGE = struct.pack(">?I", False, 0)
HALF_A_MESSAGE = struct.pack(">?I", False, 100) + b"half"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 8
UNKNOWN = 0xBE
END_STREAM, PADDED = 0x1, 0x8
"""Types of frames, and flags of DATA (RFC 9113, section 6)."""


def frame(sort: int, payload: bytes = b"", *, flags: int = 0, stream_id: int = 0) -> bytes:
    """One frame, whether it makes sense or not."""
    head = struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, sort, flags, stream_id)
    return head + payload


class Peer(asyncio.Protocol):
    """One end of a connection, at the mercy of the test."""

    def __init__(self, *, window: int | None = None) -> None:
        self.http2 = H2Connection(
            H2Configuration(validate_outbound_headers=False, header_encoding="utf-8")
        )
        self.events: list[Event] = []
        self.closed = asyncio.get_running_loop().create_future()
        self.is_frozen = False
        self._window = window
        self._held: bytearray | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.is_frozen:
            self.events += self.http2.receive_data(data)
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def close(self) -> None:
        self._transport.close()

    def speak(self) -> None:
        """Says that it speaks HTTP/2."""
        self.http2.initiate_connection()
        if self._window is not None:
            self.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self._window})
        self.flush()

    def flush(self) -> None:
        self.send(self.http2.data_to_send())

    def send(self, data: bytes) -> None:
        if self._held is None:
            self._transport.write(data)
        else:
            self._held += data

    @contextmanager
    def in_one_piece(self) -> Iterator[None]:
        """What is sent inside arrives all at once."""
        self._held = held = bytearray()
        yield
        self._held = None
        self.send(bytes(held))

    def call(
        self,
        method: str,
        data: bytes = b"",
        *,
        end: bool = False,
        more: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Begins a call. Returns its stream's number."""
        stream_id = self.http2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", SERVICE + method)]
        headers += [(":authority", "x"), ("te", "trailers"), ("content-type", "application/grpc")]
        self.http2.send_headers(stream_id, [*headers, *more])
        if data:
            self.http2.send_data(stream_id, data, end_stream=end)
        self.flush()
        return stream_id

    def status(self, stream_id: int) -> str | None:
        """How the call ended, if it has."""
        for event in self.events:
            if isinstance(event, ResponseReceived | TrailersReceived):
                said = {str(name): str(value) for name, value in event.headers or ()}
                if event.stream_id == stream_id and "grpc-status" in said:
                    return said["grpc-status"]
        return None

    @property
    def was_told_to_go(self) -> bool:
        return any(isinstance(event, ConnectionTerminated) for event in self.events)

    def replies(self) -> int:
        return sum(isinstance(event, DataReceived) for event in self.events)


@asynccontextmanager
async def peer_of(
    settings: DistributorSettings | None = None, *, window: int | None = None
) -> AsyncIterator[tuple[Peer, Stub, Distributor]]:
    """A peer that speaks HTTP/2, an honest client on a connection of its own, the distributor."""
    async with distributor_channel(settings) as (client, distributor):
        peer = new_peer(distributor, window=window)
        peer.speak()
        yield peer, client, distributor


def new_peer(
    distributor: Distributor, *, window: int | None = None, address: str | None = None
) -> Peer:
    """One more, which has not spoken yet."""
    peer = Peer(window=window)
    join(peer, distributor.server._protocol_factory(), address)
    return peer


def limits(**values: object) -> DistributorSettings:
    return DistributorSettings.model_validate({"store": "memory:", **values})
