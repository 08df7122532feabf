"""HTTP/2 as grpclib has it, made cheaper, for either side of a connection."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import hyperframe.frame
from grpclib.config import Configuration
from grpclib.protocol import Connection, EventsProcessor, H2Protocol
from h2.connection import H2Connection
from h2.settings import SettingCodes
from h2.utilities import SizeLimitDict

from taskdist.limits import CLOSE_MAX_US, SECOND_US

PARTS_MAX = 12
"""What is gathered at most: four calls. With all calls of a long turn in one write, either side
would only begin when the other is done."""


CLOSED_STREAMS_KEPT = 1_024
"""Calls of a connection of which is known how they ended, for what comes late for them: ten times
as many as may be open at once. Each takes 120 bytes; h2's own 65,536 are 8 MiB for each connection
that lasts."""


def keeping_alive(plain: Configuration, time_us: int, timeout_us: int) -> Configuration:
    """A configuration which also says how a peer that is gone or frozen is noticed.

    grpclib asks its peers after two hours whether they are there, or never, and only during a call.

    Args:
        plain: the same without that.
        time_us: how often it is asked.
        timeout_us: how long it has to answer.
    """
    return replace(
        plain,
        _keepalive_time=time_us / SECOND_US,
        _keepalive_timeout=timeout_us / SECOND_US,
        _keepalive_permit_without_calls=True,
        _http2_max_pings_without_data=0,  # as many as need be
        # Longer than none, or grpclib would take it for a mistake.
        _http2_min_sent_ping_interval_without_data=1e-6,
    )


class GatheringProtocol(H2Protocol):
    """grpclib's protocol, with one write for what a turn of the event loop has to say.

    grpclib writes each frame by itself: three system calls for a unary call, each of which lets go
    of the interpreter and has to get it back from other threads.

    Args:
        plain: what grpclib would use; not used any further.
        said: HTTP/2 settings to tell the peer besides the windows. Frames over 16 KiB are for peers
            that are trusted: h2 has the same limit for each piece of a block of headers, whose
            decoding takes time in the square of its length.
    """

    def __init__(self, plain: H2Protocol, said: Mapping[SettingCodes, int]) -> None:
        super().__init__(plain.handler, plain.config, plain.h2_config)
        self._said = {
            SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size,
            **said,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there.

        As grpclib does it, but all settings are said in one frame. They would be three, each with
        an answer of its own: a seventh of what it takes to begin a connection, on either side.
        """
        http2 = H2Connection(self.h2_config)
        for setting, value in self._said.items():
            http2.local_settings[setting] = value
        http2.local_settings.acknowledge()  # They hold at once: the peer hears of nothing else.
        http2.max_inbound_frame_size = http2.local_settings.max_frame_size
        http2._closed_streams = SizeLimitDict(size_limit=CLOSED_STREAMS_KEPT)
        http2.initiate_connection()
        wanted = self.config.http2_connection_window_size - http2.inbound_flow_control_window
        if wanted:
            http2.increment_flow_control_window(wanted)
        gathering: Any = GatheringTransport(cast(asyncio.Transport, transport))
        self.connection = Connection(http2, gathering, config=self.config)
        self.connection.flush()
        self.connection.initialize()
        self.processor = EventsProcessor(self.handler, self.connection)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone.

        Calls are told once. After a GOAWAY grpclib tells them again, and then each counts a cancel
        that its caller never made, and that a timeout of the caller's takes for its own.
        """
        if hasattr(self.processor, "processors"):  # It has none any more once it was closed.
            super().connection_lost(exc)


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
        """Writes what is left, then closes; a peer that does not read is not waited for long."""
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(CLOSE_MAX_US / SECOND_US, self._transport.abort)

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's own."""
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            if not self._transport.is_closing():  # uvloop would raise where asyncio is silent.
                self._transport.write(data)


SHOWN_BYTES = 10
"""What hyperframe shows of a frame's data."""

_shown = hyperframe.frame._raw_data_repr


def _start_shown(data: bytes | None) -> str:
    # One more, or it would not show that it is cut.
    return _shown(data and data[: SHOWN_BYTES + 1])


# h2 makes a text of each frame that it receives, for a log that is off, and of the text's data all
# but the first ten bytes are thrown away. The text is the same, and not a quarter of the time of
# whoever receives large tasks.
hyperframe.frame._raw_data_repr = _start_shown
