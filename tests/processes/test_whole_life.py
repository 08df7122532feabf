"""What falls due by itself, and what people do about the dead, in real processes with SIGKILL."""

from datetime import UTC, datetime, timedelta
from typing import Any

from taskdist.client import Stub
from taskdist.core.task import Outcome, TaskState
from taskdist.reports import Selection
from tests.support.processes import Processes, when

SECOND = timedelta(seconds=1)


async def test_what_was_to_come_later_comes_although_the_distributor_was_killed(
    processes: Processes,
) -> None:
    """P1, P4: a delay, a backoff and a deadline outlive it; a key is still known."""
    serving = processes.serve()
    async with Stub(serving.address) as client:
        said: Any = {"user_tier": "paid", "est_processing_time_s": 0.1}
        failed = await client.submit(**said, idempotency_key="order-1")
        work = await client.fetch(agent_id="tester")
        assert work is not None
        await client.complete(
            task_id=work.task_id,
            agent_id="tester",
            lease_id=work.lease_id,
            success=False,
            error="not yet",
            retry_after_s=3,
        )
        failed_at = datetime.now(UTC)
        delayed = await client.submit(**said, delay_s=2)
        late = await client.submit(**said, deadline_s=0.5, kind="nobody-runs-this")
        due_at = (await client.get(delayed.task_id)).due_at
    assert due_at is not None

    serving.kill()
    serving = processes.serve(listen=serving.address)
    agent = processes.agent("agent-1", serving.address, "--failure-rate", "0")
    began = agent.wait_for("task started", task_id=delayed.task_id)
    again = agent.wait_for("task started", task_id=failed.task_id)
    agent.wait_for("task succeeded", task_id=failed.task_id)
    assert due_at <= when(began)  # How soon after it, tests with a clock of their own say.
    assert when(again) - failed_at > 2.5 * SECOND
    async with Stub(serving.address) as client:
        repeated = await client.submit(**said, idempotency_key="order-1")
        dead = await client.get(late.task_id)
    assert (repeated.task_id, repeated.state) == (failed.task_id, TaskState.SUCCEEDED)
    assert (dead.state, dead.error) == (
        TaskState.DEAD,
        "its deadline passed before it could be started",
    )


async def test_a_task_that_kills_its_agents_is_dead_until_people_put_it_back(
    processes: Processes, server: str
) -> None:
    """P5: the third lost lease ends it; redriven, it is as if new, with its history."""
    flags = ("--queues", "poison", "--failure-rate", "0")
    async with Stub(server) as client:
        task_id = (
            await client.submit(
                user_tier="free", est_processing_time_s=60, queue="poison", lease_s=1
            )
        ).task_id
        for number in (1, 2, 3):
            victim = processes.agent(f"victim-{number}", server, *flags)
            victim.wait_for("task started", task_id=task_id, attempt=number)
            victim.kill()
        states = [task.state async for task in client.watch(task_id)]
        dead = await client.get(task_id)
        assert states[-1] is TaskState.DEAD
        assert (dead.lost_count, dead.retry_count) == (3, 0)
        assert dead.error == "lost leases: 3, the last one by victim-3"

        assert await client.redrive(Selection(queue="poison")) == 1
        agent = processes.agent("agent-4", server, *flags, "--speed", "1000")
        agent.wait_for("task succeeded", task_id=task_id)
        task = await client.get(task_id)
    assert (task.state, task.lost_count) == (TaskState.SUCCEEDED, 0)
    assert [attempt.outcome for attempt in task.attempts] == [
        Outcome.LOST,
        Outcome.LOST,
        Outcome.LOST,
        Outcome.SUCCEEDED,
    ]
