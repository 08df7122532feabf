"""`taskdist dead` against a real distributor."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import CommandLine
from tests.support.agents import agent_that, fails

Dies = Callable[..., str]

NOBODY_HAS = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def dead(taskdist: CommandLine, server: str) -> Dies:
    """Makes a dead task; its id."""

    def submit_and_fail(queue: str, *flags: str, error: str = "no luck") -> str:
        submit = ("submit", "--queue", queue, "--max-retries", "0", *flags)
        task_id = taskdist(*submit).out.decode().split("\t")[0]
        with agent_that(fails(error), server=server, queue=queue):
            pass
        return task_id

    return submit_and_fail


def states(taskdist: CommandLine, queue: str) -> dict[str, str]:
    """The states of the tasks of a queue, by id."""
    listed = json.loads(taskdist("list", "--queue", queue, "--json").out)
    return {task["id"]: task["state"] for task in listed}


# --- looking ----------------------------------------------------------------------------------


def test_list_says_when_and_why_newest_first(taskdist: CommandLine, dead: Dies) -> None:
    first = dead("listed", error="Traceback (most recent call last):\nOSError: disk on fire")
    second = dead("listed", "--tier", "paid")
    taskdist("submit", "--queue", "listed")  # which is not dead
    lines = taskdist("dead", "list", "--queue", "listed").out.decode().splitlines()
    rows = [line.split("\t") for line in lines]
    assert [row[:5] for row in rows] == [
        [second, "paid", "simulate", "listed", "1"],
        [first, "free", "simulate", "listed", "1"],
    ]
    assert [row[6] for row in rows] == ["no luck", "OSError: disk on fire"]
    passed = datetime.now(UTC) - datetime.fromisoformat(rows[0][5])
    assert timedelta() <= passed < timedelta(minutes=1)


def test_list_filters_and_stops_at_its_limit(taskdist: CommandLine, dead: Dies) -> None:
    paid = dead("sifted", "--tier", "paid")
    render = dead("sifted", "render")

    def listed(*flags: str) -> list[str]:
        told = taskdist("dead", "list", "--queue", "sifted", "--json", *flags).out
        return [task["id"] for task in json.loads(told)]

    assert listed() == [render, paid]
    assert listed("--tier", "paid") == [paid]
    assert listed("--kind", "render") == [render]
    assert listed("--limit", "1") == [render]
    assert listed("--kind", "nothing") == []


def test_list_as_json_has_the_whole_error(taskdist: CommandLine, dead: Dies) -> None:
    task_id = dead("list-json", error="first\nlast")
    (task,) = json.loads(taskdist("dead", "list", "--queue", "list-json", "--json").out)
    assert (task["id"], task["state"], task["error"]) == (task_id, "dead", "first\nlast")
    assert task["attempt"] == 1
    assert task["finished_at"].endswith("Z")


def test_show_has_the_whole_error(taskdist: CommandLine, dead: Dies) -> None:
    task_id = dead("dead-shown", error="Traceback:\n  line 7\nOSError: disk on fire")
    told = taskdist("dead", "show", task_id[-12:]).out.decode()
    assert told.startswith(taskdist("show", task_id).out.decode())
    assert told.endswith("\n\nTraceback:\n  line 7\nOSError: disk on fire\n")
    as_json = ("show", task_id, "--json")
    assert taskdist("dead", *as_json) == taskdist(*as_json)


def test_show_is_for_dead_tasks(taskdist: CommandLine) -> None:
    task_id = taskdist("submit", "--queue", "alive").out.decode().split("\t")[0]
    ended = taskdist("dead", "show", task_id)
    assert (ended.code, ended.out) == (9, b"")
    assert ended.lines == [f"taskdist: task {task_id} is ready, not dead"]
    assert taskdist("dead", "show", NOBODY_HAS).code == 3


# --- by id ------------------------------------------------------------------------------------


def test_redrive_puts_back_those_that_are_named(taskdist: CommandLine, dead: Dies) -> None:
    tasks = [dead("named") for _ in range(3)]
    ended = taskdist("dead", "redrive", tasks[0], tasks[1][-12:])
    assert (ended.code, ended.out, ended.err) == (0, b"2\n", "")
    assert states(taskdist, "named") == dict(zip(tasks, ["ready", "ready", "dead"], strict=True))
    told = json.loads(taskdist("show", tasks[0], "--json").out)
    assert (told["retry_count"], told["finished_at"]) == (0, None)
    assert len(told["attempts"]) == 1, "its history stays"


def test_a_task_that_is_named_twice_counts_once(taskdist: CommandLine, dead: Dies) -> None:
    task_id = dead("twice")
    ended = taskdist("dead", "redrive", task_id, task_id[-12:], "--json")
    assert json.loads(ended.out) == {"count": 1}


def test_redrive_takes_a_cancelled_task(taskdist: CommandLine) -> None:
    task_id = taskdist("submit", "--queue", "regretted").out.decode().split("\t")[0]
    taskdist("cancel", task_id)
    assert taskdist("dead", "redrive", task_id).out == b"1\n"
    assert states(taskdist, "regretted") == {task_id: "ready"}


def test_purge_removes_those_that_are_named(taskdist: CommandLine, dead: Dies) -> None:
    task_id, kept = dead("removed"), dead("removed")
    assert taskdist("dead", "purge", task_id, "--json").out == b'{"count": 1}\n'
    assert states(taskdist, "removed") == {kept: "dead"}
    assert taskdist("show", task_id).code == 3


@pytest.mark.parametrize("verb", ["redrive", "purge"])
def test_if_one_cannot_be_none_is(verb: str, taskdist: CommandLine, dead: Dies) -> None:
    queue = f"none-{verb}"
    task_id = dead(queue)
    waiting = taskdist("submit", "--queue", queue).out.decode().split("\t")[0]
    before = states(taskdist, queue)
    for other, code, says in (
        (waiting, 9, "ready"),
        (NOBODY_HAS, 3, "no task"),
        ("0" * 12, 3, "no task"),
        ("abc", 2, "too short"),
        ("x" * 36, 2, "UUID"),
    ):
        ended = taskdist("dead", verb, task_id, other)
        assert (ended.code, ended.out) == (code, b"")
        (line,) = ended.lines
        assert says in line
    assert states(taskdist, queue) == before


def test_an_ambiguous_ending_changes_nothing(taskdist: CommandLine) -> None:
    tail = uuid.uuid4().hex[-12:]
    ids = [f"{head}-0000-4000-8000-{tail}" for head in ("cccccccc", "dddddddd")]
    for task_id in ids:
        taskdist("submit", "--queue", "two", "--id", task_id)
        taskdist("cancel", task_id)
    assert taskdist("dead", "purge", tail).code == 2
    assert states(taskdist, "two") == dict.fromkeys(ids, "cancelled")


# --- in bulk ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "words"), [("redrive", "put back"), ("purge", "remove")])
def test_without_a_terminal_it_wants_yes(
    verb: str, words: str, taskdist: CommandLine, dead: Dies
) -> None:
    queue = f"yes-{verb}"
    tasks = [dead(queue), dead(queue)]
    bulk = ("dead", verb, "--queue", queue)
    ended = taskdist(*bulk, stdin=b"y\n")
    assert (ended.code, ended.out) == (2, b"")
    assert ended.lines == [f"taskdist: would {words} 2 tasks; to do it, add --yes"]
    assert states(taskdist, queue) == dict.fromkeys(tasks, "dead")
    ended = taskdist(*bulk, "--yes")
    assert (ended.code, ended.out, ended.err) == (0, b"2\n", "")
    left = states(taskdist, queue)
    assert left == (dict.fromkeys(tasks, "ready") if verb == "redrive" else {})


@pytest.mark.parametrize(("verb", "words"), [("redrive", "put back"), ("purge", "remove")])
@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yesterday\n"])
def test_whoever_does_not_say_yes_changes_nothing(
    verb: str, words: str, answer: str, taskdist: CommandLine, dead: Dies
) -> None:
    queue = f"no-{verb}-{len(answer)}"
    task_id = dead(queue)
    ended = taskdist("dead", verb, "--queue", queue, "--json", answer=answer)
    assert (ended.code, json.loads(ended.out)) == (0, {"count": 0})
    assert ended.err == f"{words} 1 task? [y/N] "
    assert states(taskdist, queue) == {task_id: "dead"}


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_whoever_says_yes_has_it_done(answer: str, taskdist: CommandLine, dead: Dies) -> None:
    queue = f"agreed-{len(answer)}"
    task_id = dead(queue)
    ended = taskdist("dead", "redrive", "--queue", queue, answer=answer)
    assert (ended.code, ended.out) == (0, b"1\n")
    assert ended.err == "put back 1 task? [y/N] "
    assert states(taskdist, queue) == {task_id: "ready"}


def test_nothing_is_asked_about_nothing(taskdist: CommandLine) -> None:
    ended = taskdist("dead", "purge", "--queue", "empty", answer="y\n")
    assert (ended.code, ended.out, ended.err) == (0, b"0\n", "")


def test_filters_narrow_it_together(taskdist: CommandLine, dead: Dies) -> None:
    render, paid = dead("together", "render"), dead("together", "--tier", "paid")

    def purged(*flags: str) -> bytes:
        return taskdist("dead", "purge", "--queue", "together", "--yes", *flags).out

    assert purged("--kind", "render", "--tier", "paid") == b"0\n"
    assert purged("--age", "1h") == b"0\n"
    assert purged("--state", "cancelled", "--state", "succeeded") == b"0\n"
    assert purged("--tier", "paid") == b"1\n"
    assert states(taskdist, "together") == {render: "dead"}
    assert purged("--kind", "render", "--age", "1ms") == b"1\n"
    assert paid not in states(taskdist, "together")


def test_states_can_be_chosen(taskdist: CommandLine, dead: Dies) -> None:
    died = dead("chosen")
    cancelled = taskdist("submit", "--queue", "chosen").out.decode().split("\t")[0]
    taskdist("cancel", cancelled)
    bulk = ("--queue", "chosen", "--yes")
    assert taskdist("dead", "redrive", "--state", "cancelled", *bulk).out == b"1\n"
    assert states(taskdist, "chosen") == {died: "dead", cancelled: "ready"}
    taskdist("cancel", cancelled)
    both = ("--state", "cancelled", "--state", "dead")
    assert taskdist("dead", "purge", *both, *bulk).out == b"2\n"
    assert states(taskdist, "chosen") == {}


def test_all_is_all_of_the_distributor(taskdist: CommandLine, dead: Dies) -> None:
    dead("all")
    listed = len(json.loads(taskdist("dead", "list", "--limit", "1000", "--json").out))
    ended = taskdist("dead", "redrive", "--all")
    tasks = "1 task" if listed == 1 else f"{listed} tasks"
    assert (ended.code, ended.lines) == (
        2,
        [f"taskdist: would put back {tasks}; to do it, add --yes"],
    )


# --- mistakes ---------------------------------------------------------------------------------

NARROW = "ID: name tasks, or give --tier, --kind, --queue or --age, or --all"


@pytest.mark.parametrize("verb", ["redrive", "purge"])
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], NARROW),
        (["--yes"], NARROW),
        (["--state", "cancelled"], NARROW),
        ([NOBODY_HAS, "--all"], "ID: stands beside --all; allowed: either"),
        ([NOBODY_HAS, "--kind", "render"], "ID: stands beside --kind; allowed: either"),
        ([NOBODY_HAS, "--state", "dead"], "ID: stands beside --state; allowed: either"),
        (["--queue", "mine", "--kind", ""], "--kind: '' is not allowed"),
        (["--tier", ""], "--tier: '' is not allowed"),
        (["--queue", ""], "--queue: '' is not allowed"),
        (["--kind", "two words"], "--kind: 'two words' is not allowed; allowed: 1 to 64"),
        (["--tier", "a/b"], "--tier: 'a/b' is not allowed"),
        (["--queue", "a/b"], "--queue: 'a/b' is not allowed"),
        (["--age", "old"], "--age: 'old' is not a duration"),
        (["--age", "0"], "--age: '0' is not allowed; allowed: more than 0"),
        (["--age", "9000h"], "--age: 32400000.0 is not allowed; allowed: 0 to 31536000"),
        (["--all", "--state", "ready"], "--state: 'ready'; allowed: dead, cancelled"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_2(
    verb: str, flags: list[str], says: str, taskdist: CommandLine
) -> None:
    ended = taskdist("dead", verb, *flags)
    assert (ended.code, ended.out) == (2, b"")
    (line,) = ended.lines
    assert line.startswith(f"taskdist: {says}")


def test_what_has_succeeded_is_not_put_back(taskdist: CommandLine) -> None:
    ended = taskdist("dead", "redrive", "--all", "--state", "succeeded")
    assert ended.code == 2
    assert ended.lines == ["taskdist: --state: 'succeeded'; allowed: dead, cancelled"]


def test_where_no_distributor_listens(taskdist: CommandLine) -> None:
    for verb in (["list"], ["show", NOBODY_HAS], ["redrive", "--all"], ["purge", NOBODY_HAS]):
        ended = taskdist("dead", *verb, "--server", "127.0.0.1:1")
        assert (ended.code, ended.out, len(ended.lines)) == (8, b"", 1)
