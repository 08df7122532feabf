"""The figures: each function is one run, and returns what it measured.

A run in which a task was lost, or worked more than once, raises `Failed` instead.
"""

import asyncio
import re
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scripts.benching.players import Player, counting_agent, distributor
from taskdist.client import Client
from taskdist.core.task import TaskState
from taskdist.reports import Submission
from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec, make


class Failed(Exception):
    """The run proved nothing: a task was lost or worked twice."""


@dataclass(frozen=True)
class Figure:
    """Something measured."""

    name: str
    value: float
    target: str = ""
    """Such as `≥ 35,000`; empty: none."""

    def met(self, value: float) -> bool | None:
        """Whether a value meets the target."""
        match = re.fullmatch(r"([≥≤]) ([\d,.]+).*", self.target)
        if not match:
            return None
        bound = float(match[2].replace(",", ""))
        return value >= bound if match[1] == "≥" else value <= bound


def codec() -> list[Figure]:
    """A message of ten fields, both ways, against betterproto's own codec."""
    values: dict[str, Any] = {
        "has_task": True,
        "task_id": "0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00",
        "user_tier": "paid",
        "est_processing_time": 3.0,
        "data": b"x" * 100,
        "kind": "simulate",
        "queue": "default",
        "retry_count": 1,
        "lease_id": "1f2e3d4c5b6a7988-1-1",
        "lease_seconds": 30.0,
    }
    cls, ours = wire.FetchTaskResponse, Codec(1_000)
    message = make(cls, **values)
    plain = cls(**values)
    data = bytes(plain)

    def us(call: Callable[[], object], number: int) -> float:
        return min(timeit.repeat(call, number=number, repeat=5)) / number * 1e6

    decode, encode = (
        us(lambda: ours.decode(data, cls), 5_000),
        us(lambda: ours.encode(message, cls), 5_000),
    )
    their_decode, their_encode = (
        us(lambda: cls.FromString(data), 200),
        us(lambda: bytes(plain), 200),
    )
    return [
        Figure("codec: decode, µs", decode, "≤ 6"),
        Figure("codec: encode, µs", encode, "≤ 4"),
        Figure("codec: decode, times betterproto's", their_decode / decode, "≥ 20"),
        Figure("codec: encode, times betterproto's", their_encode / encode, "≥ 20"),
    ]


def batches() -> list[Figure]:
    """Submits in batches of 100, durable."""
    with distributor() as (_, address):
        rate = asyncio.run(_submit_batches(address, 40_000))
    return [Figure("submit in batches of 100, tasks/s", rate, "≥ 35,000")]


def singles() -> list[Figure]:
    """Submits one per call from 64 callers, against an echo."""
    with distributor() as (_, address):
        rate = asyncio.run(_submit_singles(address, 6_400))
    with distributor(variant="echo") as (_, address):
        echo = asyncio.run(_submit_singles(address, 6_400))
    with distributor() as (_, address):
        batched = asyncio.run(_submit_singles(address, 20_000, batching=True))
    return [
        Figure("submit one per call, 64 callers, tasks/s", rate),
        Figure("… an echo service, calls/s", echo),
        Figure("… in percent of the echo", 100 * rate / echo, "≥ 70"),
        Figure("submit(), 64 callers, micro-batched, tasks/s", batched),
    ]


def work() -> list[Figure]:
    """Leases and finishes no-op tasks over Work, one agent of 512 slots."""
    rate = _work(30_000)
    kept_nothing = _work(30_000, variant="nothing")
    return [
        Figure("lease + finish over Work, tasks/s", rate, "≥ 14,000"),
        Figure("… over a backend that keeps nothing", kept_nothing),
        Figure("… in percent of that", 100 * rate / kept_nothing, "≥ 60"),
    ]


def both() -> list[Figure]:
    """Submits and works at the same time."""
    count = 30_000
    with (
        distributor() as (_, address),
        counting_agent(address, slots=512, count=count) as player,
    ):
        asyncio.run(_submit_batches(address, count))
        rate = _done(player, count)
        asyncio.run(_check(address, count))
    return [Figure("submit and work at the same time, tasks/s", rate, "≥ 9,000")]


