"""`taskdist store`: is a store sound, and a copy of it; arguments and help.

What they do is in `store_verbs.py`, imported late.
"""

from pathlib import Path
from typing import Annotated

import typer

from taskdist.cli.options import SERVER_DEFAULT, Json, Server

store = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
"""The group, for the root to include."""


@store.callback()
def group() -> None:
    """Check the store of a running distributor, or a copy of one, and back it up.

    Neither stops the distributor nor holds up its clients and agents. docs/backup.md says how to
    restore, and what that means.

    Examples:

    taskdist store backup tasks-2027-01-01.db

    taskdist store check tasks-2027-01-01.db
    """


@store.command()
def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="A backup, or the store of a distributor that has stopped. It is not written to. "
            "Without it: the store of the running distributor.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    server: Server = SERVER_DEFAULT,
) -> int:
    """Check that a store is sound; prints what was looked at and each fault.

    SQLite's check of the whole file comes first, then every task with its lease, data, result and
    attempts. The first 100 faults are printed, and all are counted. Nothing is repaired.

    Exit code 0: it is sound; 74: it is not.

    Examples:

    taskdist store check

    taskdist store check tasks-2027-01-01.db --json
    """
    from taskdist.cli import store_verbs, verbs

    if file is not None:
        return store_verbs.check_file(file, json=json)
    return verbs.run(server, lambda client: store_verbs.check(client, json=json))


@store.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it is written.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    json: Json = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Write a copy of the running distributor's store to FILE, on this machine.

    All that was acknowledged before is in it. FILE is there once it is whole, and not before.

    Example: taskdist store backup tasks-2027-01-01.db
    """
    from taskdist.cli import store_verbs, verbs

    store_verbs.require_place(file, force=force)
    verbs.run(server, lambda client: store_verbs.back_up(client, file, force=force, json=json))
