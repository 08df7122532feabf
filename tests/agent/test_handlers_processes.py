"""Handlers in processes of their own do not harm their agent, and nothing of them survives."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from taskdist.core.task import Outcome, TaskState
from taskdist.limits import SECOND_US
from taskdist.reports import LogLine, TaskReport
from tests.support.agents import Stage, stage
from tests.support.deeds import deeds, living

GRACE_US = SECOND_US // 5


async def outcome(played: Stage, kind: str, data: object, **more: Any) -> TaskReport:
    """A task of this kind, once it is over."""
    encoded = TypeAdapter[object](object).dump_json(data)
    return await played.final(await played.submit(kind=kind, data=encoded, **more))


async def test_a_process_is_used_again_and_its_hooks_are_called_once() -> None:
    async with stage() as played:
        agent = played.agent(deeds)
        first, second = [
            TypeAdapter(list[int]).validate_json((await outcome(played, "whoami", None)).result)
            for _ in range(2)
        ]
        played.signals.terminate()
        assert await agent is True
    pid, *loaded = first
    assert first == second
    assert pid != os.getpid()
    assert loaded == [pid]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_it_talks_and_knows_its_lease() -> None:
    async with stage() as played:
        played.agent(deeds)
        task = await outcome(played, "talk", 100)
    assert task.result == b"true"


async def test_what_a_thread_says_that_outlives_its_run_is_nobodys() -> None:
    """P3: it is not taken for the next task's, which runs in the same process."""
    async with stage() as played:
        played.agent(deeds)
        await outcome(played, "speak_later", True)
        second = await outcome(played, "speak_later", False)
        said = [news.entry async for news in played.client.follow(second.task_id, after=0)]
    assert second.result == b"true"
    assert [one.text for one in said if isinstance(one, LogLine)] == ["of the second"]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("SIGKILL", "was ended by SIGKILL; out of memory?"),
        ("SIGSEGV", "was ended by SIGSEGV"),
        ("_exit", "ended with exit code 4"),
        ("exit", "SystemExit: 3"),
        ("Retry", "Retry: to be tried again after 3600 s"),
        ("any", "LookupError: no luck"),
    ],
)
async def test_whatever_ends_it_is_a_failure_of_that_attempt(how: str, says: str) -> None:
    """P5: and never of the agent, which has another process for the next task."""
    async with stage() as played:
        played.agent(deeds)
        task = await outcome(played, "end_by", how, max_retries=0)
        after = await outcome(played, "talk", 1)
    assert (task.state, task.lost_count) == (TaskState.DEAD, 0)
    assert says in task.error
    assert task.attempts[0].outcome is Outcome.FAILED
    assert after.state is TaskState.SUCCEEDED


async def test_p5_fatal_and_bad_inputs_are_dead_at_once() -> None:
    async with stage() as played:
        played.agent(deeds)
        fatal = await outcome(played, "end_by", "Fatal", max_retries=3)
        invalid = await outcome(played, "end_by", 7, max_retries=3)
    assert (fatal.attempt, invalid.attempt) == (1, 1)
    assert fatal.error.startswith("Traceback")
    assert invalid.error.startswith("InvalidInput: data: input should be a valid string")


async def is_there(path: Path) -> None:
    """Returns once there is such a file."""
    async with asyncio.timeout(20):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 # another process makes it
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["timeout", "cancelled", "drained", "killed"])
async def test_nothing_of_it_survives(how: str, tmp_path: Path) -> None:
    """P4: whatever stops it, it and all that it started are gone before the agent goes on: also a
    grandchild that ignores SIGTERM, and one that has left group, session and parent."""
    async with stage(lease_us=SECOND_US) as played:
        agent = played.agent(deeds, stop_grace_us=GRACE_US, drain_timeout_us=0)
        task_id = await played.submit(
            kind="hang",
            data=f'{{"path": "{tmp_path}"}}'.encode(),
            max_retries=0,
            run_timeout_s=3 if how == "timeout" else None,
        )
        await is_there(tmp_path / "ready")
        assert len(living(tmp_path)) == 3
        if how == "cancelled":
            await played.client.cancel(task_id)
        elif how == "drained":
            played.signals.terminate()
            assert await agent is True
        elif how == "killed":
            os.kill(int((tmp_path / "pids").read_text().split()[-1]), signal.SIGKILL)
        if how in ("timeout", "killed"):
            error = (await played.final(task_id)).error
            assert ("SIGKILL" if how == "killed" else "TimeoutError") in error
            assert "Traceback" not in error
            assert ("out of memory" in error) == (how == "killed")
        else:
            async with asyncio.timeout(10):
                while living(tmp_path):  # noqa: ASYNC110 # nobody tells
                    await asyncio.sleep(0.02)
        assert living(tmp_path) == []
