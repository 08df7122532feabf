"""`taskdist submit`: its arguments and help.

What it does is in `verbs.py`, imported late: help and completion must not wait for a gRPC client.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from taskdist.cli.options import SERVER_DEFAULT, Json, Server
from taskdist.cli.typed import data_of, duration_s, optional_s, positive_s, time_at
from taskdist.limits import IDEMPOTENCY_KEY_LENGTH_MAX, MAX_RETRIES_MAX
from taskdist.settings import SettingsError

if TYPE_CHECKING:
    from taskdist.reports import RetryPause

BackoffName = Literal["none", "fixed", "exponential"]

TIMING = "When it runs, and for how long"
RETRIES = "After a failure"
REPEATS = "To repeat a submit safely"
WAITING = "Waiting for its end"
MANY = "Many at once"


def submit(
    kind: Annotated[str, typer.Argument(help="Which handler runs it.")] = "simulate",
    tier: Annotated[str, typer.Option(help="Who pays: paid or free, unless configured.")] = "free",
    time: Annotated[
        str, typer.Option(metavar="DURATION", help="Expected time of work: 3, 90s, 15m.")
    ] = "1",
    data: Annotated[
        str, typer.Option(help="What the handler gets: text, @FILE, or - for standard input.")
    ] = "",
    queue: Annotated[str, typer.Option(help="The line that it waits in.")] = "default",
    json: Json = False,
    server: Server = SERVER_DEFAULT,
    delay: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", rich_help_panel=TIMING, help="Not before so long from now."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            rich_help_panel=TIMING,
            help="Not before this time: 2027-01-01T00:00:00Z, or with +01:00 for Z.",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=TIMING,
            help="Not started within so long from now, it is dead; so is a retry. [default: none]",
        ),
    ] = None,
    run_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=TIMING,
            help="How long one run may take. [default: 1h, or 10 times --time if that is more]",
        ),
    ] = None,
    lease: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=TIMING,
            help="How long its agent may be silent. [default: what `serve --lease` says]",
        ),
    ] = None,
    max_retries: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_RETRIES_MAX,
            rich_help_panel=RETRIES,
            help="Failures that may follow the first. [default: 3]",
        ),
    ] = None,
    backoff: Annotated[
        BackoffName,
        typer.Option(
            rich_help_panel=RETRIES,
            help="The pause before a retry: none, the same each time, or doubled each time.",
        ),
    ] = "none",
    backoff_initial: Annotated[
        str | None,
        typer.Option(metavar="DURATION", rich_help_panel=RETRIES, help="The first pause."),
    ] = None,
    backoff_max: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=RETRIES,
            help="The longest pause of an exponential backoff. [default: 1h]",
        ),
    ] = None,
    backoff_jitter: Annotated[
        int | None,
        typer.Option(
            metavar="PERCENT",
            min=0,
            max=100,
            rich_help_panel=RETRIES,
            help="Up to so much is taken off each pause by chance. [default: 0]",
        ),
    ] = None,
    task_id: Annotated[
        str,
        typer.Option(
            "--id",
            metavar="UUID",
            rich_help_panel=REPEATS,
            help="An id of your own: then a repeat adds nothing twice.",
        ),
    ] = "",
    key: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            rich_help_panel=REPEATS,
            help="Idempotency key: in one queue, the same key and content is the same task, for as "
            "long as that is kept.",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            rich_help_panel=WAITING,
            help="Wait for the end and print the result: its bytes and no more, but on a terminal "
            "a newline where it ends without.",
        ),
    ] = False,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=WAITING,
            help="With --wait: give up after so long (exit 6).",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=MANY,
            help="Submit each line of FILE, a JSON object; - for standard input.",
        ),
    ] = None,
) -> None:
    """Submit a task; prints its id, state and position in its queue.

    When the command returns, the task is on the distributor's disk. Position 1 is next in its
    queue, whatever its kind; a task whose kind no agent runs waits. One that is scheduled for later
    has no position yet: 0, or - on a terminal.

    With --wait it follows the task to its end and prints the result, or the last error on stderr.
    Then it exits 5 if the task ended dead, 7 if it was cancelled, 6 if --timeout passed first (the
    task goes on).

    With --batch it submits a file of tasks, up to 1,000 in one commit, and prints their ids, one a
    line. A line is a JSON object with any of kind, data, tier, time, queue, max_retries, backoff,
    delay, at, deadline, run_timeout, lease, key, task_id; flags say what a line does not. Data that
    is text is sent as it is, all else as JSON. Every line is checked before the first is sent. A
    file whose lines have keys or ids may be submitted again, and adds nothing twice. With --wait it
    waits for all: 5 if one ended dead, 6 if --timeout passed first, 7 if one was cancelled.

    Durations are 90s, 15m, 2h, or bare seconds.

    Examples:

    taskdist submit --tier paid --time 3

    taskdist submit --time 90s --data @input.json --wait --timeout 10m --json

    taskdist submit --delay 10m --deadline 1h --key report-2027-01

    taskdist submit --backoff exponential --backoff-initial 5s --backoff-jitter 20

    taskdist submit infer --tier paid --batch prompts.jsonl --wait
    """
    from taskdist.cli import verbs

    if timeout is not None and not wait:
        raise SettingsError("--timeout: goes with --wait")
    if key == "":  # A variable that is not set, most likely; a repeat would be a second task.
        raise SettingsError(
            f"--key: '' is not allowed; allowed: 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters"
        )
    timeout_s = optional_s("--timeout", timeout)
    task = {
        "user_tier": tier,
        "est_processing_time_s": duration_s("--time", time),
        "kind": kind,
        "queue": queue,
        "max_retries": max_retries,
        "task_id": task_id,
        "backoff": _pause(backoff, backoff_initial, backoff_max, backoff_jitter),
        **_start(delay, at),
        "deadline_s": positive_s("--deadline", deadline),
        "run_timeout_s": optional_s("--run-timeout", run_timeout),
        "lease_s": optional_s("--lease", lease),
        "idempotency_key": key or "",
    }
    if batch is not None:
        _refuse_beside_batch({"--data": data, "--id": task_id, "--key": key})
        raise typer.Exit(
            _submit_batch(server, batch, task, wait=wait, timeout_s=timeout_s, json=json)
        )
    task["data"] = data_of(data)  # last, for it may wait for standard input
    code = verbs.run(
        server,
        lambda client: verbs.submit(client, task, wait=wait, timeout_s=timeout_s, json=json),
    )
    raise typer.Exit(code)


def _submit_batch(server: str, path: str, task: dict[str, Any], **how: Any) -> int:
    from taskdist.cli import batch, lines

    return batch.submit(server, path, task["kind"], lines.defaults(task), **how)


def _refuse_beside_batch(flags: dict[str, str | None]) -> None:
    for flag, value in flags.items():
        if value:
            raise SettingsError(f"{flag}: stands beside --batch; say it in the lines of the file")


def _start(delay: str | None, at: str | None) -> dict[str, Any]:
    """When it may start."""
    if delay is not None and at is not None:
        raise SettingsError("--at: stands beside --delay; allowed: one of them")
    if delay is not None:
        return {"delay_s": duration_s("--delay", delay)}
    return {} if at is None else {"not_before": time_at("--at", at)}


def _pause(
    kind: BackoffName, initial: str | None, longest: str | None, jitter: int | None
) -> "RetryPause | None":
    """How long it waits before a retry."""
    from taskdist.core.task import Backoff
    from taskdist.reports import RetryPause

    said = {
        "--backoff-initial": initial,
        "--backoff-max": longest,
        "--backoff-jitter": jitter,
    }
    if kind == "none":
        for flag, value in said.items():
            if value is not None:
                raise SettingsError(f"{flag}: goes with --backoff fixed or exponential")
        return None
    if initial is None:
        raise SettingsError(f"--backoff-initial: missing beside --backoff {kind}; such as 5s")
    if kind == "fixed" and longest is not None:
        raise SettingsError("--backoff-max: goes with --backoff exponential")
    return RetryPause(
        Backoff(kind),
        initial_s=duration_s("--backoff-initial", initial),
        max_s=optional_s("--backoff-max", longest),
        jitter_percent=jitter or 0,
    )
