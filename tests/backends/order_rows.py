"""What the model of `order_model.py` keeps: what was asked for, tasks, leases, and who waits."""

from dataclasses import dataclass, field, replace
from typing import Any

SECOND_US = 1_000_000

LEASE_US = 2 * SECOND_US
HASTY_US = SECOND_US
HASTY_MAX = 2
MAX_LOST = 2
RUN_TIMEOUT_US = 5 * SECOND_US
RETENTION_US = 30 * SECOND_US
DEAD_RETENTION_US = 90 * SECOND_US
FINISHED_KEPT_MAX = 3
DEAD_KEPT_MAX = 2
WAITING_MAX = 8
WAITING_BYTES_MAX = 1024 * 1024
SESSION_LEASES_MAX = 3
ENTRIES_MAX = 3
ENTRY_BYTES_MAX = 4_096
ENTRIES_AT_ONCE = 4
ENTRIES_PER_SECOND = 2
"""Short and few, so that a few steps are enough to get there."""


@dataclass(frozen=True)
class Wish:
    """All that a submitter says. What is None or 0 is not said."""

    id: str
    is_clients: bool
    """Whether the client made the id."""
    key: str | None
    tier: str
    est_us: int
    queue: str
    kind: str
    max_retries: int
    data_bytes: int
    delay_us: int = 0
    not_before_us: int = 0
    deadline_in_us: int = 0
    deadline_us: int | None = None
    backoff: str = "none"
    backoff_us: int = 0
    backoff_max_us: int = 0
    jitter_percent: int = 0
    lease_us: int | None = None
    run_timeout_us: int | None = None

    @property
    def data(self) -> bytes:
        """That of another task mostly differs."""
        text = f"{self.tier} {self.est_us} {self.queue} {self.kind} {self.max_retries} ".encode()
        return (text * (self.data_bytes // len(text) + 1))[: self.data_bytes]

    def has_key(self, queue: str, key: str) -> bool:
        """Whether this is its key, in this queue."""
        return (self.queue, self.key) == (queue, key)

    @property
    def content(self) -> "Wish":
        """What two submits must agree in to be the same."""
        return replace(self, id="", is_clients=False, key=None)

    @property
    def is_named(self) -> bool:
        """Whether it can be repeated."""
        return self.is_clients or self.key is not None


@dataclass
class Held:
    """A lease."""

    token: str
    agent_id: str
    session: str
    started_us: int
    expires_us: int


@dataclass(frozen=True)
class Ended:
    """A lease that has ended, and how."""

    attempt: int
    token: str
    agent_id: str
    outcome: str
    led_to: str
    error: str
    ended_us: int
    """Wall clock."""


class Log:
    """What its agents said: every line that there ever was, and which of them are kept."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int, str]] = []
        """Attempt, step, text."""
        self.is_kept: list[bool] = []
        self._taken: dict[int, int] = {}

    def taken(self, attempt: int) -> int:
        """How many of an attempt were kept when they came."""
        return self._taken.get(attempt, 0)

    def add(self, attempt: int, text: str, *, is_kept: bool) -> None:
        """One more line; then the oldest go."""
        step = 1 + sum(one == attempt for one, *_ in self.lines)
        self.lines.append((attempt, step, text))
        self.is_kept.append(is_kept)
        self._taken[attempt] = self.taken(attempt) + is_kept

    def cut(self) -> None:
        """The oldest go until there are few and short ones."""
        while self.kept_count() > ENTRIES_MAX or self.kept_bytes() > ENTRY_BYTES_MAX:
            self.is_kept[self.is_kept.index(True)] = False

    def kept_count(self) -> int:
        """How many."""
        return sum(self.is_kept)

    def kept_bytes(self) -> int:
        """How much text."""
        kept = zip(self.lines, self.is_kept, strict=True)
        return sum(len(text) for (*_, text), is_kept in kept if is_kept)

    @property
    def kept(self) -> list[tuple[int, int, str]]:
        """What is there to be read: what is kept, and a mark without text at the end of an attempt
        whose last line is not."""
        found = []
        for place, (line, is_kept) in enumerate(zip(self.lines, self.is_kept, strict=True)):
            is_last = place + 1 == len(self.lines) or self.lines[place + 1][0] != line[0]
            if is_kept:
                found.append(line)
            elif is_last:
                found.append((line[0], line[1], ""))
        return found


@dataclass
class Row:
    """A task. Times are on the wall clock unless said."""

    wish: Wish
    number: int
    """In the order of submission."""
    state: str
    enqueued_us: int
    """0 before its first time."""
    due_us: int | None = None
    backoff_until_us: int | None = None
    """Served clock."""
    drawn_from_us: tuple[int, int] | None = None
    """The bounds of a backoff whose length is left to chance, until it is known."""
    deadline_us: int | None = None
    finished_us: int | None = None
    retry_count: int = 0
    lost_count: int = 0
    hasty: int = 0
    attempt: int = 0
    held: Held | None = None
    result: bytes = b""
    history: list[Ended] = field(default_factory=list)
    log: Log = field(default_factory=Log)
    sequence: int | None = None
    """What the store numbered it; known when that has spoken."""

    @property
    def id(self) -> str:
        """Its name."""
        return self.wish.id

    @property
    def waits(self) -> bool:
        """Whether it counts among those that wait."""
        return self.state in ("ready", "scheduled")

    @property
    def term_us(self) -> int:
        """How long its leases last without a heartbeat."""
        return self.wish.lease_us or LEASE_US

    def lease_id(self, token: str, attempt: int) -> str:
        """What the lease of this attempt is called."""
        return f"{token}-{self.sequence}-{attempt}"

    @property
    def held_id(self) -> str:
        """What its lease is called."""
        assert self.held is not None
        return self.lease_id(self.held.token, self.attempt)

    def backoff_us(self) -> tuple[int, int]:
        """The shortest and the longest that its next retry may wait by its own backoff."""
        wish = self.wish
        delay_us = 0 if wish.backoff == "none" else wish.backoff_us
        for _ in range(self.retry_count - 1):
            if wish.backoff == "exponential":
                delay_us = min(2 * delay_us, wish.backoff_max_us)
        return (delay_us * (100 - wish.jitter_percent) // 100, delay_us)

    def extend(self, now_us: int) -> None:
        """Its lease's term begins anew, within the run timeout and one term."""
        assert self.held is not None
        run_us = self.wish.run_timeout_us or RUN_TIMEOUT_US
        latest_us = self.held.started_us + run_us + self.term_us
        self.held.expires_us = min(now_us + self.term_us, latest_us)


@dataclass
class Wait:
    """An agent that asks for tasks."""

    token: str
    agent_id: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    slots: int
    wait_us: int = 0
    session: str = ""
    in_all: bool = False
    """Whether the leases that its session holds count among its slots."""
    until_us: int = 0


Answer = Any
"""What is said of an answer: a refusal's name, or what matters of it as plain values."""
