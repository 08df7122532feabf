"""The backend with the runners that wake it by themselves.

In production that is a thread for the writer and one for reads, by the real clocks; and there is
the one that runs it all on the event loop, by the loop's own clock.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskdist.backends.embedded import EmbeddedBackend
from taskdist.backends.runner import LoopRunner
from taskdist.core.commands import Grants, Heartbeat, Held, StopTakes, TakeBack
from taskdist.core.queries import GetTask
from taskdist.core.task import TaskState
from taskdist.settings import DistributorSettings
from tests.support.backends import Hearer, fail, lease_id_of, only_tasks, submit, succeed, take
from tests.support.clocks import loop_clock


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> DistributorSettings:
    store = "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'tasks.db'}"
    return DistributorSettings(store=store)


# --- on a loop whose time is virtual -----------------------------------------------------------


@pytest.fixture
async def on_loop(settings: DistributorSettings) -> AsyncIterator[EmbeddedBackend]:
    backend = EmbeddedBackend(settings, loop_clock(settings), LoopRunner())
    await backend.open(Hearer())
    yield backend
    await backend.close()


@pytest.mark.virtual_time
async def test_a_wait_ends_in_time(on_loop: EmbeddedBackend) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await on_loop.apply(take(wait_s=20)) == Grants()
    assert 20 <= loop.time() - began < 20.3


@pytest.mark.virtual_time
async def test_p4_a_silent_agents_task_goes_to_who_waits_within_a_second(
    on_loop: EmbeddedBackend,
) -> None:
    loop = asyncio.get_running_loop()
    await on_loop.apply(submit())
    (lost,) = only_tasks(await on_loop.apply(take("agent-1")))
    began = loop.time()
    (again,) = only_tasks(await on_loop.apply(take("agent-2", wait_s=60)))
    assert again.id == lost.id
    assert 30 <= loop.time() - began < 31


@pytest.mark.virtual_time
async def test_p4_heartbeats_every_third_of_a_lease_keep_it(on_loop: EmbeddedBackend) -> None:
    await on_loop.apply(submit())
    (task,) = only_tasks(await on_loop.apply(take("agent-1")))
    for _ in range(30):
        await asyncio.sleep(10)
        held = await on_loop.apply(Heartbeat("agent-1", (lease_id_of(task),)))
        assert held == Held((lease_id_of(task),))
    await on_loop.apply(succeed(task))


# --- in threads, in real time ------------------------------------------------------------------


async def opened(settings: DistributorSettings) -> EmbeddedBackend:
    backend = EmbeddedBackend(settings)
    await backend.open(Hearer())
    return backend


async def test_many_agents_and_clients_at_once_and_each_task_runs_to_its_end(
    settings: DistributorSettings,
) -> None:
    """P3: no task is handed to two; P1: none is lost."""
    backend = await opened(settings)
    runs: list[str] = []
    failed: set[str] = set()
    done: asyncio.Queue[str] = asyncio.Queue()

    async def agent(name: str) -> None:
        while (grants := await backend.apply(take(name, slots=2, wait_s=60))) != Grants():
            for task in only_tasks(grants):
                runs.append(task.id)
                if task.sequence % 3 == 0 and task.id not in failed:
                    failed.add(task.id)
                    await backend.apply(fail(task))
                else:
                    await backend.apply(succeed(task))
                    done.put_nowait(task.id)

    async def client() -> list[str]:
        return [(await backend.apply(submit())).task.id for _ in range(20)]

    agents = [asyncio.ensure_future(agent(f"agent-{number}")) for number in range(5)]
    batches = await asyncio.gather(*(client() for _ in range(5)))
    submitted = [task_id for batch in batches for task_id in batch]
    assert {await done.get() for _ in submitted} == set(submitted)
    await backend.apply(StopTakes())
    await asyncio.gather(*agents)
    assert sorted(runs) == sorted([*submitted, *failed])
    for task_id in submitted:
        history = await backend.read(GetTask(task_id))
        assert history.task.state is TaskState.SUCCEEDED
        assert len(history.attempts) == 1 + (task_id in failed)
    await backend.close()


async def test_a_wait_ends_by_itself_in_real_time(settings: DistributorSettings) -> None:
    backend = await opened(settings)
    assert await backend.apply(take(wait_s=0.01)) == Grants()
    await backend.close()


async def test_calls_given_up_at_any_moment_leave_no_lease_behind(
    settings: DistributorSettings,
) -> None:
    backend = await opened(settings)
    submitted = [(await backend.apply(submit())).task.id for _ in range(20)]
    for number in range(60):
        call = asyncio.ensure_future(backend.apply(take(slots=20, wait_s=60)))
        for _ in range(number % 20):
            await asyncio.sleep(0)
        call.cancel()
        (answer,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(answer, Grants):  # It came before it was given up.
            await backend.apply(TakeBack(tuple(map(lease_id_of, only_tasks(answer)))))
    beat = Heartbeat("agent-1", ())
    while await backend.apply(beat) != Held(()):
        pass  # What the last ones got is on its way back.
    tasks = only_tasks(await backend.apply(take("agent-2", slots=20)))
    assert [task.id for task in tasks] == submitted
    assert {task.attempt for task in tasks} == {1}
    await backend.close()


async def test_closing_waits_for_the_writer_and_answers_who_waits(
    settings: DistributorSettings,
) -> None:
    backend = await opened(settings)
    waiter = asyncio.ensure_future(backend.apply(take(wait_s=60)))
    await backend.apply(submit(queue="other"))
    await backend.close()
    assert await waiter == Grants()
