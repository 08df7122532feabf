"""The client without `await`, against a real distributor: it does what the other one does."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from pydantic import BaseModel

from taskdist.client import Stub
from taskdist.client.errors import InvalidInput, TaskCancelled, TaskFailed, WaitTimeout
from taskdist.client.sync_client import Client
from taskdist.core.task import TaskState
from taskdist.kinds import Kind
from tests.support.agents import agent_that, fails, succeeds
from tests.support.processes import Processes


class Prompt(BaseModel):
    text: str


class Completion(BaseModel):
    text: str


INFER: Kind[Prompt, Completion] = Kind("infer", Prompt, Completion)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Processes(tmp_path_factory.mktemp("client")) as started:
        yield started.serve().address


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def test_a_typed_task_comes_back_as_a_typed_result(client: Client, server: str) -> None:
    handle = client.submit(INFER, Prompt(text="hi"), queue="typed")
    with agent_that(succeeds(b'{"text": "HI"}'), server=server, queue="typed"):
        assert handle.result(timeout=20).text == "HI"
    assert [news.task and news.task.state for news in handle.watch()] == [TaskState.SUCCEEDED]
    assert handle.final() == client.handle(handle.task_id).final()


def test_how_a_task_ended_is_raised(client: Client, server: str) -> None:
    dead = client.submit("infer", {"text": "hi"}, queue="ends", max_retries=0)
    with (
        agent_that(fails("ValueError: no"), server=server, queue="ends"),
        pytest.raises(TaskFailed),
    ):
        dead.result(timeout=20)
    cancelled = client.submit("infer", queue="ends")
    cancelled.cancel()
    with pytest.raises(TaskCancelled):
        cancelled.result(timeout=20)
    assert cancelled.report().state is client.get(cancelled.task_id).state is TaskState.CANCELLED


def test_many_are_waited_for_at_once(client: Client, server: str) -> None:
    handles = client.submit_many(INFER, [Prompt(text=text) for text in "ab"], queue="many")
    with agent_that(succeeds(b'{"text": "A"}'), server=server, queue="many"):
        assert next(client.as_completed(handles, timeout=20)).task_id == handles[0].task_id
    with pytest.raises(WaitTimeout):
        list(client.as_completed(handles, timeout=0.01))
    client.cancel(handles[1].task_id)
    finished = [one.task_id for one in client.as_completed([*handles, *handles], timeout=20)]
    assert sorted(finished) == sorted(handle.task_id for handle in handles), "each once"


def test_a_bad_input_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match=r"^data: "):
        client.submit(INFER, Completion(text="hi"))  # type: ignore[misc]  # as one without a type checker does


def test_threads_share_a_client(client: Client, server: str) -> None:
    def submit(number: int) -> str:
        return client.submit("infer", str(number).encode(), queue="threads").task_id

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(submit, range(100)))

    async def data_of_all() -> dict[str, bytes]:
        found = {}
        async with Stub(server) as calls:
            while work := await calls.fetch(agent_id="agent-1", queues=["threads"]):
                found[work.task_id] = work.data
        return found

    expected = {task_id: str(number).encode() for number, task_id in enumerate(ids)}
    assert asyncio.run(data_of_all()) == expected


def test_closing_cuts_what_waits_and_leaves_no_thread(server: str) -> None:
    before = threading.active_count()
    client = Client(server)
    handle = client.submit("infer", queue="closing")
    watching = handle.watch()
    first = next(watching).task
    assert first is not None
    assert first.state is TaskState.READY
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(handle.result)
        client.close()
        assert isinstance(waiting.exception(), RuntimeError | CancelledError)
    assert threading.active_count() == before


def test_who_has_a_handle_needs_no_client(server: str) -> None:
    handle = Client(server).submit("infer", queue="kept")
    gc.collect()
    handle.cancel()
    with pytest.raises(TaskCancelled):
        handle.result(timeout=20)


def test_a_program_that_leaves_its_client_open_ends() -> None:
    left_open = "import sys, taskdist; client = taskdist.Client(); sys.exit(3)"
    ended = subprocess.run([sys.executable, "-c", left_open], timeout=30)
    assert ended.returncode == 3
