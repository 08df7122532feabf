"""Does a store that forgets stay as it is? Five million tasks go through one that keeps 100,000.

Checked at the end: by the distributor's own count exactly those that it may keep are there, all of
them succeeded, and the agents ran every task that was submitted once.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from scripts.benching.loads import done, submit_batches
from scripts.benching.measured import Failed, Figure
from scripts.benching.players import counting_agent, distributor, prober
from taskdist.client import Stub
from taskdist.limits import MIB

KEPT = 100_000
ROUNDS = 10
ROUND = 500_000
SLOTS = 512
ROUND_S = 600.0
"""How long a round may take: some five times what it takes."""

WAIT_S = 30
"""How long forgetting may take after the last task, of which the last step is checked."""


def retention() -> list[Figure]:
    """Rate and file size in the first and the last of ten rounds, and the longest reply of all."""
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as folder:
        store = Path(folder) / "tasks.db"
        environ = os.environ | {"TASKDIST_FINISHED_KEPT_MAX": str(KEPT)}
        rates, sizes_mib, longest_ms, p99_ms = [], [], [], []
        with distributor(store=store, environ=environ) as (player, address):
            for _ in range(ROUNDS):
                with (
                    prober(address, "ping") as probe,
                    counting_agent(address, slots=SLOTS, count=ROUND) as agent,
                ):
                    asyncio.run(submit_batches(address, ROUND))
                    rates.append(done(agent, ROUND, ROUND_S))
                    probe.stop()
                    found = probe.until("probed")
                longest_ms.append(found["longest_ms"]["ping"])
                p99_ms.append(found["p99_ms"])
                sizes_mib.append(sum(file.stat().st_size for file in _files(store)) / MIB)
                sys.stdout.write(
                    f"  {rates[-1]:,.0f}/s, {sizes_mib[-1]:.0f} MiB, {longest_ms[-1]:.0f} ms\n"
                )
                sys.stdout.flush()
            asyncio.run(_check(address))
            memory_mib = player.memory_most_mib()
    return [
        Figure("retention: first 500,000, tasks/s", rates[0]),
        Figure("… last 500,000 of 5,000,000, tasks/s", rates[-1]),
        Figure("… file after the first, MiB", sizes_mib[0]),
        Figure("… file after the last, MiB", sizes_mib[-1]),
        Figure("… of the largest, percent of the second", 100 * max(sizes_mib) / sizes_mib[1]),
        Figure("… longest reply of Ping, ms", max(longest_ms), "≤ 50"),
        Figure("… 99th percentile at worst, ms", max(p99_ms)),
        Figure("… memory of the distributor, MiB", memory_mib),
    ]


def _files(store: Path) -> list[Path]:
    return list(store.parent.glob(f"{store.name}*"))


async def _check(address: str) -> None:
    """What is left is what may be kept."""
    end = time.monotonic() + WAIT_S
    async with Stub(address, batching=False) as client:
        while True:
            states = [task.state async for task in client.list_tasks(page_size=1_000)]
            if len(states) == KEPT or time.monotonic() > end:
                break
    if len(states) != KEPT or set(states) != {"succeeded"}:
        raise Failed(f"{KEPT} may be kept, {len(states)} are there: {set(states)}")
