"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="TASKDIST_SERVER",
        metavar="HOST:PORT",
        help="The distributor to talk to.",
    ),
]
SERVER_DEFAULT = "127.0.0.1:50051"

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="TASKDIST_CONFIG",
        metavar="FILE",
        help="A TOML file of settings. Flags and TASKDIST_* variables win over it.",
        show_default=False,
    ),
]
