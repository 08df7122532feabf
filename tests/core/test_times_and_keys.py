"""When a task may start, by when it must, and what makes two submits the same (P1, P2, P7)."""

from hashlib import blake2b
from struct import pack
from typing import Any

import pytest

from taskdist.core.commands import (
    Done,
    Due,
    Forget,
    Found,
    Grants,
    Moment,
    Overdue,
    Placed,
    Purge,
    Redrive,
    Submit,
    Take,
)
from taskdist.core.content import content_hash
from taskdist.core.decide import decide
from taskdist.core.errors import (
    Exhausted,
    InvalidFields,
    TaskIdTaken,
    TaskNotFound,
    TransitionRefused,
)
from taskdist.core.queries import TaskHistory
from taskdist.core.task import Attempt, Backoff, Outcome, Task, TaskState
from taskdist.limits import LANES_MAX, SECOND_US
from tests.core.making import SERVED_US, SETTINGS, WALL_US, attempt, leased, moment, ready, task_id
from tests.support.changes import kept

DATA = b"some data"
TIMES = {"not_before_us", "delay_us", "deadline_in_us", "client_made_id", "prefix"}


def asked(data: bytes = DATA, **said: Any) -> Submit:
    own = {name: said.pop(name) for name in TIMES & said.keys()}
    return Submit(ready(sequence=0, **said), data, **{"client_made_id": False, **own})


def accepted(command: Submit, after_s: float = 0, **found: Any) -> Task:
    decision = decide(command, Found(next_sequence=1, **found), moment(after_s), SETTINGS)
    (change,) = decision.changes
    assert decision.answer == Placed(kept(change))
    return kept(change)


# --- when it may start, and by when it must ------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "due_us"),
    [
        ({"delay_us": 1}, WALL_US + 1),
        ({"not_before_us": WALL_US + 1}, WALL_US + 1),
        ({"not_before_us": WALL_US}, None),
        ({"not_before_us": WALL_US - 1}, None),
        ({"delay_us": 0}, None),
    ],
)
def test_p2_a_task_of_the_future_is_scheduled_and_has_no_age_yet(
    said: dict[str, Any], due_us: int | None
) -> None:
    task = accepted(asked(**said))
    assert task.state is (TaskState.READY if due_us is None else TaskState.SCHEDULED)
    assert task.due_at_us == due_us
    assert task.enqueued_at_us == (WALL_US if due_us is None else 0)
    assert task.submitted_at_us == WALL_US
    assert task.backoff_until_us is None


def test_a_deadline_is_a_time_or_so_long_from_now() -> None:
    assert accepted(asked(deadline_us=WALL_US + 1)).deadline_us == WALL_US + 1
    assert accepted(asked(deadline_in_us=5), after_s=1).deadline_us == WALL_US + SECOND_US + 5
    assert accepted(asked()).deadline_us is None


