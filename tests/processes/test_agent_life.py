"""An agent with handlers of a team's own, as a process: what it refuses, its end, its successor."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from taskdist.client import Stub
from taskdist.core.task import Outcome, TaskState
from tests.support.deeds import living
from tests.support.processes import Processes

ROOT = Path(__file__).parents[2]

TASKS = """
import time
from pathlib import Path
from taskdist import Context, Registry

tasks = Registry()
empty = Registry()
number = 7

@tasks.handler
async def note(word: str, ctx: Context) -> str:
    import asyncio
    await asyncio.sleep(0.05)
    with Path("notes").open("a") as file:
        file.write(f"{word}\\n")
    return word
"""


@pytest.mark.parametrize(
    ("text", "handlers", "says"),
    [
        (TASKS, "tasks", "--handlers tasks: write MODULE:REGISTRY, such as tasks:tasks"),
        (TASKS, "nowhere:tasks", "no module nowhere in {here} or among what is installed"),
        (
            TASKS,
            "tasks:other",
            "{here}/tasks.py there is no other; its registries: tasks, empty",
        ),
        (TASKS, "tasks:number", "number is int, not a taskdist.Registry; its registries: tasks,"),
        (TASKS, "tasks:empty", "empty in {here}/tasks.py has no handlers"),
        ("import json\n\njson.loads('x')", "tasks:tasks", "{here}/tasks.py:3: JSONDecodeError: "),
        ("x = 1\nx = = 2", "tasks:tasks", "{here}/tasks.py:2: SyntaxError: invalid syntax"),
        ("import no_such", "tasks:tasks", "{here}/tasks.py:1: ModuleNotFoundError: No module"),
        ("raise SystemExit(3)", "tasks:tasks", "{here}/tasks.py:1: SystemExit: 3"),
        (
            "from taskdist import Registry\nr = Registry()\n@r.handler\ndef f(x) -> None: ...",
            "tasks:r",
            "tasks.py:3: handler 'f': its parameter x has no type",
        ),
        (
            "from pydantic import BaseModel\nfrom taskdist import Registry\nr = Registry()\n"
            "r.command('go', ['no-such'], input=BaseModel)",
            "tasks:r",
            "tasks.py:4: command 'go': no program 'no-such' on the PATH",
        ),
        (
            "from taskdist import Registry\nr = Registry()\nr.handler(name='n')(lambda x: x)",
            "tasks:r",
            "tasks.py:3: handler '<lambda>': its parameter x has no type",
        ),
    ],
)
def test_a_mistake_in_the_handlers_is_one_line_with_its_place(
    processes: Processes, text: str, handlers: str, says: str
) -> None:
    """Exit code 2, before any task is taken, and no traceback."""
    (processes.directory / "tasks.py").write_text(text)
    agent = processes.agent("a", "127.0.0.1:1", "--handlers", handlers)
    assert agent.wait_end() == 2
    (line,) = agent.texts()
    assert line.startswith("taskdist: ")
    assert says.format(here=processes.directory) in line


async def submitted(client: Stub, numbers: Iterable[int], queue: str) -> list[str]:
    """Tasks that note these numbers."""
    tasks = [
        client.submit(
            user_tier="free", est_processing_time_s=1, kind="note", queue=queue, data=b'"%d"' % n
        )
        for n in numbers
    ]
    return [task.task_id for task in await asyncio.gather(*tasks)]


async def over(client: Stub, ids: Iterable[str]) -> None:
    """Returns once all of these are final."""
    for task_id in ids:
        async for _ in client.watch(task_id):
            pass


async def test_a_batch_ends_by_itself(processes: Processes, server: str, feed: str) -> None:
    """--exit-when-idle: all is done, exit 0."""
    (processes.directory / "tasks.py").write_text(TASKS)
    queue = f"batch-{feed}"
    async with Stub(server) as client:
        ids = await submitted(client, range(20), queue)
        flags = ("--handlers", "tasks:tasks", "--queues", queue, "--slots", "4")
        agent = processes.agent("batch", server, *flags, "--exit-when-idle")
        assert await asyncio.to_thread(agent.wait_end) == 0
        states = {(await client.get(task_id)).state for task_id in ids}
    assert states == {TaskState.SUCCEEDED}


async def test_a_deploy_loses_and_repeats_no_work(
    processes: Processes, server: str, feed: str
) -> None:
    """P3, P5: agents are replaced one by one under load, and every task runs once."""
    (processes.directory / "tasks.py").write_text(TASKS)
    queue = f"deploy-{feed}"
    flags = ("--handlers", "tasks:tasks", "--queues", queue, "--slots", "4")
    ids: list[str] = []
    async with Stub(server) as client:

        async def load() -> None:
            """As many tasks as all agents together have slots, again and again."""
            while True:
                ids.extend(await submitted(client, range(len(ids), len(ids) + 12), queue))
                await over(client, ids[-12:])

        agents = [processes.agent(f"old-{n}", server, *flags) for n in range(2)]
        loading = asyncio.ensure_future(load())
        for n, old in enumerate(agents):
            await asyncio.to_thread(old.wait_for, "task started", count=5)
            new = processes.agent(f"new-{n}", server, *flags)
            await asyncio.to_thread(new.wait_for, "agent started")
            old.terminate()
            assert await asyncio.to_thread(old.wait_end) == 0
            await asyncio.to_thread(new.wait_for, "task succeeded", count=5)
        loading.cancel()
        tasks = [task async for task in client.list_tasks(queue=queue)]
        await over(client, [task.task_id for task in tasks])
        tasks = [await client.get(task.task_id) for task in tasks]
    # A task that crosses with an agent's goodbye is handed back, and was never begun. A poll cannot
    # say goodbye: over FetchTask it may be lost with its lease, and was never begun either.
    crossed = {Outcome.RELEASED} | ({Outcome.LOST} if feed == "FetchTask" else set())
    runs = [[one for one in task.attempts if one.outcome not in crossed] for task in tasks]
    assert [[one.outcome for one in run] for run in runs] == [[Outcome.SUCCEEDED]] * len(tasks)
    names = {run[0].agent_id for run in runs}
    assert names == {"old-0", "old-1", "new-0", "new-1"}
    notes = (processes.directory / "notes").read_text().splitlines()
    assert sorted(notes) == sorted(str(n) for n in range(len(tasks)))


@pytest.mark.parametrize("kind", ["hang", "command"])
async def test_p4_what_runs_for_an_agent_dies_with_it(
    processes: Processes, server: str, kind: str, tmp_path: Path
) -> None:
    """SIGKILL of the agent: its handlers' processes, its commands, and all that they started."""
    (processes.directory / "more.py").write_text(
        "import sys\n"
        "from tests.support.deeds import Place, deeds\n"
        "argv = [sys.executable, '-m', 'tests.support.deeds', '{path}', '1000']\n"
        "deeds.command('command', argv, input=Place, env=['PYTHONPATH'])\n"
    )
    agent = processes.spawn(
        *("agent", "killed", "--server", server, "--handlers", "more:deeds", "--queues", kind),
        PYTHONPATH=str(ROOT),
        TASKDIST_STOP_GRACE="0.2s",
    )
    async with Stub(server) as client:
        data = f'{{"path": "{tmp_path}"}}'.encode()
        task = await client.submit(
            user_tier="free", est_processing_time_s=1, kind=kind, queue=kind, data=data
        )
        async with asyncio.timeout(20):
            while not (tmp_path / "ready").exists():  # noqa: ASYNC110 # another process makes it
                await asyncio.sleep(0.02)
        assert len(living(tmp_path)) == 3
        agent.kill()
        async with asyncio.timeout(20):
            while living(tmp_path):  # noqa: ASYNC110 # nobody tells
                await asyncio.sleep(0.02)
        await client.cancel(task.task_id)


