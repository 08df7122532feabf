"""P2 from end to end: the command line submits over TCP, two real agents work in exact order."""

import asyncio
import uuid

from taskdist.client import Stub
from tests.support.processes import LIMIT_S, Processes

SPEED = "20"


async def test_two_agents_work_in_exactly_the_promised_order(
    processes: Processes, server: str, feed: str
) -> None:
    """P2: paid before free, shorter before longer, older before newer, whoever asks."""
    queue = f"order-{feed}"
    submits = {
        str(uuid.uuid4()): ("--tier", tier, "--time", seconds)
        for tier, seconds in [("free", "10"), ("paid", "3")]
    }
    free_10, paid_3 = submits
    submitting = [
        processes.spawn(
            *("submit", *flags, "--queue", queue, "--id", task_id), TASKDIST_SERVER=server
        )
        for task_id, flags in submits.items()
    ]
    assert [one.wait_end() for one in submitting] == [0, 0]

    async with Stub(server) as client:
        # Two differ from an earlier one by their age alone.
        paid_5, free_2, newer_free_2, newer_paid_3, paid_half = [
            (
                await client.submit(user_tier=tier, est_processing_time_s=seconds, queue=queue)
            ).task_id
            for tier, seconds in [
                ("paid", 5),
                ("free", 2),
                ("free", 2),
                ("paid", 3),
                ("paid", 0.5),
            ]
        ]
        expected = [paid_half, paid_3, newer_paid_3, paid_5, free_2, newer_free_2, free_10]
        assert [(await client.get(task_id)).queue_position for task_id in expected] == [
            *range(1, 8)
        ]

        agents = [
            processes.agent(
                *(name, server, "--queues", queue, "--speed", SPEED, "--failure-rate", "0")
            )
            for name in ("agent-1", "agent-2")
        ]
        async with asyncio.timeout(LIMIT_S):
            for task_id in expected:
                async for _ in client.watch(task_id):
                    pass
        given = {task_id: (await client.get(task_id)).attempts[0] for task_id in expected}

    for agent in agents:
        agent.terminate()
    assert [agent.wait_end() for agent in agents] == [0, 0]
    starts = [[line["task_id"] for line in agent.logged("task started")] for agent in agents]
    assert sorted(starts[0] + starts[1]) == sorted(expected), "each task was started once"
    for started in starts:
        assert started == sorted(started, key=expected.index)
    # Which of two agents writes its line first proves nothing; when the lease began, does.
    assert sorted(expected, key=lambda task_id: given[task_id].started_at) == expected
