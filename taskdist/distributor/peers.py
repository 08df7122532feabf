"""One connection of a peer that may be anybody: what grpclib and h2 leave open is closed here.

Each part says what it answers, with the upstream issue or the advisory where there is one. Its
frames are judged in `frames.py`. It knows nothing of calls' contents: `transport.py` does, and
makes one `PeerProtocol` per connection.
"""

import asyncio
import ipaddress
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, cast

import structlog
from grpclib.protocol import Buffer, EventsProcessor, H2Protocol, Stream, UnackedData
from grpclib.server import Handler
from h2 import events
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.exceptions import NoSuchStreamError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame

from taskdist.distributor.frames import Frames, Rate
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings
from taskdist.wire.http2 import GatheringProtocol

log = structlog.get_logger()


REQUIRED_HEADERS = {":method", ":path"}
"""What grpclib reads of each request without a look whether it is there."""

TIMEOUT_LENGTH_MAX = 9
"""Characters of a `grpc-timeout`: 8 digits and a unit ("Requests" of gRPC over HTTP/2)."""

UPDATES_PER_MESSAGE = 8
BYTES_PER_UPDATE = 256
"""Updates of its windows that a peer may send for each message or call, and besides for so many
bytes that it was sent. Those that update most do it twice for a frame, or for each read of 16 KiB.
"""

LATE_BYTES_MIN = 1_024
"""DATA for a call that is over may come in pieces of this size."""

_LATE_DATA = "_handle_data_on_closed_stream"

JOINED_BYTES_MAX = 1_024
"""Pieces of a message are joined up to this size: each by itself takes 200 bytes of memory."""


class Pieces(Buffer):
    """What has come of a stream and was not read yet.

    grpclib keeps each piece by itself, 200 bytes for one of them, and takes one of no bytes at all
    for the stream's end.
    """

    def add(self, data: bytes, window_bytes: int) -> None:
        """One more, and what it took of the flow control window."""
        if not window_bytes:
            return
        waiting: deque[UnackedData] = self._unacked._queue  # type: ignore[attr-defined] # asyncio's
        if waiting and waiting[-1].data_size + len(data) <= JOINED_BYTES_MAX:
            data = waiting[-1].data + data
            waiting[-1] = UnackedData(data, len(data), waiting[-1].ack_size + window_bytes)
        else:
            super().add(data, window_bytes)


NETWORK_BITS = 64
"""Of an IPv6 address; the others anybody chooses who has one of it (RFC 4291, section 2.5.1)."""


