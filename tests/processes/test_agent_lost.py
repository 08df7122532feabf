"""An agent dies or stands still in the middle of a task: another one gets it, in time (P3, P4)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from taskdist.client import Stub
from taskdist.core.errors import PreconditionFailed
from taskdist.core.task import Outcome, TaskState
from tests.support.processes import LIMIT_S, Processes, when

LEASE_S = 1
LATEST_S = LEASE_S + 1
"""P4: offered again at most one second after the lease."""


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a distributor with short leases. Each test takes a queue of its own."""
    with Processes(tmp_path_factory.mktemp("hasty")) as started:
        yield started.serve("--lease", f"{LEASE_S}s").address


async def test_the_task_of_a_killed_agent_is_finished_by_another(
    processes: Processes, hasty_server: str, feed: str
) -> None:
    """P4, P5: offered again a second after its lease at the latest; lost, not failed."""
    queue = f"killed-{feed}"
    flags = ("--queues", queue, "--failure-rate", "0")
    first = processes.agent("first", hasty_server, *flags)
    async with Stub(hasty_server) as client:
        submitted = await client.submit(user_tier="paid", est_processing_time_s=60, queue=queue)
        first.wait_for("task started", task_id=submitted.task_id)
        second = processes.agent("second", hasty_server, *flags, "--speed", "1000")
        second.wait_for("agent started")
        killed_at = datetime.now(UTC)
        first.kill()
        started = second.wait_for("task started", task_id=submitted.task_id, attempt=2)
        second.wait_for("task succeeded", task_id=submitted.task_id)
        task = await client.get(submitted.task_id)

    assert when(started) - killed_at < timedelta(seconds=LATEST_S)
    assert (task.state, task.retry_count, task.lost_count) == (TaskState.SUCCEEDED, 0, 1)
    assert [(attempt.agent_id, attempt.outcome) for attempt in task.attempts] == [
        ("first", Outcome.LOST),
        ("second", Outcome.SUCCEEDED),
    ]


async def test_an_agent_that_stood_still_past_its_lease_changes_nothing(
    processes: Processes, hasty_server: str, feed: str
) -> None:
    """P3: its late outcome is refused, and the other agent's stays."""
    queue = f"frozen-{feed}"
    frozen = processes.agent(
        *("frozen", hasty_server, "--queues", queue, "--failure-rate", "0", "--speed", "100")
    )
    async with Stub(hasty_server) as client:
        # Its work would be done within the lease, if it did not stand still.
        submitted = await client.submit(user_tier="paid", est_processing_time_s=50, queue=queue)
        frozen.wait_for("task started", task_id=submitted.task_id)
        frozen.pause()

        work = await client.fetch(agent_id="other", queues=[queue], wait_s=LIMIT_S)
        assert work is not None
        assert (work.task_id, work.attempt) == (submitted.task_id, 2)
        frozen.resume()
        # What it does first is chance: it reports, or finds that its lease is over.
        noticed = frozen.wait_for_any("outcome refused", "lease lost")
        assert noticed["task_id"] == submitted.task_id
        assert not frozen.logged("task succeeded")

        lost = (await client.get(submitted.task_id)).attempts[0]
        assert (lost.agent_id, lost.outcome) == ("frozen", Outcome.LOST)
        with pytest.raises(PreconditionFailed):
            await client.complete(
                task_id=submitted.task_id,
                agent_id="frozen",
                lease_id=lost.lease_id,
                success=True,
                result=b"late",
            )
        await client.complete(
            task_id=submitted.task_id,
            agent_id="other",
            lease_id=work.lease_id,
            success=True,
            result=b"in time",
        )
        task = await client.get(submitted.task_id)
        assert (task.state, task.result, task.lost_count) == (TaskState.SUCCEEDED, b"in time", 1)

        # It is of use again.
        again = await client.submit(user_tier="paid", est_processing_time_s=1, queue=queue)
        frozen.wait_for("task succeeded", task_id=again.task_id)
