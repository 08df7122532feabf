"""Commands: what they are given, how they end, and that nothing of them survives."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from taskdist import Limits, Registry
from taskdist.core.task import TaskState
from taskdist.limits import SECOND_US
from taskdist.reports import TaskReport
from tests.agent.test_handlers_processes import GRACE_US, is_there
from tests.support.agents import stage
from tests.support.deeds import living


@pytest.fixture(autouse=True)
def feed() -> None:
    """Commands are the same whichever way their tasks come: over Work here."""


class Given(BaseModel):
    text: str = ""
    number: float = 0
    flag: bool = True
    path: Path = Path("a b")
    parts: list[str] = []


SHOW = "import sys; print(sys.argv[1:], end='')"
"""Prints its arguments."""


async def ran(
    argv: list[str], data: dict[str, Any] | None = None, *, max_retries: int = 0, **options: Any
) -> TaskReport:
    """A task whose kind is this command, once it is over."""
    commands = Registry()
    commands.command("go", argv, input=Given, **options)
    async with stage() as played:
        played.agent(commands, stop_grace_us=GRACE_US)
        encoded = json.dumps(data or {}).encode()
        task_id = await played.submit(kind="go", data=encoded, max_retries=max_retries)
        return await played.final(task_id)


def python(script: str, *argv: str) -> list[str]:
    """A command of a few lines of Python."""
    doubled = script.replace("{", "{{").replace("}", "}}")
    return [sys.executable, "-I", "-S", "-c", doubled, *argv]


async def test_fields_fill_arguments_and_no_shell_reads_them() -> None:
    argv = python(SHOW, "{text}", "--x={text}", "{number}", "{flag}", "{path}", "{{}}", "a{text}b")
    task = await ran(argv, {"text": "$(id) ; * \"'\n", "number": 2.5})
    text = "$(id) ; * \"'\n"
    filled = [text, f"--x={text}", "2.5", "true", "a b", "{}", f"a{text}b"]
    assert task.result.decode() == str(filled)


async def test_its_input_is_the_tasks_data_and_its_result_what_it_writes() -> None:
    text = "x" * 700_000
    task = await ran(["cat"], {"text": text})
    assert json.loads(task.result) == {"text": text}


async def test_it_may_leave_its_input_unread() -> None:
    task = await ran(["echo", "done"], {"text": "x" * 700_000})
    assert task.result == b"done\n"


@pytest.mark.parametrize("argv", [["{text}"], ["--", "{text}"], ["--x={text}"], ["x{text}"]])
async def test_a_value_is_never_taken_for_an_option(argv: list[str]) -> None:
    """It is refused, unless -- stands before it or something in front of it."""
    task = await ran(python(SHOW, *argv), {"text": "--rf"}, max_retries=3)
    if argv == ["{text}"]:
        assert task.attempt == 1
        assert task.error.startswith("InvalidInput: data.text: begins with '-'")
    else:
        assert task.state is TaskState.SUCCEEDED


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"number": "many"}, "data.number: input should be a valid number"),
        ({"text": "a\0b"}, "data.text: contains a zero byte"),
        ({"text": "a" * 1_000_000}, "data: as arguments it is longer than the system allows"),
        ({"parts": ["a"]}, "data.parts: is list; an argument is a text, a number or a bool"),
    ],
)
async def test_p5_what_cannot_be_an_argument_is_dead_at_once(data: Any, says: str) -> None:
    task = await ran(["echo", "{text}", "{parts}", "{number}"], data, max_retries=3)
    if "parts" not in data:
        task = await ran(["echo", "{text}", "{number}"], data, max_retries=3)
    assert (task.state, task.attempt) == (TaskState.DEAD, 1)
    assert says in task.error


async def test_it_has_the_tasks_names_and_only_the_variables_that_were_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    script = "import os, json; print(json.dumps(dict(os.environ)))"
    task = await ran(python(script), env=["CUDA_VISIBLE_DEVICES", "NOT_SET"])
    variables = json.loads(task.result)
    names = {
        "TASKDIST_TASK_ID": task.task_id,
        "TASKDIST_KIND": "go",
        "TASKDIST_QUEUE": "default",
        "TASKDIST_USER_TIER": "free",
        "TASKDIST_ATTEMPT": "1",
        "TASKDIST_RETRY_COUNT": "0",
        "TASKDIST_LEASE_ID": task.attempts[0].lease_id,
        "CUDA_VISIBLE_DEVICES": "1",
    }
    assert names.items() <= variables.items()
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LC_CTYPE", "PWD", "SHLVL", "_"}
    assert variables.keys() - names.keys() <= allowed


@pytest.mark.parametrize(
    ("code", "options", "attempts"),
    [
        (1, {}, 2),
        (75, {"retry_on": {75}}, 2),
        (1, {"retry_on": {75}}, 1),
        (65, {"dead_on": {65}}, 1),
        (1, {"dead_on": {65}}, 2),
        (1, {"dead_on": {65}, "retry_on": {75}}, 2),
    ],
)
async def test_p5_its_exit_code_says_whether_it_is_tried_again(
    code: int, options: dict[str, Any], attempts: int
) -> None:
    script = f"import sys; print('out'); print('why', file=sys.stderr); sys.exit({code})"
    task = await ran(python(script), max_retries=1, **options)
    assert (task.state, task.attempt, task.result) == (TaskState.DEAD, attempts, b"")
    assert task.error == f"why\n{sys.executable} ended with exit code {code}\n"


async def test_p5_a_signal_is_a_failure() -> None:
    task = await ran(["sh", "-c", "kill -SEGV $$"], max_retries=1, retry_on={75})
    assert (task.state, task.attempt) == (TaskState.DEAD, 2)
    assert task.error == "sh was ended by SIGSEGV\n"


async def test_p7_more_output_than_allowed_kills_it() -> None:
    task = await ran(["yes"], output_bytes_max=100_000, max_retries=3)
    assert (task.state, task.attempt, task.result) == (TaskState.DEAD, 1, b"")
    error = "yes wrote more than 100000 bytes to standard output; it was killed\n"
    assert task.error == error
    task = await ran(["head", "-c", "1000", "/dev/zero"], output_bytes_max=1_000)
    assert task.result == bytes(1_000)


async def test_p7_only_the_end_of_its_errors_is_kept() -> None:
    script = "import sys; sys.stderr.write('x' * 10_000_000 + 'the end'); sys.exit(1)"
    task = await ran(python(script))
    assert len(task.error) < 16_384
    assert "xxthe end\n" in task.error


@pytest.mark.parametrize(
    ("limits", "script"),
    [
        (Limits(memory_bytes=200_000_000), "bytearray(400_000_000)"),
        (Limits(open_files=10), "[open('/dev/null') for _ in range(20)]"),
        (Limits(file_bytes=1_000), "open('big', 'wb').write(bytes(10_000))"),
        (Limits(cpu_s=1), "while True: pass"),
    ],
    ids=["memory", "files", "file size", "cpu"],
)
async def test_p7_it_has_the_limits_that_were_set(
    limits: Limits, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = await ran(python(script), limits=limits)
    assert task.state is TaskState.DEAD
    assert (await ran(python("bytes(1)"), limits=limits)).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("how", ["timeout", "cancelled", "drained", "ended"])
async def test_nothing_of_it_survives(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: whatever stops it, and also when it ends by itself: a grandchild that ignores SIGTERM and
    one that has left group, session and parent are gone before the agent goes on."""
    commands = Registry()
    seconds = "0" if how == "ended" else "1000"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    argv = [sys.executable, "-m", "tests.support.deeds", "{path}", seconds]
    commands.command("go", argv, input=Given, env=["PYTHONPATH"])
    async with stage(lease_us=SECOND_US) as played:
        agent = played.agent(commands, stop_grace_us=GRACE_US, drain_timeout_us=0)
        task_id = await played.submit(
            kind="go",
            data=Given(path=tmp_path).model_dump_json().encode(),
            max_retries=0,
            run_timeout_s=3 if how == "timeout" else None,
        )
        await is_there(tmp_path / "ready")
        if how == "cancelled":
            await played.client.cancel(task_id)
            async with asyncio.timeout(10):
                while living(tmp_path):  # noqa: ASYNC110 # a process that ends tells its parent alone
                    await asyncio.sleep(0.02)
        elif how == "drained":
            played.signals.terminate()
            assert await agent is True
        else:
            task = await played.final(task_id)
            assert ("TimeoutError" in task.error) == (how == "timeout")
            assert "out of memory" not in task.error
            assert "Traceback" not in task.error
        assert living(tmp_path) == []
