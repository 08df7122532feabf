"""The built-in kind: simulated work that can be repeated exactly (virtual time)."""

import asyncio
from typing import Any

import pytest

from taskdist.agent.built_in import SimulatedFailure, built_in
from taskdist.agent.context import Context
from taskdist.agent.definition import Handler
from taskdist.agent.sink import BoundedSink
from taskdist.reports import Work
from taskdist.settings import AgentSettings

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


@pytest.fixture(autouse=True)
def feed() -> None:
    """Nothing here is fed."""


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


def an_agent(**settings: float) -> Handler[Any, Any, ..., Any]:
    """What a fresh agent with these settings runs."""
    handler = built_in(AgentSettings.model_validate(settings))["simulate"]
    assert isinstance(handler, Handler)
    return handler


async def simulate(agent: Handler[Any, Any, ..., Any], work: Work) -> bytes:
    """Simulates this work."""
    clock = asyncio.get_running_loop().time
    ctx = Context(work, 3600, BoundedSink(AgentSettings(), lambda: None), lambda _: 30, clock)
    return await agent.run_async(ctx)


async def fails(agent: Handler[Any, Any, ..., Any], work: Work) -> bool:
    """Whether a simulation of this work fails."""
    try:
        result = await simulate(agent, work)
        assert result == f"worked {work.est_processing_time_s:g} s".encode()
    except SimulatedFailure:
        return True
    return False


async def test_the_same_draw_always_ends_the_same() -> None:
    """Whichever agent gets the task, and after which others."""
    draws = [(seed, a_work(n, attempt)) for seed in (0, 7) for n in range(20) for attempt in (1, 2)]
    first = [await fails(an_agent(seed=seed), work) for seed, work in draws]
    again = [await fails(an_agent(seed=seed), work) for seed, work in reversed(draws)]
    agents = {seed: an_agent(seed=seed) for seed in (0, 7)}
    by_one_agent = [await fails(agents[seed], work) for seed, work in draws]
    assert again[::-1] == by_one_agent == first


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
async def test_it_fails_about_as_often_as_it_should(rate: float) -> None:
    """Over tasks, over attempts and over seeds alike."""
    agent = an_agent(failure_rate=rate)
    for draws in (
        [(agent, a_work(sequence=n)) for n in range(2_000)],
        [(agent, a_work(attempt=n)) for n in range(2_000)],
        [(an_agent(seed=n, failure_rate=rate), a_work()) for n in range(2_000)],
    ):
        failed = sum([await fails(agent, work) for agent, work in draws])
        assert failed / len(draws) == pytest.approx(rate, abs=0.04)


async def test_0_never_fails_and_1_always_does() -> None:
    works = [a_work(sequence) for sequence in range(200)]
    never, always = an_agent(failure_rate=0), an_agent(failure_rate=1)
    assert not any([await fails(never, work) for work in works])
    assert all([await fails(always, work) for work in works])


@pytest.mark.parametrize(("speed", "takes"), [(1, 90), (20, 4.5)])
async def test_it_works_for_the_expected_time(speed: float, takes: float) -> None:
    began_at = asyncio.get_running_loop().time()
    await simulate(an_agent(speed=speed, failure_rate=0), a_work(est_s=90))
    assert asyncio.get_running_loop().time() - began_at == pytest.approx(takes, abs=1e-3)
