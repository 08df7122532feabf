"""How soon thousands of agents are back after their distributor was killed, and how evenly."""

import asyncio
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from scripts.benching.measured import Failed, Figure
from scripts.benching.players import Player, distributor
from taskdist.client import Stub
from taskdist.core.task import TaskState
from taskdist.reports import Submission

AGENTS = 5_000
PROCESSES = 5
"""Of agents."""

HELD = 1_000
"""Agents that are at work when it is killed: each has a second connection, for its heartbeat."""

AWAY_S = (1.0, 10.0)
"""Until it is started again: soon, when its agents' pauses are still short and close together, and
late, when they are the longest. Not so late that leases are given up."""

HELD_WORK_S, WORK_S = 120, 20
"""What a task takes that is held all the while, and one that shows that its agent is back."""

BEAT_S = 12.0
"""After so long who holds a lease has sent a heartbeat."""

PATIENCE_S = 180.0
LOOK_S = 0.05
BIN_S = 0.1


def returning() -> list[Figure]:
    """5,000 agents of one slot, of which 1,000 are at work, lose their distributor to a SIGKILL.

    They are back when all their connections are there again, and a Ping after that is answered:
    then their hellos are read. To prove it a task for each idle agent is submitted, and each has to
    be begun by another one, while those that were at work go on: no task may begin twice. Some
    three minutes a run.
    """
    return [figure for away_s in AWAY_S for figure in _returning(away_s)]


def _returning(away_s: float) -> list[Figure]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as folder, ExitStack() as stack:
        store = Path(folder) / "tasks.db"
        with distributor(store=store, listen=listen) as (player, address):
            crowd = stack.enter_context(_crowd(address))
            _until(lambda: player.sockets() >= AGENTS, "all are connected")
            asyncio.run(_submit_and_see_leased(address, HELD, HELD, HELD_WORK_S))
            time.sleep(BEAT_S)
            player.process.kill()
            player.process.wait()
        time.sleep(away_s)
        with distributor(store=store, listen=listen) as (player, address):
            began_at, began_cpu_s = time.monotonic(), player.cpu_s()
            half_s = _until(lambda: player.sockets() >= (AGENTS + HELD) // 2, "half are back")
            _until(lambda: player.sockets() >= AGENTS + HELD, "all are connected again")
            asyncio.run(_ping(address))
            took_s, cpu_s = time.monotonic() - began_at, player.cpu_s() - began_cpu_s
            asyncio.run(_submit_and_see_leased(address, AGENTS - HELD, AGENTS, WORK_S))
            ends = _ends(crowd)
    runs, agents = (sum(end[name] for end in ends) for name in ("begun", "agents"))
    if (runs, agents) != (AGENTS, AGENTS):
        raise Failed(f"{AGENTS} tasks were begun {runs} times, by {agents} agents")
    tried = sorted(at - began_at for end in ends for at in end["tried"])
    after = [at for at in tried if 0 <= at < took_s]
    busiest = max(Counter(int(at / BIN_S) for at in after).values())
    name = f"5,000 agents, away {away_s:g} s"
    return [
        Figure(f"{name}: all back after, s", took_s, "≤ 15"),
        Figure("… half of their connections after, s", half_s),
        Figure("… the distributor's processor time for it, s", cpu_s),
        Figure("… connections tried in the busiest 0.1 s", busiest),
        Figure("… of, in all", len(after)),
        Figure("… longest time without a try, s", max(b - a for a, b in pairwise([0, *after]))),
    ]


@contextmanager
def _crowd(address: str) -> Iterator[list[Player]]:
    """The agents, started."""
    with ExitStack() as stack:
        crowd = []
        for number in range(PROCESSES):
            arguments = [address, f"bench-{number}", str(AGENTS // PROCESSES), str(WORK_S)]
            part = Player(["-m", "scripts.benching.crowd", *arguments])
            stack.callback(part.process.wait)
            stack.callback(part.process.kill)
            crowd.append(part)
        for part in crowd:
            part.until("agents started", PATIENCE_S)
        yield crowd


def _ends(crowd: Sequence[Player]) -> list[dict[str, Any]]:
    """Stops the agents at once; what they say at their end."""
    stopped = time.monotonic()
    for pause_s in (1.0, 0.0):  # The second signal has them hand back what they hold.
        for part in crowd:
            part.process.send_signal(signal.SIGTERM)
        time.sleep(pause_s)
    ends = [part.until("done", PATIENCE_S) for part in crowd]
    for end in ends:
        # What one hands back another may take that has not heard of the stop yet.
        end["begun"] = sum(at < stopped for at in end["began"])
    return ends


async def _ping(address: str) -> None:
    async with Stub(address, timeout_s=PATIENCE_S) as client:
        await client.ping()


async def _submit_and_see_leased(address: str, count: int, leased: int, work_s: int) -> None:
    """Submits so many tasks, and returns when so many are leased."""
    data = str(work_s).encode()
    async with Stub(address, timeout_s=PATIENCE_S) as client:
        for _ in range(count // 1_000):
            await client.submit_many([Submission("free", work_s, data)] * 1_000)
        end = time.monotonic() + PATIENCE_S
        seen = 0
        while seen < leased:
            if time.monotonic() > end:
                raise Failed(f"{seen} of {leased} tasks are leased")
            await asyncio.sleep(1)  # To look at all of them costs the distributor a tenth.
            tasks = client.list_tasks(states=[TaskState.LEASED], page_size=1_000)
            seen = len([task async for task in tasks])


def _until(met: Callable[[], bool], what: str) -> float:
    """How long it took, seconds."""
    begin = time.monotonic()
    while not met():
        if time.monotonic() > begin + PATIENCE_S:
            raise RuntimeError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(LOOK_S)
    return time.monotonic() - begin
