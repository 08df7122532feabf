"""Many agents of one slot in one process: real agents, each with connections of its own.

Run as `python -m scripts.benching.crowd HOST:PORT NAME AGENTS WORK_S`. Each task takes WORK_S of
sleep. After SIGTERM the agents drain, and it logs `done`: the runs, how many tasks were different
ones, how many agents ran any, and when each run ended, by the machine's monotonic clock.
"""

import asyncio
import resource
import sys
import time

from scripts.benching.counting_agent import say
from taskdist import interpreter, logs
from taskdist.agent.context import Context
from taskdist.agent.heartbeat import TaskRunner
from taskdist.agent.registry import Registry
from taskdist.agent.runtime import Agent
from taskdist.client import Client
from taskdist.settings import AgentSettings
from taskdist.signals import Signals

PAUSE_S = 0.002
"""Between two agents' starts. All in one instant is another measurement."""


async def main(server: str, name: str, count: int, work_s: float) -> None:
    settings = AgentSettings(server=server, slots=1)
    ids: set[str] = set()
    used: set[str] = set()
    ended: list[float] = []

    def registry(agent_id: str) -> Registry:
        made = Registry()

        @made.handler
        async def simulate(_: bytes, ctx: Context) -> bytes:
            await asyncio.sleep(work_s)
            ids.add(ctx.task.task_id)
            used.add(agent_id)
            ended.append(round(time.monotonic(), 4))
            return b""

        return made

    signals = Signals()
    running = []
    for number in range(count):
        agent_id = f"{name}-{number}"
        agent = Agent(
            agent_id,
            settings,
            registry(agent_id),
            lambda: Client(server),
            heartbeat_runner=TaskRunner(),  # A thread for each would be another measurement.
        )
        running.append(asyncio.ensure_future(agent.run(signals)))
        await asyncio.sleep(PAUSE_S)
    say({"event": "agents started"})
    await asyncio.gather(*running)
    say(
        {
            "event": "done",
            "runs": len(ended),
            "tasks": len(ids),
            "agents": len(used),
            "ended": ended,
        }
    )


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logs.configure("warning")
    interpreter.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])), "asyncio")
