"""What `submit`, `list`, `show` and `cancel` do, once their arguments have been read."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from taskdist.cli import exits, output
from taskdist.cli.waiting import wait_for
from taskdist.client import Stub
from taskdist.client.inputs import Schemas, check
from taskdist.core.errors import BadField, InvalidFields, TaskNotFound
from taskdist.limits import ID_ENDING_LENGTH_MIN
from taskdist.reports import PastAttempt, TaskReport, gist
from taskdist.settings import SettingsError, check_address

T = TypeVar("T")

SUBMIT_FLAGS = {
    "user_tier": "--tier",
    "est_processing_time": "--time",
    "task_id": "--id",
    "timing.delay_seconds": "--delay",
    "timing.not_before": "--at",
    "timing.deadline_seconds": "--deadline",
    "timing.deadline": "--deadline",
    "timing.run_timeout_seconds": "--run-timeout",
    "timing.lease_seconds": "--lease",
    "backoff.initial_seconds": "--backoff-initial",
    "backoff.max_seconds": "--backoff-max",
    "backoff.jitter_percent": "--backoff-jitter",
    "idempotency_key": "--key",
}
"""The flags behind fields whose names would not tell."""


def run(server: str, work: Callable[[Stub], Awaitable[T]]) -> T:
    """Does some work with a client of this server.

    Raises:
        SettingsError: the server is not HOST:PORT.
    """
    check_server(server)

    async def with_client() -> T:
        async with Stub(server, batching=False) as client:
            return await work(client)

    return asyncio.run(with_client())


def check_server(server: str) -> None:
    """Checks what --server says.

    Raises:
        SettingsError: it is not HOST:PORT.
    """
    try:
        check_address(server)
    except ValueError as error:
        raise SettingsError(f"--server: {error}") from None


@contextmanager
def flags_named(flags: Mapping[str, str]) -> Iterator[None]:
    """What the distributor says of a field, it says of the flag that filled it."""
    try:
        yield
    except InvalidFields as error:
        named = [BadField(flags.get(field, field), reason) for field, reason in error.fields]
        raise type(error)(named) from None


async def submit(
    client: Stub, task: dict[str, Any], *, wait: bool, timeout_s: float | None, json: bool
) -> int:
    """Submits a task, and waits for its end if told to. Returns the exit code.

    Raises:
        InvalidFields: as the client's does; what has a flag is named by it.
        InvalidInput: the data fits none of the schemas that live agents have for its kind.
    """
    check(task["data"], await Schemas().of(client, task["queue"], task["kind"]))
    with flags_named(SUBMIT_FLAGS):
        submitted = await client.submit(**task)
    position = submitted.queue_position
    if wait:
        return await wait_for(client, submitted, timeout_s, json=json)
    if json:
        output.as_json(
            {
                "id": submitted.task_id,
                "state": str(submitted.state),
                "queue_position": position,
            }
        )
    else:
        place = str(position) if position or not sys.stdout.isatty() else "-"
        output.table(("ID", "STATE", "POSITION"), [(submitted.task_id, submitted.state, place)])
    return exits.OK


async def newest(client: Stub, filters: dict[str, Any], limit: int) -> list[TaskReport]:
    """The newest tasks that pass the filters."""
    tasks: list[TaskReport] = []
    async for task in client.list_tasks(**filters):
        tasks.append(task)
        if len(tasks) == limit:
            break
    return tasks


async def list_tasks(client: Stub, filters: dict[str, Any], limit: int, *, json: bool) -> None:
    """Prints the newest tasks that pass the filters."""
    tasks = await newest(client, filters, limit)
    if json:
        output.as_json([output.task_dict(task) for task in tasks])
        return
    piped = not sys.stdout.isatty()
    output.table(
        ("ID", "STATE", "TIER", "TIME", "KIND", "QUEUE", "FAILED", "AGE"),
        [
            (
                task.task_id,
                task.state,
                task.user_tier,
                output.plain(task.est_processing_time_s)
                if piped
                else output.seconds(task.est_processing_time_s),
                task.kind,
                task.queue,
                str(task.retry_count) if piped else f"{task.retry_count} of {task.max_retries + 1}",
                task.submitted_at.isoformat() if piped else output.ago(task.submitted_at),
            )
            for task in tasks
        ],
    )


async def show(client: Stub, ending: str, *, json: bool) -> None:
    """Prints all that is kept of a task."""
    print_task(await client.get(await whole_id(client, ending)), json=json)


def print_task(task: TaskReport, *, json: bool) -> None:
    """Prints all that is told of a task."""
    if json:
        output.as_json(
            output.task_dict(task)
            | {
                "queue_position": task.queue_position,
                "agent_id": task.agent_id or None,
                "leased_at": task.leased_at.isoformat() if task.leased_at else None,
                "waits_because": task.waits_because or None,
                "progress": output.progress_dict(task.progress) if task.progress else None,
                "error": task.error or None,
                "attempts_dropped": task.attempts_dropped,
                "attempts": [output.attempt_dict(attempt) for attempt in task.attempts],
            }
            | (output.result_dict(task.result) if task.finished_at and task.result else {})
        )
        return
    output.table(("FIELD", "VALUE"), _facts(task))
    if task.attempts:
        print()
        output.table(
            ("ATTEMPT", "AGENT", "STARTED", "TOOK", "OUTCOME", "ERROR"),
            [_attempt_row(attempt) for attempt in task.attempts],
        )


def _facts(task: TaskReport) -> list[tuple[str, str]]:
    """What there is to say of a task, line by line; what was not asked for is left out."""
    state = task.state + (f" by {task.agent_id}" if task.agent_id else "")
    facts = [
        ("id", task.task_id),
        ("state", state),
        ("leased", task.leased_at.isoformat() if task.leased_at else ""),
        ("position", str(task.queue_position) if task.queue_position else "-"),
        ("waits", task.waits_because),
        ("progress", output.entry_line(task.progress) if task.progress else ""),
        ("tier", task.user_tier),
        ("expected", output.seconds(task.est_processing_time_s)),
        ("kind", task.kind),
        ("queue", task.queue),
        ("key", task.idempotency_key),
        ("data", f"{task.data_bytes} bytes"),
        ("failures", f"{task.retry_count} of {task.max_retries + 1} allowed"),
        ("backoff", output.pause(task.backoff) if task.backoff else ""),
        ("lost leases", str(task.lost_count)),
        ("attempts not kept", str(task.attempts_dropped) if task.attempts_dropped else ""),
        ("run timeout", output.seconds(task.run_timeout_s) if task.run_timeout_s else ""),
        ("lease", output.seconds(task.lease_s) if task.lease_s else ""),
        ("submitted", task.submitted_at.isoformat()),
        ("ready", _due(task.due_at) if task.due_at else ""),
        ("deadline", task.deadline.isoformat() if task.deadline else ""),
        ("finished", task.finished_at.isoformat() if task.finished_at else "-"),
        ("error", gist(task.error) or "-"),
        ("result", f"{len(task.result)} bytes" if task.result else "-"),
    ]
    return [(name, value) for name, value in facts if value]


def _due(when: datetime) -> str:
    return f"{when.isoformat()}, in {output.until(when)}"


def _attempt_row(attempt: PastAttempt) -> tuple[str, ...]:
    took_s = (attempt.ended_at - attempt.started_at).total_seconds()
    return (
        str(attempt.attempt),
        attempt.agent_id,
        attempt.started_at.isoformat(),
        output.seconds(round(took_s, 3)),
        attempt.outcome,
        gist(attempt.error),
    )


async def cancel(client: Stub, ending: str, *, json: bool) -> None:
    """Cancels a task."""
    task_id = await whole_id(client, ending)
    state = await client.cancel(task_id)
    if json:
        output.as_json({"id": task_id, "state": str(state)})
    else:
        output.table(("ID", "STATE"), [(task_id, state)])


async def whole_id(client: Stub, ending: str) -> str:
    """The id that ends so.

    Raises:
        SettingsError: several do, or it is too short.
        TaskNotFound: none does.
    """
    if len(ending) == 36:
        return ending
    if len(ending) < ID_ENDING_LENGTH_MIN:
        raise SettingsError(
            f"ID: {ending!r} is too short; give {ID_ENDING_LENGTH_MIN} digits or more"
        )
    found = []
    with flags_named({"id_ending": "ID"}):
        async for task in client.list_tasks(id_ending=ending):
            found.append(task.task_id)
            if len(found) > 1:
                raise SettingsError(f"ID: several tasks end in {ending}: {', '.join(found)}, …")
    if not found:
        raise TaskNotFound(f"no task's id ends in {ending}")
    return found[0]
