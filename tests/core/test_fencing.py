"""P3: a lease has one holder, and nobody else can end or extend it; repeats answer the same."""

from dataclasses import replace

import pytest

from taskdist.core.commands import Found, Heartbeat, Held, Settle, Settled
from taskdist.core.decide import decide
from taskdist.core.errors import InvalidFields, LeaseNotHeld
from taskdist.core.task import Attempt, Outcome, Task, TaskState
from tests.core.making import SETTINGS, attempt, lease, leased, moment, ready, task_id
from tests.support.changes import kept

OUTCOMES = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.RELEASED]
STRICT = SETTINGS.model_copy(update={"require_lease_id": True})
BY_ANOTHER = lease("lease-2", "agent-2")


def settle(
    outcome: Outcome = Outcome.SUCCEEDED,
    agent_id: str = "agent-1",
    lease_id: str = "lease-1",
    *,
    result: bytes = b"",
    error: str = "",
) -> Settle:
    return Settle(task_id(1), agent_id, lease_id, outcome, result, error)


def refused(command: Settle, found: Found) -> str:
    """The text with which it is refused."""
    with pytest.raises(LeaseNotHeld) as refusal:
        decide(command, found, moment(5), SETTINGS)
    return str(refusal.value)


# --- who may end a lease ----------------------------------------------------------------------


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_p3_another_agent_is_refused_even_with_the_right_lease_id(outcome: Outcome) -> None:
    text = refused(settle(outcome, agent_id="agent-2"), Found(tasks=[leased()]))
    assert "agent-2 does not hold lease lease-1" in text
    assert "which is leased" in text


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_p3_the_right_agent_is_refused_with_another_lease_id(outcome: Outcome) -> None:
    refused(settle(outcome, lease_id="lease-0"), Found(tasks=[leased()]))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_p3_a_task_that_is_not_leased_is_nobodys(outcome: Outcome) -> None:
    refused(settle(outcome), Found(tasks=[ready()]))
    refused(settle(outcome, lease_id=""), Found(tasks=[ready()]))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_p3_without_a_lease_id_the_agent_id_alone_decides(outcome: Outcome) -> None:
    decision = decide(settle(outcome, lease_id=""), Found(tasks=[leased()]), moment(), SETTINGS)
    assert decision.answer.outcome is outcome
    text = refused(settle(outcome, "agent-2", lease_id=""), Found(tasks=[leased()]))
    assert "does not hold a lease of task" in text


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_p3_a_distributor_may_require_the_lease_id(outcome: Outcome) -> None:
    with pytest.raises(InvalidFields, match="require-lease-id") as refusal:
        decide(settle(outcome, lease_id=""), Found(tasks=[leased()]), moment(), STRICT)
    assert [field.field for field in refusal.value.fields] == ["lease_id"]
    assert decide(settle(outcome), Found(tasks=[leased()]), moment(), STRICT).changes


# --- repeats ----------------------------------------------------------------------------------

ENDED: list[tuple[Settle, Attempt, bytes]] = [
    (
        settle(Outcome.SUCCEEDED, result=b"42"),
        attempt(Outcome.SUCCEEDED, TaskState.SUCCEEDED),
        b"42",
    ),
    (
        settle(Outcome.FAILED, error="bad"),
        attempt(Outcome.FAILED, TaskState.READY, error="bad"),
        b"",
    ),
    (
        settle(Outcome.FAILED, error="bad"),
        attempt(Outcome.FAILED, TaskState.DEAD, error="bad"),
        b"",
    ),
    (settle(Outcome.RELEASED), attempt(Outcome.RELEASED, TaskState.READY), b""),
]

NOW: list[Task] = [
    ready(),
    leased(held=BY_ANOTHER, attempt=2),
    leased(held=lease("lease-3"), attempt=3),
    ready(state=TaskState.SUCCEEDED),
    ready(state=TaskState.DEAD),
    ready(state=TaskState.CANCELLED),
]


