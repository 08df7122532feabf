"""What each command leads to: the rules of taskdist, each of them once.

`decide(command, found, moment, settings)` answers with the changes to save and what to tell the
caller, or raises `Refused`. It does nothing itself. Each rule's states come from `lifecycle`.
"""

from collections.abc import Callable
from typing import Any

from taskdist.core.commands import (
    Cancel,
    Change,
    Command,
    Decision,
    Done,
    Due,
    Expire,
    Forget,
    Found,
    Grant,
    Grants,
    Heartbeat,
    Held,
    Locate,
    Moment,
    Note,
    Overdue,
    Placed,
    Purge,
    Redrive,
    Resume,
    Settle,
    Settled,
    StopTakes,
    Submit,
    Take,
    TakeBack,
)
from taskdist.core.errors import (
    Exhausted,
    TaskNotFound,
    TransitionRefused,
)
from taskdist.core.fencing import not_held, require_lease_id
from taskdist.core.lifecycle import TRANSITIONS, Event, step
from taskdist.core.noting import note
from taskdist.core.retries import retry_delay_us
from taskdist.core.submitting import require_room, submit
from taskdist.core.task import Attempt, Lease, Outcome, Task, TaskState
from taskdist.settings import DistributorSettings

Decide = Callable[[Any, Found, Moment, DistributorSettings], Decision]


