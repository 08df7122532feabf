"""What a submit leads to: a new task, the one that it repeats, or a refusal."""

from taskdist.core.commands import Change, Decision, Found, Moment, Placed, Submit
from taskdist.core.content import content_hash
from taskdist.core.errors import BadField, Exhausted, InvalidFields, TaskIdTaken
from taskdist.core.lifecycle import Event, step
from taskdist.core.task import Task, TaskState
from taskdist.limits import LANES_MAX
from taskdist.settings import DistributorSettings


def submit(
    command: Submit, found: Found, moment: Moment, settings: DistributorSettings
) -> Decision:
    """Adds the task, unless it is there already.

    Raises:
        TaskIdTaken: its id or its key belongs to a task of different content.
        InvalidFields: it could never be started in time.
        Exhausted: too much waits.
    """
    wish = command.task
    is_named = command.client_made_id or wish.idempotency_key is not None
    fingerprint = content_hash(command) if is_named else None
    if found.tasks or found.of_key:
        return Decision(Placed(_repeated(command, found, fingerprint)))
    task = wish.evolve(
        content_hash=fingerprint,
        data_bytes=len(command.data),
        sequence=found.next_sequence,
        state=step(None, Event.SUBMIT, TaskState.READY),
        submitted_at_us=moment.wall_us,
        enqueued_at_us=moment.enqueue_us,
    )
    if command.not_before_us or command.delay_us:
        task = _delayed(task, command, moment)
    if command.deadline_in_us or wish.deadline_us is not None:
        task = _limited(task, command, moment)
    require_room(found, len(command.data), settings)  # What is bad is said first.
    return Decision(Placed(task), [Change(None, task, data=command.data)])


def _repeated(command: Submit, found: Found, fingerprint: bytes | None) -> Task:
    """The task that this one repeats."""
    wish, prefix = command.task, command.prefix
    of_id = found.tasks[0] if found.tasks else None
    earlier = found.of_key or of_id
    assert earlier is not None
    if of_id is not None and of_id.id != earlier.id:
        raise TaskIdTaken(
            f"{prefix}task_id {wish.id} belongs to another task than the idempotency_key"
        )
    if earlier.content_hash != fingerprint:
        name = "idempotency_key" if found.of_key else f"task_id {wish.id}"
        raise TaskIdTaken(f"{prefix}{name} belongs to a task of different content")
    if wish.idempotency_key is not None and earlier.idempotency_key != wish.idempotency_key:
        # It would not be kept, and a repeat by the key alone would be a second task.
        raise TaskIdTaken(
            f"{prefix}task_id {wish.id} belongs to a task without this idempotency_key"
        )
    return earlier


def _delayed(task: Task, command: Submit, moment: Moment) -> Task:
    not_before_us = command.not_before_us
    if command.delay_us:
        not_before_us = moment.wall_us + command.delay_us
    if not_before_us <= moment.wall_us:
        return task
    state = step(None, Event.SUBMIT, TaskState.SCHEDULED)
    return task.evolve(state=state, due_at_us=not_before_us, enqueued_at_us=0)


def _limited(task: Task, command: Submit, moment: Moment) -> Task:
    deadline_us, field = task.deadline_us or 0, "timing.deadline"
    if command.deadline_in_us:
        deadline_us = moment.wall_us + command.deadline_in_us
        field = "timing.deadline_seconds"
    field = command.prefix + field
    if deadline_us <= moment.wall_us:
        raise InvalidFields([BadField(field, "has passed; allowed: a time to come")])
    if task.due_at_us is not None and deadline_us <= task.due_at_us:
        reason = "comes before the task may start; allowed: later than that"
        raise InvalidFields([BadField(field, reason)])
    return task.evolve(deadline_us=deadline_us)


def require_room(found: Found, data_bytes: int, settings: DistributorSettings) -> None:
    """Whether one more task may wait.

    Raises:
        Exhausted: too many do, or too much.
    """
    if found.waiting >= settings.tasks_waiting_max:
        raise Exhausted(f"{found.waiting} tasks are waiting, the most that may")
    if found.waiting_bytes + data_bytes > settings.waiting_bytes_max:
        raise Exhausted(
            f"tasks with {found.waiting_bytes} bytes of data are waiting; "
            f"the most that may: {settings.waiting_bytes_max}"
        )
    if found.lanes > LANES_MAX:
        raise Exhausted(f"tasks of {LANES_MAX} (queue, kind) pairs are waiting, the most that may")
