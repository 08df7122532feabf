"""The backend as it runs in production: a thread for the writer, one for reads, the real clocks."""

import asyncio
from pathlib import Path

import pytest

from taskdist.backends.embedded import EmbeddedBackend
from taskdist.core.commands import Grants
from taskdist.core.queries import GetTask
from taskdist.core.task import TaskState
from taskdist.settings import DistributorSettings
from tests.support.backends import Hearer, fail, only_tasks, submit, succeed, take


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> DistributorSettings:
    store = "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'tasks.db'}"
    return DistributorSettings(store=store)


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

    async def agent(name: str) -> None:
        while True:
            grants = await backend.apply(take(name, slots=2, wait_s=0.5))
            if grants == Grants():
                return
            for task in only_tasks(grants):
                runs.append(task.id)
                if task.sequence % 3 == 0 and task.id not in failed:
                    failed.add(task.id)
                    await backend.apply(fail(task))
                else:
                    await backend.apply(succeed(task))

    async def client() -> list[str]:
        return [(await backend.apply(submit())).task.id for _ in range(20)]

    agents = [asyncio.ensure_future(agent(f"agent-{number}")) for number in range(5)]
    batches = await asyncio.gather(*(client() for _ in range(5)))
    submitted = [task_id for batch in batches for task_id in batch]
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
        await asyncio.gather(call, return_exceptions=True)
    grants = Grants()
    while len(grants.grants) < len(submitted):  # The last may still be on its way back.
        for task in only_tasks(grants):
            await backend.apply(fail(task))
        grants = await backend.apply(take("agent-2", slots=20, wait_s=60))
    assert {task.id for task in only_tasks(grants)} == set(submitted)
    await backend.close()


async def test_closing_waits_for_the_writer_and_answers_who_waits(
    settings: DistributorSettings,
) -> None:
    backend = await opened(settings)
    waiter = asyncio.ensure_future(backend.apply(take(wait_s=60)))
    await backend.apply(submit(queue="other"))
    await backend.close()
    assert await waiter == Grants()
