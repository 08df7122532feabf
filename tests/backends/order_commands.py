"""What the machine of `order_machine.py` says to the writer, and hears, in the model's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taskdist.backends.journal import Journal
from taskdist.core import commands
from taskdist.core.commands import Change
from taskdist.core.errors import Refused
from taskdist.core.lifecycle import TRANSITIONS
from taskdist.core.queries import TaskHistory
from taskdist.core.task import Backoff, Outcome, Task
from tests.backends.order_rows import Answer, Row, Wait, Wish

OUTCOMES = {
    "succeeded": Outcome.SUCCEEDED,
    "failed": Outcome.FAILED,
    "released": Outcome.RELEASED,
}

STEPS = {
    f"{state or 'none'} {event} {to or 'none'}"
    for (state, event), targets in TRANSITIONS.items()
    for to in targets
}
"""Every step of the life cycle, in words."""

ANSWERS = {
    *(f"Submit: {said}" for said in ("placed", "TaskIdTaken", "InvalidFields", "StoreFull")),
    *(f"Take: {said}" for said in ("got", "waits")),
    *(f"Settle: {said}" for said in ("succeeded", "failed", "released", "LeaseNotHeld")),
    *(f"{verb}: placed" for verb in ("Cancel", "Redrive", "Locate")),
    *(f"{verb}: held" for verb in ("Heartbeat", "Resume")),
    *(f"{verb}: Done" for verb in ("Purge", "TakeBack", "Withdraw")),
    *(f"{verb}: TransitionRefused" for verb in ("Cancel", "Redrive", "Purge")),
    *(f"{verb}: TaskNotFound" for verb in ("Cancel", "Redrive", "Purge", "Locate", "Settle")),
    *(f"Note: {said}" for said in ("noted", "LeaseNotHeld")),
    "leased note leased, some go",
    "Several: all",
    "Several: none",
}
"""What a hundred runs always meet; the rest is in Hypothesis' statistics."""


def submit_command(wish: Wish) -> commands.Submit:
    """What its submitter says."""
    task = Task(
        id=wish.id,
        user_tier=wish.tier,
        est_processing_time_us=wish.est_us,
        queue=wish.queue,
        kind=wish.kind,
        max_retries=wish.max_retries,
        backoff=Backoff(wish.backoff),
        backoff_us=wish.backoff_us,
        backoff_max_us=wish.backoff_max_us,
        backoff_jitter_percent=wish.jitter_percent,
        lease_us=wish.lease_us,
        run_timeout_us=wish.run_timeout_us,
        deadline_us=wish.deadline_us,
        idempotency_key=wish.key,
    )
    return commands.Submit(
        task,
        wish.data,
        wish.is_clients,
        not_before_us=wish.not_before_us,
        delay_us=wish.delay_us,
        deadline_in_us=wish.deadline_in_us,
    )


def take_command(asking: Wait) -> commands.Take:
    """What this agent asks for."""
    return commands.Take(
        asking.agent_id,
        asking.session,
        asking.queues,
        asking.kinds,
        asking.slots,
        asking.wait_us,
        asking.token,
        asking.in_all,
    )


def settle_command(
    task_id: str,
    agent_id: str,
    lease_id: str,
    outcome: str,
    said: str,
    retryable: bool = True,
    retry_after_us: int | None = None,
) -> commands.Settle:
    """An outcome; what was said is a success's result and a failure's error."""
    result = said.encode() if outcome == "succeeded" else b""
    error = said if outcome == "failed" else ""
    ended = OUTCOMES[outcome]
    return commands.Settle(
        task_id, agent_id, lease_id, ended, result, error, retryable, retry_after_us
    )


def plain(answer: Any) -> Answer:
    """An answer as the model says it."""
    match answer:
        case Refused():
            return type(answer).__name__
        case commands.Placed():
            return (answer.task.id, answer.task.state.value, answer.position)
        case commands.Grants():
            return ("got", *(grant.task.id for grant in answer.grants))
        case commands.Held():
            return ("held", *sorted(answer.lease_ids))
        case commands.Settled():
            return (answer.outcome.value, answer.led_to.value)
        case commands.Noted():
            return ("noted", answer.dropped)
        case commands.Done():
            return "Done"
        case tuple():
            return tuple(map(plain, answer))
    assert answer is None, answer
    return None


def outline(asked: commands.Command[Any], answer: Answer) -> str:
    """Which verb met which answer, as in ANSWERS."""
    match asked:
        case commands.Submit() | commands.Cancel() | commands.Redrive() | commands.Locate():
            said = answer if isinstance(answer, str) else "placed"
        case commands.Several():
            said = "none" if isinstance(answer, str) else "all"
        case _:
            said = answer if isinstance(answer, str) else answer[0] if answer else "waits"
    return f"{type(asked).__name__}: {said}"


def step_of(change: Change) -> str:
    """Which step of the life cycle a change is, as in STEPS."""
    before = change.before.state.value if change.before else "none"
    after = change.after.state.value if change.after else "none"
    ended = change.attempt.outcome.value if change.attempt else ""
    ways = {"succeeded": "succeed", "failed": "fail", "released": "release", "lost": "expire"}
    ways |= {"cancelled": "cancel"}
    if change.entries:
        return "leased note leased" + (", some go" if change.entries_gone else "")
    if before == "leased":
        event = ways[ended] if ended else "heartbeat" if after == before else "release"
    elif after == "ready":
        event = {"none": "submit", "scheduled": "due"}.get(before, "redrive")
    else:
        event = {
            "scheduled": "submit",
            "dead": "overdue",
            "leased": "lease",
            "cancelled": "cancel",
            "none": "forget",
        }[after]
    return f"{before} {event} {after}"


def check_row(row: Row, task: Task) -> None:
    """A task is what the model says of it."""
    assert task.enqueued_at_us == row.enqueued_us
    assert (task.due_at_us, task.backoff_until_us) == (row.due_us, row.backoff_until_us)
    assert (task.deadline_us, task.finished_at_us) == (row.deadline_us, row.finished_us)
    counts = (task.retry_count, task.lost_count, task.hasty_releases, task.attempt)
    assert counts == (row.retry_count, row.lost_count, row.hasty, row.attempt)
    held, lease = row.held, task.lease
    expected = held and (row.held_id, held.agent_id, held.session, held.expires_us)
    assert (lease and (lease.lease_id, lease.agent_id, lease.session, lease.expires_us)) == expected


def check_history(row: Row, history: TaskHistory) -> None:
    """What is kept of a task's attempts is what the model says of it."""
    assert history.result == row.result
    for kept, ended in zip(history.attempts, row.history, strict=True):
        lease_id = row.lease_id(ended.token, ended.attempt)
        assert (kept.attempt, kept.lease_id, kept.agent_id) == (
            ended.attempt,
            lease_id,
            ended.agent_id,
        )
        assert (kept.outcome.value, kept.led_to.value) == (ended.outcome, ended.led_to)
        assert (kept.error, kept.ended_at_us) == (ended.error, ended.ended_us)


@contextmanager
def room_for_nothing(journal: Journal) -> Iterator[int]:
    """The disk is full: the store cannot grow. Gives how many bytes there still is room for."""
    connection = journal.connection
    before = connection.pragma("max_page_count")
    connection.pragma("max_page_count", connection.pragma("page_count"))
    yield connection.pragma("freelist_count") * connection.pragma("page_size")
    connection.pragma("max_page_count", before)
