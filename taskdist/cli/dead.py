"""`taskdist dead`: what people do about tasks that have ended; arguments and help.

What they do is in `dead_verbs.py`, imported late: help and completion must not wait for a gRPC
client.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from taskdist.cli.options import SERVER_DEFAULT, Json, Server
from taskdist.cli.tasks import TaskId
from taskdist.cli.typed import positive_s, states_of
from taskdist.core.lifecycle import Event, states_before
from taskdist.core.task import TaskState
from taskdist.limits import PAGE_SIZE_MAX
from taskdist.settings import SettingsError

if TYPE_CHECKING:
    from taskdist.reports import Selection

dead = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
"""The group, for the root to include."""

REDRIVABLE = states_before(Event.REDRIVE)
PURGEABLE = states_before(Event.FORGET)

MANY = "Which tasks, if none is named"

TaskIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        help="Tasks' ids, or unique endings of 6 or more digits. All of them are done, or none.",
        show_default=False,
    ),
]
Tier = Annotated[str | None, typer.Option(help="Only tasks of this tier.", rich_help_panel=MANY)]
Kind = Annotated[str | None, typer.Option(help="Only tasks of this kind.", rich_help_panel=MANY)]
Queue = Annotated[str | None, typer.Option(help="Only tasks of this queue.", rich_help_panel=MANY)]
Age = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Only tasks that ended at least so long ago.",
        rich_help_panel=MANY,
    ),
]
All = Annotated[
    bool,
    typer.Option(
        "--all", help="All of them: needed where no filter narrows it.", rich_help_panel=MANY
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Ask nothing. Needed when nobody is there to ask.")
]


@dead.callback()
def group() -> None:
    """Look at dead tasks, put them back, or remove them for good.

    A task is dead when it is out of retries or lost too many leases, cannot be retried, or was not
    started by its deadline. The distributor keeps dead tasks for 30 days, unless configured.

    Examples:

    taskdist dead list --kind render

    taskdist dead redrive --kind render --age 1h
    """


@dead.command("list")
def list_dead(
    tier: Annotated[str, typer.Option(help="Only tasks of this tier.")] = "",
    kind: Annotated[str, typer.Option(help="Only tasks of this kind.")] = "",
    queue: Annotated[str, typer.Option(help="Only tasks of this queue.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=PAGE_SIZE_MAX, help="How many at most.")] = 50,
    json: Json = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """List dead tasks, the newest submitted first, and why each of them is dead.

    A table on a terminal; when piped, tab-separated lines: id, tier, kind, queue, runs, when it
    died, the last line of why.

    Example: taskdist dead list --kind render --limit 10
    """
    from taskdist.cli import dead_verbs, verbs

    filters = {"user_tier": tier, "kind": kind, "queue": queue}
    verbs.run(server, lambda client: dead_verbs.list_dead(client, filters, limit, json=json))


@dead.command("show")
def show_dead(task_id: TaskId, json: Json = False, server: Server = SERVER_DEFAULT) -> None:
    """Show a dead task as `taskdist show` does, and the whole of its error.

    Example: taskdist dead show 9f52a1
    """
    from taskdist.cli import dead_verbs, verbs

    verbs.run(server, lambda client: dead_verbs.show_dead(client, task_id, json=json))


@dead.command()
def redrive(
    task_ids: TaskIds = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="dead or cancelled; may be repeated. [default: dead]",
            show_default=False,
            rich_help_panel=MANY,
        ),
    ] = None,
    tier: Tier = None,
    kind: Kind = None,
    queue: Queue = None,
    age: Age = None,
    all_: All = False,
    yes: Yes = False,
    json: Json = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Put dead or cancelled tasks back, as if submitted now; prints how many.

    Their counts start anew and their deadlines are lifted; their history stays. Tasks that are
    named are put back at once. Otherwise it says how many pass all filters, and asks.

    Examples:

    taskdist dead redrive 9f52a1 07c3e2

    taskdist dead redrive --kind render --age 1h

    taskdist dead redrive --state cancelled --all --yes --json
    """
    from taskdist.cli import dead_verbs

    selection = _selection(
        task_ids, states_of(state, REDRIVABLE), tier, kind, queue, age, everything=all_
    )
    work = dead_verbs.Bulk("redrive", "put back", yes=yes, json=json)
    work.run(server, selection)


@dead.command()
def purge(
    task_ids: TaskIds = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="dead, cancelled or succeeded; may be repeated. [default: dead]",
            show_default=False,
            rich_help_panel=MANY,
        ),
    ] = None,
    tier: Tier = None,
    kind: Kind = None,
    queue: Queue = None,
    age: Age = None,
    all_: All = False,
    yes: Yes = False,
    json: Json = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Remove finished tasks for good, with data, results and history; prints how many.

    Tasks that are named are removed at once. Otherwise it says how many pass all filters, and asks.

    Examples:

    taskdist dead purge 9f52a1

    taskdist dead purge --kind render --age 24h

    taskdist dead purge --state succeeded --all --yes
    """
    from taskdist.cli import dead_verbs

    selection = _selection(
        task_ids, states_of(state, PURGEABLE), tier, kind, queue, age, everything=all_
    )
    work = dead_verbs.Bulk("purge", "remove", yes=yes, json=json)
    work.run(server, selection)


def _selection(
    task_ids: Sequence[str] | None,
    states: tuple[TaskState, ...],
    tier: str | None,
    kind: str | None,
    queue: str | None,
    age: str | None,
    *,
    everything: bool,
) -> "Selection":
    """The tasks that are meant; their ids as they were typed."""
    from taskdist.reports import Selection

    filters = {"--tier": tier, "--kind": kind, "--queue": queue, "--age": age}
    said = [flag for flag, value in filters.items() if value is not None]
    for flag in said:
        if not filters[flag]:  # A variable that is not set, most likely: it would widen the rest.
            raise SettingsError(f"{flag}: '' is not allowed; allowed: something, or no {flag}")
    said += ["--all"] if everything else []
    if task_ids and (said or states):
        raise SettingsError(f"ID: stands beside {said[0] if said else '--state'}; allowed: either")
    if not (task_ids or said):
        raise SettingsError("ID: name tasks, or give --tier, --kind, --queue or --age, or --all")
    return Selection(
        task_ids=tuple(task_ids or ()),
        states=states,
        user_tier=tier or "",
        kind=kind or "",
        queue=queue or "",
        age_s=positive_s("--age", age),
        all=everything,
    )
