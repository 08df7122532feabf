"""What `Submit` and `Take` lead to."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.commands import Found, Grant, Grants, Moment, Placed, Submit, Take
from taskdist.core.content import content_hash
from taskdist.core.decide import decide
from taskdist.core.errors import Exhausted, TaskIdTaken, TransitionRefused
from taskdist.core.task import Task, TaskState
from taskdist.limits import LANES_MAX, SECOND_US
from tests.core.making import SERVED_US, SETTINGS, WALL_US, leased, moment, ready
from tests.support.changes import kept

DATA = b"some data"


def submitted(client_made_id: bool = False, data: bytes = DATA, **said: object) -> Submit:
    return Submit(ready(sequence=0, **said), data, client_made_id)


def accepted(command: Submit, found: Found, at: Moment | None = None) -> Task:
    """The one task that the submit adds."""
    decision = decide(command, found, at or moment(), SETTINGS)
    (change,) = decision.changes
    assert change.before is None
    assert change.data == command.data
    assert decision.answer == Placed(kept(change))
    return kept(change)


# --- Submit -----------------------------------------------------------------------------------


def test_a_new_task_is_ready_and_counts_its_age_from_now() -> None:
    task = accepted(submitted(user_tier="paid"), Found(next_sequence=7))
    assert task.state is TaskState.READY
    assert task.sequence == 7
    assert task.user_tier == "paid"
    assert (task.submitted_at_us, task.enqueued_at_us) == (WALL_US, WALL_US)
    assert (task.retry_count, task.lost_count, task.attempt) == (0, 0, 0)
    assert task.lease is None
    assert task.finished_at_us is None


def test_of_the_task_only_what_the_submitter_says_is_read() -> None:
    boast = submitted(enqueued_at_us=1, submitted_at_us=1)
    task = accepted(boast, Found(next_sequence=2))
    assert (task.sequence, task.submitted_at_us, task.enqueued_at_us) == (2, WALL_US, WALL_US)


def test_p2_enqueued_at_is_that_of_the_moment_also_when_the_wall_clock_went_back() -> None:
    at = Moment(wall_us=WALL_US - 5, served_us=SERVED_US, enqueue_us=WALL_US)
    task = accepted(submitted(), Found(next_sequence=2), at)
    assert (task.submitted_at_us, task.enqueued_at_us) == (WALL_US - 5, WALL_US)


def test_a_repeated_client_made_id_answers_with_the_task_as_it_is_now() -> None:
    command = submitted(client_made_id=True)
    first = accepted(command, Found(next_sequence=1))
    now = first.evolve(state=TaskState.SUCCEEDED, attempt=1)
    decision = decide(command, Found(tasks=[now], next_sequence=2), moment(9), SETTINGS)
    assert decision.answer == Placed(now)
    assert decision.changes == []


def test_a_repeat_is_answered_also_when_no_more_tasks_are_taken() -> None:
    command = submitted(client_made_id=True)
    first = accepted(command, Found(next_sequence=1))
    full = Found(tasks=[first], waiting=SETTINGS.tasks_waiting_max, lanes=LANES_MAX + 1)
    assert decide(command, full, moment(), SETTINGS).answer == Placed(first)


@pytest.mark.parametrize(
    "different",
    [
        submitted(client_made_id=True, data=b"other data"),
        submitted(client_made_id=True, user_tier="paid"),
        submitted(client_made_id=True, est_processing_time_us=2),
        submitted(client_made_id=True, kind="other"),
        submitted(client_made_id=True, queue="other"),
        submitted(client_made_id=True, max_retries=0),
    ],
    ids=["data", "tier", "time", "kind", "queue", "retries"],
)
def test_a_client_made_id_with_different_content_is_refused(different: Submit) -> None:
    first = accepted(submitted(client_made_id=True), Found(next_sequence=1))
    with pytest.raises(TaskIdTaken, match=first.id):
        decide(different, Found(tasks=[first]), moment(), SETTINGS)


def test_a_client_made_id_of_a_task_that_the_distributor_named_is_refused() -> None:
    first = accepted(submitted(client_made_id=False), Found(next_sequence=1))
    assert first.content_hash is None
    with pytest.raises(TaskIdTaken):
        decide(submitted(client_made_id=True), Found(tasks=[first]), moment(), SETTINGS)


names = st.text("ab.", min_size=1, max_size=3)


@given(st.lists(st.tuples(names, names, names, st.binary(max_size=3)), min_size=2, max_size=2))
def test_contents_agree_only_if_each_part_does(
    parts: list[tuple[str, str, str, bytes]],
) -> None:
    one, other = (
        content_hash(Submit(ready(user_tier=tier, kind=kind, queue=queue), data, True))
        for tier, kind, queue, data in parts
    )
    assert (one == other) == (parts[0] == parts[1])


def test_p7_when_as_many_wait_as_may_a_submit_is_refused() -> None:
    settings = SETTINGS.model_copy(update={"tasks_waiting_max": 3})
    decide(submitted(), Found(next_sequence=1, waiting=2), moment(), settings)
    with pytest.raises(Exhausted, match="3 tasks are waiting"):
        decide(submitted(), Found(next_sequence=1, waiting=3), moment(), settings)


def test_p7_lanes_are_limited() -> None:
    decide(submitted(), Found(next_sequence=1, lanes=LANES_MAX), moment(), SETTINGS)
    with pytest.raises(Exhausted, match=r"1000 \(queue, kind\) pairs"):
        decide(submitted(), Found(next_sequence=1, lanes=LANES_MAX + 1), moment(), SETTINGS)


# --- Take -------------------------------------------------------------------------------------


def taken(*tasks: Task, token: str = "t0ken", at: Moment | None = None) -> list[Task]:
    """The tasks as `agent-9` gets them."""
    take = Take("agent-9", "session-9", ("default",), (), len(tasks), 0, token)
    found = Found(tasks=tasks, data=[DATA] * len(tasks))
    decision = decide(take, found, at or moment(), SETTINGS)
    after = [kept(change) for change in decision.changes]
    assert [change.before for change in decision.changes] == list(tasks)
    assert decision.answer == Grants(tuple(Grant(task, DATA) for task in after))
    return after


def test_a_take_leases_what_was_found_with_its_data() -> None:
    (task,) = taken(ready(5))
    assert task.state is TaskState.LEASED
    assert task.attempt == 1
    lease = task.lease
    assert lease is not None
    assert (lease.agent_id, lease.session) == ("agent-9", "session-9")
    assert (lease.started_at_us, lease.started_us) == (WALL_US, SERVED_US)
    assert lease.term_us == 30 * SECOND_US
    assert lease.expires_us == SERVED_US + 30 * SECOND_US


def test_a_take_that_found_nothing_gets_nothing() -> None:
    assert taken() == []


def test_a_lease_leaves_what_the_order_looks_at_as_it_is() -> None:
    before = ready(retry_count=2, lost_count=1, hasty_releases=3, attempt=6)
    (task,) = taken(before)
    assert task.evolve(state=TaskState.READY, lease=None, attempt=6) == before


def test_p3_lease_ids_are_never_the_same() -> None:
    tasks = [
        *taken(ready(1), ready(2), ready(11)),
        *taken(ready(1, attempt=1)),
        *taken(ready(1), token="another"),
    ]
    ids = [task.lease.lease_id for task in tasks if task.lease]
    assert len(set(ids)) == len(ids) == 5


def test_p3_what_is_leased_cannot_be_leased() -> None:
    with pytest.raises(TransitionRefused, match="lease is not possible: the task is leased"):
        taken(leased())


@pytest.mark.parametrize(
    ("est_s", "timeout_s"), [(0, 3_600), (360, 3_600), (361, 3_610), (100_000, 1_000_000)]
)
def test_p4_a_run_may_take_an_hour_or_ten_times_what_was_expected(
    est_s: int, timeout_s: int
) -> None:
    (task,) = taken(ready(est_processing_time_us=est_s * SECOND_US))
    assert task.lease is not None
    assert task.lease.run_timeout_us == timeout_s * SECOND_US


@given(st.lists(st.integers(0, 100), min_size=2, max_size=8))
def test_p2_enqueued_at_never_decreases_whatever_the_wall_clock_shows(walls: list[int]) -> None:
    newest, tasks = 0, []
    for number, wall_us in enumerate(walls, 1):
        at = Moment(wall_us, SERVED_US, max(wall_us, newest))
        tasks.append(accepted(submitted(), Found(next_sequence=number), at))
        newest = tasks[-1].enqueued_at_us
    assert all(a.enqueued_at_us <= b.enqueued_at_us for a, b in pairwise(tasks))
