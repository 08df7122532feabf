"""`taskdist submit --batch` against a real distributor."""

import asyncio
import json
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskdist.cli.batch import Batch
from taskdist.cli.lines import BAD_LINES_TOLD, LINE_BYTES_MAX, Line, Said
from taskdist.client import Stub
from taskdist.client.async_client import AsyncClient
from taskdist.client.options import Options
from taskdist.limits import DATA_BYTES_MAX, SUBMIT_TASKS_MAX
from taskdist.reports import Work
from tests.cli.conftest import CommandLine, Terminal
from tests.support.agents import NAME, End, Network, cancels, fails, succeeds
from tests.support.channel import distributor_channel

Take = Callable[[str], Work]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file of these lines; what is no text is written as JSON."""

    def write(*lines: object) -> str:
        file = tmp_path / "batch.jsonl"
        file.write_text("".join(f"{_text(line)}\n" for line in lines))
        return str(file)

    return write


def _text(line: object) -> str:
    return line if isinstance(line, str) else json.dumps(line)


@contextmanager
def agent_that(*ends: End, server: str, queue: str) -> Iterator[None]:
    """Beside the block, an agent takes as many tasks and ends one after the other so."""

    async def play() -> None:
        async with Stub(server) as client:
            for end in ends:
                work = await client.fetch(agent_id=NAME, queues=[queue], wait_s=20)
                assert work is not None
                await end(client, work)

    with ThreadPoolExecutor(1) as thread:
        played = thread.submit(asyncio.run, play())
        yield
        played.result()


def test_each_line_is_a_task_of_its_own(taskdist: CommandLine, take: Take, write: Write) -> None:
    file = write(
        {"kind": "infer", "data": {"text": "hé"}, "time": "90s", "tier": "free"},
        "",
        {"data": "plain", "time": 2, "max_retries": 0, "run_timeout": "2h", "lease": 60},
        {"data": [1], "time": 3, "deadline": "1h", "backoff": {"kind": "fixed", "initial": "5s"}},
    )
    ended = taskdist("submit", "echo", "--tier", "paid", "--queue", "lines", "--batch", file)
    assert (ended.code, ended.lines) == (0, ["submitted 3 of 3"])
    ids = ended.out.decode().splitlines()
    second, third, first = (take("lines") for _ in range(3))  # paid first, then the shorter
    assert [work.task_id for work in (first, second, third)] == ids
    assert (first.kind, first.user_tier) == ("infer", "free")
    assert json.loads(first.data) == {"text": "hé"}
    assert first.est_processing_time_s == 90
    assert (second.kind, second.data, second.user_tier) == ("echo", b"plain", "paid")
    assert (second.run_timeout_s, second.lease_s) == (7_200, 60)
    assert (third.data, third.deadline is not None) == (b"[1]", True)
    shown = json.loads(taskdist("show", ids[2], "--json").out)
    assert (shown["backoff"]["kind"], shown["backoff"]["initial_seconds"]) == ("fixed", 5)


def test_a_line_wins_over_flags_in_either_way_of_saying_when(
    taskdist: CommandLine, write: Write
) -> None:
    file = write({"at": "2030-01-01T00:00:00+01:00", "deadline": "2031-01-01T00:00:00Z"}, {})
    ended = taskdist("submit", "--delay", "1h", "--deadline", "2h", "--batch", file, "--json")
    own, by_flags = (json.loads(line) for line in ended.out.splitlines())
    assert own["state"] == by_flags["state"] == "scheduled"
    shown = json.loads(taskdist("show", own["id"], "--json").out)
    assert (shown["due_at"], shown["deadline"]) == ("2029-12-31T23:00:00Z", "2031-01-01T00:00:00Z")


def test_it_reads_standard_input(taskdist: CommandLine, take: Take) -> None:
    ended = taskdist("submit", "--queue", "batch-stdin", "--batch", "-", stdin=b'{"data": "1"}')
    assert take("batch-stdin").task_id == ended.out.decode().strip()


def test_no_lines_are_no_tasks(taskdist: CommandLine, write: Write) -> None:
    ended = taskdist("submit", "--batch", write(), "--wait")
    assert (ended.code, ended.out) == (0, b"")


def test_a_line_may_say_each_option() -> None:
    assert set(Said.model_fields) == set(Options.__annotations__) | {"kind", "data"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: no JSON: "),
        ("[]", "line 2: no JSON object"),
        ('{"a": 1}', "line 2: a: not known; allowed: kind, data, tier, time, queue, "),
        ('{"time": "soon"}', "line 2: time: 'soon' is not a duration"),
        ('{"time": [1]}', "line 2: time: [1] is not a duration"),
        ('{"time": -1}', "line 2: time: "),
        ('{"time": NaN}', "line 2: time: "),
        ('{"time": "9000h"}', "line 2: time: 32400000.0 is not allowed; allowed: 0 to 31536000"),
        ('{"kind": "a b"}', "line 2: kind: 'a b' is not allowed; allowed: 1 to 64 characters"),
        ('{"max_retries": 101}', "line 2: max_retries: 101 is not allowed; allowed: 0 to 100"),
        ('{"max_retries": "1"}', "line 2: max_retries: "),
        ('{"at": "2030-01-01"}', "line 2: at: "),
        ('{"deadline": "2030-01-01"}', "line 2: deadline: '2030-01-01' has no time zone"),
        ('{"deadline": 0}', "line 2: deadline: is 0; allowed: more than 0"),
        ('{"delay": 1, "at": "2030-01-01T00:00:00Z"}', "line 2: at: stands beside delay_seconds"),
        ('{"lease": 0.5}', "line 2: lease: 0.5 is not allowed; allowed: 1 to 86400 seconds"),
        ('{"backoff": {"kind": "fixed"}}', "line 2: backoff.initial: field required"),
        ('{"backoff": {"kind": "fixed", "initial": 1, "max": 2}}', "line 2: backoff.max: "),
        ('{"backoff": {"kind": "fixed", "initial": 1, "jitter": 101}}', "line 2: backoff.jitter: "),
        ('{"key": ""}', "line 2: key: "),
        ('{"key": "%s"}' % ("k" * 129), "line 2: key: "),
        ('{"task_id": "7"}', "line 2: task_id: '7' is not allowed; allowed: a UUID"),
        ('{"data": "%s"}' % ("d" * (DATA_BYTES_MAX + 1)), "line 2: data: 1048577 bytes; allowed"),
        ('{"data": "%s"}' % ("d" * LINE_BYTES_MAX), "line 2: too long; allowed: at most "),
        ('{"tier": "gold"}', "line 2: tier: 'gold' is not allowed; allowed: paid, free"),
    ],
    ids=lambda value: value[:30],
)
def test_a_bad_line_is_named_and_nothing_is_submitted(
    line: str, says: str, taskdist: CommandLine, write: Write
) -> None:
    """Exit 2. The distributor itself knows its tiers, and refuses the whole commit."""
    ended = taskdist("submit", "--queue", "bad-lines", "--batch", write({}, line))
    assert (ended.code, ended.out) == (2, b"")
    assert says in ended.lines[-1]
    assert taskdist("list", "--queue", "bad-lines").out == b"", "a refused request changes nothing"


def test_every_bad_field_of_the_first_bad_lines_is_named(
    taskdist: CommandLine, write: Write
) -> None:
    ended = taskdist("submit", "--batch", write(*[{"time": [], "a": 1}] * (BAD_LINES_TOLD + 1)))
    assert ended.code == 2
    told = "\n".join(ended.lines)
    for number in range(1, BAD_LINES_TOLD + 1):
        assert f"line {number}: time: " in told
        assert f"line {number}: a: " in told
    assert f"line {BAD_LINES_TOLD + 1}: " not in told


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--batch", "/nowhere"], "--batch: /nowhere: No such file or directory"),
        (["--batch", "/"], "--batch: /: Is a directory"),
        (["--batch", "-", "--data", "x"], "--data: stands beside --batch"),
        (["--batch", "-", "--key", "x"], "--key: stands beside --batch"),
        (["--batch", "-", "--id", "x"], "--id: stands beside --batch"),
        (["--batch", "-", "--timeout", "5"], "--timeout: goes with --wait"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_bad_flag_is_one_line_and_exit_2(
    flags: list[str], says: str, taskdist: CommandLine
) -> None:
    ended = taskdist("submit", *flags)
    assert (ended.code, ended.out, len(ended.lines)) == (2, b"", 1)
    assert says in ended.lines[0]


def test_keys_and_ids_make_a_repeat_of_the_file_safe(taskdist: CommandLine, write: Write) -> None:
    file = write({"key": "one"}, {"task_id": str(uuid.uuid4())})
    first = taskdist("submit", "--queue", "batch-again", "--batch", file)
    assert taskdist("submit", "--queue", "batch-again", "--batch", file) == first
    assert len(taskdist("list", "--queue", "batch-again").out.splitlines()) == 2


def test_what_stops_it_in_the_middle_is_named_and_what_is_submitted_is_told(
    taskdist: CommandLine, write: Write
) -> None:
    """A later commit is refused whole; the earlier ones stay, and their ids are out."""
    taskdist("submit", "--queue", "middle", "--key", "taken", "--data", "other")
    file = write(*[{}] * (SUBMIT_TASKS_MAX + 1), {"key": "taken"}, {})
    ended = taskdist("submit", "--queue", "middle", "--batch", file)
    assert (ended.code, len(ended.out.splitlines())) == (9, SUBMIT_TASKS_MAX)
    assert ended.lines == [
        f"submitted {SUBMIT_TASKS_MAX} of {SUBMIT_TASKS_MAX + 3}",
        f"taskdist: line {SUBMIT_TASKS_MAX + 2}: key belongs to a task of different content",
    ]


@pytest.mark.virtual_time
async def test_cut_short_it_says_how_many_are_submitted_and_what_is_unknown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second commit is heard, but not answered: it may be on disk (P1)."""
    tasks = [Line(number, "simulate", b"", {}) for number in range(1, 2_501)]
    async with distributor_channel() as (_, distributor):
        network = Network(distributor)
        async with AsyncClient(connect=network.connect) as client:
            batch = Batch(client, tasks, json=False, wait=True)
            running = asyncio.ensure_future(batch.run(None))
            await network.wait_for_calls("SubmitTasks", 2)
            network.deaf.add("SubmitTasks")
            await network.wait_for_calls("SubmitTasks", 3)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    written = capsys.readouterr()
    assert len(written.out.splitlines()) == 1_000
    assert set(written.err.splitlines()) == {
        "submitted 1000 of 2500",
        "cut short: of the next 1000, none or all may be submitted as well",
    }


