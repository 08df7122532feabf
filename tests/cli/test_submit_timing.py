"""The flags of `taskdist submit` for when a task runs, how it is retried, and what repeats it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskdist.reports import Work
from tests.cli.conftest import CommandLine, Finished
from tests.support.agents import agent_that, fails

Take = Callable[[str], Work]


def told(ended: Finished) -> tuple[str, str, str]:
    """Id, state and position, as submit prints them when piped."""
    assert (ended.code, ended.err) == (0, "")
    task_id, state, position = ended.out.decode().removesuffix("\n").split("\t")
    return task_id, state, position


def shown(taskdist: CommandLine, task_id: str) -> dict[str, Any]:
    """What `show --json` says of a task."""
    task: dict[str, Any] = json.loads(taskdist("show", task_id, "--json").out)
    return task


def when(text: str) -> datetime:
    """A time in JSON."""
    return datetime.fromisoformat(text)


# --- when -------------------------------------------------------------------------------------


def test_a_delay_makes_it_scheduled_without_a_position(taskdist: CommandLine) -> None:
    task_id, *rest = told(taskdist("submit", "--queue", "delayed", "--delay", "10m"))
    assert rest == ["scheduled", "0"]
    task = shown(taskdist, task_id)
    assert when(task["due_at"]) - when(task["submitted_at"]) == timedelta(minutes=10)
    assert task["enqueued_at"] is None, "its age counts from when it is ready"


@pytest.mark.parametrize("said", ["2100-06-01T12:00:00Z", "2100-06-01T14:00:00+02:00"])
def test_at_is_a_time_of_a_zone(said: str, taskdist: CommandLine) -> None:
    task_id, state, _ = told(taskdist("submit", "--queue", "at", "--at", said))
    # Further ahead than a delay may be: a time is no unit mistaken.
    assert state == "scheduled"
    assert shown(taskdist, task_id)["due_at"] == "2100-06-01T12:00:00Z"


@pytest.mark.parametrize("flags", [["--at", "2001-01-01T00:00:00Z"], ["--delay", "0"]])
def test_a_time_that_has_come_means_at_once(flags: list[str], taskdist: CommandLine) -> None:
    assert told(taskdist("submit", "--queue", f"past{flags[0]}", *flags))[1:] == ("ready", "1")


def test_a_deadline_counts_from_now(taskdist: CommandLine) -> None:
    task_id, *_ = told(taskdist("submit", "--queue", "deadline", "--deadline", "1h"))
    task = shown(taskdist, task_id)
    left = when(task["deadline"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_a_run_timeout_and_a_lease_reach_the_agent(taskdist: CommandLine, take: Take) -> None:
    flags = ("--run-timeout", "15m", "--lease", "2m")
    task_id, *_ = told(taskdist("submit", "--queue", "limits", *flags))
    work = take("limits")
    assert (work.run_timeout_s, work.lease_s) == (900, 120)
    task = shown(taskdist, task_id)
    assert (task["run_timeout_seconds"], task["lease_seconds"]) == (900, 120)


def test_what_is_not_said_is_null(taskdist: CommandLine) -> None:
    task = shown(taskdist, told(taskdist("submit", "--queue", "plain"))[0])
    unset = {"due_at", "deadline", "backoff", "run_timeout_seconds", "lease_seconds"}
    assert {name: task[name] for name in unset | {"idempotency_key"}} == dict.fromkeys(
        unset | {"idempotency_key"}
    )


# --- retries ----------------------------------------------------------------------------------


def test_an_exponential_backoff(taskdist: CommandLine) -> None:
    flags = ("--backoff-initial", "5s", "--backoff-max", "10m", "--backoff-jitter", "20")
    submit = ("submit", "--queue", "backoff", "--backoff", "exponential")
    task_id, *_ = told(taskdist(*submit, *flags))
    assert shown(taskdist, task_id)["backoff"] == {
        "kind": "exponential",
        "initial_seconds": 5,
        "max_seconds": 600,
        "jitter_percent": 20,
    }
    default, *_ = told(taskdist(*submit, "--backoff-initial", "5s"))
    assert shown(taskdist, default)["backoff"]["max_seconds"] == 3600


def test_a_fixed_backoff_delays_the_retry(taskdist: CommandLine, server: str) -> None:
    flags = ("--backoff", "fixed", "--backoff-initial", "1h")
    task_id, *_ = told(taskdist("submit", "--queue", "fixed", *flags))
    with agent_that(fails("no luck"), server=server, queue="fixed"):
        pass
    task = shown(taskdist, task_id)
    assert (task["state"], task["retry_count"]) == ("scheduled", 1)
    left = when(task["due_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left < timedelta(hours=1, seconds=1)


def test_no_backoff_is_the_default(taskdist: CommandLine, server: str) -> None:
    task_id, *_ = told(taskdist("submit", "--queue", "no-backoff", "--backoff", "none"))
    with agent_that(fails("no luck"), server=server, queue="no-backoff"):
        pass
    assert shown(taskdist, task_id)["state"] == "ready"


# --- repeats ----------------------------------------------------------------------------------


def test_a_key_makes_a_repeat_safe(taskdist: CommandLine) -> None:
    submit = ("submit", "--queue", "keyed", "--key", "invoice 7", "--data")
    first = taskdist(*submit, "once")
    assert taskdist(*submit, "once") == first
    other = taskdist(*submit, "another")
    assert (other.code, other.out, len(other.lines)) == (9, b"", 1)
    elsewhere = taskdist("submit", "--queue", "keyed-too", "--key", "invoice 7")
    assert elsewhere.code == 0, "no two tasks of one queue share a key"
    (task,) = json.loads(taskdist("list", "--queue", "keyed", "--json").out)
    assert task["idempotency_key"] == "invoice 7"


# --- mistakes ---------------------------------------------------------------------------------

FIXED = ("--backoff", "fixed", "--backoff-initial")
EXPONENTIAL = ("--backoff", "exponential", "--backoff-initial")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--delay", "soon"], "--delay: 'soon' is not a duration: write 90s"),
        (["--delay", "9000h"], "--delay: 32400000.0 is not allowed; allowed: 0 to 31536000"),
        (["--at", "tomorrow"], "--at: 'tomorrow' is not a time: write 2027-01-01T00:00:00Z"),
        (["--at", "2027-01-01T00:00:00"], "--at: '2027-01-01T00:00:00' has no time zone"),
        (["--at", "2027-01-01"], "--at: '2027-01-01' has no time zone"),
        (["--at", "0001-01-01T00:00:00+01:00"], "--at: '0001-01-01T00:00:00+01:00' is not a time"),
        (["--at", "1969-01-01T00:00:00Z"], "allowed: a time after 1970"),
        (["--at", "2027-01-01T00:00:00Z", "--delay", "1s"], "--at: stands beside --delay"),
        (["--deadline", "never"], "--deadline: 'never' is not a duration"),
        (["--deadline", "0"], "--deadline: '0' is not allowed; allowed: more than 0"),
        (["--deadline", "9000h"], "--deadline: 32400000.0 is not allowed; allowed: 0 to 31536000"),
        (["--deadline", "1m", "--delay", "2m"], "--deadline: comes before the task may start"),
        (["--run-timeout", "x"], "--run-timeout: 'x' is not a duration"),
        (["--run-timeout", "0"], "--run-timeout: 0.0 is not allowed; allowed: 0.001 to 315360000"),
        (["--lease", "x"], "--lease: 'x' is not a duration"),
        (["--lease", "500ms"], "--lease: 0.5 is not allowed; allowed: 1 to 86400 seconds"),
        (["--lease", "25h"], "--lease: 90000.0 is not allowed; allowed: 1 to 86400 seconds"),
        (["--backoff", "linear"], "'none', 'fixed', 'exponential'"),
        (["--backoff", "fixed"], "--backoff-initial: missing beside --backoff fixed; such as 5s"),
        (["--backoff", "exponential"], "--backoff-initial: missing beside --backoff exponential"),
        (["--backoff-initial", "5s"], "--backoff-initial: goes with --backoff fixed or"),
        (["--backoff-max", "5s"], "--backoff-max: goes with --backoff"),
        (["--backoff-jitter", "5"], "--backoff-jitter: goes with --backoff"),
        ([*FIXED, "x"], "--backoff-initial: 'x' is not a duration"),
        ([*FIXED, "0"], "--backoff-initial: 0.0 is not allowed; allowed: 0.001 to 31536000"),
        ([*FIXED, "5", "--backoff-max", "9"], "--backoff-max: goes with --backoff exponential"),
        ([*EXPONENTIAL, "5", "--backoff-max", "x"], "--backoff-max: 'x' is not a duration"),
        (
            [*EXPONENTIAL, "5", "--backoff-max", "4"],
            "--backoff-max: 4.0 is not allowed; allowed: 5",
        ),
        ([*FIXED, "5", "--backoff-jitter", "101"], "--backoff-jitter"),
        (["--key", ""], "--key: '' is not allowed; allowed: 1 to 128"),
        (["--key", "k" * 129], "--key: "),
        (["--key", "two\nlines"], "allowed: 1 to 128 printable characters"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_2(
    flags: list[str], says: str, taskdist: CommandLine
) -> None:
    ended = taskdist("submit", "--queue", "mistaken", *flags)
    assert (ended.code, ended.out) == (2, b"")
    (line,) = ended.lines
    assert says in line
    assert any(flag in line for flag in flags if flag.startswith("--"))
    assert taskdist("list", "--queue", "mistaken").out == b"", "a refused request changes nothing"