def decide(
    command: Command[Any], found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    """What this command leads to, at this moment, given what was found for it.

    Raises:
        Refused: it cannot be done; nothing changes.
    """
    return _DECIDE[type(command)](command, found, moment, settings)


def _take(command: Take, found: Found, moment: Moment, settings: DistributorSettings) -> Decision:
    room = settings.leases_per_session_max - found.held
    if room <= 0:
        raise Exhausted(f"this session holds {found.held} leases, the most that it may")
    grants: list[Grant] = []
    changes: list[Change] = []
    for task, data in zip(found.tasks, found.data, strict=True):
        if task.deadline_us is not None and task.deadline_us <= moment.wall_us:
            changes.append(_too_late(task, moment))
            continue
        if len(grants) == room:
            break
        attempt = task.attempt + 1
        term_us = task.lease_us or settings.lease_us
        estimated_us = settings.run_timeout_factor * task.est_processing_time_us
        lease = Lease(
            lease_id=f"{command.token}-{task.sequence}-{attempt}",
            agent_id=command.agent_id,
            session=command.session,
            started_at_us=moment.wall_us,
            started_us=moment.served_us,
            term_us=term_us,
            run_timeout_us=task.run_timeout_us or max(settings.run_timeout_us, estimated_us),
            expires_us=moment.served_us + term_us,
        )
        state = step(task.state, Event.LEASE, TaskState.LEASED)
        leased = task.evolve(state=state, attempt=attempt, lease=lease)
        grants.append(Grant(leased, data))
        changes.append(Change(task, leased))
    return Decision(Grants(tuple(grants)), changes)


def _heartbeat(
    command: Heartbeat, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    if not command.lease_ids:
        require_lease_id("lease_ids", "", settings)
    held, changes = [], []
    for task in found.tasks:
        lease = task.lease
        if lease is None or lease.agent_id != command.agent_id:
            continue
        step(task.state, Event.HEARTBEAT, TaskState.LEASED)
        held.append(lease.lease_id)
        changes.append(Change(task, task.evolve(lease=lease.extended(moment.served_us))))
    return Decision(Held(tuple(held)), changes)


def _settle(
    command: Settle, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    require_lease_id("lease_id", command.lease_id, settings)
    if not found.tasks:
        raise TaskNotFound(f"no task has the id {command.task_id}")
    task = found.tasks[0]
    lease = task.lease
    if lease is None or lease.agent_id != command.agent_id:
        return _repeated(command, found)
    if command.lease_id not in ("", lease.lease_id):
        return _repeated(command, found)
    after = _END[command.outcome](command, task, lease, moment, settings)
    attempt = _ended(task, after, command.outcome, moment, command.error)
    result = command.result if command.outcome is Outcome.SUCCEEDED else None
    change = Change(task, after, attempt, result=result)
    return Decision(Settled(command.outcome, after.state), [change])


def _repeated(command: Settle, found: Found) -> Decision:
    """An outcome without a live lease: fine if this same one was accepted before."""
    attempt = found.attempt
    same = (
        attempt is not None
        and attempt.agent_id == command.agent_id
        and attempt.outcome is command.outcome
        and attempt.error == command.error
        and (attempt.outcome is not Outcome.SUCCEEDED or found.result == command.result)
    )
    if attempt is None or not same:
        is_now = f", which is {found.tasks[0].state}"
        raise not_held(command.agent_id, command.lease_id, command.task_id, is_now)
    return Decision(Settled(attempt.outcome, attempt.led_to))


def _succeed(
    command: Settle, task: Task, lease: Lease, moment: Moment, settings: DistributorSettings
) -> Task:
    state = step(task.state, Event.SUCCEED, TaskState.SUCCEEDED)
    return _end_lease(task, state, moment)


def _fail(
    command: Settle, task: Task, lease: Lease, moment: Moment, settings: DistributorSettings
) -> Task:
    failures = task.retry_count + 1
    if not command.retryable or failures > task.max_retries:
        state = step(task.state, Event.FAIL, TaskState.DEAD)
        return _end_lease(task, state, moment, retry_count=failures)
    delay_us = command.retry_after_us
    if delay_us is None:
        delay_us = retry_delay_us(task, failures)
    if not delay_us:
        state = step(task.state, Event.FAIL, TaskState.READY)
        return _end_lease(task, state, moment, retry_count=failures)
    return _end_lease(
        task,
        step(task.state, Event.FAIL, TaskState.SCHEDULED),
        moment,
        retry_count=failures,
        due_at_us=moment.wall_us + delay_us,
        backoff_until_us=moment.served_us + delay_us,
    )


def _release(
    command: Settle, task: Task, lease: Lease, moment: Moment, settings: DistributorSettings
) -> Task:
    hasty = moment.served_us - lease.started_us < settings.hasty_release_us
    releases = task.hasty_releases + hasty
    wanted = releases < settings.hasty_releases_max
    state = step(task.state, Event.RELEASE, TaskState.READY if wanted else TaskState.DEAD)
    return _end_lease(task, state, moment, hasty_releases=releases)


def _cancel(
    command: Cancel, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    if not found.tasks:
        raise TaskNotFound(f"no task has the id {command.task_id}")
    task = found.tasks[0]
    state = step(task.state, Event.CANCEL, TaskState.CANCELLED)
    after = _end_lease(task, state, moment, due_at_us=None, backoff_until_us=None)
    attempt = _ended(task, after, Outcome.CANCELLED, moment) if task.lease else None
    return Decision(Placed(after), [Change(task, after, attempt)])


def _redrive(
    command: Redrive, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    """As if it had been submitted now; its history stays."""
    if not found.tasks:
        raise TaskNotFound(f"no task has the id {command.task_id}")
    task = found.tasks[0]
    _require_step(task, Event.REDRIVE, "redrive")
    state = step(task.state, Event.REDRIVE, TaskState.READY)
    require_room(found, task.data_bytes, settings)
    after = task.evolve(
        state=state,
        retry_count=0,
        lost_count=0,
        hasty_releases=0,
        enqueued_at_us=moment.enqueue_us,
        finished_at_us=None,
        deadline_us=None,  # It has passed, or will before anybody thinks of it again.
    )
    return Decision(Placed(after), [Change(task, after)])


def _purge(command: Purge, found: Found, moment: Moment, settings: DistributorSettings) -> Decision:
    if not found.tasks:
        raise TaskNotFound(f"no task has the id {command.task_id}")
    task = found.tasks[0]
    _require_step(task, Event.FORGET, "purge")
    return Decision(Done(), [_gone(task)])


def _locate(
    command: Locate, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    if not found.tasks:
        raise TaskNotFound(f"no task has the id {command.task_id}")
    return Decision(Placed(found.tasks[0]))


def _expire(
    command: Expire, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    changes = []
    for task in found.tasks:
        lost = task.lost_count + 1
        target = TaskState.READY if lost < settings.max_lost else TaskState.DEAD
        state = step(task.state, Event.EXPIRE, target)
        after = _end_lease(task, state, moment, lost_count=lost)
        changes.append(Change(task, after, _ended(task, after, Outcome.LOST, moment)))
    return Decision(Done(), changes)


def _due(command: Due, found: Found, moment: Moment, settings: DistributorSettings) -> Decision:
    changes = []
    for task in found.tasks:
        # After a backoff it is as old as it was; before its first time it had no age.
        enqueued_us = task.enqueued_at_us if task.backoff_until_us else moment.enqueue_us
        after = task.evolve(
            state=step(task.state, Event.DUE, TaskState.READY),
            enqueued_at_us=enqueued_us,
            due_at_us=None,
            backoff_until_us=None,
        )
        changes.append(Change(task, after))
    return Decision(Done(), changes)


def _overdue(
    command: Overdue, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    return Decision(Done(), [_too_late(task, moment) for task in found.tasks])


def _forget(
    command: Forget, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    return Decision(Done(), [_gone(task) for task in found.tasks])


def _take_back(
    command: TakeBack, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    return Decision(Done(), [_undo_lease(task, moment) for task in found.tasks])


def _resume(
    command: Resume, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    held, changes = [], []
    claimed = set(command.lease_ids)
    for task in found.tasks:
        lease = task.lease
        assert lease is not None
        if lease.lease_id in claimed:
            held.append(lease.lease_id)
        else:
            changes.append(_undo_lease(task, moment))
    return Decision(Held(tuple(held)), changes)


def _stop_takes(
    command: StopTakes, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    return Decision(Done())


def _too_late(task: Task, moment: Moment) -> Change:
    after = task.evolve(
        state=step(task.state, Event.OVERDUE, TaskState.DEAD),
        due_at_us=None,
        backoff_until_us=None,
        finished_at_us=moment.wall_us,
    )
    return Change(task, after)


def _require_step(task: Task, event: Event, verb: str) -> None:
    """Of several tasks that an operator names, the text has to say which one it is."""
    if (task.state, event) not in TRANSITIONS:
        raise TransitionRefused(f"{verb} is not possible: task {task.id} is {task.state}")


def _gone(task: Task) -> Change:
    return Change(task, step(task.state, Event.FORGET, None))


def _undo_lease(task: Task, moment: Moment) -> Change:
    """As if it had never been: its attempt's number is free again, and nothing is counted."""
    state = step(task.state, Event.RELEASE, TaskState.READY)
    return Change(task, _end_lease(task, state, moment, attempt=task.attempt - 1))


def _end_lease(task: Task, state: TaskState, moment: Moment, **changes: object) -> Task:
    finished_at_us = moment.wall_us if state.is_final else None
    return task.evolve(state=state, lease=None, finished_at_us=finished_at_us, **changes)


def _ended(task: Task, after: Task, outcome: Outcome, moment: Moment, error: str = "") -> Attempt:
    lease = task.lease
    assert lease is not None
    return Attempt(
        attempt=task.attempt,
        lease_id=lease.lease_id,
        agent_id=lease.agent_id,
        session=lease.session,
        started_at_us=lease.started_at_us,
        ended_at_us=moment.wall_us,
        outcome=outcome,
        led_to=after.state,
        error=error,
    )


_END = {Outcome.SUCCEEDED: _succeed, Outcome.FAILED: _fail, Outcome.RELEASED: _release}

_DECIDE: dict[type[Command[Any]], Decide] = {
    Submit: submit,
    Take: _take,
    Heartbeat: _heartbeat,
    Settle: _settle,
    Note: note,
    Cancel: _cancel,
    Redrive: _redrive,
    Purge: _purge,
    Locate: _locate,
    Expire: _expire,
    Due: _due,
    Overdue: _overdue,
    Forget: _forget,
    TakeBack: _take_back,
    Resume: _resume,
    StopTakes: _stop_takes,
}
