"""One connection of a peer that may be anybody: what grpclib and h2 leave open is closed here.

Each part names the upstream issue or the advisory that it answers. It knows nothing of calls'
contents: `transport.py` does, and makes one `PeerProtocol` per connection.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import structlog
from grpclib.protocol import EventsProcessor, H2Protocol, Stream
from h2 import events
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
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


class Flood(ProtocolError):
    """A peer sends too much of what costs it nothing. Its connection ends."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class Rate:
    """So many in a second, and no more.

    Args:
        name: what is counted.
        per_second: the limit.
    """

    def __init__(self, name: str, per_second: int) -> None:
        self._name = name
        self._per_second = self._left = per_second
        self._since_s = time.monotonic()

    def spend(self) -> None:
        """One more.

        Raises:
            Flood: there were too many.
        """
        self._left -= 1
        if self._left < 0:
            # Only now, since a look at the clock costs more than all the rest.
            now_s = time.monotonic()
            if now_s - self._since_s < 1:
                raise Flood(f"more than {self._per_second} {self._name} in a second")
            self._since_s, self._left = now_s, self._per_second


class Frames(FrameBuffer):
    """The frames of a connection, as far as they may be looked at.

    - Frames of an unknown type are ignored (RFC 9113, section 5.5); h2 has an event for them, of
      which grpclib knows nothing and drops the connection.
    - Floods end the connection: rapid reset (CVE-2023-44487), and PING, SETTINGS, empty DATA,
      PRIORITY, unknown frames (CVE-2019-9512 to 9518).
    - A block of headers has a limit: h2 joins 64 frames of it, and to decode them takes seconds.
    """

    def __init__(self, settings: DistributorSettings, resets: Rate) -> None:
        super().__init__(server=True)
        self._header_bytes_max = settings.header_bytes_max
        self._header_bytes = 0
        self._resets = resets
        self._control = Rate("frames without a use", settings.control_frames_per_second_max)

    def __next__(self) -> Frame:
        """The next frame that is whole and of use."""
        while True:
            frame = super().__next__()
            sort = type(frame)
            if sort is HeadersFrame or sort is WindowUpdateFrame:
                return frame
            if sort is DataFrame:
                if not frame.body_len and "END_STREAM" not in frame.flags:
                    self._control.spend()
                return frame
            if sort is RstStreamFrame:
                self._resets.spend()
                return frame
            self._control.spend()
            if sort is not ExtensionFrame:
                return frame

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        if isinstance(f, HeadersFrame):
            self._header_bytes = len(f.data)
        elif isinstance(f, ContinuationFrame):
            self._header_bytes += len(f.data)
        if self._header_bytes > self._header_bytes_max:
            raise Flood(f"headers of more than {self._header_bytes_max} bytes")
        return super()._update_header_buffer(f)


class Processor(EventsProcessor):
    """What becomes of h2's events, streams included.

    Args:
        resets: counts streams that ended badly, whoever found that they did (CVE-2025-8671).
        peer_speaks: is called when the peer's first settings are there.
    """

    def __init__(self, plain: EventsProcessor, resets: Rate, peer_speaks: Callable[[], None]):
        super().__init__(plain.handler, plain.connection)
        self._resets = resets
        self._peer_speaks = peer_speaks

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
        super().process_request_received(event)
        stream = self.streams[event.stream_id]
        call: asyncio.Task[None] = self.handler._tasks[stream]  # type: ignore[attr-defined]
        call.add_done_callback(lambda _: self._release(stream))

    def process_remote_settings_changed(self, event: events.RemoteSettingsChanged) -> None:
        """The peer speaks HTTP/2."""
        self._peer_speaks()
        super().process_remote_settings_changed(event)

    def process_stream_reset(self, event: events.StreamReset) -> None:
        """A stream ended badly. Those that the peer reset were counted as frames."""
        super().process_stream_reset(event)
        if not event.remote_reset:
            self._resets.spend()

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
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # --- as asyncio's protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        super().connection_made(transport)
        resets = Rate("reset streams", self._settings.resets_per_second_max)
        self.processor = Processor(self.processor, resets, self._peer_speaks)
        http2 = self.connection._connection
        http2.incoming_buffer = Frames(self._settings, resets)
        streams_max = self._settings.streams_per_connection_max
        http2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams_max})
        self.connection.flush()
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self._connections[self._address] += 1
        if self._connections[self._address] > self._settings.connections_per_address_max:
            self._cut(f"more than {self._settings.connections_per_address_max} of one address")
            return
        self._later("handshake", self._settings.handshake_us, self._never_spoke)
        self._later("idle", self._settings.idle_connection_us, self._look_whether_idle)

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
        if not self.connection.is_closing():
            self.connection.flush()

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
