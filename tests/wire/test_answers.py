"""Answers to responses: every field, in seconds and timestamps."""

from datetime import UTC, datetime

import pytest
from google.protobuf.message_factory import GetMessageClass

from taskdist.core.commands import Grant, Grants, Held, Placed, Settled
from taskdist.core.queries import TaskHistory, TaskPage
from taskdist.core.task import Attempt, Lease, Outcome, Task, TaskState
from taskdist.wire import convert, convert_agents, convert_submits
from taskdist.wire import messages as wire
from taskdist.wire.codec import descriptor_pool

ID = "0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
NOON_US = 1_782_907_200_000_000

LEASE = Lease(
    lease_id="L",
    agent_id="agent-1",
    session="s-1",
    started_at_us=NOON_US,
    started_us=7,
    term_us=1_500_000,
    run_timeout_us=3_600_000_000,
    expires_us=1_500_007,
)
WAITING = Task(
    id=ID,
    user_tier="free",
    est_processing_time_us=2_500_001,
    kind="resize",
    queue="images",
    max_retries=0,
    sequence=5,
    retry_count=1,
    lost_count=2,
    attempt=4,
    submitted_at_us=NOON_US + 1,
    enqueued_at_us=NOON_US + 2,
)
LEASED = WAITING.evolve(state=TaskState.LEASED, lease=LEASE)
DEAD = WAITING.evolve(state=TaskState.DEAD, finished_at_us=NOON_US + 3)


def at(us: int) -> datetime:
    """So many microseconds after noon."""
    return NOON.replace(microsecond=us)


ON_THE_WIRE = wire.Task(
    task_id=ID,
    state=wire.TaskState["READY"],
    user_tier="free",
    est_processing_time=2.500001,
    kind="resize",
    queue="images",
    sequence=5,
    retry_count=1,
    max_retries=0,
    lost_count=2,
    attempt=4,
    queue_position=9,
    submitted_at=at(1),
    enqueued_at=at(2),
)


def test_submitted() -> None:
    assert convert_submits.submitted(Placed(WAITING, 9)) == wire.SubmitTaskResponse(
        task_id=ID, status=wire.TaskState["READY"], queue_position=9
    )


def test_fetched() -> None:
    assert convert_agents.fetched(Grants((Grant(LEASED, b"in"),))) == wire.FetchTaskResponse(
        has_task=True,
        task_id=ID,
        user_tier="free",
        est_processing_time=2.500001,
        data=b"in",
        kind="resize",
        queue="images",
        retry_count=1,
        lease_id="L",
        lease_seconds=1.5,
        sequence=5,
        attempt=4,
        run_timeout_seconds=3_600,
    )


def test_fetched_nothing() -> None:
    assert convert_agents.fetched(Grants()) == wire.FetchTaskResponse()


@pytest.mark.parametrize(
    ("outcome", "led_to", "text"),
    [
        (Outcome.SUCCEEDED, TaskState.SUCCEEDED, "succeeded; its result is kept"),
        (Outcome.FAILED, TaskState.READY, "failed; it will be retried after all new tasks"),
        (Outcome.FAILED, TaskState.DEAD, "failed; dead, its errors are kept"),
    ],
)
def test_completed(outcome: Outcome, led_to: TaskState, text: str) -> None:
    assert convert_agents.completed(Settled(outcome, led_to)) == wire.CompleteTaskResponse(
        acknowledged=True, message=text
    )


@pytest.mark.parametrize("led_to", [TaskState.READY, TaskState.DEAD])
def test_released(led_to: TaskState) -> None:
    released = convert_agents.released(Settled(Outcome.RELEASED, led_to))
    assert released.status.name == led_to.name


def test_held() -> None:
    assert convert_agents.held(Held(("L", "M"))) == wire.HeartbeatResponse(lease_ids=["L", "M"])


def test_cancelled() -> None:
    cancelled = convert.cancelled(Placed(WAITING.evolve(state=TaskState.CANCELLED)))
    assert cancelled == wire.CancelTaskResponse(status=wire.TaskState["CANCELLED"])


def test_pong() -> None:
    assert convert.pong(wire.PingRequest(message="hello"), NOON_US + 123_456) == wire.PingResponse(
        message="hello", timestamp=at(123_456)
    )


def test_got() -> None:
    attempts = tuple(
        Attempt(
            attempt=number,
            lease_id=f"L{number}",
            agent_id="agent-1",
            session="s-1",
            started_at_us=NOON_US + number,
            ended_at_us=NOON_US + 100 + number,
            outcome=outcome,
            led_to=TaskState.READY,
            error="broken" if outcome is Outcome.FAILED else "",
        )
        for number, outcome in enumerate(Outcome, start=1)
    )
    got = convert.got(TaskHistory(WAITING, b"42", attempts), 9)
    assert got == wire.GetTaskResponse(
        task=ON_THE_WIRE,
        result=b"42",
        error="broken",
        attempts=[
            wire.Attempt(
                attempt=number,
                agent_id="agent-1",
                session="s-1",
                lease_id=f"L{number}",
                started_at=at(number),
                ended_at=at(100 + number),
                outcome=wire.AttemptOutcome[outcome.name],
                error="broken" if outcome is Outcome.FAILED else "",
            )
            for number, outcome in enumerate(Outcome, start=1)
        ],
    )


def test_the_wire_has_no_other_outcomes() -> None:
    words = {outcome.name for outcome in wire.AttemptOutcome}
    assert words == {"UNSPECIFIED", *Outcome.__members__}


def test_watched() -> None:
    task = convert.watched(LEASED, 0, b"", "broken").task
    assert task.state == wire.TaskState.LEASED
    assert task.agent_id == "agent-1"
    end = convert.watched(DEAD, 0, b"42", "broken")
    assert (end.result, end.error) == (b"42", "broken")
    assert end.task.finished_at == at(3)


def test_what_is_not_final_has_no_end_on_the_wire() -> None:
    google = GetMessageClass(descriptor_pool().FindMessageTypeByName("taskdist.v1.Task"))
    for task in (WAITING, DEAD):
        sent = google.FromString(bytes(convert.watched(task, 0, b"", "").task))
        assert sent.HasField("finished_at") is (task is DEAD)


def test_listed() -> None:
    page = convert.listed(TaskPage((DEAD, WAITING), 4))
    assert page.next_cursor == "4"
    assert [task.state for task in page.tasks] == [wire.TaskState.DEAD, wire.TaskState.READY]
    assert [task.queue_position for task in page.tasks] == [0, 0]


def test_the_last_page_has_no_cursor() -> None:
    assert convert.listed(TaskPage((), None)) == wire.ListTasksResponse()
