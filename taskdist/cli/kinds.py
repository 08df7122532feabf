"""`taskdist kinds`."""

from typing import TYPE_CHECKING, Annotated

import typer

from taskdist.cli.options import SERVER_DEFAULT, Json, Server

if TYPE_CHECKING:
    from taskdist.client.stub import Stub


def kinds(
    kind: Annotated[str, typer.Option(help="Only this kind.")] = "",
    queue: Annotated[str, typer.Option(help="Only what is taken from this queue.")] = "",
    json: Json = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """List the kinds that live agents run.

    An agent is live while it is heard of. A task whose kind none of them runs waits, and
    `taskdist show` says so.

    A table on a terminal; when piped, tab-separated lines: kind, or - for agents that take any;
    queues; agents; how many different schemas of its input they have. --json prints these, too.

    Example: taskdist kinds --queue gpu
    """
    from taskdist.cli import output, verbs

    async def show(client: "Stub") -> None:
        reports = [report async for report in client.list_kinds(queue=queue, kind=kind)]
        if json:
            output.as_json([output.kind_dict(report) for report in reports])
            return
        output.table(
            ("KIND", "QUEUES", "AGENTS", "SCHEMAS"),
            [
                (
                    report.name or "-",
                    ", ".join(report.queues),
                    str(report.live_agents),
                    str(len(report.input_schemas)),
                )
                for report in reports
            ],
        )

    verbs.run(server, show)