def counted_as(address: str) -> str:
    """As what a peer counts that speaks from this address: as itself, with IPv6 as its network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # Of another sort of socket.
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    network = int(parsed) >> 128 - NETWORK_BITS << 128 - NETWORK_BITS
    return f"{ipaddress.IPv6Address(network)}/{NETWORK_BITS}"


def _nobody_cares() -> None: ...


def _is_harmless(name: str, value: str) -> bool:
    """Whether grpclib can read this header; as to those that it cannot, nobody here needs them."""
    if name == "grpc-timeout":
        # A longer one breaks the rules of gRPC, and overflows: as good as no deadline.
        return len(value) <= TIMEOUT_LENGTH_MAX
    return not name.endswith("-bin")  # It leaves a call unanswered whose base64 is none.


class Processor(EventsProcessor):
    """What becomes of h2's events, streams included.

    Args:
        useless: counts streams that the peer made us reset (CVE-2025-8671).
        peer_speaks: is called when the peer's first settings are there.
    """

    def __init__(self, plain: EventsProcessor, useless: Rate, peer_speaks: Callable[[], None]):
        super().__init__(plain.handler, plain.connection)
        # Its own methods, which would keep it and the connection until a rare collection.
        plain.processors.clear()
        self._useless = useless
        self._peer_speaks = peer_speaks

    def close(self, reason: str = "Connection closed") -> None:
        """Ends all streams, and lets go of the connection: it shall be gone without a collection,
        which is rare (`interpreter.py`)."""
        super().close(reason)
        self._peer_speaks = _nobody_cares

    def process(self, event: events.Event) -> None:
        """An event of which grpclib does not know is none, and not the end of the connection."""
        if hasattr(self, "processors") and type(event) not in self.processors:
            return
        super().process(event)

    def process_request_received(self, event: events.RequestReceived) -> None:
        """A call that is cancelled before its first step is released as well.

        grpclib releases a stream at the end of the handler's own code, which then never ran (its
        issue #217): the stream stays for ever, and so does its part of the connection's window.
        A request without what HTTP/2 demands of it is an error in its logs, with a traceback.
        """
        assert event.stream_id is not None
        names = {name for name, _ in event.headers or ()}
        if not names >= REQUIRED_HEADERS:
            raise ProtocolError("a request without :method or :path")
        event.headers = [one for one in event.headers or () if _is_harmless(*map(str, one))]
        super().process_request_received(event)
        stream = self.streams[event.stream_id]
        stream.buffer = Pieces(stream.buffer._ack_callback)
        call = cast(Handler, self.handler)._tasks[stream]
        call.add_done_callback(lambda _: self._release(stream))

    def process_remote_settings_changed(self, event: events.RemoteSettingsChanged) -> None:
        """The peer speaks HTTP/2."""
        self._peer_speaks()
        super().process_remote_settings_changed(event)

    def process_stream_reset(self, event: events.StreamReset) -> None:
        """A stream ended badly. Those that the peer reset were counted as frames."""
        super().process_stream_reset(event)
        if not event.remote_reset:
            self._useless.spend()

    def _release(self, stream: Stream) -> None:
        assert stream.id is not None
        if self.streams.pop(stream.id, None) is not None and not self.connection.is_closing():
            self.connection.ack(stream.id, stream.buffer.unacked_size())


class PeerProtocol(GatheringProtocol):
    """A connection to a peer that may be slow, gone, broken or hostile.

    Args:
        plain: what grpclib would use; not used any further.
        settings: the limits.
        connections: how many there are of each address; counts itself.
    """

    def __init__(
        self, plain: H2Protocol, settings: DistributorSettings, connections: Counter[str]
    ) -> None:
        said = {SettingCodes.MAX_CONCURRENT_STREAMS: settings.streams_per_connection_max}
        super().__init__(plain, said)
        self._settings = settings
        self._connections = connections
        self._address = ""
        self._counted_as = ""
        self._streams_seen = 0
        self._is_held = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # --- as asyncio's protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        super().connection_made(transport)
        limits = self._settings
        clock = asyncio.get_running_loop().time
        resets = Rate(
            "reset streams", limits.resets_per_second_max, clock, limits.resets_at_once_max
        )
        useless = Rate("frames without a use", limits.control_frames_per_second_max, clock)
        self.processor = Processor(self.processor, useless, self._peer_speaks)
        http2 = self.connection._connection
        self._frames = Frames(limits.header_bytes_max, resets, useless, self._updates_earned)
        http2.incoming_buffer = self._frames
        self._count_late_data(useless)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self._counted_as = counted_as(self._address)
        self._connections[self._counted_as] += 1
        if self._connections[self._counted_as] > limits.connections_per_address_max:
            self._cut(f"more than {limits.connections_per_address_max} of one address")
            return
        self._later("handshake", limits.handshake_us, self._never_spoke)
        self._later("idle", limits.idle_connection_us, self._look_whether_idle)

    def data_received(self, data: bytes) -> None:
        """Some more from the peer."""
        try:
            found = self.connection.feed(data)
            self.connection.flush()
            for event in self._worth_beginning(found):
                self.processor.process(event)
        except NoSuchStreamError as error:  # Its text is a number.
            self._cut(f"a frame for the call {error.stream_id}, which is over or never was")
        except ProtocolError as error:
            self._cut(str(error))
        except UnicodeDecodeError:  # h2 lets it through.
            self._cut("headers that are not ASCII")
        if self.connection.is_closing():
            return
        self.connection.flush()
        if self._frames.is_held and not self._is_held:
            self._is_held = True
            self.connection._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _worth_beginning(self, found: list[events.Event]) -> list[events.Event]:
        """All but the begins of calls that the same turn takes back: a call that nobody waits for
        is not worth a stream and a task, half of what it would cost."""
        over = {event.stream_id for event in found if isinstance(event, events.StreamReset)}
        if not over:
            return found
        kept = [
            event
            for event in found
            if not (isinstance(event, events.RequestReceived) and event.stream_id in over)
        ]
        self.connection.streams_started += len(found) - len(kept)
        return kept

    def _go_on(self) -> None:
        """The next turn for frames that came too many for one."""
        self._is_held = False
        if self.connection.is_closing():
            return
        self.data_received(b"")
        if not (self._is_held or self.connection.is_closing()):
            self.connection._transport.resume_reading()

    def pause_writing(self) -> None:
        """The peer does not read, and what answers its frames piles up."""
        super().pause_writing()
        self._later("reading", self._settings.message_us, self._never_read)

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        self._timers["reading"].cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        for timer in self._timers.values():
            timer.cancel()
        self._connections[self._counted_as] -= 1
        if not self._connections[self._counted_as]:
            del self._connections[self._counted_as]  # An address costs nothing once it is gone.
        # Else they would hold each other, until a collection.
        del vars(self.connection._connection)[_LATE_DATA]
        self._frames.close()
        super().connection_lost(exc)

    # --- the peer's manners ---

    def _updates_earned(self) -> int:
        """How many updates of a window all that was sent to it may have brought so far."""
        sent = self.connection
        turns = sent.messages_sent + sent.streams_started
        return turns * UPDATES_PER_MESSAGE + sent.data_sent // BYTES_PER_UPDATE

    def _count_late_data(self, useless: Rate) -> None:
        """Small pieces for calls that are over count as useless, since each is answered.

        An honest peer has what was on its way when the call ended: full frames, and their rest.
        """
        http2 = self.connection._connection
        answer = http2._handle_data_on_closed_stream

        def counted(found: list[events.Event], error: StreamClosedError, frame: DataFrame) -> Any:
            if len(frame.data) < LATE_BYTES_MIN:
                useless.spend()
            return answer(found, error, frame)

        vars(http2)[_LATE_DATA] = counted

    def _later(self, name: str, delay_us: int, call: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(delay_us / SECOND_US, call)

    def _peer_speaks(self) -> None:
        self._timers["handshake"].cancel()

    def _never_spoke(self) -> None:
        self._cut("not a word of HTTP/2")

    def _never_read(self) -> None:
        self._cut("does not read")

    def _look_whether_idle(self) -> None:
        started = self.connection.streams_started
        if started == self._streams_seen and not self.processor.streams:
            self.connection.close()
            return
        self._streams_seen = started
        self._later("idle", self._settings.idle_connection_us, self._look_whether_idle)

    def _cut(self, reason: str) -> None:
        if self.connection.is_closing():
            return
        log.warning("connection cut", peer=self._address, reason=reason)
        http2 = self.connection._connection
        if http2.state_machine.state is not ConnectionState.CLOSED:  # where h2 has not said it
            http2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        self.connection.flush()
        self.processor.close(reason)
