"""`taskdist list`, `show` and `cancel`: their arguments and help.

What they do is in `verbs.py`, imported late: help and completion must not wait for a gRPC client.
"""

from typing import Annotated

import typer

from taskdist.cli.options import SERVER_DEFAULT, Json, Server
from taskdist.cli.typed import states_of
from taskdist.core.task import TaskState

TaskId = Annotated[
    str, typer.Argument(metavar="ID", help="A task's id, or a unique ending of 6 or more digits.")
]


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

    states = states_of(state, tuple(TaskState))
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
