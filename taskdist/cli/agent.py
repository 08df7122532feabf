"""`taskdist agent`."""

from typing import Annotated

import typer

from taskdist.cli.options import Config


def agent(
    name: Annotated[
        str | None,
        typer.Argument(help="Its name in logs and histories. [default: host and process id]"),
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
    config: Config = None,
) -> None:
    """Run an agent: it takes tasks from a distributor and works on them.

    It takes no more tasks than it has slots, keeps their leases alive while it works, and reports
    how each run ended. When the distributor goes away it works on, and comes back with it.

    It has one built-in kind, `simulate`: it works for the time that the task expects and then fails
    with the probability --failure-rate.

    A run whose lease could not be renewed for its whole term is stopped, before another agent may
    begin the task. With --on-doubt finish it goes on, and its outcome counts if nobody else has the
    task by then: for handlers that may safely run twice at once.

    SIGTERM or Ctrl-C drains it: no new tasks, running ones are finished, and handed back to the
    distributor after --drain-timeout. A second one hands them back at once.

    Every setting is also an environment variable, such as TASKDIST_SLOTS=4, and a line of --config;
    docs/settings.md has all of them. Durations are 90s, 15m, 2h, or bare seconds.

    Example: taskdist agent gpu-1 --slots 4 --failure-rate 0
    """
    import signal

    from taskdist import interpreter, logs
    from taskdist.agent.handlers import built_in
    from taskdist.agent.runtime import Agent
    from taskdist.client import Client
    from taskdist.settings import AgentSettings, SettingsError, check_name
    from taskdist.signals import Signals

    flags = {
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

    async def work() -> signal.Signals | None:
        signals = Signals()
        runner = Agent(agent_id, settings, built_in(settings), lambda: Client(settings.server))
        finished = await runner.run(signals)
        return None if finished else signals.asked_again.result()

    cut_short_by = interpreter.run(work(), settings.event_loop)
    if cut_short_by is not None:
        raise typer.Exit(128 + cut_short_by)


def _default_name() -> str:
    import os
    import re
    import socket

    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:48]
    return f"{host}-{os.getpid()}"
