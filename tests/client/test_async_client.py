"""The client for people: typed inputs and results, and waiting that outlives whatever happens."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from taskdist.client import Stub
from taskdist.client.async_client import AsyncClient
from taskdist.client.errors import (
    InvalidFields,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    QueueFull,
    SubmittedInPart,
    TaskCancelled,
    TaskFailed,
    Unavailable,
    WaitTimeout,
    WrongResult,
)
from taskdist.client.inputs import SCHEMAS_KEPT_S, check
from taskdist.core.offers import AnnouncedKind
from taskdist.core.task import TaskState
from taskdist.kinds import Kind
from taskdist.reports import Work
from taskdist.settings import DistributorSettings
from tests.distributor.story import NO_TASK, fail, succeed, take
from tests.support.agents import Network
from tests.support.channel import connect, distributor_channel

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


class Prompt(BaseModel):
    text: str
    max_tokens: int = 256


class Completion(BaseModel):
    text: str


INFER: Kind[Prompt, Completion] = Kind("infer", Prompt, Completion)
DONE = b'{"text":"HI"}'


class People:
    """A client, the distributor that it talks to, and an agent played by the test."""

    def __init__(self, calls: Stub, connect_again: Callable[[], Stub]) -> None:
        self.agent = calls
        self.connections: list[Stub] = []
        self._connect = connect_again
        self.client = AsyncClient(connect=self._noted)

    def _noted(self) -> Stub:
        self.connections.append(self._connect())
        return self.connections[-1]

    async def run(self, end: Callable[[Stub, Work], object]) -> Work:
        """The agent takes the next task and ends it so."""
        work = await take(self.agent)
        await end(self.agent, work)  # type: ignore[misc]  # each end is a coroutine function
        return work


@pytest.fixture
async def people() -> AsyncIterator[People]:
    async with distributor_channel() as (calls, distributor):
        people = People(calls, lambda: connect(distributor))
        async with people.client:
            yield people


async def ends_well(calls: Stub, work: Work) -> None:
    await succeed(calls, work, result=DONE)


async def test_a_typed_task_comes_back_as_a_typed_result(people: People) -> None:
    handle = await people.client.submit(INFER, Prompt(text="hi"), tier="paid", time=3)
    waiting = asyncio.ensure_future(handle.result())
    work = await people.run(ends_well)
    assert (work.kind, work.user_tier, work.est_processing_time_s) == ("infer", "paid", 3)
    assert Prompt.model_validate_json(work.data) == Prompt(text="hi")
    assert (await waiting).text == "HI"


async def test_a_kind_that_is_known_by_name_takes_bytes_or_json_and_gives_bytes(
    people: People,
) -> None:
    handle = await people.client.submit("infer", {"text": "hi"})
    assert (await people.run(ends_well)).data == b'{"text": "hi"}'
    assert await handle.result() == DONE
    await people.client.submit("raw", b"\x00\xff")
    assert (await people.run(ends_well)).data == b"\x00\xff"


async def test_an_input_that_does_not_fit_is_refused_before_it_is_sent(people: People) -> None:
    with pytest.raises(InvalidInput, match=r"^data: "):
        await people.client.submit(INFER, Completion(text="hi"))  # type: ignore[misc]  # as one without a type checker does
    with pytest.raises(InvalidInput, match=r"^data: cannot be JSON"):
        await people.client.submit("infer", {"text": object()})
    with pytest.raises(InvalidInput, match=r"^tasks\[1\]\.data: "):
        await people.client.submit_many(INFER, [Prompt(text="hi"), "hi"])  # type: ignore[misc]  # likewise
    assert await people.agent.fetch(agent_id="agent-1") is None


async def announce(people: People, *kinds: Kind[Prompt, Completion], session: str = "s-1") -> None:
    """An agent has these kinds, and is live."""
    said = [AnnouncedKind(kind.name, json.dumps(kind.input_schema)) for kind in kinds]
    await people.agent.announce_kinds(agent_id="agent-1", session=session, kinds=said)


async def test_an_untyped_input_is_checked_against_what_live_agents_announced(
    people: People,
) -> None:
    await announce(people, INFER)
    with pytest.raises(InvalidInput) as caught:
        await people.client.submit("infer", {"max_tokens": "many"})
    assert {field for field, _ in caught.value.fields} == {"data", "data.max_tokens"}
    assert "'text' is a required property" in str(caught.value)
    for data in (b"", b"[", b"\xff", b"7"):
        with pytest.raises(InvalidInput, match=r"^data: "):
            await people.client.submit("infer", data)
    await people.client.submit("infer", {"text": "hi"})
    await people.client.submit("infer", b"7", queue="gpu")  # no agent takes that queue
    await people.client.submit("other", b"7")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"text": {"pattern": r"^\p{L}+$"}}},  # a pattern of pydantic
        {"properties": {"text": {"type": "nope"}}},
        {"properties": {"text": {"$ref": "#/nowhere"}}},
        {"properties": {"text": {"$ref": "#/properties/text"}}},
    ],
)
async def test_what_cannot_be_checked_here_is_left_to_the_agent(
    people: People, schema: dict[str, Any]
) -> None:
    whole = json.dumps({"required": ["text"], **schema})
    kinds = [AnnouncedKind("infer", whole)]
    await people.agent.announce_kinds(agent_id="agent-1", session="s-1", kinds=kinds)
    await people.client.submit("infer", {"text": "Åsa"})
    with pytest.raises(InvalidInput, match="'text' is a required property"):
        await people.client.submit("infer", {})


async def test_what_a_schema_refers_to_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", fetched.append)
    check(b"{}", ['{"$ref": "http://example.com/schema"}'])
    assert fetched == []


async def test_in_a_deploy_an_untyped_input_fits_the_old_agents_or_the_new(people: People) -> None:
    class Renamed(BaseModel):
        prompt: str

    await announce(people, INFER)
    await announce(people, Kind("infer", Renamed, Completion), session="s-2")
    await people.client.submit("infer", {"text": "hi"})
    await people.client.submit("infer", {"prompt": "hi"})
    with pytest.raises(InvalidInput, match="'prompt' is a required property"):
        await people.client.submit("infer", {})


async def test_what_agents_announce_is_asked_for_again_after_a_while(people: People) -> None:
    await people.client.submit("infer", b"7")
    await announce(people, INFER)
    await people.client.submit("infer", b"7")
    await asyncio.sleep(SCHEMAS_KEPT_S)
    with pytest.raises(InvalidInput):
        await people.client.submit("infer", b"7")


@pytest.mark.parametrize("name", ["time", "delay", "deadline", "run_timeout", "lease"])
async def test_an_option_that_is_bad_is_named(people: People, name: str) -> None:
    with pytest.raises(InvalidFields, match=f"^{name}: 'soon' is not a duration"):
        await people.client.submit("infer", b"", **{name: "soon"})  # type: ignore[call-overload]  # by name


async def test_an_option_that_does_not_exist_is_named(people: People) -> None:
    with pytest.raises(InvalidFields, match=r"^retries: not known; allowed: tier, "):
        await people.client.submit("infer", b"", retries=0)  # type: ignore[call-overload]  # as one without a type checker does
    assert await people.agent.fetch(agent_id="agent-1") is None


@pytest.mark.parametrize(
    ("name", "value"), [("tier", 3), ("queue", 5), ("key", b"k"), ("at", "2027"), ("backoff", 5)]
)
async def test_an_option_of_another_type_is_named(people: People, name: str, value: Any) -> None:
    with pytest.raises(InvalidFields, match=f"^{name}: is {value!r}; allowed: a"):
        await people.client.submit("infer", b"", **{name: value})


@pytest.mark.parametrize("kind", [3, None, ""])
async def test_a_kind_that_is_none_is_named(people: People, kind: Any) -> None:
    with pytest.raises(InvalidFields, match=r"^kind: is .*; allowed: a handler, or its name"):
        await people.client.submit(kind, b"")


async def test_each_option_reaches_the_distributor(people: People) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    handle = await people.client.submit(
        "infer",
        b"",
        tier="paid",
        time="90s",
        queue="gpu",
        max_retries=1,
        at=at,
        deadline=datetime(2031, 1, 1, tzinfo=UTC),
        run_timeout="2h",
        lease=60,
        key="once",
    )
    task = await handle.report()
    assert (task.user_tier, task.est_processing_time_s, task.queue) == ("paid", 90, "gpu")
    assert (task.max_retries, task.due_at, task.idempotency_key) == (1, at, "once")
    assert task.deadline == datetime(2031, 1, 1, tzinfo=UTC)
    assert (task.run_timeout_s, task.lease_s) == (7_200, 60)


async def test_the_same_key_is_the_same_task(people: People) -> None:
    first = await people.client.submit("infer", b"1", key="once")
    assert (await people.client.submit("infer", b"1", key="once")).task_id == first.task_id


async def test_a_dead_task_raises_with_what_its_agent_reported(people: People) -> None:
    handle = await people.client.submit(INFER, Prompt(text="hi"), max_retries=0)
    error = "Traceback (most recent call last):\n  …\nValueError: out of memory"
    await people.run(lambda calls, work: fail(calls, work, error=error))
    with pytest.raises(TaskFailed, match=r"is dead: ValueError: out of memory") as caught:
        await handle.result()
    assert caught.value.error == error
    assert error in caught.value.__notes__[0]


async def test_a_cancelled_task_raises(people: People) -> None:
    handle = await people.client.submit(INFER, Prompt(text="hi"))
    await handle.cancel()
    with pytest.raises(TaskCancelled):
        await handle.result()
    with pytest.raises(PreconditionFailed):
        await handle.cancel()
    assert (await handle.report()).state is TaskState.CANCELLED


async def test_waiting_has_an_end_and_the_task_goes_on(people: People) -> None:
    handle = await people.client.submit(INFER, Prompt(text="hi"))
    began = asyncio.get_running_loop().time()
    with pytest.raises(WaitTimeout, match=r"was not finished within 5 s; it goes on$"):
        await handle.result("5s")
    assert asyncio.get_running_loop().time() - began == pytest.approx(5)
    await people.run(ends_well)
    assert (await handle.result(timeout=0.5)).text == "HI"


async def test_a_result_that_does_not_fit_is_named(people: People) -> None:
    handle = await people.client.submit(INFER, Prompt(text="hi"))
    await people.run(lambda calls, work: succeed(calls, work, result=b"[]"))
    with pytest.raises(WrongResult, match=r"^a result of infer is no Completion"):
        await handle.result()


async def test_an_unknown_task_is_not_found(people: People) -> None:
    handle = people.client.handle(NO_TASK, INFER)
    for call in (handle.result, handle.report, handle.cancel):
        with pytest.raises(NotFound):
            await call()


async def test_a_task_that_was_submitted_elsewhere_has_a_handle(people: People) -> None:
    task_id = (await people.client.submit(INFER, Prompt(text="hi"))).task_id
    await people.run(ends_well)
    assert (await people.client.handle(task_id, INFER).result()).text == "HI"


async def test_a_watch_tells_each_state(people: People) -> None:
    handle = await people.client.submit(INFER, Prompt(text="hi"))
    seen: list[TaskState] = []

    async def watch() -> None:
        seen.extend([news.task.state async for news in handle.watch() if news.task])

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(1)
    work = await take(people.agent)
    await asyncio.sleep(1)
    await succeed(people.agent, work, result=DONE)
    await watching
    assert seen == [TaskState.READY, TaskState.LEASED, TaskState.SUCCEEDED]


async def test_many_tasks_come_back_as_they_finish(people: People) -> None:
    handles = await people.client.submit_many(INFER, [Prompt(text=str(n)) for n in range(200)])
    by_id = {handle.task_id: n for n, handle in enumerate(handles)}

    async def work_on() -> None:
        # The first submitted ends last.
        works = [await take(people.agent) for _ in handles]
        for work in reversed(works):
            await succeed(people.agent, work, result=DONE)
            await asyncio.sleep(0.1)

    working = asyncio.ensure_future(work_on())
    order = [by_id[handle.task_id] async for handle in people.client.as_completed(handles)]
    await working
    assert order == list(reversed(range(200)))
    # One connection for calls, and one for each 90 that wait.
    assert len(people.connections) == 4


async def test_waiting_for_many_has_an_end(people: People) -> None:
    handles = await people.client.submit_many(INFER, [Prompt(text="1"), Prompt(text="2")])
    await people.run(ends_well)
    finished = people.client.as_completed(handles, timeout=5)
    assert (await anext(finished)).task_id == handles[0].task_id
    with pytest.raises(WaitTimeout, match=r"^1 tasks were not finished within 5 s; they go on$"):
        await anext(finished)


async def test_more_than_one_commit_of_tasks_may_be_refused_in_the_middle() -> None:
    settings = DistributorSettings(store="memory:", tasks_waiting_max=1_500)
    async with (
        distributor_channel(settings) as (_, distributor),
        AsyncClient(connect=lambda: connect(distributor)) as client,
    ):
        with pytest.raises(SubmittedInPart, match=r"^submitted the first 1000; then: ") as caught:
            await client.submit_many("infer", [b""] * 2_500)
        assert isinstance(caught.value.refusal, QueueFull)
        assert len(caught.value.handles) == 1_000
        assert (await caught.value.handles[-1].report()).state is TaskState.READY
        with pytest.raises(QueueFull):
            await client.submit_many("infer", [b""] * 501)


async def test_a_restart_of_the_distributor_is_waited_out(tmp_path: Path) -> None:
    """What was acknowledged is waited for, and found at the distributor that comes after (P1)."""
    settings = DistributorSettings(store=f"sqlite:{tmp_path}/tasks.db")
    async with distributor_channel(settings) as (_, before):
        network = Network(before)
        client = AsyncClient(connect=network.connect)
        handle = await client.submit(INFER, Prompt(text="hi"))
        waiting = asyncio.ensure_future(handle.result())
        await asyncio.sleep(1)
        await before.stop(0)
        submitting = asyncio.ensure_future(client.submit(INFER, Prompt(text="later")))
        await asyncio.sleep(10)
    async with distributor_channel(settings) as (calls, after), client:
        network.move_to(after)
        assert not waiting.done()
        await succeed(calls, await take(calls), result=DONE)
        assert (await waiting).text == "HI"
        assert (await (await submitting).report()).state is TaskState.READY


async def test_a_distributor_that_does_not_answer_is_unavailable_after_the_timeout() -> None:
    client = AsyncClient("127.0.0.1:1", timeout=3)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="connection refused"):
        await client.get(NO_TASK)
    assert asyncio.get_running_loop().time() - began == pytest.approx(3, abs=0.5)
    client.close()


async def test_a_closed_client_says_so_to_whoever_waits(people: People) -> None:
    handle = await people.client.submit(INFER, Prompt(text="hi"))
    waiting = asyncio.ensure_future(handle.result())
    await asyncio.sleep(1)
    people.client.close()
    for call in (waiting, people.client.submit("infer"), handle.result(), handle.report()):
        with pytest.raises(RuntimeError, match=r"^the client is closed$"):
            await call
