"""Figures over long queues: how fast, how large, how responsive, and how soon after a restart.

Checked in each store at its end: the agents ran every task that they ran once; by the
distributor's own count so many succeeded, and all others that were submitted wait. A level is how
many tasks still wait when the measured ones have been worked, so it is never less than that.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benching.loads import check_in_part, submit_batches
from scripts.benching.measured import Failed, Figure
from scripts.benching.players import Player, counting_agent, distributor, prober

DATA = b"x" * 1_024
SLOTS = 512
FEW = 1_000
MANY = 1_000_000
WORKED = 20_000
"""Tasks that are worked for one rate."""

LEVELS = (1_000, 10_000, 100_000, 300_000, 1_000_000)
LEVEL_WORKED = 10_000


@dataclass
class Backlog:
    """What has to be in a store, and how it got there."""

    submitted: int = 0
    worked: int = 0

    def fill(self, address: str, waiting: int) -> None:
        """Submits until so many wait."""
        missing = waiting - (self.submitted - self.worked)
        asyncio.run(submit_batches(address, missing, data=DATA, together=500))
        self.submitted += missing

    def work(self, address: str, count: int) -> float:
        """Works so many, and what an agent holds when it stops; how fast."""
        with counting_agent(address, slots=SLOTS, count=count) as agent:
            return float(self.note(agent, count)["rate"])

    def note(self, agent: Player, count: int) -> dict[str, Any]:
        """What the agent says at its end."""
        line = agent.until("done")
        if not line["runs"] == line["tasks"] >= count:
            raise Failed(f"{count} to work, but {line['tasks']} were run, {line['runs']} times")
        self.worked += line["runs"]
        return line

    def work_probed(self, address: str, count: int) -> dict[str, Any]:
        """The same while a prober asks; what it found."""
        with prober(address, "ping", "submit", "get") as probe:
            self.work(address, count)
            probe.stop()
            found = probe.until("probed")
        self.submitted += found["submitted"]
        return found

    def check(self, address: str) -> None:
        """All that was submitted is there, and as often worked as the agents say."""
        counts = check_in_part(address, submitted=self.submitted, worked=self.worked)
        asyncio.run(counts)


def million() -> list[Figure]:
    """A million waiting tasks of 1 KiB: rate, memory, stalls, and the restart. 2 to 4 minutes.

    20,000 are worked for the rate, then, the queue filled up again, 20,000 while a prober in a
    process of its own asks. Then the distributor is stopped, and started at once beside an agent
    that tries to connect: from before either process until the first handler. The first two are
    done in a small store as well, with 21,000 waiting at first and 1,000 in the end. Memory is the
    most that either process of the distributor had.
    """
    with distributor() as (_, address):
        few = Backlog()
        few.fill(address, FEW + WORKED)
        few_rate = few.work(address, WORKED)
        few.fill(address, FEW + WORKED)
        few_probe = few.work_probed(address, WORKED)
        few.check(address)
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as folder:
        store = Path(folder) / "tasks.db"
        many = Backlog()
        with distributor(store=store) as (player, address):
            many.fill(address, MANY + WORKED)
            many_rate = many.work(address, WORKED)
            many.fill(address, MANY + WORKED)
            many_probe = many.work_probed(address, WORKED)
            memory_mib = player.memory_most_mib()
        first_lease_s, memory_after_mib = _restart(store, address, many)
    longest_ms, few_longest_ms = (max(p["longest_ms"].values()) for p in (many_probe, few_probe))
    return [
        Figure("million waiting: lease + finish, tasks/s", many_rate),
        Figure("… at 1,000 waiting, tasks/s", few_rate),
        Figure("… in percent of that at 1,000 waiting", 100 * many_rate / few_rate, "≥ 65"),
        Figure("memory of the distributor, MiB", max(memory_mib, memory_after_mib), "≤ 200"),
        Figure("longest stall of any reply, ms", longest_ms, "≤ 50"),
        *(Figure(f"… of {name}, ms", ms) for name, ms in many_probe["longest_ms"].items()),
        Figure("… 99th percentile of all replies, ms", many_probe["p99_ms"]),
        Figure("… the prober's own loop late by, ms", many_probe["late_ms"]),
        Figure("… longest stall at 1,000 waiting, ms", few_longest_ms),
        Figure("start to first lease, s", first_lease_s, "≤ 5"),
    ]


def _restart(store: Path, address: str, backlog: Backlog) -> tuple[float, float]:
    """Seconds from the start to the first handler; the distributor's memory at most, MiB."""
    begin = time.monotonic()
    with (
        counting_agent(address, slots=SLOTS, count=SLOTS, wait=False) as agent,
        distributor(store=store, listen=address) as (player, _),
    ):
        first = backlog.note(agent, SLOTS)["began_at"]
        backlog.check(address)
        return first - begin, player.memory_most_mib()


def backlog() -> list[Figure]:
    """The rate at each level of one growing store, for a picture of it. About 2 minutes."""
    grown = Backlog()
    figures = []
    with distributor() as (_, address):
        for level in LEVELS:
            grown.fill(address, level + LEVEL_WORKED)
            rate = grown.work(address, LEVEL_WORKED)
            figures.append(Figure(f"lease + finish at {level:,} waiting, tasks/s", rate))
        grown.check(address)
    return figures
