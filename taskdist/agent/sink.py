"""What handlers say, from whatever thread, on its way to the feed: bounded, and in its order."""

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock

from taskdist.limits import LINE_BYTES_MAX
from taskdist.reports import Dropped, Entry, LogLine, Progress
from taskdist.settings import AgentRunSettings


class BoundedSink:
    """A `Sink` that holds what is said until `take`.

    A progress replaces one that stands right before it. Lines beyond the limits are dropped, and
    how many is said where they are missing.

    Args:
        settings: the limits.
        news: told, in the thread of whoever spoke, that there is something to take.
    """

    def __init__(self, settings: AgentRunSettings, news: Callable[[], None]) -> None:
        self._settings = settings
        self._news = news
        self._lock = Lock()
        self._untold: dict[str, _Untold] = {}

    def progress(self, lease_id: str, fraction: float, text: str) -> None:
        """See `Sink.progress`."""
        self._add(lease_id, Progress(fraction, _cut(text), _now()))

    def log(self, lease_id: str, line: str) -> None:
        """See `Sink.log`."""
        self._add(lease_id, LogLine(_cut(line), _now()))

    def take(self) -> dict[str, tuple[Entry, ...]]:
        """All that was said since the last time, by lease."""
        with self._lock:
            untold, self._untold = self._untold, {}
        return {lease_id: tuple(one.entries) for lease_id, one in untold.items()}

    def _add(self, lease_id: str, entry: Progress | LogLine) -> None:
        with self._lock:
            is_news = not self._untold
            self._untold.setdefault(lease_id, _Untold()).add(entry, self._settings)
        if is_news:
            self._news()


class _Untold:
    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.size = 0

    def add(self, entry: Progress | LogLine, settings: AgentRunSettings) -> None:
        last = self.entries[-1] if self.entries else None
        size = len(entry.text.encode())
        if isinstance(entry, Progress) and isinstance(last, Progress):
            self.size -= len(last.text.encode())
            self.entries.pop()
        elif (
            self.size + size > settings.log_bytes_untold_max
            or len(self.entries) >= settings.log_lines_untold_max
        ):
            if isinstance(last, Dropped):
                self.entries[-1] = Dropped(last.count + 1)
            else:
                self.entries.append(Dropped(1))
            return
        self.size += size
        self.entries.append(entry)


def _now() -> datetime:
    return datetime.now(UTC)


def _cut(text: str) -> str:
    """As much as is kept, in characters that can be sent."""
    encoded = text.encode(errors="replace")[:LINE_BYTES_MAX]
    return encoded.decode(errors="ignore")
