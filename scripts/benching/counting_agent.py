"""An agent whose handler only counts: the real agent, without logs, that says how fast it was.

Run as `python -m scripts.benching.counting_agent HOST:PORT SLOTS COUNT`. Once it ran COUNT tasks
and every outcome is accepted, it logs `done`: its rate, how many tasks were different ones, and, of
tasks whose data is the time of their submit, how long ago that was when they began.
"""

import asyncio
import json
import sys
import time

from taskdist import interpreter, logs
from taskdist.agent.runtime import Agent
from taskdist.client import Client
from taskdist.reports import Work
from taskdist.settings import AgentSettings
from taskdist.signals import Signals


async def main(server: str, slots: int, count: int) -> None:
    settings = AgentSettings(server=server, slots=slots)
    began: list[float] = []
    ids: set[str] = set()
    waits_ms: list[float] = []

    async def handle(work: Work) -> bytes:
        now = time.monotonic()
        if not began:
            began.append(now)
        ids.add(work.task_id)
        if len(work.data) <= 32:
            waits_ms.append((now - float(work.data)) * 1e3)
        handled[0] += 1
        return b""

    handled = [0]
    agent = Agent("bench", settings, {"simulate": handle}, lambda: Client(server))
    running = asyncio.ensure_future(agent.run(Signals()))
    say({"event": "agent started"})
    while handled[0] < count or agent.held():  # noqa: ASYNC110 # an event would be measured too
        await asyncio.sleep(0.002)
    took_s = time.monotonic() - began[0]
    waits_ms.sort()
    say(
        {
            "event": "done",
            "rate": count / took_s,
            "runs": handled[0],
            "tasks": len(ids),
            "p50_ms": waits_ms[len(waits_ms) // 2] if waits_ms else 0,
            "p99_ms": waits_ms[len(waits_ms) * 99 // 100] if waits_ms else 0,
        }
    )
    await running


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    logs.configure("warning")
    interpreter.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), "asyncio")
