"""What handlers say, on its way to the distributor: kept within bounds until it is sent."""

from threading import Lock
from typing import NamedTuple

from taskdist.limits import LINE_BYTES_MAX, AgentRunSettings


class Told(NamedTuple):
    """What one run said since the last time."""

    fraction: float | None
    """How far it is; None: not said."""
    text: str
    lines: tuple[str, ...]
    dropped: int
    """Lines that were too many."""


class _Untold:
    __slots__ = ("dropped", "fraction", "lines", "size", "text")

    def __init__(self) -> None:
        self.fraction: float | None = None
        self.text = ""
        self.lines: list[str] = []
        self.size = 0
        self.dropped = 0


class BoundedSink:
    """A `Sink` that holds what is said until `take`.

    The latest progress of a run replaces one that was not taken. Lines beyond the limits are
    dropped, and how many is told. What was said by a run that is over is kept until it is taken.
    """

    def __init__(self, settings: AgentRunSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._untold: dict[str, _Untold] = {}

    def progress(self, lease_id: str, fraction: float, text: str) -> None:
        """See `Sink.progress`."""
        with self._lock:
            untold = self._untold.setdefault(lease_id, _Untold())
            untold.fraction = fraction
            untold.text = _cut(text, LINE_BYTES_MAX)

    def log(self, lease_id: str, line: str) -> None:
        """See `Sink.log`."""
        settings = self._settings
        line = _cut(line, LINE_BYTES_MAX)
        with self._lock:
            untold = self._untold.setdefault(lease_id, _Untold())
            size = untold.size + len(line.encode(errors="replace"))
            if (
                size > settings.log_bytes_untold_max
                or len(untold.lines) >= settings.log_lines_untold_max
            ):
                untold.dropped += 1
            else:
                untold.size = size
                untold.lines.append(line)

    def take(self) -> dict[str, Told]:
        """All that was said since the last time, by lease."""
        with self._lock:
            untold, self._untold = self._untold, {}
        return {
            lease_id: Told(one.fraction, one.text, tuple(one.lines), one.dropped)
            for lease_id, one in untold.items()
        }

    def drop(self, lease_id: str) -> None:
        """Nobody wants to know any more what this run says."""
        with self._lock:
            self._untold.pop(lease_id, None)


def _cut(text: str, bytes_max: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= bytes_max else encoded[:bytes_max].decode(errors="ignore")