# --- --wait -----------------------------------------------------------------------------------


def test_wait_waits_for_all_and_says_how_they_ended(
    taskdist: CommandLine, server: str, write: Write
) -> None:
    file = write(*({"data": str(n), "time": n} for n in range(3)))
    wait = ("submit", "--queue", "ends", "--max-retries", "0", "--wait", "--json", "--batch", file)
    ends = (succeeds(b"[1]"), fails("it broke"), cancels)
    with agent_that(*ends, server=server, queue="ends"):
        ended = taskdist(*wait)
    assert ended.code == 5
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert sorted((one["state"], one["error"], one.get("result")) for one in told) == [
        ("cancelled", None, None),
        ("dead", "it broke", None),
        ("succeeded", None, [1]),
    ]
    assert ended.lines[0] == "submitted 3 of 3"
    assert ended.lines[-1] == "finished 3 of 3, 1 failed, 1 cancelled"


@pytest.mark.parametrize(
    ("ends", "code"),
    [([succeeds(b"")] * 2, 0), ([cancels, succeeds(b"")], 7), ([cancels, fails("so")], 5)],
    ids=["ok", "cancelled", "failed"],
)
def test_the_exit_code_says_what_became_of_them(
    ends: Sequence[End], code: int, taskdist: CommandLine, server: str, write: Write
) -> None:
    queue = f"batch-exit-{code}"
    submit = ("submit", "--queue", queue, "--max-retries", "0", "--wait")
    with agent_that(*ends, server=server, queue=queue):
        ended = taskdist(*submit, "--batch", write({}, {}))
    assert (ended.code, len(ended.out.splitlines())) == (code, 2)


