"""`taskdist agent`."""

from typing import Annotated

import typer

from taskdist.cli.options import Config


def agent(
    name: Annotated[
        str | None,
        typer.Argument(help="Its name in logs and histories. [default: host and process id]"),
    ] = None,
    handlers: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:REGISTRY",
            help="What it can run: a taskdist.Registry. [default: the built-in kind]",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The distributor to work for. [default: 127.0.0.1:50051]"
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="How many tasks to run at once. [default: 1]")
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="The queues to take from. [default: default]"),
    ] = None,
    failure_rate: Annotated[
        float | None,
        typer.Option(help="How often simulated tasks fail, 0 to 1. [default: 0.3]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="What simulated failures are drawn from. [default: 0]")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="How many times faster simulated tasks run. [default: 1]"),
    ] = None,
    drain_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long a stop waits before it hands running tasks back. [default: 30s]",
        ),
    ] = None,
    on_doubt: Annotated[
        str | None,
        typer.Option(
            metavar="stop|finish",
            help="What becomes of a run whose lease cannot be renewed. [default: stop]",
        ),
    ] = None,
    exit_when_idle: Annotated[
        bool | None,
        typer.Option("--exit-when-idle", help="End when there is nothing left to do."),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Begin anew when code changes; for development.")
    ] = False,
    config: Config = None,
) -> None:
    """Run an agent: it takes tasks from a distributor and works on them.

    It takes no more tasks than it has slots, keeps their leases alive while it works, and reports
    how each run ended. When the distributor goes away it works on, and comes back with it.

    With --handlers tasks:tasks it runs what the registry `tasks` in tasks.py names, a file in the
    current directory or a module that is installed; docs/handlers.md shows how to write one.
    Without, it has one built-in kind, `simulate`: it works for the time that the task expects and
    then fails with the probability --failure-rate.

    With --exit-when-idle it ends, with exit code 0, when it runs nothing, nothing has come for two
    seconds (TASKDIST_IDLE), no task is ready for it, and none that failed here waits for its retry.
    With --reload it drains and begins anew when a .py file below the current directory changes.

    A run whose lease could not be renewed for its whole term is stopped, before another agent may
    begin the task. With --on-doubt finish it goes on, and its outcome counts if nobody else has the
    task by then: for handlers that may safely run twice at once.

    SIGTERM or Ctrl-C drains it: no new tasks, running ones are finished, and handed back to the
    distributor after --drain-timeout. A second one hands them back at once.

    Every setting is also an environment variable, such as TASKDIST_SLOTS=4, and a line of --config;
    docs/settings.md has all of them. Durations are 90s, 15m, 2h, or bare seconds.

    Example: taskdist agent gpu-1 --handlers tasks:tasks --slots 4
    """
    import signal

    from taskdist import interpreter, logs
    from taskdist.agent.built_in import built_in
    from taskdist.agent.loading import load
    from taskdist.agent.runtime import Agent
    from taskdist.client import Stub
    from taskdist.limits import BUILT_IN
    from taskdist.settings import AgentSettings, SettingsError, check_name
    from taskdist.signals import Signals

    flags = {
        "handlers": handlers,
        "exit_when_idle": exit_when_idle,
        "server": server,
        "slots": slots,
        "queues": queues,
        "failure_rate": failure_rate,
        "seed": seed,
        "speed": speed,
        "drain_timeout": drain_timeout,
        "on_doubt": on_doubt,
    }
    settings = AgentSettings.load(flags, config=config)
    agent_id = _default_name() if name is None else name
    try:
        check_name(agent_id)
    except ValueError as error:
        raise SettingsError(f"NAME: {error}") from None
    logs.configure(settings.log_level)
    if reload:
        raise typer.Exit(_reloading())
    registry = built_in(settings) if settings.handlers == BUILT_IN else load(settings.handlers)

    async def work() -> signal.Signals | None:
        signals = Signals()
        runner = Agent(agent_id, settings, registry, lambda: Stub(settings.server))
        finished = await runner.run(signals)
        return None if finished else signals.asked_again.result()

    cut_short_by = interpreter.run(work(), settings.event_loop)
    if cut_short_by is not None:
        raise typer.Exit(128 + cut_short_by)


def _reloading() -> int:
    """The same command without --reload, in a process that is begun anew."""
    import asyncio
    import sys

    from taskdist.cli import reloading

    reloading.check_installed()
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    return asyncio.run(reloading.run(arguments))


def _default_name() -> str:
    import os
    import re
    import socket

    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:48]
    return f"{host}-{os.getpid()}"
