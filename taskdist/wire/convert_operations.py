"""Between the wire and the core, for operators: which finished tasks they mean, and the store.

As in `convert.py`, whatever is wrong with a request is found before anything is asked of a backend.
"""

import re
from collections.abc import Sequence

from taskdist.core.inspecting import BackupPart, Checked
from taskdist.core.lifecycle import Event, states_before
from taskdist.core.queries import Selected, SelectFinished
from taskdist.core.task import TaskState
from taskdist.core.values import value
from taskdist.limits import DELAY_MAX_US, OPERATED_TASKS_MAX, REMOVED_BYTES_MAX
from taskdist.wire import messages as wire
from taskdist.wire.checking import Faults
from taskdist.wire.codec import fields, make
from taskdist.wire.convert import core_state

REDRIVABLE = states_before(Event.REDRIVE)
PURGEABLE = states_before(Event.FORGET)

_CURSOR = re.compile(r"([0-2])\.(-1|[0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})")
"""The place of `SelectFinished.after`, and before when tasks had to end."""


@value
class Operation:
    """Which tasks an operator means: these ones, or a page of all that match."""

    task_ids: tuple[str, ...]
    """If there are any, they alone."""
    query: SelectFinished
    count_only: bool


def operation(
    message: wire.RedriveRequest | wire.PurgeRequest, allowed: Sequence[TaskState], wall_us: int
) -> Operation:
    """The tasks that are meant, and whether only to count them.

    Raises:
        InvalidFields: every field that is bad.
    """
    m = fields(message)
    faults = Faults()
    # A view reads as None what is not set, which the message's own type does not know.
    said: wire.TaskSelection | None = m.selection
    selection = fields(make(wire.TaskSelection) if said is None else said)
    own = Faults("selection.")
    task_ids = _task_ids(selection, own)
    states = tuple(dict.fromkeys(core_state(state) for state in selection.states))
    known = tuple(state for state in states if state is not None and state in allowed)
    if len(known) != len(states):
        own.add("states", [int(state) for state in selection.states], ", ".join(allowed))
    age_us = own.seconds("age_seconds", selection.age_seconds, DELAY_MAX_US)
    if m.count_only and selection.task_ids:
        faults.reject("count_only", "stands beside task_ids; allowed: with a filter")
    place = _CURSOR.fullmatch(m.cursor)
    if m.cursor and not place:
        faults.add("cursor", m.cursor, "the next_cursor of the answer before, or nothing")
    is_removed = isinstance(message, wire.PurgeRequest) and not m.count_only
    query = SelectFinished(
        states=known or (TaskState.DEAD,),
        user_tier=own.name("user_tier", selection.user_tier, optional=True),
        kind=own.name("kind", selection.kind, optional=True),
        queue=own.name("queue", selection.queue, optional=True),
        # As of the first page: what a redrive puts back may end again before the last page, and
        # would be put back again, without end.
        finished_before_us=int(place[4]) if place else wall_us - age_us,
        limit=0 if m.count_only else OPERATED_TASKS_MAX,
        after=(int(place[1]), int(place[2]), int(place[3])) if place else None,
        bytes_max=REMOVED_BYTES_MAX if is_removed else 0,
    )
    is_narrow = selection.task_ids or age_us or query.user_tier or query.kind or query.queue
    if not (is_narrow or selection.all):
        own.reject("all", "required to mean all tasks; else give task_ids or a filter")
    faults.include(own)
    faults.done()
    return Operation(task_ids, query, m.count_only)


def _task_ids(selection: wire.TaskSelection, faults: Faults) -> tuple[str, ...]:
    if len(selection.task_ids) > OPERATED_TASKS_MAX:
        reason = f"{len(selection.task_ids)} of them; allowed: at most {OPERATED_TASKS_MAX}"
        faults.reject("task_ids", reason)
        return ()
    others = (
        selection.states
        or selection.user_tier
        or selection.kind
        or selection.queue
        or selection.age_seconds
        or selection.all
    )
    if selection.task_ids and others:
        faults.reject("task_ids", "stand beside a filter; allowed: either")
    return tuple(dict.fromkeys(faults.task_id(id_, "task_ids") for id_ in selection.task_ids))


def next_cursor(selected: Selected, query: SelectFinished) -> str:
    """Where the next call goes on."""
    if selected.next_after is None:
        return ""
    return ".".join(map(str, (*selected.next_after, query.finished_before_us)))


def redriven(count: int, cursor: str) -> wire.RedriveResponse:
    """How many were put back."""
    return make(wire.RedriveResponse, count=count, next_cursor=cursor)


def purged(count: int, cursor: str) -> wire.PurgeResponse:
    """How many were removed."""
    return make(wire.PurgeResponse, count=count, next_cursor=cursor)


def checked(step: Checked) -> wire.CheckStoreResponse:
    """How far a check of the store is."""
    return make(
        wire.CheckStoreResponse,
        store_bytes=step.store_bytes,
        tasks=step.tasks,
        tasks_in_all=step.tasks_in_all,
        attempts=step.attempts,
        faults=list(step.faults),
        fault_count=step.fault_count,
        done=step.done,
    )


def backed_up(part: BackupPart) -> wire.BackupStoreResponse:
    """How far a backup is, and its next bytes."""
    return make(
        wire.BackupStoreResponse,
        total_bytes=part.total_bytes,
        copied_bytes=part.copied_bytes,
        chunk=part.chunk,
        sha256=part.sha256,
    )
