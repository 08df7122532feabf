"""The table of exit codes (design.md §8) in real processes, all of them started at once."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from taskdist.client import Stub
from tests.support.agents import agent_that, cancels, fails, succeeds
from tests.support.processes import Processes, Spawned


class Case(NamedTuple):
    """Arguments, the exit code, and what the last line on stderr says."""

    arguments: str
    code: int
    says: str


NOBODY = "127.0.0.1:1"
TASK_ID = "11111111-1111-4111-8111-111111111111"

CASES = {
    "ok": Case("submit --queue good --wait", 0, "succeeded"),
    "invalid": Case("submit --tier gold", 2, "allowed: paid, free"),
    "nobody to ask": Case("dead purge --all", 2, "add --yes"),
    "not found": Case("show 222222222222", 3, "no task"),
    "the awaited task failed": Case("submit --queue bad --max-retries 0 --wait", 5, "no luck"),
    "wait timed out": Case("submit --queue slow --wait --timeout 0.1", 6, "it goes on"),
    "cancelled": Case("submit --queue cancelled --wait", 7, "cancelled"),
    "unreachable": Case(f"list --server {NOBODY}", 8, f"{NOBODY}: connection refused"),
    "refused": Case(f"submit --id {TASK_ID} --data other", 9, "different content"),
}
"""Not here: 74 (tests/processes/test_serve_refuses.py), 143 (tests/processes/test_stop.py)."""


async def submit_first(server: str) -> None:
    """Uses TASK_ID."""
    async with Stub(server) as client:
        await client.submit(
            user_tier="free", est_processing_time_s=1, queue="used", task_id=TASK_ID
        )


@pytest.fixture(scope="module")
def ends(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Spawned]]:
    """All cases, ended."""
    with Processes(tmp_path_factory.mktemp("codes")) as processes, ExitStack() as agents:
        asyncio.run(submit_first(server))
        for queue, end in [("good", succeeds(b"")), ("bad", fails("no luck"))]:
            agents.enter_context(agent_that(end, server=server, queue=queue))
        agents.enter_context(agent_that(cancels, server=server, queue="cancelled"))
        spawned = {
            name: processes.spawn(*case.arguments.split(), TASKDIST_SERVER=server)
            for name, case in CASES.items()
        }
        for one in spawned.values():
            one.wait_end()
        yield spawned


@pytest.mark.parametrize("name", CASES)
def test_exit_code(name: str, ends: dict[str, Spawned]) -> None:
    lines = ends[name].texts()
    assert ends[name].wait_end() == CASES[name].code, lines
    assert CASES[name].says in (lines or [""])[-1]
    assert not any("Traceback" in line for line in lines)


def test_ctrl_c_while_waiting_exits_130(
    server: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Processes(tmp_path_factory.mktemp("interrupted")) as processes:
        waiting = processes.spawn("submit", "--queue", "slow", "--wait", "--server", server)
        waiting.wait_for_text("ready, position")
        waiting.interrupt()
        assert waiting.wait_end() == 130
        assert not any("Traceback" in line for line in waiting.texts())


@pytest.mark.parametrize("arguments", [["--version"], ["submit", "--help"]])
def test_141_when_nobody_reads_the_output(arguments: list[str]) -> None:
    """Not 1, which is a bug: a script may repeat what ended so."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "taskdist", *arguments]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
