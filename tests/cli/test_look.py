"""`taskdist list`, `show` and `cancel` against a real distributor."""

import json
import sys
import uuid

import pytest

from taskdist.client import Stub
from taskdist.limits import ATTEMPTS_KEPT_MAX
from taskdist.reports import Selection, Work
from tests.cli.conftest import CommandLine, Terminal
from tests.support.agents import NAME, agent_that, fails, succeeds


def submit(taskdist: CommandLine, queue: str, *flags: str) -> str:
    """Submits a task; its id."""
    return taskdist("submit", "--queue", queue, *flags).out.decode().split("\t")[0]


def rows(taskdist: CommandLine, *flags: str) -> list[list[str]]:
    """What `list` prints when piped."""
    return [line.split("\t") for line in taskdist("list", *flags).out.decode().splitlines()]


def test_list_is_tab_separated_uncut_newest_first(taskdist: CommandLine) -> None:
    first = submit(taskdist, "q" * 64, "--tier", "paid", "--time", "2.5")
    second = submit(taskdist, "q" * 64, "--max-retries", "0")
    listed = rows(taskdist, "--queue", "q" * 64)
    assert [row[:7] for row in listed] == [
        [second, "ready", "free", "1", "simulate", "q" * 64, "0"],
        [first, "ready", "paid", "2.5", "simulate", "q" * 64, "0"],
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_each_task_is_one_line_that_names_it(
    columns: int, taskdist: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = submit(taskdist, f"looked-at-{columns}", "render-a-page", "--time", "2.5")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    taskdist("list", "--queue", f"looked-at-{columns}", columns=columns)
    headers, line = terminal.getvalue().splitlines()
    assert "ID" in headers.split()[0]
    shown, *rest = line.split()
    assert task_id.endswith(shown)
    assert rest[:4] == ["ready", "free", "2.5s", "render-a-page"]
    monkeypatch.undo()
    assert taskdist("cancel", shown).code == 0


def test_list_filters_and_stops_at_its_limit(taskdist: CommandLine) -> None:
    ids = [submit(taskdist, "filtered", "--tier", tier) for tier in ("paid", "free", "free")]
    kind = taskdist("submit", "render", "--queue", "filtered").out.decode().split("\t")[0]
    taskdist("cancel", ids[1])

    def listed(*flags: str) -> list[str]:
        return [row[0] for row in rows(taskdist, "--queue", "filtered", *flags)]

    assert listed() == [kind, *reversed(ids)]
    assert listed("--tier", "paid") == [ids[0]]
    assert listed("--kind", "render") == [kind]
    assert listed("--state", "cancelled") == [ids[1]]
    assert listed("--state", "cancelled", "--state", "ready") == [kind, *reversed(ids)]
    assert listed("--state", "dead") == []
    assert listed("--limit", "2") == [kind, ids[2]]


def test_list_prints_one_json_value(taskdist: CommandLine) -> None:
    task_id = submit(taskdist, "json", "--time", "90s")
    (task,) = json.loads(taskdist("list", "--queue", "json", "--json").out)
    assert task["id"] == task_id
    assert (task["state"], task["est_processing_time"], task["user_tier"]) == ("ready", 90, "free")
    assert task["finished_at"] is None
    assert json.loads(taskdist("list", "--queue", "none", "--json").out) == []


def test_show_tells_how_each_attempt_ended(taskdist: CommandLine, server: str) -> None:
    task_id = submit(taskdist, "shown")
    with agent_that(fails("first line\nno\tluck"), server=server, queue="shown"):
        pass
    with agent_that(succeeds(b'{"answer": 42}'), server=server, queue="shown"):
        pass

    told = json.loads(taskdist("show", task_id, "--json").out)
    assert (told["id"], told["state"], told["retry_count"]) == (task_id, "succeeded", 1)
    assert told["result"] == {"answer": 42}
    assert [(a["attempt"], a["outcome"], a["error"]) for a in told["attempts"]] == [
        (1, "failed", "first line\nno\tluck"),
        (2, "succeeded", ""),
    ]
    lines = [line.split("\t") for line in taskdist("show", task_id).out.decode().splitlines()]
    assert ["state", "succeeded"] in lines
    assert lines[-2][0] == "1"
    assert lines[-2][-2:] == ["failed", "no luck"], "the line that says it, on one line"


def facts(taskdist: CommandLine, task_id: str) -> dict[str, str]:
    """What `show` says of a task, before its attempts."""
    told = taskdist("show", task_id).out.decode().partition("\n\n")[0]
    return dict(line.split("\t") for line in told.splitlines())


def test_show_says_when_a_scheduled_task_becomes_ready(taskdist: CommandLine) -> None:
    task_id = submit(taskdist, "later", "--at", "2100-06-01T12:00:00Z")
    told = facts(taskdist, task_id)
    assert (told["state"], told["position"]) == ("scheduled", "-")
    assert told["ready"].startswith("2100-06-01T12:00:00+00:00, in ")


def test_show_says_what_was_asked_for_and_nothing_else(taskdist: CommandLine) -> None:
    plain = facts(taskdist, submit(taskdist, "asked", "--data", "12345"))
    assert plain["data"] == "5 bytes"
    assert not {"ready", "deadline", "backoff", "run timeout", "lease", "key"} & plain.keys()
    backoff = ("--backoff", "exponential", "--backoff-initial", "5", "--backoff-jitter", "20")
    limits = ("--run-timeout", "15m", "--lease", "2m", "--deadline", "1h", "--key", "k-1")
    told = facts(taskdist, submit(taskdist, "asked", *backoff, *limits))
    assert told["backoff"] == "exponential, 5s to 3600s, up to 20% less by chance"
    assert (told["run timeout"], told["lease"], told["key"]) == ("900s", "120s", "k-1")
    assert told["deadline"] > told["submitted"]


def test_show_says_why_a_task_is_dead(taskdist: CommandLine, server: str) -> None:
    failed = submit(taskdist, "why", "--max-retries", "0")
    with agent_that(fails("Traceback\nOSError: disk on fire"), server=server, queue="why"):
        pass
    assert facts(taskdist, failed)["error"] == "OSError: disk on fire"
    late = submit(taskdist, "why", "--deadline", "1ms")
    waited = taskdist("submit", "--queue", "why", "--wait", "--deadline", "0.3")
    assert waited.code == 5, "by then the other one is dead, too"
    assert "deadline" in waited.lines[-1]
    assert "deadline" in facts(taskdist, late)["error"]
    assert "deadline" in json.loads(taskdist("show", late, "--json").out)["error"]


def test_show_names_who_runs_it_and_since_when(taskdist: CommandLine, server: str) -> None:
    task_id = submit(taskdist, "running")
    assert "leased" not in facts(taskdist, task_id)
    with agent_that(nothing, server=server, queue="running"):
        pass
    assert "state\tleased by played\n" in taskdist("show", task_id).out.decode()
    told = json.loads(taskdist("show", task_id, "--json").out)
    assert told["agent_id"] == "played"
    assert told["submitted_at"] <= told["leased_at"] == facts(taskdist, task_id)["leased"]


def test_p5_show_counts_the_attempts_that_are_not_kept(taskdist: CommandLine, server: str) -> None:
    task_id = submit(taskdist, "unlucky", "--max-retries", "100")
    assert "attempts not kept" not in facts(taskdist, task_id)
    with agent_that(fails_twice_as_often_as_may_be, server=server, queue="unlucky"):
        pass
    told = json.loads(taskdist("show", task_id, "--json").out)
    assert told["attempts_dropped"] == 2 * 101 - ATTEMPTS_KEPT_MAX
    assert told["attempts"][0]["attempt"] == told["attempts_dropped"] + 1
    assert facts(taskdist, task_id)["attempts not kept"] == str(told["attempts_dropped"])


async def fails_twice_as_often_as_may_be(client: Stub, work: Work) -> None:
    """Until it is dead, and after a redrive again."""
    for number in range(1, 2 * 101 + 1):
        await fails("no luck")(client, work)
        if number == 101:
            assert await client.redrive(Selection(task_ids=(work.task_id,))) == 1
        if number < 2 * 101:
            again = await client.fetch(agent_id=NAME, queues=[work.queue])
            assert again is not None
            work = again


async def nothing(client: Stub, work: Work) -> None:
    """What a silent agent does."""


def test_cancel_says_what_became_of_it(taskdist: CommandLine) -> None:
    task_id = submit(taskdist, "cancelled")
    assert taskdist("cancel", task_id).out.decode() == f"{task_id}\tcancelled\n"
    other = submit(taskdist, "cancelled")
    assert json.loads(taskdist("cancel", other, "--json").out) == {
        "id": other,
        "state": "cancelled",
    }


def test_a_finished_task_cannot_be_cancelled(taskdist: CommandLine) -> None:
    """Terminal is final (P5): exit 9, and nothing changes."""
    task_id = submit(taskdist, "final")
    taskdist("cancel", task_id)
    before = taskdist("show", task_id)
    again = taskdist("cancel", task_id)
    assert (again.code, again.out, len(again.lines)) == (9, b"", 1)
    assert taskdist("show", task_id) == before


# --- endings of ids ---------------------------------------------------------------------------


@pytest.mark.parametrize("length", [6, 12, 20, 36])
def test_a_unique_ending_is_enough(length: int, taskdist: CommandLine) -> None:
    task_id = str(uuid.uuid4())
    submit(taskdist, "endings", "--id", task_id)
    for ending in (task_id[-length:], task_id[-length:].upper()):
        assert json.loads(taskdist("show", ending, "--json").out)["id"] == task_id
    assert taskdist("cancel", task_id[-length:]).code == 0


@pytest.mark.parametrize("verb", ["show", "cancel"])
@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [
        ("abcde", 2, "too short"),
        ("", 2, "too short"),
        ("kangaroo", 2, "0-9 a-f"),
        ("f" * 40, 2, "0-9 a-f"),
        ("x" * 36, 2, "UUID"),
        ("0" * 12, 3, "no task"),
        ("00000000-0000-4000-8000-000000000000", 3, "no task"),
    ],
)
def test_an_ending_that_leads_to_no_task(
    verb: str, ending: str, code: int, says: str, taskdist: CommandLine
) -> None:
    ended = taskdist(verb, ending)
    assert (ended.code, ended.out) == (code, b"")
    (line,) = ended.lines
    assert says in line


def test_an_ambiguous_ending_names_the_tasks(taskdist: CommandLine) -> None:
    tail = uuid.uuid4().hex[-12:]
    ids = {f"{head}-0000-4000-8000-{tail}" for head in ("aaaaaaaa", "bbbbbbbb")}
    for task_id in ids:
        submit(taskdist, "ambiguous", "--id", task_id)
    ended = taskdist("cancel", tail[-8:])
    assert (ended.code, ended.out) == (2, b"")
    (line,) = ended.lines
    assert all(task_id in line for task_id in ids)
    assert all(row[1] == "ready" for row in rows(taskdist, "--queue", "ambiguous"))


# --- where the distributor is -----------------------------------------------------------------


def test_a_flag_wins_over_the_environment(taskdist: CommandLine) -> None:
    """TASKDIST_SERVER is set for all of these tests; --server leads elsewhere."""
    assert taskdist("list").code == 0
    ended = taskdist("list", "--server", "127.0.0.1:1")
    assert (ended.code, ended.out) == (8, b"")
    assert ended.lines == [
        "taskdist: 127.0.0.1:1: connection refused; does a distributor listen there?"
    ]
