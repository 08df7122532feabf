"""What agents announce and say, on the command line."""

import asyncio
import json
import threading
from collections.abc import Sequence

from taskdist.client.stub import Stub
from taskdist.core.offers import AnnouncedKind
from taskdist.reports import Dropped, Entry, LogLine, Progress, Remarks, Work
from tests.cli.conftest import CommandLine
from tests.support.agents import agent_that

SCHEMA = '{"type": "object"}'


def announce(server: str, session: str, queue: str, *kinds: AnnouncedKind) -> None:
    async def say() -> None:
        async with Stub(server) as client:
            await client.announce_kinds(
                agent_id="teller", session=session, queues=[queue], kinds=kinds
            )

    asyncio.run(say())


def submit(taskdist: CommandLine, queue: str, kind: str = "simulate") -> str:
    return taskdist("submit", kind, "--queue", queue).out.decode().split("\t")[0]


def test_kinds_are_listed(taskdist: CommandLine, server: str) -> None:
    announce(server, "s-1", "listed", AnnouncedKind("infer", SCHEMA), AnnouncedKind("resize"))
    announce(server, "s-2", "listed", AnnouncedKind("infer", SCHEMA))
    listed = taskdist("kinds", "--queue", "listed").out.decode().splitlines()
    assert [line.split("\t") for line in listed] == [
        ["infer", "listed", "2", "1"],
        ["resize", "listed", "1", "0"],
    ]
    (told,) = json.loads(taskdist("kinds", "--queue", "listed", "--kind", "infer", "--json").out)
    assert told == {
        "kind": "infer",
        "queues": ["listed"],
        "live_agents": 2,
        "input_schemas": [{"type": "object"}],
    }
    assert taskdist("kinds", "--queue", "nobodys").out == b""
    ended = taskdist("kinds", "--queue", "a b")
    assert (ended.code, ended.lines[0].startswith("taskdist: queue: 'a b'")) == (2, True)


def test_show_says_why_a_task_waits(taskdist: CommandLine, server: str) -> None:
    task_id = submit(taskdist, "waits", "infer")
    text = "no live agent runs kind infer in queue waits"
    assert f"waits\t{text}" in taskdist("show", task_id).out.decode()
    assert json.loads(taskdist("show", task_id, "--json").out)["waits_because"].startswith(text)
    announce(server, "s-3", "waits", AnnouncedKind("infer"))
    assert "waits\tno" not in taskdist("show", task_id).out.decode()
    assert json.loads(taskdist("show", task_id, "--json").out)["waits_because"] is None
    taskdist("cancel", task_id)


SAID: Sequence[Entry] = (
    LogLine("loading \x1b[2Jthe\nmodel"),
    Progress(0.5, "decoding"),
    Dropped(3),
    Progress(None, "nearly there"),
)


async def says_and_succeeds(client: Stub, work: Work) -> None:
    """It says something, and then it succeeds."""
    whose = Remarks(work.task_id, work.lease_id, tuple(SAID))
    await client.report_progress(whose, agent_id="played")
    await client.complete(
        task_id=work.task_id, agent_id="played", lease_id=work.lease_id, success=True, result=b"42"
    )


def test_wait_narrates_what_the_run_says(taskdist: CommandLine, server: str) -> None:
    with agent_that(says_and_succeeds, server=server, queue="talks"):
        ended = taskdist("submit", "--queue", "talks", "--wait", "--timeout", "20s")
    assert (ended.code, ended.out) == (0, b"42")
    task_id = ended.lines[0].split()[0]
    said = [line.removeprefix(task_id + " ") for line in ended.lines]
    assert said[-6:] == [
        "leased",
        "| loading \ufffd[2Jthe model",
        "50% decoding",
        "| (3 lines are missing)",
        "nearly there",
        "succeeded",
    ]
    assert [line for line in said if line.startswith("ready")] in (
        ["ready, position 1"],
        ["ready"],
    ), "once"


def test_show_prints_the_last_progress(taskdist: CommandLine, server: str) -> None:
    done = threading.Event()

    async def says(client: Stub, work: Work) -> None:
        entries = (Progress(0.25, "a quarter"), LogLine("a line"))
        whose = Remarks(work.task_id, work.lease_id, entries)
        await client.report_progress(whose, agent_id="played")
        done.set()

    task_id = submit(taskdist, "shows")
    with agent_that(says, server=server, queue="shows"):
        done.wait(20)
        assert "progress\t25% a quarter" in taskdist("show", task_id).out.decode()
        told = json.loads(taskdist("show", task_id, "--json").out)["progress"]
    assert (told["attempt"], told["fraction"], told["text"]) == (1, 0.25, "a quarter")
    assert told["at"].endswith("Z")
