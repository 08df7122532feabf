"""P7: how many parts a message may have: all that the contract allows, and not much more."""

import time
from datetime import UTC, datetime
from typing import Any

import betterproto
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from taskdist.core.queries import TaskPage
from taskdist.core.task import Backoff, Task, TaskState
from taskdist.limits import (
    HEARTBEAT_LEASES_MAX,
    MESSAGE_BYTES_MAX,
    OUTCOMES_MAX,
    PAGE_SIZE_MAX,
    REQUEST_PARTS_MAX,
    RESPONSE_PARTS_MAX,
    SUBMIT_TASKS_MAX,
)
from taskdist.wire import convert, convert_submits
from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec, descriptor_pool, make

REQUESTS, RESPONSES = Codec(REQUEST_PARTS_MAX), Codec(RESPONSE_PARTS_MAX)
ID = "0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00"
NOON = datetime(2026, 7, 1, 12, 0, 0, 1, tzinfo=UTC)
NOON_US = 1_782_907_200_000_001
NAME = "n" * 64
KEY = "é" * 128

FULL_TASK = make(
    wire.SubmitTaskRequest,
    user_tier="paid",
    est_processing_time=1.5,
    data=b"in",
    task_id=ID,
    kind=NAME,
    queue=NAME,
    max_retries=5,
    backoff=make(
        wire.Backoff,
        kind=wire.BackoffKind.EXPONENTIAL,
        initial_seconds=1.0,
        max_seconds=60.0,
        jitter_percent=50,
    ),
    timing=make(
        wire.Timing,
        not_before=NOON,
        deadline=NOON,
        run_timeout_seconds=60.0,
        lease_seconds=60.0,
    ),
    idempotency_key=KEY,
)
ONLY_ONE_OF_TWO = {"delay_seconds", "deadline_seconds"}
"""Each stands for what stands beside it, which has more parts."""


def unset(message: Any) -> set[str]:
    """The fields of a message, and of those in it, that are not there."""
    name = type(message).__name__
    google = descriptor_pool().FindMessageTypeByName(f"taskdist.v1.{name}")
    inside = message.__dict__
    missing = {
        field.name
        for field in google.fields
        if inside[field.name] is betterproto.PLACEHOLDER or inside[field.name] in (None, 0, "", b"")
    }
    for value in inside.values():
        if isinstance(value, betterproto.Message):
            missing |= unset(value)
    return missing


def test_p7_as_many_tasks_as_may_be_submitted_at_once_with_all_that_can_be_said() -> None:
    assert unset(FULL_TASK) == ONLY_ONE_OF_TWO, "a new field: is there still room for it?"
    request = make(
        wire.SubmitTasksRequest, tasks=[FULL_TASK] * SUBMIT_TASKS_MAX, atomic=False, positions=True
    )
    data = REQUESTS.encode(request, wire.SubmitTasksRequest)
    assert len(data) < MESSAGE_BYTES_MAX
    read = REQUESTS.decode(data, wire.SubmitTasksRequest)
    several, refused = convert_submits.submit_several(read, ("paid", "free"), lambda: ID)
    assert (len(several.commands), refused) == (SUBMIT_TASKS_MAX, {})


def test_p7_a_page_of_tasks_with_all_that_can_be_told_can_be_read() -> None:
    """More than any one task has: none is scheduled, leased and finished at once."""
    task = Task(
        id=ID,
        user_tier=NAME,
        est_processing_time_us=1,
        kind=NAME,
        queue=NAME,
        backoff=Backoff.EXPONENTIAL,
        backoff_us=1,
        backoff_max_us=1,
        backoff_jitter_percent=1,
        run_timeout_us=1_000,
        lease_us=1_000_000,
        deadline_us=NOON_US,
        idempotency_key=KEY,
        data_bytes=1,
        sequence=1,
        state=TaskState.SCHEDULED,
        retry_count=1,
        lost_count=1,
        attempt=1,
        submitted_at_us=NOON_US,
        due_at_us=NOON_US,
        enqueued_at_us=NOON_US,
        finished_at_us=NOON_US,
    )
    page = convert.listed(TaskPage((task,) * PAGE_SIZE_MAX, 1))
    for one in page.tasks:
        one.queue_position = 1
        one.agent_id = NAME
        one.waits_because = NAME
    never_listed = {"leased_at"}
    assert unset(page.tasks[0]) == never_listed, "a new field: is there still room for it?"
    data = RESPONSES.encode(page, wire.ListTasksResponse)
    assert len(data) < MESSAGE_BYTES_MAX
    assert RESPONSES.decode(data, wire.ListTasksResponse) == page


def test_p7_full_heartbeats_and_outcomes_can_be_read() -> None:
    beat = make(wire.HeartbeatRequest, agent_id=NAME, lease_ids=["lease"] * HEARTBEAT_LEASES_MAX)
    assert REQUESTS.decode(REQUESTS.encode(beat, wire.HeartbeatRequest), wire.HeartbeatRequest)
    outcome = make(
        wire.CompleteTaskRequest,
        task_id=ID,
        agent_id=NAME,
        success=True,
        result=b"1",
        lease_id="lease",
        error="no",
        retryable=True,
        retry_after_seconds=1.0,
    )
    assert unset(outcome) == set()
    work = make(wire.WorkRequest, outcomes=[outcome] * OUTCOMES_MAX, slots=1, goodbye=True)
    assert REQUESTS.decode(REQUESTS.encode(work, wire.WorkRequest), wire.WorkRequest) == work


def nested(*numbers: int, inside: bytes) -> bytes:
    """The bytes inside sub-messages of these fields, the innermost last."""
    for number in reversed(numbers):
        tag = betterproto.encode_varint(number << 3 | 2)
        inside = tag + betterproto.encode_varint(len(inside)) + inside
    return inside


@pytest.mark.parametrize("where", [(), (1,), (1, 8), (1, 9), (1, 9, 2)], ids=str)
@pytest.mark.parametrize("part", [b"\x08\x00", b"\x0a\x00", b"\xf8\x3f\x00"])
def test_p7_4_mib_of_the_smallest_parts_are_refused_at_once(
    where: tuple[int, ...], part: bytes
) -> None:
    """The fastest of several, so that a busy machine does not count."""
    data = nested(*where, inside=part * ((MESSAGE_BYTES_MAX - 20) // len(part)))
    fastest_s = 1.0
    for _ in range(5):
        start_s = time.perf_counter()
        with pytest.raises(GRPCError) as refused:
            REQUESTS.decode(data, wire.SubmitTasksRequest)
        fastest_s = min(fastest_s, time.perf_counter() - start_s)
        assert refused.value.status is Status.RESOURCE_EXHAUSTED
    assert fastest_s < 0.05, "some 5 ms, or 160 ms if it were parsed"
