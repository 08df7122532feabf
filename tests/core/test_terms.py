"""P4: how long a lease lasts; and leases that were never heard of, which count as nothing."""

from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.commands import Change, Done, Found, Heartbeat, StopTakes, Take, TakeBack
from taskdist.core.decide import decide
from taskdist.core.task import Task, TaskState
from taskdist.limits import SECOND_US
from tests.core.making import SERVED_US, SETTINGS, lease, leased, moment, ready
from tests.support.changes import kept


def heartbeat(task: Task, after_s: float) -> Task:
    """The task after a heartbeat at this time."""
    beat = Heartbeat("agent-1", ("lease-1",))
    (change,) = decide(beat, Found(tasks=[task]), moment(after_s), SETTINGS).changes
    assert change.before == task
    assert change.attempt is None
    return kept(change)


def ends_after_s(task: Task) -> float:
    assert task.lease is not None
    return (task.lease.expires_us - SERVED_US) / SECOND_US


def test_p4_a_heartbeat_starts_the_term_anew() -> None:
    assert ends_after_s(leased()) == 30
    assert ends_after_s(heartbeat(leased(), after_s=12.5)) == 42.5


def test_a_heartbeat_changes_nothing_but_the_end_of_the_lease() -> None:
    before = leased(retry_count=1)
    after = heartbeat(before, after_s=12)
    assert after.evolve(lease=before.lease) == before


def test_p4_no_heartbeat_extends_a_lease_past_its_run_timeout_and_one_term() -> None:
    held = lease(run_timeout_us=100 * SECOND_US)
    assert ends_after_s(heartbeat(leased(held=held), after_s=99)) == 129
    assert ends_after_s(heartbeat(leased(held=held), after_s=100)) == 130
    assert ends_after_s(heartbeat(leased(held=held), after_s=101)) == 130
    assert ends_after_s(heartbeat(leased(held=held), after_s=1_000)) == 130


@given(st.lists(st.floats(0, 29), max_size=200))
def test_p4_whatever_heartbeats_come_the_lease_ends_and_never_early(gaps_s: list[float]) -> None:
    task, now_s = leased(held=lease(run_timeout_us=300 * SECOND_US)), 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        task = heartbeat(task, now_s)
        assert ends_after_s(task) <= 330
        if now_s < 300:
            assert ends_after_s(task) >= now_s + 29.999


# --- leases that nobody heard of --------------------------------------------------------------


def take(task: Task) -> Change:
    command = Take("agent-1", "session-1", ("default",), (), 1, 0, "token")
    (change,) = decide(command, Found(tasks=[task], data=[b""]), moment(), SETTINGS).changes
    return change


def test_taking_back_undoes_a_lease_exactly() -> None:
    for before in (ready(), ready(retry_count=2, lost_count=1, hasty_releases=15, attempt=18)):
        taken = kept(take(before))
        assert taken.lease is not None
        command = TakeBack((taken.lease.lease_id,))
        decision = decide(command, Found(tasks=[taken]), moment(3), SETTINGS)
        (change,) = decision.changes
        assert decision.answer == Done()
        assert change.before == taken
        assert kept(change) == before
        assert change.attempt is None, "it counts as nothing"


def test_p5_taking_back_is_no_hasty_hand_back_however_often_it_happens() -> None:
    task = ready()
    for _ in range(100):
        taken = kept(take(task))
        decision = decide(TakeBack(("any",)), Found(tasks=[taken]), moment(), SETTINGS)
        task = kept(decision.changes[0])
    assert task == ready()
    assert task.state is TaskState.READY


def test_leases_that_are_gone_by_then_are_not_taken_back() -> None:
    assert decide(TakeBack(("lease-1",)), Found(), moment(), SETTINGS).changes == []


def test_stopping_takes_changes_no_task() -> None:
    decision = decide(StopTakes(), Found(), moment(), SETTINGS)
    assert (decision.answer, decision.changes) == (Done(), [])
