"""The built-in kind: simulated work that can be repeated exactly (virtual time)."""

import asyncio

import pytest

from taskdist.agent.built_in import SimulatedFailure, built_in
from taskdist.agent.context import Context
from taskdist.agent.definition import Handler
from taskdist.agent.sink import BoundedSink
from taskdist.reports import Work
from taskdist.settings import AgentSettings

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


def a_work(sequence: int = 1, attempt: int = 1, est_s: float = 0) -> Work:
    """A task as `simulate` gets it."""
    return Work(
        task_id=f"{sequence:08x}-0000-7000-8000-000000000000",
        kind="simulate",
        queue="default",
        user_tier="free",
        est_processing_time_s=est_s,
        data=b"",
        sequence=sequence,
        attempt=attempt,
        retry_count=attempt - 1,
        lease_id="lease",
        lease_s=30,
        run_timeout_s=3600,
    )


async def simulate(work: Work, **settings: float) -> bytes:
    """Simulates this work in a fresh agent."""
    registry = built_in(AgentSettings.model_validate(settings))
    clock = asyncio.get_running_loop().time
    ctx = Context(work, 3600, BoundedSink(AgentSettings(), lambda: None), lambda _: 30, clock)
    handler = registry["simulate"]
    assert isinstance(handler, Handler)
    return await handler.run_async(ctx)


async def fails(work: Work, *, seed: int = 0, failure_rate: float = 0.3) -> bool:
    """Whether a simulation of this work fails, by a fresh agent."""
    try:
        result = await simulate(work, seed=seed, failure_rate=failure_rate)
        assert result == f"worked {work.est_processing_time_s:g} s".encode()
    except SimulatedFailure:
        return True
    return False


async def test_the_same_draw_always_ends_the_same() -> None:
    """Whichever agent gets the task, and after which others."""
    draws = [(seed, a_work(n, attempt)) for seed in (0, 7) for n in range(20) for attempt in (1, 2)]
    first = [await fails(work, seed=seed) for seed, work in draws]
    assert [await fails(work, seed=seed) for seed, work in reversed(draws)] == first[::-1]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
async def test_it_fails_about_as_often_as_it_should(rate: float) -> None:
    """Over tasks, over attempts and over seeds alike."""
    for draws in (
        [(0, a_work(sequence=n)) for n in range(2_000)],
        [(0, a_work(attempt=n)) for n in range(2_000)],
        [(n, a_work()) for n in range(2_000)],
    ):
        failed = sum([await fails(work, seed=seed, failure_rate=rate) for seed, work in draws])
        assert failed / len(draws) == pytest.approx(rate, abs=0.04)


async def test_0_never_fails_and_1_always_does() -> None:
    works = [a_work(sequence) for sequence in range(200)]
    assert not any([await fails(work, failure_rate=0) for work in works])
    assert all([await fails(work, failure_rate=1) for work in works])


@pytest.mark.parametrize(("speed", "takes"), [(1, 90), (20, 4.5)])
async def test_it_works_for_the_expected_time(speed: float, takes: float) -> None:
    began_at = asyncio.get_running_loop().time()
    await simulate(a_work(est_s=90), speed=speed, failure_rate=0)
    assert asyncio.get_running_loop().time() - began_at == pytest.approx(takes, abs=1e-3)