def latency() -> list[Figure]:
    """From submit to the start of the handler, in an idle system."""
    count = 400
    with (
        distributor() as (_, address),
        counting_agent(address, slots=4, count=count) as player,
    ):
        asyncio.run(_submit_now_and_then(address, count))
        _done(player, count)
        done = player.until("done")
        asyncio.run(_check(address, count))
    return [
        Figure("idle: submit to handler, p50, ms", done["p50_ms"], "≤ 3"),
        Figure("idle: submit to handler, p99, ms", done["p99_ms"], "≤ 15"),
    ]


def large() -> list[Figure]:
    """Leases and finishes tasks with 64 KiB of data."""
    rate = _work(6_000, data=b"x" * 65_536)
    return [Figure("lease + finish, data of 64 KiB, tasks/s", rate, "≥ 3,000")]


def slow_disk() -> list[Figure]:
    """The batched rates when each fsync takes 10 ms more."""
    with distributor() as (_, address):
        fast_submit = asyncio.run(_submit_batches(address, 20_000))
    with distributor(variant="slow") as (_, address):
        slow_submit = asyncio.run(_submit_batches(address, 20_000))
    fast_work, slow_work = _work(20_000), _work(20_000, variant="slow")
    return [
        Figure("fsync + 10 ms: batches, percent", 100 * slow_submit / fast_submit, "≥ 70"),
        Figure("fsync + 10 ms: lease + finish, percent", 100 * slow_work / fast_work, "≥ 70"),
    ]


# --- the parts --------------------------------------------------------------------------------


def _work(count: int, *, data: bytes = b"x" * 100, variant: str = "") -> float:
    with distributor(variant=variant) as (_, address):
        asyncio.run(_submit_batches(address, count, data=data))
        with counting_agent(address, slots=512, count=count) as player:
            rate = _done(player, count)
        if variant != "nothing":
            asyncio.run(_check(address, count))
    return rate


def _done(player: Player, count: int) -> float:
    done = player.until("done")
    if (done["runs"], done["tasks"]) != (count, count):
        raise Failed(f"{count} tasks, but {done['tasks']} were run, {done['runs']} times")
    return float(done["rate"])


async def _check(address: str, count: int) -> None:
    """Every task succeeded, in its first attempt."""
    async with Client(address) as client:
        tasks = [task async for task in client.list_tasks(page_size=1_000)]
    good = sum(task.state is TaskState.SUCCEEDED and task.attempt == 1 for task in tasks)
    if (len(tasks), good) != (count, count):
        raise Failed(f"{count} were submitted, {len(tasks)} are there, {good} succeeded at once")


async def _submit_batches(address: str, count: int, *, data: bytes = b"x" * 100) -> float:
    """Submits so many tasks in batches of 100, or as many as fit a message, four at a time."""
    size = min(100, max(1, 3_000_000 // len(data)))
    sizes = iter([size] * (count // size) + [count % size] * (count % size > 0))
    async with Client(address) as client:
        begin = time.perf_counter()

        async def submit() -> None:
            for number in sizes:
                await client.submit_many([Submission("free", 0.0, data)] * number)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(submit())
        return count / (time.perf_counter() - begin)


async def _submit_now_and_then(address: str, count: int) -> None:
    """One at a time, each with the time of its submit, while nothing else happens."""
    async with Client(address, batching=False) as client:
        for _ in range(count):
            now = str(time.monotonic()).encode()
            await client.submit(user_tier="free", est_processing_time_s=0, data=now)
            await asyncio.sleep(0.005)


async def _submit_singles(address: str, count: int, *, batching: bool = False) -> float:
    async with Client(address, batching=batching) as client:
        begin = time.perf_counter()

        async def submit() -> None:
            for _ in range(count // 64):
                await client.submit(user_tier="free", est_processing_time_s=0, data=b"x" * 100)

        async with asyncio.TaskGroup() as group:
            for _ in range(64):
                group.create_task(submit())
        return count // 64 * 64 / (time.perf_counter() - begin)


FIGURES: dict[str, Callable[[], list[Figure]]] = {
    "codec": codec,
    "batches": batches,
    "singles": singles,
    "work": work,
    "both": both,
    "latency": latency,
    "large": large,
    "slow_disk": slow_disk,
}
