"""The figures: each function is one run, and returns what it measured.

A run in which a task was lost, or worked more than once, raises `Failed` instead.
"""

import asyncio
import timeit
from collections.abc import Callable
from typing import Any

from scripts.benching.backlogs import backlog, million
from scripts.benching.crowds import busy_agents, idle_agents
from scripts.benching.loads import (
    check,
    done,
    submit_batches,
    submit_now_and_then,
    submit_singles,
)
from scripts.benching.measured import Figure
from scripts.benching.players import counting_agent, distributor, prober
from scripts.benching.retention import retention
from scripts.benching.returning import returning
from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec, make


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
        rate = asyncio.run(submit_batches(address, 40_000))
    return [Figure("submit in batches of 100, tasks/s", rate, "≥ 35,000")]


def singles() -> list[Figure]:
    """Submits one per call from 64 callers, against an echo."""
    with distributor() as (_, address):
        rate = asyncio.run(submit_singles(address, 6_400))
    with distributor(variant="echo") as (_, address):
        echo = asyncio.run(submit_singles(address, 6_400))
    with distributor() as (_, address):
        batched = asyncio.run(submit_singles(address, 20_000, batching=True))
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
        asyncio.run(submit_batches(address, count))
        rate = done(player, count)
        asyncio.run(check(address, count))
    return [Figure("submit and work at the same time, tasks/s", rate, "≥ 9,000")]


def latency() -> list[Figure]:
    """From submit to the start of the handler, in an idle system."""
    count = 400
    with (
        distributor() as (_, address),
        counting_agent(address, slots=4, count=count) as player,
    ):
        asyncio.run(submit_now_and_then(address, count))
        done(player, count)
        waits = player.until("done")
        asyncio.run(check(address, count))
    return [
        Figure("idle: submit to handler, p50, ms", waits["p50_ms"], "≤ 3"),
        Figure("idle: submit to handler, p99, ms", waits["p99_ms"], "≤ 15"),
    ]


def large() -> list[Figure]:
    """Leases and finishes tasks with 64 KiB of data."""
    rate = _work(6_000, data=b"x" * 65_536)
    return [Figure("lease + finish, data of 64 KiB, tasks/s", rate, "≥ 3,000")]


def slow_disk() -> list[Figure]:
    """The batched rates when each fsync takes 10 ms more; and that nothing else waits for it.

    Ping needs no disk, and the commits of submits and outcomes are back to back: if a sync held the
    event loop up, most replies would wait for one. It is asked in a run of its own, for the prober
    takes some of the machine.
    """
    with distributor() as (_, address):
        fast_submit = asyncio.run(submit_batches(address, 20_000))
    with distributor(variant="slow") as (_, address):
        slow_submit = asyncio.run(submit_batches(address, 20_000))
    fast_work, slow_work = _work(20_000), _work(20_000, variant="slow")
    probed = _pinged(20_000, variant="slow")
    return [
        Figure("fsync + 10 ms: batches, percent", 100 * slow_submit / fast_submit, "≥ 70"),
        Figure("fsync + 10 ms: lease + finish, percent", 100 * slow_work / fast_work, "≥ 70"),
        Figure("fsync + 10 ms: longest reply of Ping, ms", probed["longest_ms"]["ping"], "≤ 50"),
        Figure("… median, ms", probed["p50_ms"]),
        Figure("… 99th percentile, ms", probed["p99_ms"]),
        Figure("… the prober's own loop late by, ms", probed["late_ms"]),
    ]


# --- the parts --------------------------------------------------------------------------------


def _work(count: int, *, data: bytes = b"x" * 100, variant: str = "") -> float:
    with distributor(variant=variant) as (_, address):
        asyncio.run(submit_batches(address, count, data=data))
        with counting_agent(address, slots=512, count=count) as player:
            rate = done(player, count)
        if variant != "nothing":
            asyncio.run(check(address, count))
    return rate


def _pinged(count: int, *, variant: str) -> dict[str, Any]:
    """What a prober that only pings finds while tasks are submitted, and then worked."""
    with distributor(variant=variant) as (_, address):
        with prober(address, "ping") as probe:
            asyncio.run(submit_batches(address, count))
            with counting_agent(address, slots=512, count=count) as player:
                done(player, count)
            probe.stop()
            probed = probe.until("probed")
        asyncio.run(check(address, count))
    return probed


FIGURES: dict[str, Callable[[], list[Figure]]] = {
    "codec": codec,
    "batches": batches,
    "singles": singles,
    "work": work,
    "both": both,
    "latency": latency,
    "large": large,
    "slow_disk": slow_disk,
    "idle_agents": idle_agents,
    "busy_agents": busy_agents,
    "million": million,
}

CURVES: dict[str, Callable[[], list[Figure]]] = {
    "backlog": backlog,
    "retention": retention,
    "returning": returning,
}
"""Figures over a long time, measured only when they are named."""