@pytest.mark.parametrize("now", NOW, ids=lambda task: task.state.value)
@pytest.mark.parametrize(("command", "was", "result"), ENDED)
def test_p3_a_repeated_outcome_answers_the_same_wherever_the_task_has_moved_on_to(
    command: Settle, was: Attempt, result: bytes, now: Task
) -> None:
    found = Found(tasks=[now], attempt=was, result=result)
    decision = decide(command, found, moment(99), SETTINGS)
    assert decision.answer == Settled(was.outcome, was.led_to)
    assert decision.changes == []


@pytest.mark.parametrize(("command", "was", "result"), ENDED)
def test_p3_a_repeat_without_a_lease_id_answers_the_same_too(
    command: Settle, was: Attempt, result: bytes
) -> None:
    found = Found(tasks=[leased(held=BY_ANOTHER, attempt=2)], attempt=was, result=result)
    decision = decide(replace(command, lease_id=""), found, moment(99), SETTINGS)
    assert decision.answer == Settled(was.outcome, was.led_to)


@pytest.mark.parametrize(("command", "was", "result"), ENDED)
def test_p3_another_outcome_than_the_first_is_refused(
    command: Settle, was: Attempt, result: bytes
) -> None:
    for other in OUTCOMES:
        if other is not command.outcome:
            found = Found(tasks=[ready()], attempt=was, result=result)
            refused(replace(command, outcome=other), found)


def test_p3_the_same_outcome_with_other_content_is_refused() -> None:
    was = attempt(Outcome.SUCCEEDED, TaskState.SUCCEEDED)
    done = Found(tasks=[ready(state=TaskState.SUCCEEDED)], attempt=was, result=b"42")
    assert "which is succeeded" in refused(settle(Outcome.SUCCEEDED, result=b"43"), done)
    was = attempt(Outcome.FAILED, TaskState.READY, error="bad")
    refused(settle(Outcome.FAILED, error="worse"), Found(tasks=[ready()], attempt=was))


@pytest.mark.parametrize(("command", "was", "result"), ENDED)
def test_p3_another_agent_cannot_repeat_it(command: Settle, was: Attempt, result: bytes) -> None:
    found = Found(tasks=[ready()], attempt=was, result=result)
    refused(replace(command, agent_id="agent-2"), found)


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.CANCELLED])
def test_p3_an_outcome_that_comes_after_the_lease_was_lost_or_cancelled_is_refused(
    outcome: Outcome,
) -> None:
    found = Found(tasks=[ready()], attempt=attempt(outcome, TaskState.READY))
    for command in (settle(Outcome.SUCCEEDED), settle(Outcome.FAILED), settle(Outcome.RELEASED)):
        refused(command, found)


# --- heartbeats -------------------------------------------------------------------------------


def heard(heartbeat: Heartbeat, *tasks: Task) -> list[str]:
    """The leases that are still held, each of which was extended, and no other."""
    decision = decide(heartbeat, Found(tasks=tasks), moment(5), SETTINGS)
    assert isinstance(decision.answer, Held)
    extended = [lease.lease_id for change in decision.changes if (lease := kept(change).lease)]
    assert extended == list(decision.answer.lease_ids)
    return extended


def test_p3_a_heartbeat_extends_its_own_agents_leases_alone() -> None:
    mine, theirs = leased(1), leased(2, BY_ANOTHER)
    assert heard(Heartbeat("agent-1", ("lease-1", "lease-2")), mine, theirs) == ["lease-1"]
    assert heard(Heartbeat("agent-3", ("lease-1", "lease-2")), mine, theirs) == []


def test_a_heartbeat_that_names_no_leases_extends_all_that_the_agent_holds() -> None:
    mine = [leased(1), leased(2, lease("lease-2"))]
    assert heard(Heartbeat("agent-1", ()), *mine) == ["lease-1", "lease-2"]


def test_p3_a_distributor_may_require_that_a_heartbeat_names_leases() -> None:
    with pytest.raises(InvalidFields, match="lease_ids"):
        decide(Heartbeat("agent-1", ()), Found(tasks=[leased()]), moment(), STRICT)
    decision = decide(Heartbeat("agent-1", ("lease-1",)), Found(tasks=[leased()]), moment(), STRICT)
    assert decision.answer == Held(("lease-1",))
