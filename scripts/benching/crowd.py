"""Many agents of one slot in one process: real agents, each with connections of its own.

Run as `python -m scripts.benching.crowd HOST:PORT NAME AGENTS WORK_S`. Each task takes WORK_S of
sleep, or as many seconds as its data says. After SIGTERM the agents drain, and it logs `done`: the
runs, how many tasks were different ones, how many agents ran any, and when each run began and ended
and each connection was tried, by the machine's monotonic clock.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Coroutine
from typing import Any

from grpclib.protocol import H2Protocol

from scripts.benching.counting_agent import say
from taskdist import interpreter, logs
from taskdist.agent.context import Context
from taskdist.agent.heartbeat import TaskRunner
from taskdist.agent.registry import Registry
from taskdist.agent.runtime import Agent
from taskdist.client import Stub
from taskdist.client.connection import channel_to
from taskdist.settings import AgentSettings
from taskdist.signals import Signals

PAUSE_S = 0.002
"""Between two agents' starts. All in one instant is another measurement."""


async def main(server: str, name: str, count: int, work_s: float) -> None:
    settings = AgentSettings(server=server, slots=1)
    ids: set[str] = set()
    used: set[str] = set()
    began: list[float] = []
    ended: list[float] = []
    tried: list[float] = []

    def registry(agent_id: str) -> Registry:
        made = Registry()

        @made.handler
        async def simulate(_: bytes, ctx: Context) -> bytes:
            work = ctx.task
            began.append(round(time.monotonic(), 4))
            used.add(agent_id)
            await asyncio.sleep(float(work.data) if work.data.isdigit() else work_s)
            ids.add(work.task_id)
            ended.append(round(time.monotonic(), 4))
            return b""

        return made

    def client() -> Stub:
        channel = channel_to(server)
        create = channel._create_connection

        def noted() -> Coroutine[Any, Any, H2Protocol]:
            tried.append(round(time.monotonic(), 4))
            return create()

        vars(channel)["_create_connection"] = noted
        return Stub(channel=channel)

    signals = Signals()
    running = []
    for number in range(count):
        agent_id = f"{name}-{number}"
        agent = Agent(
            agent_id,
            settings,
            registry(agent_id),
            client,
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
            "began": began,
            "ended": ended,
            "tried": tried,
        }
    )


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logs.configure("warning")
    interpreter.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])), "asyncio")
