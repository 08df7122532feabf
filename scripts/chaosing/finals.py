"""What became of every task: read from the distributor when all has come to rest."""

import asyncio
import time

from scripts.chaosing.history import Recorder, digest
from taskdist.client import Stub
from taskdist.core.task import TaskState
from taskdist.reports import TaskReport

LIVE = (TaskState.SCHEDULED, TaskState.READY, TaskState.LEASED)

LOOK_EVERY_S = 0.5

READERS = 16


async def wait_for_none_live(client: Stub, patience_s: float) -> bool:
    """Whether every task has ended by then."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if not [task async for task in client.list_tasks(states=LIVE, page_size=1)]:
            return True
        await asyncio.sleep(LOOK_EVERY_S)
    return False


async def write_all(client: Stub, record: Recorder) -> None:
    """Writes a line about each task."""
    task_ids = [task.task_id async for task in client.list_tasks(page_size=1_000)]
    left = iter(task_ids)

    async def read() -> None:
        for task_id in left:
            record.write("final", task=_told(await client.get(task_id)))

    await asyncio.gather(*(read() for _ in range(READERS)))


def _told(task: TaskReport) -> dict[str, object]:
    return {
        "task_id": task.task_id,
        "state": task.state.name,
        "user_tier": task.user_tier,
        "est_processing_time_s": task.est_processing_time_s,
        "kind": task.kind,
        "queue": task.queue,
        "sequence": task.sequence,
        "retry_count": task.retry_count,
        "max_retries": task.max_retries,
        "lost_count": task.lost_count,
        "attempt": task.attempt,
        "submitted_at": task.submitted_at.timestamp(),
        "enqueued_at": task.enqueued_at.timestamp() if task.enqueued_at else None,
        "finished_at": task.finished_at.timestamp() if task.finished_at else None,
        "deadline": task.deadline.timestamp() if task.deadline else None,
        "data_bytes": task.data_bytes,
        "lease_s": task.lease_s,
        "run_timeout_s": task.run_timeout_s,
        "idempotency_key": task.idempotency_key,
        "result_digest": digest(task.result),
        "attempts": [
            (
                attempt.attempt,
                attempt.lease_id,
                attempt.session,
                attempt.started_at.timestamp(),
                attempt.ended_at.timestamp(),
                attempt.outcome.name,
                digest(attempt.error.encode()),
            )
            for attempt in task.attempts
        ],
    }
