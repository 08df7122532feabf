"""What becomes of progress and log lines: which are kept, which are dropped, and which have to go.

A run may keep some at once and so many more each second; what comes faster is dropped. A task may
keep so many in all; then its oldest go. Either leaves its trace: see `entries.py`.
"""

from collections.abc import Iterable, Sequence

from taskdist.core.commands import Change, Decision, Found, Moment, Note, Noted
from taskdist.core.entries import STEP_MAX, Entry, EntryKind, Kept
from taskdist.core.errors import Exhausted, TaskNotFound
from taskdist.core.fencing import not_held, require_lease_id
from taskdist.core.task import Lease, Task
from taskdist.limits import ATTEMPTS_KEPT_MAX, SECOND_US
from taskdist.settings import DistributorSettings


def note(command: Note, found: Found, moment: Moment, settings: DistributorSettings) -> Decision:
    """Keeps remarks of a run, by who holds its lease.

    Raises:
        TaskNotFound, LeaseNotHeld: it has no say in this.
        Exhausted: all numbers of its attempt are used up.
    """
    require_lease_id("lease_id", command.lease_id, settings)
    if not found.tasks:
        raise TaskNotFound(f"no task has the id {command.task_id}")
    task = found.tasks[0]
    lease = task.lease
    if (
        lease is None
        or lease.agent_id != command.agent_id
        or command.lease_id not in ("", lease.lease_id)
    ):
        raise not_held(command.agent_id, command.lease_id, command.task_id)
    kept = list(found.entries)
    last = kept[-1] if kept and kept[-1].attempt == task.attempt else None
    new, dropped = _new(command, task, lease, last, moment, settings)
    if not new:
        return Decision(Noted(dropped))
    # A mark with something behind it says no more than the gap there does.
    gone = [kept.pop()] if last is not None and last.is_mark else []
    gone += _too_many(kept, new, task, settings)
    marks = [mark for mark in _marks(gone, [*kept, *new]) if mark.attempt > _oldest(task)]
    entries = (*marks, *new)
    # A mark takes the place of what it stands for.
    taken = {(entry.attempt, entry.step) for entry in marks}
    removed = tuple(place for place in map(_place, gone) if place not in taken)
    change = Change(task, task, entries=entries, entries_gone=removed)
    return Decision(Noted(dropped), [change])


def _new(
    command: Note,
    task: Task,
    lease: Lease,
    last: Kept | None,
    moment: Moment,
    settings: DistributorSettings,
) -> tuple[list[Entry], int]:
    """The remarks that are kept, with a mark at the end if that is a gap; how many were dropped."""
    step, place = (last.step, last.place) if last is not None else (0, 0)
    held_s = (moment.served_us - lease.started_us) // SECOND_US
    may_keep = settings.entries_at_once_max + settings.entries_per_second_max * held_s
    new: list[Entry] = []
    dropped = 0
    for remark in command.remarks:
        if remark.kind is EntryKind.DROPPED:
            step += remark.dropped
            continue
        step += 1
        if place >= may_keep:
            dropped += 1
            continue
        place += 1
        at_us = remark.at_us or moment.wall_us
        kind, fraction, text = remark.kind, remark.fraction, remark.text
        new.append(Entry(task.attempt, step, kind, at_us, fraction, text, place))
    if step > STEP_MAX:
        raise Exhausted(f"attempt {task.attempt} of task {task.id} has said too much already")
    last_step = new[-1].step if new else last.step if last is not None else 0
    if step > last_step:
        new.append(_mark(task.attempt, step, moment.wall_us, place))
    return new, dropped


def _too_many(
    kept: list[Kept], new: list[Entry], task: Task, settings: DistributorSettings
) -> list[Kept]:
    """Takes the oldest out of both lists until the rest may be kept; those that were there before.

    Marks are small, and there is one for an attempt: they stay, as long as attempts do.
    """
    count = sum(not one.is_mark for one in kept) + sum(not _is_mark(one) for one in new)
    size = sum(one.text_bytes for one in kept) + sum(len(one.text.encode()) for one in new)
    oldest = _oldest(task)
    gone: list[Kept] = []
    stay: list[Kept] = []
    for one in kept:
        is_over = count > settings.entries_kept_max or size > settings.entry_bytes_max
        if one.attempt <= oldest or (is_over and not one.is_mark):
            gone.append(one)
            count -= not one.is_mark
            size -= one.text_bytes
        else:
            stay.append(one)
    kept[:] = stay
    while count > settings.entries_kept_max or size > settings.entry_bytes_max:
        # More than may be kept in all has come at once; what is left has a greater step.
        first = new.pop(0)
        count -= 1
        size -= len(first.text.encode())
    return gone


def _marks(gone: Sequence[Kept], left: Sequence[Kept | Entry]) -> Iterable[Entry]:
    """One for each attempt of which the last is gone."""
    last_left = {one.attempt: one.step for one in left}
    last_gone = {one.attempt: one for one in gone}
    for attempt, one in last_gone.items():
        if last_left.get(attempt, 0) < one.step:
            yield _mark(attempt, one.step, 0, one.place)


def _mark(attempt: int, step: int, at_us: int, place: int) -> Entry:
    return Entry(attempt, step, EntryKind.DROPPED, at_us, None, "", place)


def _is_mark(entry: Entry) -> bool:
    return entry.kind is EntryKind.DROPPED


def _place(kept: Kept) -> tuple[int, int]:
    return kept.attempt, kept.step


def _oldest(task: Task) -> int:
    """The newest attempt of which nothing is kept any more."""
    return task.attempt - ATTEMPTS_KEPT_MAX
