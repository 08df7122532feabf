"""`taskdist submit`, `list`, `show` and `cancel`: their arguments and help.

What they do is in `verbs.py`, imported late: help and completion must not wait for a gRPC client.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from taskdist.cli.options import SERVER_DEFAULT, Json, Server
from taskdist.settings import (
    DATA_BYTES_MAX,
    MAX_RETRIES_MAX,
    SECOND_US,
    SettingsError,
    parse_duration_us,
)

TaskId = Annotated[
    str, typer.Argument(metavar="ID", help="A task's id, or a unique ending of 6 or more digits.")
]


def submit(
    kind: Annotated[str, typer.Argument(help="Which handler runs it.")] = "simulate",
    tier: Annotated[str, typer.Option(help="Who pays: paid or free, unless configured.")] = "free",
    time: Annotated[
        str, typer.Option(metavar="DURATION", help="Expected time of work: 3, 90s, 15m.")
    ] = "1",
    data: Annotated[
        str, typer.Option(help="What the handler gets: text, @FILE, or - for standard input.")
    ] = "",
    queue: Annotated[str, typer.Option(help="The line that it waits in.")] = "default",
    max_retries: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_RETRIES_MAX, help="Failures that may follow the first. [default: 3]"
        ),
    ] = None,
    task_id: Annotated[
        str,
        typer.Option(
            "--id", metavar="UUID", help="An id of your own: then a repeat adds nothing twice."
        ),
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end and print the result.")
    ] = False,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="With --wait: give up after so long (exit 6)."),
    ] = None,
    json: Json = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Submit a task; prints its id, state and position in its queue.

    When the command returns, the task is on the distributor's disk. Position 1 is next in its
    queue, whatever its kind; a task whose kind no agent runs waits.

    With --wait it follows the task to its end and prints the result, or the last error on stderr.
    Then it exits 5 if the task ended dead, 7 if it was cancelled, 6 if --timeout passed first (the
    task goes on).

    Examples:

    taskdist submit --tier paid --time 3

    taskdist submit --time 90s --data @input.json --wait --timeout 10m --json
    """
    from taskdist.cli import verbs

    if timeout is not None and not wait:
        raise SettingsError("--timeout: goes with --wait")
    estimate_s = _duration_s("--time", time)
    timeout_s = None if timeout is None else _duration_s("--timeout", timeout)
    payload = _read_data(data)
    code = verbs.run(
        server,
        lambda client: verbs.submit(
            client,
            {
                "user_tier": tier,
                "est_processing_time_s": estimate_s,
                "data": payload,
                "kind": kind,
                "queue": queue,
                "max_retries": max_retries,
                "task_id": task_id,
            },
            wait=wait,
            timeout_s=timeout_s,
            json=json,
        ),
    )
    raise typer.Exit(code)


def list_tasks(
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="scheduled, ready, leased, succeeded, dead or cancelled; may be repeated.",
            show_default=False,
        ),
    ] = None,
    tier: Annotated[str, typer.Option(help="Only tasks of this tier.")] = "",
    kind: Annotated[str, typer.Option(help="Only tasks of this kind.")] = "",
    queue: Annotated[str, typer.Option(help="Only tasks of this queue.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    json: Json = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """List tasks, newest first.

    A table on a terminal; when piped, tab-separated lines: id, state, tier, expected seconds, kind,
    queue, failures, submitted at.

    Example: taskdist list --state ready --state leased --tier paid
    """
    from taskdist.cli import verbs
    from taskdist.core.task import TaskState

    try:
        states = [TaskState(name) for name in state or ()]
    except ValueError as error:
        allowed = ", ".join(TaskState)
        raise SettingsError(f"--state: {str(error).split()[0]}; allowed: {allowed}") from None
    filters = {"states": states, "user_tier": tier, "kind": kind, "queue": queue}
    verbs.run(server, lambda client: verbs.list_tasks(client, filters, limit, json=json))


def show(task_id: TaskId, json: Json = False, server: Server = SERVER_DEFAULT) -> None:
    """Show a task: where it is, who worked on it, how each attempt ended.

    Example: taskdist show 9f52a1
    """
    from taskdist.cli import verbs

    verbs.run(server, lambda client: verbs.show(client, task_id, json=json))


def cancel(task_id: TaskId, json: Json = False, server: Server = SERVER_DEFAULT) -> None:
    """Cancel a task that is not finished. An agent that runs it stops at its next heartbeat.

    Example: taskdist cancel 9f52a1
    """
    from taskdist.cli import verbs

    verbs.run(server, lambda client: verbs.cancel(client, task_id, json=json))


# --- reading arguments -------------------------------------------------------------------------


def _duration_s(flag: str, text: str) -> float:
    try:
        return int(str(parse_duration_us(text))) / SECOND_US
    except ValueError as error:
        raise SettingsError(f"{flag}: {error}") from None


def _read_data(text: str) -> bytes:
    """The data that `--data` means. Reads no more than is allowed, and a byte."""
    if text == "-":
        return sys.stdin.buffer.read(DATA_BYTES_MAX + 1)
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            with path.open("rb") as file:
                return file.read(DATA_BYTES_MAX + 1)
        except OSError as error:
            raise SettingsError(f"--data: {path}: {error.strerror}") from None
    return text.encode(errors="surrogateescape")  # bytes that are no UTF-8, as they were typed
