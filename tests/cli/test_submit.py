"""`taskdist submit` against a real distributor."""

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from taskdist.limits import DATA_BYTES_MAX
from taskdist.reports import Work
from tests.cli.conftest import CommandLine
from tests.support.agents import agent_that, cancels, fails, succeeds

Take = Callable[[str], Work]


def test_it_prints_id_state_and_position_for_programs(taskdist: CommandLine) -> None:
    """Piped: tab-separated, uncut, without headers."""
    for position in ("1", "2"):
        ended = taskdist("submit", "--queue", "told", "--tier", "paid", "--time", "3")
        task_id, state, place = ended.out.decode().removesuffix("\n").split("\t")
        assert str(uuid.UUID(task_id)) == task_id
        assert (state, place) == ("ready", position)
        assert (ended.code, ended.err) == (0, "")


def test_it_prints_json_when_asked(taskdist: CommandLine) -> None:
    told = json.loads(taskdist("submit", "--queue", "told-json", "--json").out)
    assert told == {"id": told["id"], "state": "ready", "queue_position": 1}


@pytest.mark.parametrize(
    "said", [*("text", "Grüße"), "bytes: \udcff\udc80"], ids=["ascii", "unicode", "not UTF-8"]
)
def test_data_is_text_as_it_was_typed(said: str, taskdist: CommandLine, take: Take) -> None:
    queue = f"data-{len(said)}"
    assert taskdist("submit", "echo", "--queue", queue, "--data", said).code == 0
    work = take(queue)
    assert (work.kind, work.data) == ("echo", said.encode(errors="surrogateescape"))


