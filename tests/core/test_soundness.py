"""What a check holds against a task, and that it holds nothing against a sound one."""

from typing import Any

import pytest

from taskdist.core.soundness import faults
from taskdist.core.task import Lease, Task, TaskState

LEASE = Lease("lease-1", "agent-1", "", 1, 1, 1, 1, 2)
SOUND: dict[TaskState, dict[str, Any]] = {
    TaskState.SCHEDULED: {"due_at_us": 5},
    TaskState.READY: {},
    TaskState.LEASED: {"lease": LEASE, "attempt": 1},
    TaskState.SUCCEEDED: {"finished_at_us": 5, "attempt": 1},
    TaskState.DEAD: {"finished_at_us": 5, "retry_count": 4, "attempt": 4},
    TaskState.CANCELLED: {"finished_at_us": 5},
}


def found(state: TaskState, *, has_result: bool | None = None, **said: Any) -> list[str]:
    """The faults of a task in this state that is sound but for what is said."""
    task = Task(
        id="00000000-0000-7000-8000-000000000001",
        user_tier="paid",
        est_processing_time_us=1,
        state=state,
        **{"data_bytes": 3, **SOUND[state], **said},
    )
    succeeded = state is TaskState.SUCCEEDED
    return list(
        faults(task, data_bytes=3, has_result=succeeded if has_result is None else has_result)
    )


@pytest.mark.parametrize("state", TaskState)
def test_a_sound_task_has_none(state: TaskState) -> None:
    assert SOUND.keys() == set(TaskState)
    assert found(state) == []


@pytest.mark.parametrize(
    ("state", "said", "fault"),
    [
        (TaskState.READY, {"lease": LEASE}, "ready, yet with a lease"),
        (TaskState.LEASED, {"lease": None}, "leased, yet without a lease"),
        (TaskState.READY, {"has_result": True}, "ready, yet with a result"),
        (TaskState.SUCCEEDED, {"has_result": False}, "succeeded, yet without a result"),
        (TaskState.READY, {"finished_at_us": 5}, "ready, yet with a time when it finished"),
        (TaskState.DEAD, {"finished_at_us": None}, "dead, yet without a time when it finished"),
        (TaskState.READY, {"due_at_us": 5}, "ready, yet with a time when it is due"),
        (TaskState.SCHEDULED, {"due_at_us": None}, "scheduled, yet without a time when it is due"),
        (TaskState.READY, {"backoff_until_us": 5}, "ready, yet in a backoff"),
        (TaskState.READY, {"data_bytes": 4}, "3 bytes of data, yet 4 are counted"),
        (
            TaskState.READY,
            {"retry_count": 4, "attempt": 4},
            "ready after 4 failures; possible: at most 3",
        ),
        (
            TaskState.DEAD,
            {"retry_count": 5, "attempt": 5},
            "dead after 5 failures; possible: at most 4",
        ),
        (TaskState.LEASED, {"lost_count": 1}, "1 runs, yet 2 are accounted for"),
        (TaskState.SUCCEEDED, {"attempt": 0}, "0 runs, yet 1 are accounted for"),
    ],
)
def test_what_cannot_be_is_a_fault(state: TaskState, said: dict[str, Any], fault: str) -> None:
    assert found(state, **said) == [fault]
