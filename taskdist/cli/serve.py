"""`taskdist serve`."""

from typing import Annotated

import typer

from taskdist.cli.options import Config


def serve(
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where to listen. [default: 127.0.0.1:50051]"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="sqlite:PATH, or memory: to forget all. [default: sqlite:taskdist.db]"),
    ] = None,
    tiers: Annotated[
        str | None,
        typer.Option(help="User tiers, first served first. [default: paid,free]"),
    ] = None,
    lease: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long an agent may be silent before its task is given away. [default: 30s]",
        ),
    ] = None,
    require_lease_id: Annotated[
        bool | None,
        typer.Option("--require-lease-id", help="Refuse agents that send no lease_id."),
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How long a stop waits for calls under way. [default: 10s]"
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure", help="Listen beyond loopback although there are no credentials."
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Run a distributor: it takes tasks, keeps them in order and hands them to agents.

    Every acknowledged task is on disk; a restart goes on where it stopped. Needs nothing else: no
    broker, no database server. Logs go to stderr: pretty on a terminal, JSON otherwise.

    SIGTERM or Ctrl-C stops it well: calls under way end, then the store is closed. A second one
    stops it at once, which loses nothing either.

    Every setting is also an environment variable, such as TASKDIST_LEASE=1m, and a line of
    --config; docs/settings.md has all of them, limits and retention included. Durations are 90s,
    15m, 2h, or bare seconds.

    Example: taskdist serve --store sqlite:/var/lib/taskdist/tasks.db --lease 1m
    """
    from taskdist import interpreter, logs
    from taskdist.distributor.server import serve as run
    from taskdist.settings import DistributorSettings

    flags = {
        "listen": listen,
        "store": store,
        "tiers": tiers,
        "lease": lease,
        "require_lease_id": require_lease_id,
        "drain": drain,
        "insecure": insecure,
    }
    settings = DistributorSettings.load(flags, config=config)
    logs.configure(settings.log_level)
    interpreter.run(run(settings), settings.event_loop)
