"""SIGTERM stops a distributor and an agent well (real processes, real exit codes)."""

import asyncio
from time import monotonic

import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality

from taskdist.client import Stub
from taskdist.core.errors import Unavailable
from taskdist.core.task import Outcome, TaskState
from taskdist.wire.codec import Codec
from tests.support.processes import Processes, Spawned

PROMPTLY_S = 5
"""Well under the ten seconds that a stop may wait for calls: nothing was waited for."""


async def test_a_stop_ends_long_polls_and_watches_and_closes_the_store(
    processes: Processes,
) -> None:
    """SIGTERM: every waiting caller is answered, exit 0, and the store opens again as it was."""
    serving = processes.serve()
    async with Stub(serving.address) as client:
        task = await client.submit(user_tier="free", est_processing_time_s=1, queue="other")
        polling = asyncio.ensure_future(client.fetch(agent_id="tester", wait_s=60))
        watching = client.watch(task.task_id)
        assert (await anext(watching)).state is TaskState.READY
        next_change = asyncio.ensure_future(anext(watching))
        await client.ping()  # on the same connection: the long-poll has arrived by now

        terminated_at = monotonic()
        serving.terminate()
        assert await polling is None
        with pytest.raises(Unavailable, match="stopping"):
            await next_change
        assert await asyncio.to_thread(serving.wait_end) == 0
        assert monotonic() - terminated_at < PROMPTLY_S
        assert serving.logged("stopped")
        assert not serving.logged("calls cut off")
    assert not serving.texts(), "no traceback"
    log = processes.directory / "tasks.db-wal"
    assert not log.exists() or log.stat().st_size == 0, "its log is folded into the file"

    serving = processes.serve()
    async with Stub(serving.address) as client:
        assert [kept.task_id async for kept in client.list_tasks()] == [task.task_id]


async def test_a_second_signal_stops_a_distributor_at_once(processes: Processes) -> None:
    """A call that does not end is not waited for any longer: exit 143."""
    serving = processes.serve("--drain", "60s")
    host, port = serving.address.split(":")
    async with Channel(host, int(port), codec=Codec()) as channel:
        path = "/taskdist.v1.TaskDistributor/Ping"
        stream = channel.request(path, Cardinality.UNARY_UNARY, bytes, bytes)
        await stream.__aenter__()
        await stream.send_request()  # and never a message
        await Stub(channel=channel).ping()  # on the same connection: the call has arrived by now
        serving.terminate()
        serving.wait_for("stopping")
        serving.terminate()
        assert serving.wait_end() == 143
    assert not serving.texts(), "no traceback"


def running(processes: Processes, server: str, queue: str, *flags: str) -> Spawned:
    """An agent with a free slot that takes from a queue of its own."""
    return processes.agent(
        *("drained", server, "--queues", queue, "--slots", "2", "--failure-rate", "0", *flags)
    )


async def test_sigterm_lets_an_agent_finish_its_work(
    processes: Processes, server: str, feed: str
) -> None:
    """The drain: no new tasks, running ones are finished and reported, exit 0."""
    queue = f"finish-{feed}"
    agent = running(processes, server, queue)
    async with Stub(server) as client:
        first = await client.submit(user_tier="free", est_processing_time_s=0.7, queue=queue)
        agent.wait_for("task started", task_id=first.task_id)
        agent.terminate()
        agent.wait_for("draining", running=1)
        late = await client.submit(user_tier="free", est_processing_time_s=0, queue=queue)

        assert agent.wait_end() == 0
        assert agent.logged("task succeeded", task_id=first.task_id)
        assert (await client.get(first.task_id)).state is TaskState.SUCCEEDED
        assert (await client.get(late.task_id)).state is TaskState.READY


@pytest.mark.parametrize(
    ("drain_timeout", "signals", "code"),
    [("0.3s", 1, 0), ("60s", 2, 143)],
    ids=["timeout", "twice"],
)
async def test_a_drain_hands_back_what_it_cannot_finish(
    processes: Processes, server: str, feed: str, drain_timeout: str, signals: int, code: int
) -> None:
    """P5: after --drain-timeout, or a second SIGTERM, the task is ready again, nothing counted."""
    queue = f"hand-back-{signals}-{feed}"
    agent = running(processes, server, queue, "--drain-timeout", drain_timeout)
    async with Stub(server) as client:
        submitted = await client.submit(user_tier="free", est_processing_time_s=600, queue=queue)
        agent.wait_for("task started", task_id=submitted.task_id)
        for _ in range(signals):
            agent.terminate()
            agent.wait_for("draining")

        assert agent.wait_end() == code
        assert agent.logged("task handed back", task_id=submitted.task_id)
        task = await client.get(submitted.task_id)
    assert (task.state, task.queue_position) == (TaskState.READY, 1)
    assert (task.retry_count, task.lost_count) == (0, 0)
    assert [attempt.outcome for attempt in task.attempts] == [Outcome.RELEASED]
