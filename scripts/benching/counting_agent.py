"""An agent whose handler only counts: the real agent, without logs, that says how fast it was.

Run as `python -m scripts.benching.counting_agent HOST:PORT SLOTS COUNT`. Once COUNT outcomes are
accepted it drains: if more tasks wait, it runs those that it holds too. Then it logs `done`: its
rate over COUNT, all its runs, how many tasks were different ones, when the first began (by the
machine's monotonic clock), and, of tasks whose data is the time of their submit, how long ago that
was when they began.
"""

import asyncio
import json
import signal
import sys
import time

from taskdist import interpreter, logs
from taskdist.agent.context import Context
from taskdist.agent.registry import Registry
from taskdist.agent.runtime import Agent
from taskdist.client import Stub
from taskdist.settings import AgentSettings
from taskdist.signals import Signals


async def main(server: str, slots: int, count: int) -> None:
    settings = AgentSettings(server=server, slots=slots)
    began: list[float] = []
    ids: set[str] = set()
    waits_ms: list[float] = []

    registry = Registry()

    @registry.handler
    async def simulate(data: bytes, ctx: Context) -> bytes:
        now = time.monotonic()
        if not began:
            began.append(now)
        ids.add(ctx.task.task_id)
        if len(data) <= 32:
            waits_ms.append((now - float(data)) * 1e3)
        handled[0] += 1
        return b""

    handled = [0]
    agent = Agent("bench", settings, registry, lambda: Stub(server))
    signals = Signals()
    running = asyncio.ensure_future(agent.run(signals))
    say({"event": "agent started"})

    def is_done() -> bool:
        return handled[0] - len(agent.held()) >= count  # What is held is not accepted yet.

    while not (is_done() or signals.asked.done()):  # noqa: ASYNC110 # an event costs each task time
        await asyncio.sleep(0.002)
    took_s = time.monotonic() - began[0]
    if not signals.asked.done():
        signals.asked.set_result(signal.SIGTERM)
    await running
    waits_ms.sort()
    say(
        {
            "event": "done",
            "rate": count / took_s,
            "runs": handled[0],
            "tasks": len(ids),
            "began_at": began[0],
            "p50_ms": waits_ms[len(waits_ms) // 2] if waits_ms else 0,
            "p99_ms": waits_ms[len(waits_ms) * 99 // 100] if waits_ms else 0,
        }
    )


def say(line: dict[str, object]) -> None:
    """Logs an event for the bench."""
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    logs.configure("warning")
    interpreter.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), "asyncio")
