"""Asks a distributor small things all the time, and notes how long each reply took.

Run as `python -m scripts.benching.prober HOST:PORT CALL…`; a call is `ping`, `submit` or `get`.
Each is made 5 ms after its last reply, all over one connection. It logs `probing` once all have
been answered, and after SIGTERM `probed`: the longest reply of each, percentiles of all, how
many tasks it submitted, and how late its own loop was at worst, which no distributor can help.
What it submits comes last in the queue, so that agents leave it alone.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from scripts.benching.counting_agent import say
from scripts.benching.loads import SECONDS_NEVER
from taskdist import interpreter, logs
from taskdist.client import Stub
from taskdist.signals import Signals

PAUSE_S = 0.005
WARM_CALLS = 20
"""The first calls make the connection and the codecs: not what is measured."""

DATA = b"x" * 1_024


async def main(server: str, names: list[str]) -> None:
    signals = Signals()
    ids: list[str] = []
    async with Stub(server, batching=False, timeout_s=60) as client:

        async def submit() -> None:
            task = await client.submit(
                user_tier="free", est_processing_time_s=SECONDS_NEVER, data=DATA
            )
            ids.append(task.task_id)

        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "ping": client.ping,
            "submit": submit,
            "get": lambda: client.get(ids[len(ids) // 2]),
        }
        for name in names:
            for _ in range(WARM_CALLS):
                await calls[name]()
        say({"event": "probing"})
        late = asyncio.ensure_future(_latest_ms(signals))
        replies = await asyncio.gather(*(_replies_ms(calls[name], signals) for name in names))
    together = sorted(reply for of_one in replies for reply in of_one)
    say(
        {
            "event": "probed",
            "longest_ms": {name: max(of_one) for name, of_one in zip(names, replies, strict=True)},
            "p50_ms": together[len(together) // 2],
            "p99_ms": together[len(together) * 99 // 100],
            "replies": len(together),
            "submitted": len(ids),
            "late_ms": await late,
        }
    )


async def _replies_ms(call: Callable[[], Awaitable[object]], signals: Signals) -> list[float]:
    replies: list[float] = []
    # Not cancelled: whether a submit that is cut off counts, nobody could say.
    while not (signals.asked.done() and replies):
        begin = time.perf_counter()
        await call()
        replies.append((time.perf_counter() - begin) * 1e3)
        await asyncio.sleep(PAUSE_S)
    return replies


async def _latest_ms(signals: Signals) -> float:
    latest = 0.0
    while not signals.asked.done():
        begin = time.perf_counter()
        await asyncio.sleep(0.001)
        latest = max(latest, (time.perf_counter() - begin - 0.001) * 1e3)
    return latest


if __name__ == "__main__":
    logs.configure("warning")
    interpreter.run(main(sys.argv[1], sys.argv[2:]), "asyncio")
