"""The frames of a connection, judged one by one, before HTTP/2's state sees them."""

from collections.abc import Callable

from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.frame_buffer import FrameBuffer
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

FRAMES_PER_TURN = 128
"""After so many a peer's frames wait for the event loop's next turn. asyncio reads 256 KiB at once;
that may be 26,000 frames of a byte each, a second in which nobody else is served."""

HEADER_BYTES_PER_FRAME = 128
"""So many bytes of headers count as one more frame of a turn: to decode them takes as long."""


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
      PRIORITY, unknown frames (CVE-2019-9512 to 9518), and WINDOW_UPDATE beyond all that was sent.
    - A frame that is too long is refused at its length: h2 waits for all of its 16 MiB.
    - A block of headers has a limit: h2 joins 64 frames of it, and to decode them takes seconds.
    - A turn has a limit, so that who sends very many is not the only one who is served.

    Args:
        header_bytes_max: the limit of a block of headers.
        resets: counts the streams that the peer resets.
        useless: counts what costs the peer nothing and brings it nothing.
        updates_earned: how many updates of its windows the peer has a use for so far.
    """

    def __init__(
        self,
        header_bytes_max: int,
        resets: Rate,
        useless: Rate,
        updates_earned: Callable[[], int],
    ) -> None:
        super().__init__(server=True)
        self.is_held = False
        """Whether the turn ended before the frames did."""
        self._left_in_turn = 0
        self._header_bytes_max = header_bytes_max
        self._header_bytes = 0
        self._resets = resets
        self._useless = useless
        self._updates = 0
        self._updates_allowed = 0
        self._updates_earned = updates_earned

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
            if sort is HeadersFrame:
                return frame
            if sort is WindowUpdateFrame:
                self._count_update()
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

    def close(self) -> None:
        """There are no more; lets go of the connection."""
        self._updates_earned = int

    def _count_update(self) -> None:
        """An update of a window that nothing has used is of no use."""
        self._updates += 1
        if self._updates > self._updates_allowed:
            self._updates_allowed = self._updates_earned()
            if self._updates > self._updates_allowed:
                self._updates -= 1
                self._useless.spend()

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
