"""Figures with a thousand agents: idle, and busy with tasks of a second."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from scripts.benching.loads import check, done, submit_batches
from scripts.benching.measured import Failed, Figure
from scripts.benching.players import PATIENCE_S, Player, counting_agent, distributor
from taskdist.client import Stub
from taskdist.reports import Submission, Submitted

AGENTS = 1_000
PROCESSES = 2
"""Of agents. One would be busier than the distributor."""

IDLE_S = 20.0
SETTLE_S = 3.0
"""After the last connection, for its hello, and for what the start left to collect."""

WARM_TASKS = 100
SPREAD_PARTS = 40
ROUNDS_WARM, ROUNDS, ROUNDS_LEFT = 2, 20, 2
"""Of a task for each agent: before the measured ones, they, and so that none idles in them."""


def idle_agents() -> list[Figure]:
    """A thousand connected agents that have nothing to do. About half a minute.

    What one agent and a few tasks cost first is not counted: it comes once. Afterwards a task of
    two seconds for each agent is submitted in one commit, and each has to be worked by another
    agent: so all of them were connected, and none by an agent that came back.
    """
    with distributor() as (player, address):
        with counting_agent(address, slots=4, count=WARM_TASKS) as agent:
            asyncio.run(submit_batches(address, WARM_TASKS))
            done(agent, WARM_TASKS)
        before_mib = player.memory_mib()
        with _crowd(player, address, work_s=2) as crowd:
            cpu_s, begin = player.cpu_s(), time.monotonic()
            time.sleep(IDLE_S)
            percent = 100 * (player.cpu_s() - cpu_s) / (time.monotonic() - begin)
            each_kib = (player.memory_mib() - before_mib) * 1_024 / AGENTS
            asyncio.run(_submit_and_wait(address, AGENTS))
            time.sleep(1)
            ends = _ends(crowd, AGENTS)
        asyncio.run(check(address, AGENTS + WARM_TASKS))
    if (used := sum(end["agents"] for end in ends)) != AGENTS:
        raise Failed(f"only {used} of {AGENTS} agents were there to work")
    return [
        Figure("1,000 idle agents: percent of a core", percent, "≤ 5"),
        Figure("… memory of the distributor for each, KiB", each_kib, "≤ 60"),
    ]


def busy_agents() -> list[Figure]:
    """A thousand agents of one slot with tasks of one second: half a minute.

    They begin spread over a second, as agents that came at different times would; begun in one
    commit they would wait for each other for long. Ends still come in swarms, so the time is taken
    between two ends that are whole rounds apart, not how many end in a time. The tenth second is
    part of it, in which every agent makes its second connection, for its first heartbeat.
    """
    count = (ROUNDS_WARM + ROUNDS + ROUNDS_LEFT) * AGENTS
    with distributor() as (player, address):
        with _crowd(player, address, work_s=1) as crowd:
            cpu_s = player.cpu_s()
            asyncio.run(_submit_and_wait(address, count, spread_s=1))
            cpu_s = player.cpu_s() - cpu_s
            time.sleep(2)  # The last is leased last, and others may still be worked.
            ends = _ends(crowd, count)
        asyncio.run(check(address, count))
    ended = sorted(at for end in ends for at in end["ended"])
    first, last = ROUNDS_WARM * AGENTS - 1, (ROUNDS_WARM + ROUNDS) * AGENTS - 1
    took_s = ended[last] - ended[first]
    return [
        Figure("1,000 agents, tasks of 1 s, tasks/s", ROUNDS * AGENTS / took_s, "≥ 950"),
        Figure("… distributor, ms of a core per task", 1e3 * cpu_s / count),
    ]


@contextmanager
def _crowd(player: Player, address: str, *, work_s: float) -> Iterator[list[Player]]:
    """The agents, all connected to this distributor."""
    own = player.sockets()
    with ExitStack() as stack:
        crowd = []
        for number in range(PROCESSES):
            arguments = [address, f"bench-{number}", str(AGENTS // PROCESSES), str(work_s)]
            part = Player(["-m", "scripts.benching.crowd", *arguments])
            stack.callback(part.stop)
            crowd.append(part)
        for part in crowd:
            part.until("agents started")
        patience_ends = time.monotonic() + PATIENCE_S
        while player.sockets() - own < AGENTS:
            if time.monotonic() > patience_ends:
                raise RuntimeError(f"{player.sockets() - own} of {AGENTS} agents are connected")
            time.sleep(0.1)
        time.sleep(SETTLE_S)
        yield crowd


def _ends(crowd: list[Player], count: int) -> list[dict[str, Any]]:
    """Stops the agents; what they say at their end, which has to be so many tasks, each once."""
    for part in crowd:
        part.stop()
    ends = [part.until("done") for part in crowd]
    runs, tasks = (sum(end[name] for end in ends) for name in ("runs", "tasks"))
    if (runs, tasks) != (count, count):
        raise Failed(f"{count} tasks, but {tasks} were run, {runs} times")
    if lost := sum(part.heard("distributor lost") for part in crowd):
        raise Failed(f"agents lost their connection, {lost} times")
    return ends


async def _submit_and_wait(address: str, count: int, *, spread_s: float = 0) -> None:
    """Submits so many tasks, and returns when the one that is leased last is done.

    Args:
        spread_s: over which time the first for each agent come; 0: in one commit.
    """
    parts = SPREAD_PARTS if spread_s else 1
    sizes = [AGENTS // parts] * parts + [AGENTS] * (count // AGENTS - 1)
    async with Stub(address) as client:
        last = ""
        for number, size in enumerate(sizes):
            answers = await client.submit_many([Submission("free", 0.0, b"x" * 100)] * size)
            last = [answer.task_id for answer in answers if isinstance(answer, Submitted)][-1]
            if number < parts:
                await asyncio.sleep(spread_s / parts)
        async for _report in client.watch(last):
            pass