def test_data_comes_from_a_file_or_standard_input(
    taskdist: CommandLine, take: Take, tmp_path: Path
) -> None:
    largest = bytes(range(256)) * (DATA_BYTES_MAX // 256)
    file = tmp_path / "data"
    file.write_bytes(largest)
    assert taskdist("submit", "--queue", "file", "--data", f"@{file}").code == 0
    assert take("file").data == largest
    assert taskdist("submit", "--queue", "stdin", "--data", "-", stdin=b"\x00piped\n").code == 0
    assert take("stdin").data == b"\x00piped\n"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("3", 3), ("0.5", 0.5), ("1h30m", 5400), ("0", 0)],
)
def test_durations(said: str, seconds: float, taskdist: CommandLine) -> None:
    task_id = taskdist("submit", "--queue", "times", "--time", said).out.decode().split("\t")[0]
    assert json.loads(taskdist("show", task_id, "--json").out)["est_processing_time"] == seconds


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--tier", "gold"], "--tier: 'gold' is not allowed; allowed: paid, free"),
        (["--tier", "g\udcfc"], "UTF-8"),
        (["--time", "soon"], "--time: 'soon' is not a duration"),
        (["--time", "-1"], "--time: '-1' is not a duration"),
        (["--time", "9000h"], "--time: 32400000.0 is not allowed"),
        (["--wait", "--timeout", "never"], "--timeout: 'never' is not a duration"),
        (["--max-retries", "101"], "--max-retries"),
        (["--id", "7"], "--id: '7' is not allowed; allowed: a UUID"),
        (["--data", "@/nowhere/data"], "--data: /nowhere/data: No such file or directory"),
        (["--data", "@/"], "--data: /: Is a directory"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_a_bad_value_is_one_line_and_exit_2(
    flags: list[str], says: str, taskdist: CommandLine
) -> None:
    ended = taskdist("submit", "--queue", "refused", *flags)
    assert (ended.code, ended.out) == (2, b"")
    assert len(ended.lines) == 1
    assert says in ended.lines[0]
    assert taskdist("list", "--queue", "refused").out == b"", "a refused request changes nothing"


def test_every_bad_field_is_named_in_one_line(taskdist: CommandLine) -> None:
    ended = taskdist("submit", "a kind", "--queue", "a queue", "--tier", "gold")
    assert ended.code == 2
    (line,) = ended.lines
    for field in ("kind: ", "queue: ", "--tier: "):
        assert field in line


def test_data_over_the_limit_is_refused(taskdist: CommandLine, tmp_path: Path) -> None:
    """P7: exit 2, for sending it again is of no use."""
    file = tmp_path / "data"
    file.write_bytes(bytes(5 * DATA_BYTES_MAX))
    ended = taskdist("submit", "--data", f"@{file}")
    assert ended.code == 2
    (line,) = ended.lines
    assert f"allowed: at most {DATA_BYTES_MAX}" in line


def test_an_id_of_ones_own_makes_a_repeat_safe(taskdist: CommandLine) -> None:
    task_id = str(uuid.uuid4())
    submit = ("submit", "--queue", "own-id", "--id", task_id, "--data")
    first = taskdist(*submit, "once")
    assert taskdist(*submit, "once") == first
    other = taskdist(*submit, "another")
    assert (other.code, other.out, len(other.lines)) == (9, b"", 1)
    assert len(taskdist("list", "--queue", "own-id").out.splitlines()) == 1


# --- --wait -----------------------------------------------------------------------------------


def test_wait_prints_the_result(taskdist: CommandLine, server: str) -> None:
    with agent_that(succeeds(b"\x00forty-two"), server=server, queue="result"):
        ended = taskdist("submit", "--queue", "result", "--wait", "--timeout", "20s")
    assert (ended.code, ended.out) == (0, b"\x00forty-two")
    # What it passes through on the way may be over before the watch begins.
    assert ended.lines[-1].split()[1] == "succeeded"


@pytest.mark.parametrize("result", [b"a line\n", b"text", b"\x00\xff", b""])
def test_wait_prints_the_bytes_of_the_result_and_no_more(
    taskdist: CommandLine, server: str, result: bytes
) -> None:
    """`> FILE` has the result, whatever it is."""
    with agent_that(succeeds(result), server=server, queue="bytes"):
        assert taskdist("submit", "--queue", "bytes", "--wait").out == result


@pytest.mark.parametrize(
    ("result", "shown"), [(b"text", b"text\n"), (b"a line\n", b"a line\n"), (b"", b"")]
)
def test_wait_ends_the_line_on_a_terminal(
    taskdist: CommandLine,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    result: bytes,
    shown: bytes,
) -> None:
    """Or the prompt would stand behind the result."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with agent_that(succeeds(result), server=server, queue="terminal"):
        assert taskdist("submit", "--queue", "terminal", "--wait").out == shown


@pytest.mark.parametrize(
    ("result", "printed"),
    [
        (b'{"answer": 42}', {"result": {"answer": 42}}),
        ("größer".encode(), {"result": "größer"}),
        (b"\xff\x00", {"result_base64": "/wA="}),
        (b"", {"result": ""}),
    ],
    ids=["json", "text", "bytes", "empty"],
)
def test_wait_prints_one_json_value_at_the_end(
    result: bytes, printed: dict[str, object], taskdist: CommandLine, server: str
) -> None:
    with agent_that(succeeds(result), server=server, queue="result-json"):
        ended = taskdist("submit", "--queue", "result-json", "--wait", "--json")
    told = json.loads(ended.out)
    assert len(told.pop("id")) == 36
    assert told == {"state": "succeeded", "error": None, **printed}


def test_wait_exits_5_with_the_error_of_a_dead_task(taskdist: CommandLine, server: str) -> None:
    submit = ("submit", "--queue", "failing", "--max-retries", "0", "--wait")
    with agent_that(fails("out of memory"), server=server, queue="failing"):
        ended = taskdist(*submit)
    assert (ended.code, ended.out) == (5, b"")
    assert ended.lines[-1] == "out of memory"
    with agent_that(fails("out of memory"), server=server, queue="failing"):
        ended = taskdist(*submit, "--json")
    told = json.loads(ended.out)
    assert (ended.code, told["state"], told["error"]) == (5, "dead", "out of memory")


def test_wait_exits_7_when_the_task_is_cancelled(taskdist: CommandLine, server: str) -> None:
    with agent_that(cancels, server=server, queue="cancelled"):
        ended = taskdist("submit", "--queue", "cancelled", "--wait")
    assert (ended.code, ended.out) == (7, b"")


def test_who_stops_waiting_is_told_the_state_as_json(taskdist: CommandLine) -> None:
    flags = ("--wait", "--timeout", "0.1", "--json")
    ended = taskdist("submit", "--queue", "slow-json", *flags)
    told = json.loads(ended.out)
    assert (ended.code, told) == (6, {"id": told["id"], "state": "ready", "error": None})


def test_wait_exits_6_when_its_time_is_over_and_the_task_goes_on(taskdist: CommandLine) -> None:
    ended = taskdist("submit", "--queue", "slow", "--wait", "--timeout", "0.1")
    assert (ended.code, ended.out) == (6, b"")
    assert "0.1s" in ended.lines[-1]
    assert taskdist("list", "--queue", "slow").out.split(b"\t")[1] == b"ready"