@pytest.mark.parametrize(
    ("said", "field", "reason"),
    [
        ({"deadline_us": WALL_US}, "timing.deadline", "has passed"),
        ({"deadline_us": 1}, "timing.deadline", "has passed"),
        ({"deadline_us": WALL_US + 5, "delay_us": 5}, "timing.deadline", "before the task may"),
        (
            {"deadline_in_us": 5, "not_before_us": WALL_US + 5},
            "timing.deadline_seconds",
            "before the task may",
        ),
        (
            {"deadline_in_us": 5, "delay_us": 6, "prefix": "tasks[3]."},
            "tasks[3].timing.deadline_seconds",
            "before the task may",
        ),
    ],
)
def test_p7_a_deadline_that_cannot_be_kept_is_refused_by_name(
    said: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(InvalidFields, match=reason) as refused:
        accepted(asked(**said))
    assert [bad.field for bad in refused.value.fields] == [field]


def test_p2_what_is_due_is_as_old_as_now_or_as_it_was() -> None:
    """Now is that of the queue, which never goes back."""
    at = Moment(WALL_US, SERVED_US, WALL_US + 7)
    delayed = ready(1, state=TaskState.SCHEDULED, due_at_us=WALL_US, enqueued_at_us=0)
    paused = ready(
        2, state=TaskState.SCHEDULED, due_at_us=WALL_US, backoff_until_us=SERVED_US, retry_count=1
    )
    decision = decide(Due(), Found(tasks=[delayed, paused]), at, SETTINGS)
    first, second = map(kept, decision.changes)
    assert (first.enqueued_at_us, second.enqueued_at_us) == (WALL_US + 7, paused.enqueued_at_us)
    for task in (first, second):
        assert task.state is TaskState.READY
        assert task.due_at_us is task.backoff_until_us is None
    assert second.retry_count == 1
    with pytest.raises(TransitionRefused):
        decide(Due(), Found(tasks=[leased()]), at, SETTINGS)


@pytest.mark.parametrize("state", [TaskState.READY, TaskState.SCHEDULED])
def test_what_is_overdue_is_dead(state: TaskState) -> None:
    task = ready(state=state, deadline_us=WALL_US, due_at_us=WALL_US, backoff_until_us=SERVED_US)
    (change,) = decide(Overdue(), Found(tasks=[task]), moment(1), SETTINGS).changes
    after = kept(change)
    assert (after.state, after.finished_at_us) == (TaskState.DEAD, WALL_US + SECOND_US)
    assert after.due_at_us is after.backoff_until_us is None
    assert change.attempt is None
    assert after.retry_count == task.retry_count


def take(slots: int = 9) -> Take:
    return Take("agent-1", "s", ("default",), (), slots, 0, "t0ken")


def test_a_take_ends_what_is_overdue_and_leases_the_rest() -> None:
    late, at_once, in_time = (
        ready(n, deadline_us=us) for n, us in ((1, WALL_US - 1), (2, WALL_US), (3, WALL_US + 1))
    )
    found = Found(tasks=[late, at_once, in_time], data=[DATA] * 3)
    decision = decide(take(), found, moment(), SETTINGS)
    assert [grant.task.id for grant in decision.answer.grants] == [in_time.id]
    states = [kept(change).state for change in decision.changes]
    assert states == [TaskState.DEAD, TaskState.DEAD, TaskState.LEASED]


def test_p7_a_session_holds_as_many_leases_as_it_may() -> None:
    settings = SETTINGS.model_copy(update={"leases_per_session_max": 3})
    tasks = [ready(1, deadline_us=1), *(ready(n) for n in range(2, 6))]
    found = Found(tasks=tasks, data=[DATA] * 5, held=1)
    decision = decide(take(), found, moment(), settings)
    assert [grant.task.sequence for grant in decision.answer.grants] == [2, 3]
    assert len(decision.changes) == 3, "what is overdue is no lease"
    for held in (3, 4):
        with pytest.raises(Exhausted, match=f"holds {held} leases"):
            decide(take(), Found(held=held), moment(), settings)
    assert decide(take(), Found(held=2), moment(), settings).answer == Grants()


def test_p4_a_task_may_have_a_term_and_a_run_timeout_of_its_own() -> None:
    task = ready(lease_us=5 * SECOND_US, run_timeout_us=SECOND_US)
    (change,) = decide(take(), Found(tasks=[task], data=[DATA]), moment(), SETTINGS).changes
    lease = kept(change).lease
    assert lease is not None
    assert (lease.term_us, lease.run_timeout_us) == (5 * SECOND_US, SECOND_US)
    assert lease.expires_us == SERVED_US + 5 * SECOND_US


# --- what makes two submits the same -------------------------------------------------------------

FURTHER: list[dict[str, Any]] = [
    {"backoff": Backoff.FIXED, "backoff_us": 5},
    {"backoff": Backoff.EXPONENTIAL, "backoff_us": 5, "backoff_max_us": 9},
    {"backoff": Backoff.FIXED, "backoff_us": 5, "backoff_jitter_percent": 1},
    {"run_timeout_us": 5_000},
    {"lease_us": 5_000_000},
    {"delay_us": 5_000},
    {"not_before_us": 5_000},
    {"not_before_us": WALL_US + 5_000},
    {"deadline_in_us": 5_000},
    {"deadline_us": WALL_US + 5_000},
    {"delay_us": 5_000, "deadline_in_us": 5_001},
]


def test_p1_a_submit_with_no_further_field_hashes_as_it_did_in_version_1() -> None:
    command = asked(user_tier="paid", kind="resize", queue="images", max_retries=7)
    v1 = pack(">QQ", SECOND_US, 7) + b"paid\0resize\0images\0" + DATA
    assert content_hash(command) == blake2b(v1, digest_size=16).digest()
    assert content_hash(asked()) == content_hash(asked(idempotency_key="k", client_made_id=True))


def test_p1_every_further_field_counts() -> None:
    hashes = [content_hash(asked(**said)) for said in [{}, *FURTHER]]
    assert len(set(hashes)) == len(hashes)
    loud = DATA.replace(b"some", b"delay_us=5000\0some")
    assert content_hash(asked(data=loud)) != content_hash(asked(delay_us=5_000))


@pytest.mark.parametrize("said", FURTHER)
@pytest.mark.parametrize("by", ["id", "key", "both"])
def test_p1_a_repeat_a_minute_later_is_the_same_task(said: dict[str, Any], by: str) -> None:
    named: dict[str, Any] = {} if by == "id" else {"idempotency_key": "k"}
    command = asked(**said, **named, client_made_id=by != "key")
    first = accepted(command)
    found = Found(
        tasks=[first] if by != "key" else [], of_key=first if by != "id" else None, next_sequence=2
    )
    again = decide(command, found, moment(60), SETTINGS)
    assert (again.answer, again.changes) == (Placed(first), [])
    different = asked(data=b"other", **said, **named, client_made_id=by != "key")
    with pytest.raises(TaskIdTaken, match="task_id" if by == "id" else "idempotency_key"):
        decide(different, found, moment(60), SETTINGS)


def test_p1_an_id_and_a_key_of_two_tasks_are_refused() -> None:
    command = asked(idempotency_key="k", client_made_id=True)
    of_id = accepted(command)
    of_key = of_id.evolve(id=task_id(2))
    with pytest.raises(TaskIdTaken, match="belongs to another task than the idempotency_key"):
        decide(command, Found(tasks=[of_id], of_key=of_key), moment(), SETTINGS)


# --- redrive, purge, forget ----------------------------------------------------------------------


@pytest.mark.parametrize("state", [TaskState.DEAD, TaskState.CANCELLED])
def test_a_redrive_makes_a_task_as_if_new(state: TaskState) -> None:
    before = ready(
        state=state,
        retry_count=4,
        lost_count=2,
        hasty_releases=3,
        attempt=9,
        deadline_us=WALL_US,
        finished_at_us=WALL_US,
        idempotency_key="k",
        content_hash=b"hash",
        data_bytes=3,
    )
    at = Moment(WALL_US, SERVED_US, WALL_US + 7)
    (change,) = decide(Redrive(before.id), Found(tasks=[before]), at, SETTINGS).changes
    expected = before.evolve(
        state=TaskState.READY,
        retry_count=0,
        lost_count=0,
        hasty_releases=0,
        deadline_us=None,
        finished_at_us=None,
        enqueued_at_us=WALL_US + 7,
    )
    assert kept(change) == expected, "its attempts' numbers, its key and its content stay"


def test_p7_a_redrive_needs_room() -> None:
    dead = ready(state=TaskState.DEAD, data_bytes=10)
    bytes_max = SETTINGS.waiting_bytes_max
    room = Found(tasks=[dead], waiting_bytes=bytes_max - 10, lanes=LANES_MAX)
    decide(Redrive(dead.id), room, moment(), SETTINGS)
    for full in (
        Found(tasks=[dead], waiting=SETTINGS.tasks_waiting_max),
        Found(tasks=[dead], waiting_bytes=bytes_max - 9),
        Found(tasks=[dead], lanes=LANES_MAX + 1),
    ):
        with pytest.raises(Exhausted):
            decide(Redrive(dead.id), full, moment(), SETTINGS)


def test_p7_data_counts_for_the_room_that_a_submit_needs() -> None:
    full = SETTINGS.waiting_bytes_max - len(DATA)
    accepted(asked(), waiting_bytes=full)
    with pytest.raises(Exhausted, match="bytes of data"):
        accepted(asked(), waiting_bytes=full + 1)


FINAL = [state for state in TaskState if state.is_final]


@pytest.mark.parametrize("state", TaskState)
def test_who_may_be_redriven_purged_and_forgotten(state: TaskState) -> None:
    task = leased() if state is TaskState.LEASED else ready(state=state)
    found = Found(tasks=[task])
    for command, allowed in (
        (Redrive(task.id), (TaskState.DEAD, TaskState.CANCELLED)),
        (Purge(task.id), FINAL),
        (Forget(), FINAL),
    ):
        if state not in allowed:
            with pytest.raises(TransitionRefused, match=f"is {state}"):
                decide(command, found, moment(), SETTINGS)
            continue
        decision = decide(command, found, moment(), SETTINGS)
        (change,) = decision.changes
        assert change.before == task
        if not isinstance(command, Redrive):
            assert (decision.answer, change.after, change.attempt) == (Done(), None, None)
    for unknown in (Redrive(task.id), Purge(task.id)):
        with pytest.raises(TaskNotFound):
            decide(unknown, Found(), moment(), SETTINGS)


# --- why a task is dead --------------------------------------------------------------------------

DEAD, READY = TaskState.DEAD, TaskState.READY
FAILED = attempt(Outcome.FAILED, READY, error="first")
OVERDUE = "its deadline passed before it could be started"


@pytest.mark.parametrize(
    ("state", "attempts", "error"),
    [
        (READY, (), ""),
        (READY, (FAILED, attempt(Outcome.LOST, READY)), "first"),
        (TaskState.SUCCEEDED, (FAILED, attempt(Outcome.SUCCEEDED, TaskState.SUCCEEDED)), "first"),
        (TaskState.CANCELLED, (attempt(Outcome.CANCELLED, TaskState.CANCELLED),), ""),
        (DEAD, (FAILED, attempt(Outcome.FAILED, DEAD, error="last")), "last"),
        (DEAD, (), OVERDUE),
        (DEAD, (FAILED,), OVERDUE),
        (DEAD, (attempt(Outcome.RELEASED, READY),), OVERDUE),
        (
            DEAD,
            (FAILED, attempt(Outcome.LOST, DEAD)),
            "lost leases: 3, the last one by agent-1",
        ),
        (
            DEAD,
            (FAILED, attempt(Outcome.RELEASED, DEAD)),
            "handed back in haste 16 times, the last one by agent-1",
        ),
        (READY, (attempt(Outcome.FAILED, DEAD, error="before the redrive"),), "before the redrive"),
    ],
)
def test_p5_each_way_to_die_is_told(
    state: TaskState, attempts: tuple[Attempt, ...], error: str
) -> None:
    task = ready(state=state, lost_count=3, hasty_releases=16)
    assert TaskHistory(task, b"", attempts).error == error


def test_p5_a_deadline_between_two_tries_hides_no_failure() -> None:
    task = ready(state=DEAD, retry_count=1)
    told = TaskHistory(task, b"", (FAILED,)).error
    assert told == "first\nits deadline passed before retry 1"
