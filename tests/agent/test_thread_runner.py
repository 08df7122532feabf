"""The heartbeat's thread ends when its agent does."""

import asyncio
import threading
from contextlib import suppress

import pytest

from taskdist.agent.heartbeat import ThreadRunner

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def feed() -> None:
    """It has nothing to do with where tasks come from."""


def stops(runner: ThreadRunner) -> bool:
    """Whether `stop` returns."""
    stopping = threading.Thread(target=runner.stop, daemon=True)
    stopping.start()
    stopping.join(PATIENCE_S)
    return not stopping.is_alive()


@pytest.mark.parametrize("forgotten", [0, 1, 2])
def test_p7_a_cancel_that_is_forgotten_is_repeated(forgotten: int) -> None:
    """A call whose time is up in the instant of the cancel takes it for that: an agent's stop would
    wait for its heartbeat for ever."""
    runner = ThreadRunner()

    async def beat() -> None:
        for _ in range(forgotten):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    runner.start(beat)
    assert stops(runner)


def test_a_heartbeat_that_has_ended_is_stopped() -> None:
    """Its loop is closed by then."""
    runner = ThreadRunner()

    async def beat() -> None:
        pass

    runner.start(beat)
    assert stops(runner)
    assert stops(runner)
