"""A real agent whose handlers do as their tasks' plans say, and which records every run.

Run as `python -m scripts.chaosing.agent HOST:PORT NAME work|fetch SLOTS QUEUE,… KIND,… FOLDER`.
NAME is AGENT.NUMBER: the agent's id, and which process of that name it is.
"""

import asyncio
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from scripts.chaosing.history import Recorder
from scripts.chaosing.recording import RecordingClient
from scripts.chaosing.wishes import plan_of
from taskdist import Context, Fatal, Registry, Retry, interpreter, logs
from taskdist.agent.runtime import Agent
from taskdist.reports import Work
from taskdist.settings import AgentSettings
from taskdist.signals import Signals

TIMEOUT_S = 3.0
"""How long a call may take."""

LONG_S = 4.0
"""More than a lease lasts without heartbeats."""

STUBBORN_S = 6.0
"""How long a handler goes on that does not stop: until after its lease."""


class Failure(Exception):
    """What the plan calls `fail`."""


async def act(work: Work) -> bytes:
    """What this attempt of the task does."""
    known = plan_of(work.data)
    plan: list[str] = known["plan"]
    what = plan[min(work.attempt, len(plan)) - 1]
    if what == "hang":
        await asyncio.Event().wait()
    elif what == "stubborn":
        loop = asyncio.get_running_loop()
        end = loop.time() + STUBBORN_S
        while (left := end - loop.time()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(left)
    else:
        await asyncio.sleep(LONG_S if what == "long" else known["work_s"])
    if what == "fail":
        raise Failure(f"attempt {work.attempt} of {known['ref']}")
    if what == "fatal":
        raise Fatal(f"attempt {work.attempt} of {known['ref']}")
    if what == "retry":
        raise Retry(after=0.3)
    return f"attempt {work.attempt} of {known['ref']}".encode()


def recorded(kinds: Iterable[str], record: Recorder) -> Registry:
    """One handler for all these kinds."""
    registry = Registry()

    async def run(_: bytes, ctx: Context) -> bytes:
        work = ctx.task
        names = {"task_id": work.task_id, "lease_id": work.lease_id}
        record.write("run", do="began", attempt=work.attempt, **names)
        how = "cut off"
        try:
            result = await act(work)
            how = "returned"
            return result
        except Exception:
            how = "raised"
            raise
        finally:
            record.write("run", do=how, **names)

    for kind in kinds:
        registry.handler(name=kind)(run)
    return registry


async def main(
    server: str, name: str, feed: str, slots: str, queues: str, kinds: str, folder: str
) -> None:
    record = Recorder(Path(folder) / f"{name}.jsonl", name)
    settings = AgentSettings(
        server=server,
        slots=int(slots),
        queues=tuple(queues.split(",")),
        unary=feed == "fetch",
        wait_us=1_000_000,  # What an unanswered fetch may have taken is unknown for so long.
        backoff_max_us=500_000,
        drain_timeout_us=1_000_000,
    )
    agent = Agent(
        name.split(".")[0],
        settings,
        recorded(kinds.split(","), record),
        lambda: RecordingClient(server, record, TIMEOUT_S),
    )
    record.write(
        "began",
        session=agent.session,
        agent_id=agent.agent_id,
        slots=settings.slots,
        queues=settings.queues,
        kinds=agent.kinds,
    )
    await agent.run(Signals())
    record.write("left")


if __name__ == "__main__":
    logs.configure("error")
    interpreter.run(main(*sys.argv[1:]), "asyncio")
