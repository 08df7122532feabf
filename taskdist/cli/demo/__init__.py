"""`taskdist demo`: a show in three acts, each of which ends in a statement that is checked."""

from typing import Annotated

import typer


def demo(
    speed: Annotated[
        float,
        typer.Option(min=1, max=100, help="How many times faster than real simulated work runs."),
    ] = 10,
) -> None:
    """See it work: a real distributor and real agents on this machine, in about 15 seconds.

    Three acts: (a) four tasks come out in the exact order; (b) failing tasks are retried after all
    new ones, and one that never succeeds ends dead with its errors kept; (c) an agent and then the
    distributor are killed, and nothing is lost.

    Each act ends in a statement that is checked against what the agents logged. Exits 1 if one is
    false. Uses free ports of 127.0.0.1 and a temporary store, which it removes at the end.
    """
    import asyncio

    from taskdist.cli.demo.acts import perform

    if not asyncio.run(perform(speed)):
        raise typer.Exit(1)
