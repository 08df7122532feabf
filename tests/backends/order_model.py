"""What taskdist promises of order and life, by brute force: a plain list, sorted when asked.

It shares no code with what it is compared with: no sort key, no tables, no lanes.
"""

from dataclasses import dataclass, field

SECOND_US = 1_000_000

LEASE_US = 2 * SECOND_US
HASTY_US = SECOND_US
HASTY_MAX = 3
MAX_LOST = 2
RUN_TIMEOUT_US = 5 * SECOND_US
"""Short ones, so that a few steps are enough to get there."""


@dataclass
class Held:
    """A lease."""

    lease_id: str
    agent_id: str
    started_us: int
    expires_us: int
    session: str = ""

    def extend(self, now_us: int) -> None:
        """Its term begins anew, within the run timeout and one term."""
        latest_us = self.started_us + RUN_TIMEOUT_US + LEASE_US
        self.expires_us = min(now_us + LEASE_US, latest_us)


@dataclass
class Row:
    """A task."""

    id: str
    tier: str
    est_us: int
    queue: str
    kind: str
    max_retries: int
    sequence: int
    enqueued_us: int
    state: str = "ready"
    retry_count: int = 0
    lost_count: int = 0
    hasty: int = 0
    attempt: int = 0
    held: Held | None = None
    history: list[tuple[int, str, str, str]] = field(default_factory=list)
    """(attempt, lease_id, outcome, state that it led to) of each lease that ended."""

    def end(self, outcome: str, state: str) -> None:
        """Its lease ends."""
        assert self.held is not None
        self.history.append((self.attempt, self.held.lease_id, outcome, state))
        self.held = None
        self.state = state


@dataclass
class Wait:
    """An agent that found nothing and waits."""

    token: str
    agent_id: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    slots: int
    until_us: int
    session: str = ""
    in_all: bool = False
    """Whether the leases that its session holds count among its slots."""


class Model:
    """All tasks, in the order of submission, and the line of those who wait."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.line: list[Wait] = []
        self.tiers: tuple[str, ...] = ()

    # --- the order ---

    def rank(self, row: Row) -> tuple[bool, int, int, int, int]:
        """The four rules, and the order of submission."""
        tiers = self.tiers
        tier_rank = tiers.index(row.tier) if row.tier in tiers else len(tiers)
        return (row.retry_count > 0, tier_rank, row.est_us, row.enqueued_us, row.sequence)

    def ready(self, queues: tuple[str, ...], kinds: tuple[str, ...] = ()) -> list[Row]:
        """What waits in these queues, of these kinds, the next one first."""
        rows = [row for row in self.rows if row.state == "ready" and row.queue in queues]
        return sorted((row for row in rows if not kinds or row.kind in kinds), key=self.rank)

    def position(self, row: Row) -> int:
        """Where a task stands in its queue."""
        return 1 + self.ready((row.queue,)).index(row) if row.state == "ready" else 0

    # --- what happens ---

    def lease(self, row: Row, lease_id: str, agent_id: str, now_us: int, session: str = "") -> None:
        """An agent gets a task."""
        row.state = "leased"
        row.attempt += 1
        row.held = Held(lease_id, agent_id, now_us, now_us + LEASE_US, session)

    def succeed(self, row: Row) -> None:
        """A success is final."""
        row.end("succeeded", "succeeded")

    def fail(self, row: Row, *, retryable: bool) -> None:
        """A failure is counted, and the age stays."""
        row.retry_count += 1
        again = retryable and row.retry_count <= row.max_retries
        row.end("failed", "ready" if again else "dead")

    def release(self, row: Row, now_us: int) -> None:
        """A hand-back counts only when it is hasty."""
        assert row.held is not None
        row.hasty += now_us - row.held.started_us < HASTY_US
        row.end("released", "ready" if row.hasty < HASTY_MAX else "dead")

    def expire(self, now_us: int) -> None:
        """Ends the leases whose time is up."""
        for row in self.rows:
            if row.held and row.held.expires_us <= now_us:
                row.lost_count += 1
                row.end("lost", "ready" if row.lost_count < MAX_LOST else "dead")

    def cancel(self, row: Row) -> None:
        """A live task ends."""
        if row.held:
            row.end("cancelled", "cancelled")
        row.state = "cancelled"

    def restart(self, now_us: int) -> None:
        """Every lease gets a full term; nobody waits any more."""
        self.line.clear()
        for row in self.rows:
            if row.held:
                row.held.extend(now_us)

    # --- those who wait ---

    def serve(self, now_us: int) -> list[tuple[str, list[str]]]:
        """Gives what is ready to those who wait for it, the longest waiting first.

        Returns:
            (token, ids of the tasks) of each agent that was served.
        """
        served = []
        for wait in list(self.line):
            if self.ready(wait.queues, wait.kinds):
                self.line.remove(wait)
                served.append((wait.token, self.give(wait, now_us)))
        return served

    def free_slots(self, asking: Wait) -> int:
        """How many tasks it may have now."""
        if not asking.in_all:
            return asking.slots
        whose = (asking.agent_id, asking.session)
        held = [row.held for row in self.rows if row.held]
        mine = [one for one in held if (one.agent_id, one.session) == whose]
        return max(0, asking.slots - len(mine))

    def give(self, asking: Wait, now_us: int) -> list[str]:
        """Leases what it may have of what is ready: the ids, the best first."""
        rows = self.ready(asking.queues, asking.kinds)[: self.free_slots(asking)]
        for row in rows:
            lease_id = f"{asking.token}-{row.sequence}-{row.attempt + 1}"
            self.lease(row, lease_id, asking.agent_id, now_us, asking.session)
        return [row.id for row in rows]

    def time_out(self, now_us: int) -> list[tuple[str, list[str]]]:
        """Those who waited long enough get nothing."""
        over = [wait for wait in self.line if wait.until_us <= now_us]
        self.line = [wait for wait in self.line if wait not in over]
        return [(wait.token, []) for wait in over]