def test_a_wait_that_times_out_exits_6_and_they_go_on(
    taskdist: CommandLine, server: str, write: Write
) -> None:
    submit = ("submit", "--queue", "batch-late", "--wait", "--timeout", "0.5s")
    ended = taskdist(*submit, "--batch", write({}, {}))
    assert ended.code == 6
    assert "2 not finished within 0.5s; they go on" in ended.lines
    assert taskdist("list", "--queue", "batch-late", "--state", "ready").out.count(b"\n") == 2


# --- bars -------------------------------------------------------------------------------------


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """What stderr shows from now on. (pytest puts its own in place after the fixtures.)"""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_on_a_terminal_a_batch_has_bars_and_stdout_stays_clean(
    taskdist: CommandLine, server: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_a_terminal(monkeypatch)
    with agent_that(succeeds(b""), succeeds(b""), server=server, queue="bars"):
        ended = taskdist("submit", "--queue", "bars", "--wait", "--batch", write({}, {}))
    assert [str(uuid.UUID(line)) for line in ended.out.decode().splitlines()]
    shown = terminal.getvalue()
    for part in ("submitted", "finished", "2/2", "━"):
        assert part in shown


def test_on_a_terminal_a_wait_has_a_bar(
    taskdist: CommandLine, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_a_terminal(monkeypatch)
    with agent_that(succeeds(b"done"), server=server, queue="bar"):
        ended = taskdist("submit", "--queue", "bar", "--wait")
    assert ended.out == b"done"
    shown = terminal.getvalue()
    assert "━" in shown
    assert "succeeded\n" in shown
