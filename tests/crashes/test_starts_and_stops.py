"""A distributor that dies in its start, in its stop, and in what it does by itself (P1 to P4)."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.crashes.play import CANCELLED, DEAD, LEASED, READY, SCHEDULED, SUCCEEDED, ended, whole
from tests.crashes.points import FIRST_STARTS, POINTS, STARTS, STOPS, Point
from tests.crashes.theatre import NO_CHECKPOINTS, Theatre, answer

pytestmark = pytest.mark.proof

BY_NAME = {point.name: point for point in POINTS}
COMMITS = [
    BY_NAME[name]
    for name in ("before COMMIT", "half in the log", "in the log, not synced", "after COMMIT")
]
DUE = [
    BY_NAME[name]
    for name in ("before its rows are written", "before COMMIT", "after COMMIT", "spoken of")
]
"""Armed from the start on."""
DUE_S = 0.03
"""Less than a start takes; a little is waited for all the same."""

named = partial(pytest.mark.parametrize, "point", ids=lambda point: point.name)


class Kept:
    """Tasks in each of the six states, as they were told of."""

    def __init__(self, theatre: Theatre) -> None:
        self._play = play = theatre.play
        play.queue = "kept"
        self.lease = play.leased()
        well, badly = play.leased(), play.leased()
        play.call("CompleteTask", **ended(well, result=b"done"))
        play.known[well.task_id] = SUCCEEDED
        play.call("CompleteTask", **ended(badly, success=False))
        play.known[badly.task_id] = READY
        play.dead()
        cancelled = play.submit()
        play.call("CancelTask", task_id=cancelled)
        play.known[cancelled] = CANCELLED
        later = play.submit(timing={"delay_seconds": 3_600})
        play.known[later] = SCHEDULED
        long, short = play.submit(9), play.submit(1)
        self._line = [short, long, badly.task_id]
        self._before = self._all()

    def _all(self) -> list[Any]:
        return [self._play.get(task_id) for task_id in self._play.known]

    def check(self) -> None:
        """All of them are as they were, in their order; the lease is held."""
        assert self._all() == self._before
        self._play.comes(*self._line)
        self._play.call("CompleteTask", **ended(self.lease))
        self._play.known[self.lease.task_id] = SUCCEEDED


@named(argvalues=FIRST_STARTS)
def test_p1_a_crash_in_the_first_start(server: int, tmp_path: Path, point: Point) -> None:
    """What it leaves is a store that can be started."""
    theatre = Theatre(server, tmp_path / "tasks.db")
    theatre.open(point)
    theatre.fall(point)
    with theatre:
        theatre.check()


@named(argvalues=STARTS)
def test_p1_a_crash_in_a_start(server: int, tmp_path: Path, point: Point) -> None:
    """Two starts are cut short; the next one finds all as it was."""
    with Theatre(server, tmp_path / "tasks.db") as theatre:
        kept = Kept(theatre)
        theatre.end()
        for _ in range(2):
            theatre.open(point, load_rows=2)
            theatre.fall(point)
        theatre.begin()
        kept.check()
        theatre.check()


@named(argvalues=STOPS)
def test_p1_a_crash_in_a_stop(server: int, tmp_path: Path, point: Point) -> None:
    """A stop that is cut short is like none."""
    with Theatre(server, tmp_path / "tasks.db") as theatre:
        kept = Kept(theatre)
        theatre.life.arm(point)
        theatre.life.terminate()
        theatre.fall(point)
        theatre.begin()
        kept.check()
        theatre.check()


@named(argvalues=[*COMMITS, BY_NAME["the reply has left"]])
def test_p1_a_crash_while_tasks_are_loaded(server: int, tmp_path: Path, point: Point) -> None:
    """An outcome is decided at once: it is there or not. A submit waits, and is not there."""
    with Theatre(server, tmp_path / "tasks.db") as theatre:
        play = theatre.play
        play.queue = "q"
        given, waits = play.leased(), play.submit()
        theatre.begin(load_rows=0)  # It never has them all.
        theatre.life.arm(point)
        said = play.new(1)
        submitting = play.official.begin("SubmitTask", **said)
        reply = answer(partial(play.call, "CompleteTask", **ended(given, result=b"done")))
        theatre.life.let_go()
        theatre.fall(point)
        assert submitting.exception() is not None
        theatre.begin()
        found = play.get(given.task_id)
        assert whole(found.task.state == SUCCEEDED, found.result == b"done") == point.saved
        assert (reply is not None) == point.spoken
        assert play.is_gone(said["task_id"])
        play.call("CompleteTask", **ended(given, result=b"done"))
        play.known[given.task_id] = SUCCEEDED
        play.comes(waits)
        theatre.check()


@named(argvalues=DUE)
def test_p1_a_crash_in_what_falls_due(server: int, tmp_path: Path, point: Point) -> None:
    """A task whose time has come, one whose deadline has passed, and one that nobody needs any
    more: one commit, there or not, and done by the next start."""
    with Theatre(server, tmp_path / "tasks.db") as theatre:
        play = theatre.play
        play.queue = "q"
        old = play.leased()
        play.call("CompleteTask", **ended(old))
        early = play.new(timing={"delay_seconds": DUE_S})
        late = play.new(timing={"deadline_seconds": DUE_S})
        committed = BY_NAME["after COMMIT"]
        theatre.life.arm(committed)
        assert answer(partial(play.call, "SubmitTasks", tasks=[early, late])) is None
        theatre.fall(committed)
        time.sleep(DUE_S)
        theatre.open(point, environ=NO_CHECKPOINTS | {"TASKDIST_RETENTION": "0"})
        theatre.fall(point)

        theatre.begin(load_rows=0)  # Nothing falls due in this one.
        ids = early["task_id"], late["task_id"]
        states = {task.task_id: task.state for task in play.call("ListTasks").tasks}
        done = whole(states[ids[0]] == READY, states[ids[1]] == DEAD, old.task_id not in states)
        assert done == point.saved

        theatre.begin()
        play.comes(ids[0])
        assert play.state(ids[1]) == DEAD
        play.known[ids[1]] = DEAD
        play.known[ids[0]] = LEASED
        play.known[old.task_id] = SUCCEEDED
        if done:
            del play.known[old.task_id]
        theatre.check()


@named(argvalues=COMMITS)
def test_p4_a_crash_as_a_lease_is_lost(server: int, tmp_path: Path, point: Point) -> None:
    """It is lost once; a lease that was not has a full term again."""
    with Theatre(server, tmp_path / "tasks.db") as theatre:
        play = theatre.play
        play.queue = "q"
        given = play.leased(timing={"lease_seconds": 1})
        theatre.life.arm(point)
        theatre.fall(point)
        theatre.begin()
        found = play.get(given.task_id)
        lost = whole(found.task.state == READY, found.task.lost_count == 1)
        assert lost == point.saved
        assert len(found.attempts) == lost
        if not lost:
            assert play.call("CompleteTask", **ended(given)).acknowledged
            play.known[given.task_id] = SUCCEEDED
        else:
            play.comes(given.task_id)
            play.call("CancelTask", task_id=given.task_id)
            play.known[given.task_id] = CANCELLED
        theatre.check()
