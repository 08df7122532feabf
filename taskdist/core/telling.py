"""What a watcher is told of a task's life, in which order, and how the places in it are numbered.

A number is an attempt and a step of it: first its lease, then what it said, then the states that
followed. Numbers grow along the life, so that who knows one can go on from there. What has passed
is told from what is kept of it: states from the attempts, as far as these are kept.
"""

from collections.abc import Iterator

from taskdist.core.entries import Entry, EntryKind
from taskdist.core.queries import Followed, Place, TaskHistory
from taskdist.core.task import Attempt, Lease, Outcome, Task, TaskState
from taskdist.core.values import value

STEP_BITS = 32

_STEPS: dict[TaskState, int] = {
    TaskState.LEASED: 0,
    TaskState.SCHEDULED: (1 << STEP_BITS) - 3,
    TaskState.READY: (1 << STEP_BITS) - 2,
}
_STEP_FINAL = (1 << STEP_BITS) - 1


@value
class Told:
    """One thing that a watcher is told: a state of the task, an entry, or how many are missing."""

    number: int
    attempt: int
    history: TaskHistory | None = None
    """Of a state: the task as it was then, and its attempts until then."""
    entry: Entry | None = None
    dropped: int = 0


def number_of(place: Place) -> int:
    """The number of a place."""
    attempt, step = place
    return attempt << STEP_BITS | step


def place_of(number: int) -> Place:
    """The place of a number."""
    return number >> STEP_BITS, number & ((1 << STEP_BITS) - 1)


def place_in_life(task: Task) -> Place:
    """Where a task is in its life.

    An attempt begins with its lease and goes on to whatever follows. A lease that counts as nothing
    is undone in silence. A redrive leads back to an earlier place of the same attempt.
    """
    return task.attempt, _step(task.state)


def _step(state: TaskState) -> int:
    return _STEPS.get(state, _STEP_FINAL)


def news(followed: Followed, after: Place) -> list[Told]:
    """All that came after a place, in its order; of entries as many as were found. The end of the
    task comes in any case, once all entries before it were found."""
    history = followed.history
    told = [*_entries(followed.entries, after), *_states(history)]
    told = [one for one in told if one.number > number_of(after)]
    told.sort(key=lambda one: one.number)
    if followed.is_more:
        last = followed.entries[-1]
        return [one for one in told if one.number <= number_of((last.attempt, last.step))]
    present = place_in_life(history.task)
    if history.task.state.is_final and number_of(present) <= number_of(after):
        told.append(Told(number_of(present), history.task.attempt, history))
    return told


def _entries(entries: tuple[Entry, ...], after: Place) -> Iterator[Told]:
    """Each of them, and how many are missing before it."""
    attempt, step = after
    for entry in entries:
        if entry.attempt != attempt:
            attempt, step = entry.attempt, 0
        is_mark = entry.kind is EntryKind.DROPPED
        missing = entry.step - step - (not is_mark)
        if missing > 0:
            place = (attempt, entry.step - (not is_mark))
            yield Told(number_of(place), attempt, dropped=missing)
        if not is_mark:
            yield Told(number_of((attempt, entry.step)), attempt, entry=entry)
        step = entry.step


def _states(history: TaskHistory) -> Iterator[Told]:
    """Every state that the task is known to have been in, once, and the one that it is in."""
    attempts, task = history.attempts, history.task
    present = place_in_life(task)
    began = attempts[0].attempt if attempts else task.attempt
    if began == 1 and present > (0, _STEPS[TaskState.READY]):
        was = task.evolve(state=TaskState.READY, attempt=0, lease=None, **_FRESH)
        yield _told(was, history, 0)
    retries = lost = 0
    for index, attempt in enumerate(attempts):
        counts = {"retry_count": retries, "lost_count": lost}
        lease = _lease_of(attempt)
        leased = _was(task, attempt, TaskState.LEASED, lease=lease, **counts)
        if place_in_life(leased) < present:
            yield _told(leased, history, index)
        retries += attempt.outcome is Outcome.FAILED
        lost += attempt.outcome is Outcome.LOST
        counts = {"retry_count": retries, "lost_count": lost}
        state = attempt.led_to
        if state.is_final and (index + 1 < len(attempts) or not task.state.is_final):
            # Put back since: it goes on from there, as if it had become ready.
            state, retries, lost = TaskState.READY, 0, 0
            counts = {"retry_count": 0, "lost_count": 0}
        after = _was(task, attempt, state, **counts)
        if place_in_life(after) < present:
            yield _told(after, history, index + 1)
        if state is TaskState.SCHEDULED and present > (attempt.attempt, _STEPS[TaskState.READY]):
            ready = _was(task, attempt, TaskState.READY, **counts)
            yield _told(ready, history, index + 1)
    yield Told(number_of(present), task.attempt, history)


_FRESH = {
    "retry_count": 0,
    "lost_count": 0,
    "finished_at_us": None,
    "due_at_us": None,
}


def _was(task: Task, attempt: Attempt, state: TaskState, **more: object) -> Task:
    """The task as it was in, or right after, an attempt, as far as that is known."""
    known = {"finished_at_us": None, "due_at_us": None, "lease": None, **more}
    return task.evolve(attempt=attempt.attempt, state=state, **known)


def _lease_of(attempt: Attempt) -> Lease:
    """That of an attempt; what is not kept of it is 0."""
    return Lease(
        lease_id=attempt.lease_id,
        agent_id=attempt.agent_id,
        session=attempt.session,
        started_at_us=attempt.started_at_us,
        started_us=0,
        term_us=0,
        run_timeout_us=0,
        expires_us=0,
    )


def _told(task: Task, history: TaskHistory, attempts: int) -> Told:
    """A state that has passed, when so many of the kept attempts had ended."""
    until = TaskHistory(task, b"", history.attempts[:attempts])
    return Told(number_of(place_in_life(task)), task.attempt, until)