async def test_new_code_is_taken_up(processes: Processes, server: str) -> None:
    """--reload: the agent finishes what it runs, and begins anew; also after a mistake."""
    path = processes.directory / "tasks.py"
    path.write_text(TASKS)
    flags = ("--handlers", "tasks:tasks", "--queues", "reload", "--reload")
    agent = processes.agent("r", server, *flags)
    await asyncio.to_thread(agent.wait_for, "agent started")
    path.write_text(TASKS + "\n1 +\n")
    await asyncio.to_thread(agent.wait_for, "agent ended; waiting for a change", code=2)
    assert agent.logged("agent stopped")
    path.write_text(TASKS + "\n@tasks.handler\ndef more(word: str) -> str:\n    return word\n")
    await asyncio.to_thread(agent.wait_for, "agent started", kinds=["more", "note"])
    agent.interrupt()
    assert await asyncio.to_thread(agent.wait_end) == 0
    assert len(agent.logged("agent stopped")) == 2
    assert not [text for text in agent.texts() if "Traceback" in text]


def test_reload_says_what_it_needs(processes: Processes) -> None:
    (processes.directory / "watchfiles.py").write_text("raise ImportError")
    agent = processes.spawn("agent", "--reload", PYTHONPATH=str(processes.directory))
    assert agent.wait_end() == 2
    assert "pip install 'taskdist[reload]' brings it" in agent.texts()[0]
