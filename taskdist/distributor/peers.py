"""One connection of a peer that may be anybody: what grpclib and h2 leave open is closed here.

Each part names the upstream issue or the advisory that it answers. It knows nothing of calls'
contents: `transport.py` does, and makes one `PeerProtocol` per connection.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import cast

import structlog
from grpclib.protocol import Buffer, EventsProcessor, H2Protocol, Stream, UnackedData
from grpclib.server import Handler
from h2 import events
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from taskdist.settings import SECOND_US, DistributorSettings
from taskdist.wire.http2 import GatheringProtocol

log = structlog.get_logger()


REQUIRED_HEADERS = {":method", ":path"}
"""What grpclib reads of each request without a look whether it is there."""

TIMEOUT_LENGTH_MAX = 9
"""Characters of a `grpc-timeout`: 8 digits and a unit ("Requests" of gRPC over HTTP/2)."""

FRAMES_PER_TURN = 128
"""After so many a peer's frames wait for the event loop's next turn. asyncio reads 256 KiB at once;
that may be 26,000 frames of a byte each, a second in which nobody else is served."""

HEADER_BYTES_PER_FRAME = 128
"""So many bytes of headers count as one more frame of a turn: to decode them takes as long."""

JOINED_BYTES_MAX = 1_024
"""Pieces of a message are joined up to this size: each by itself takes 200 bytes of memory."""


class Flood(ProtocolError):
    """A peer sends too much of what costs it nothing. Its connection ends."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class Rate:
    """So many in a second in the long run, and a few more at once (a token bucket).

    Args:
        name: what is counted.
        per_second: the limit.
        clock: tells seconds.
        at_once: so many may come before the limit tells; a second's worth unless given.
    """

    def __init__(
        self, name: str, per_second: int, clock: Callable[[], float], at_once: int | None = None
    ) -> None:
        self._name = name
        self._clock = clock
        self._per_second = per_second
        self._at_once = at_once or per_second
        self._left: float = self._at_once
        self._since_s = clock()

    def spend(self) -> None:
        """One more.

        Raises:
            Flood: there were too many.
        """
        self._left -= 1
        if self._left < 0:
            # Only now, since a look at the clock costs more than all the rest.
            now_s = self._clock()
            self._left += (now_s - self._since_s) * self._per_second
            self._left = min(self._left, self._at_once)
            self._since_s = now_s
            if self._left < 0:
                raise Flood(f"more than {self._per_second} {self._name} in a second")


class Frames(FrameBuffer):
    """The frames of a connection, as far as they may be looked at.

    - Frames of an unknown type are ignored (RFC 9113, section 5.5); h2 has an event for them, of
      which grpclib knows nothing and drops the connection.
    - Floods end the connection: rapid reset (CVE-2023-44487), and PING, SETTINGS, empty DATA,
      PRIORITY, unknown frames (CVE-2019-9512 to 9518).
    - A frame that is too long is refused at its length: h2 waits for all of its 16 MiB.
    - A block of headers has a limit: h2 joins 64 frames of it, and to decode them takes seconds.
    - A turn has a limit, so that who sends very many is not the only one who is served.

    Args:
        header_bytes_max: the limit of a block of headers.
        resets: counts the streams that the peer resets.
        useless: counts what costs the peer nothing and brings it nothing.
    """

    def __init__(self, header_bytes_max: int, resets: Rate, useless: Rate) -> None:
        super().__init__(server=True)
        self.is_held = False
        """Whether the turn ended before the frames did."""
        self._left_in_turn = 0
        self._header_bytes_max = header_bytes_max
        self._header_bytes = 0
        self._resets = resets
        self._useless = useless

    def __iter__(self) -> "Frames":
        """Begins a turn."""
        self.is_held = False
        self._left_in_turn = FRAMES_PER_TURN
        return self

    def __next__(self) -> Frame:
        """The next frame of this turn that is whole and of use."""
        while True:
            if self._left_in_turn <= 0:
                self.is_held = True
                raise StopIteration
            self._left_in_turn -= 1
            if int.from_bytes(self._data[:3]) > self.max_frame_size and len(self._data) >= 3:
                raise FrameTooLargeError(f"a frame of more than {self.max_frame_size} bytes")
            frame = super().__next__()
            sort = type(frame)
            if sort is HeadersFrame or sort is WindowUpdateFrame:
                return frame
            if isinstance(frame, DataFrame):
                if not frame.data and "END_STREAM" not in frame.flags:  # however padded
                    self._useless.spend()
                return frame
            if sort is RstStreamFrame:
                self._resets.spend()
                return frame
            self._useless.spend()
            if sort is not ExtensionFrame:
                return frame

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        if isinstance(f, HeadersFrame):
            self._header_bytes = len(f.data)
        elif isinstance(f, ContinuationFrame):
            self._header_bytes += len(f.data)
        if self._header_bytes > self._header_bytes_max:
            raise Flood(f"headers of more than {self._header_bytes_max} bytes")
        whole = super()._update_header_buffer(f)
        if isinstance(whole, HeadersFrame):
            self._left_in_turn -= self._header_bytes // HEADER_BYTES_PER_FRAME
        return whole


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
        super().__init__(plain)
        self._settings = settings
        self._connections = connections
        self._address = ""
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
        self._frames = Frames(limits.header_bytes_max, resets, useless)
        http2.incoming_buffer = self._frames
        streams_max = limits.streams_per_connection_max
        http2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams_max})
        self.connection.flush()
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self._connections[self._address] += 1
        if self._connections[self._address] > limits.connections_per_address_max:
            self._cut(f"more than {limits.connections_per_address_max} of one address")
            return
        self._later("handshake", limits.handshake_us, self._never_spoke)
        self._later("idle", limits.idle_connection_us, self._look_whether_idle)

    def data_received(self, data: bytes) -> None:
        """Some more from the peer."""
        try:
            found = self.connection.feed(data)
            self.connection.flush()
            for event in found:
                self.processor.process(event)
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
        self._connections[self._address] -= 1
        if not self._connections[self._address]:
            del self._connections[self._address]  # An address costs nothing once it is gone.
        super().connection_lost(exc)

    # --- the peer's manners ---

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
