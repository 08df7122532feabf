"""The command line: one file per group of verbs; here is how they are put together."""

import os
import sys
from typing import Annotated

import typer

import taskdist
from taskdist.cli import exits
from taskdist.cli.agent import agent
from taskdist.cli.dead import dead
from taskdist.cli.demo import demo
from taskdist.cli.exits import explain
from taskdist.cli.kinds import kinds
from taskdist.cli.serve import serve
from taskdist.cli.store import store
from taskdist.cli.submit import submit
from taskdist.cli.tasks import cancel, list_tasks, show

app = typer.Typer(
    name="taskdist",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # else line breaks of the source stand in the help
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(agent)
app.command()(submit)
app.command("list")(list_tasks)
app.command()(show)
app.command()(cancel)
app.command()(kinds)
app.add_typer(dead, name="dead")
app.add_typer(store, name="store")
app.command()(demo)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"taskdist {taskdist.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Distributes tasks of paying and free users to agents, in one exact order, durably.

    Start a distributor with `taskdist serve`, one or more agents with `taskdist agent`, and give
    them work with `taskdist submit`. `taskdist demo` shows all of it in 15 seconds.

    Order: new before retry, paid before free, shorter before longer, older before newer.

    Exit codes: 0 ok; 2 usage or invalid; 3 not found; 5 the awaited task failed; 6 wait timed out;
    7 cancelled; 8 unreachable; 9 refused; 74 the store failed; 1 a bug; 130, 143 cut short by a
    signal; 141 nobody takes the output.
    """


def main() -> None:
    """The console script. A user's mistake is one line; only a bug has a traceback."""
    try:
        # Named also under `python -m taskdist`, of which typer makes a name no shell can complete.
        code = app(prog_name="taskdist", standalone_mode=False)
    except SystemExit:  # Typer's own end when nobody reads the output; ours are values.
        code = exits.OUTPUT_REFUSED
    except (Exception, KeyboardInterrupt) as error:
        explained = explain(error)
        if explained is None:
            raise
        line, code = explained
        if line:
            print(f"taskdist: {_one_line(line)}", file=sys.stderr)
    sys.exit(_flushed(code))


def _one_line(text: str) -> str:
    """The text, with whatever in it would do something to a terminal spelt out."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _flushed(code: int) -> int:
    """The exit code, once all output is out; another one if nobody takes it."""
    if sys.stdout is None:  # It was closed before we began.
        return code
    try:
        sys.stdout.flush()
    except OSError:
        # Python would try again at its end, and say so.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 # the process ends with it
        return code or exits.OUTPUT_REFUSED
    return code
