"""The Work stream, over an in-memory connection and in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.client.work import WorkStream
from taskdist.core.errors import (
    BadField,
    InvalidFields,
    PreconditionFailed,
    Refused,
    TaskIdTaken,
    Unavailable,
)
from taskdist.core.task import TaskState
from taskdist.distributor.server import Distributor
from taskdist.reports import Report, Submission, Submitted, Verdict, Work, WorkNews
from tests.distributor.story import NO_TASK, everything, submit, take
from tests.support.channel import connect

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

SILENCE_S = 5
"""Longer than anything that is to come would take to come."""


@asynccontextmanager
async def work(
    client: Stub, *, slots: int = 1, session: str = "s-1", lease_ids: tuple[str, ...] = ()
) -> AsyncIterator[WorkStream]:
    """One that ends when the block does."""
    async with hello(client, slots=slots, session=session, lease_ids=lease_ids) as stream:
        yield stream
        await stream.end()


def hello(
    client: Stub, *, slots: int = 1, session: str = "s-1", lease_ids: tuple[str, ...] = ()
) -> AbstractAsyncContextManager[WorkStream]:
    return client.work(agent_id="agent-1", session=session, slots=slots, lease_ids=lease_ids)


async def heard(stream: WorkStream) -> WorkNews:
    async with asyncio.timeout(SILENCE_S):
        news = await stream.receive()
    assert news is not None
    return news


async def leases(stream: WorkStream, count: int) -> list[Work]:
    got: list[Work] = []
    while len(got) < count:
        got += (await heard(stream)).leases
    assert len(got) == count
    return got


async def silent(stream: WorkStream) -> bool:
    try:
        async with asyncio.timeout(SILENCE_S):
            await stream.receive()
    except TimeoutError:
        return True
    return False


def done(task: Work) -> Report:
    return Report(task.task_id, task.lease_id, b"result", "")


async def test_p2_leases_come_in_order_and_never_more_than_slots(client: Stub) -> None:
    expected = [
        await submit(client, tier, seconds)
        for tier, seconds in (("paid", 1), ("paid", 2), ("free", 1), ("free", 2))
    ]
    async with work(client, slots=3) as stream:
        held = await leases(stream, 3)
        assert await silent(stream)
        await stream.report([done(held[0])])
        news = await heard(stream)
        assert news.verdicts[0].accepted.startswith("succeeded")
        held += news.leases or await leases(stream, 1)
    assert [task.task_id for task in held] == expected


async def test_a_submit_reaches_who_waits_in_the_same_instant(client: Stub) -> None:
    async with work(client) as stream:
        assert (await client.ping("are you there")) is not None
        task_id = await submit(client)
        assert [task.task_id for task in await leases(stream, 1)] == [task_id]


async def test_p3_an_outcome_under_a_lease_that_is_over_is_refused(client: Stub) -> None:
    await submit(client)
    async with work(client) as stream:
        (task,) = await leases(stream, 1)
        await client.cancel(task.task_id)
        assert (await heard(stream)).revoked_lease_ids == (task.lease_id,)
        await stream.report([done(task)])
        refusal = (await heard(stream)).verdicts[0].refusal
    assert isinstance(refusal, PreconditionFailed)
    assert (await client.get(task.task_id)).state is TaskState.CANCELLED


async def test_p4_an_agent_that_lost_a_lease_gets_no_more_until_it_says_hello(
    client: Stub,
) -> None:
    """A stopped one has its stream open still, and would be handed task after task to lose."""
    task_id = await submit(client)
    held: list[Work] = []

    async def say_nothing_more() -> None:
        async with hello(client, slots=2) as stream:
            held.extend(await leases(stream, 1))
            await asyncio.sleep(300)
            async with asyncio.timeout(SILENCE_S):
                while await stream.receive():
                    pass

    with pytest.raises(Unavailable, match="lease of this session was lost"):
        await say_nothing_more()
    told = await client.get(task_id)
    assert (told.state, told.lost_count) == (TaskState.READY, 1)
    async with work(client, slots=2, lease_ids=(held[0].lease_id,)) as stream:
        (again,) = await leases(stream, 1)
        assert again.task_id == task_id


async def test_p3_a_repeated_outcome_has_the_same_verdict(client: Stub) -> None:
    await submit(client)
    async with work(client) as stream:
        (task,) = await leases(stream, 1)
        verdicts: list[Verdict] = []
        for _ in range(2):
            await stream.report([done(task)])
            verdicts += (await heard(stream)).verdicts
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].refusal is None


async def test_p4_a_broken_stream_ends_no_lease_that_is_still_held(
    client: Stub, distributor: Distributor
) -> None:
    """The next hello names one of two; the other, of which the agent never heard, is undone."""
    for _ in range(2):
        await submit(client)
    held: list[Work] = []
    with pytest.raises(Unavailable):
        await hold_and_lose(connect(distributor), held)
    kept, forgotten = held
    async with work(client, slots=1, lease_ids=(kept.lease_id,)) as stream:
        assert await silent(stream), "its one slot is taken"
        await stream.report([done(kept)])
        news = await heard(stream)
        assert news.verdicts[0].refusal is None
        (again,) = news.leases or await leases(stream, 1)
    assert (again.task_id, again.attempt) == (forgotten.task_id, 1)


async def hold_and_lose(agent: Stub, held: list[Work]) -> None:
    async with work(agent, slots=2) as stream:
        held += await leases(stream, 2)
        agent.close()
        await stream.receive()


async def test_a_lease_of_somebody_else_is_not_resumed(client: Stub) -> None:
    await submit(client)
    other = await take(client, "agent-2")
    async with work(client, lease_ids=(other.lease_id, "made-up")) as stream:
        assert set((await heard(stream)).revoked_lease_ids) == {other.lease_id, "made-up"}
    assert (await client.get(other.task_id)).agent_id == "agent-2"


async def test_a_second_stream_of_a_session_takes_the_place_of_the_first(
    client: Stub, distributor: Distributor
) -> None:
    """As after a network that nobody noticed to be gone: the first gets no more."""
    async with connect(distributor) as agent, asyncio.TaskGroup() as group:
        group.create_task(be_cut_off(agent))
        await asyncio.sleep(1)
        async with work(client) as second:
            task_id = await submit(client)
            assert [task.task_id for task in await leases(second, 1)] == [task_id]


async def be_cut_off(agent: Stub) -> None:
    with pytest.raises(Refused):
        await hear_the_end(agent)


async def hear_the_end(agent: Stub) -> None:
    async with work(agent) as stream:
        await stream.receive()


async def test_after_goodbye_outcomes_are_heard_and_nothing_is_leased(client: Stub) -> None:
    await submit(client)
    async with hello(client, slots=2) as stream:
        (task,) = await leases(stream, 1)
        await stream.goodbye()
        await asyncio.sleep(1)  # What was on its way before it has come by then.
        later = await submit(client)
        assert await silent(stream)
        await stream.report([done(task)])
        await stream.end()
        assert (await heard(stream)).verdicts[0].lease_id == task.lease_id
        assert await stream.receive() is None
    assert (await client.get(later)).state is TaskState.READY


async def test_a_stop_asks_agents_to_go_and_waits_for_their_last_word(
    client: Stub, distributor: Distributor
) -> None:
    await submit(client)
    async with hello(client) as stream:
        (task,) = await leases(stream, 1)
        stopping = asyncio.create_task(distributor.stop(30))
        assert (await heard(stream)).drain
        await stream.report([done(task)])
        await stream.end()
        assert (await heard(stream)).verdicts[0].refusal is None
        assert await stream.receive() is None
    await asyncio.wait_for(stopping, 1)


async def test_p7_a_stream_without_hello_is_refused(client: Stub) -> None:
    for slots in (10_001, 1):
        session = "two words" if slots == 1 else "s-1"
        with pytest.raises(InvalidFields, match="hello"):
            async with work(client, slots=slots, session=session) as stream:
                await stream.receive()


# --- SubmitTasks ----------------------------------------------------------------------------------


def several(*tiers: str) -> list[Submission]:
    return [Submission(tier, 1) for tier in tiers]


async def test_all_or_nothing_is_nothing_when_one_is_bad(client: Stub) -> None:
    with pytest.raises(InvalidFields) as refused:
        await client.submit_many(several("paid", "gold", "silver"))
    fields = [bad.field for bad in refused.value.fields]
    assert fields == ["tasks[1].user_tier", "tasks[2].user_tier"]
    assert await everything(client) == []


async def test_all_or_nothing_is_undone_when_a_later_one_is_refused(client: Stub) -> None:
    await submit(client, "free", 7, task_id=NO_TASK)
    before = await everything(client)
    taken = Submission("paid", 1, task_id=NO_TASK)
    with pytest.raises(TaskIdTaken):
        await client.submit_many([*several("paid", "free"), taken])
    assert await everything(client) == before


async def test_each_for_itself_has_an_answer_of_its_own(client: Stub) -> None:
    tasks = several("free", "gold", "paid")
    free, gold, paid = await client.submit_many(tasks, atomic=False, positions=True)
    assert isinstance(free, Submitted)
    assert isinstance(paid, Submitted)
    assert (free.queue_position, paid.queue_position) == (1, 1)
    assert isinstance(gold, InvalidFields)
    reason = "'gold' is not allowed; allowed: paid, free"
    assert gold.fields == (BadField("user_tier", reason),)


async def test_one_id_twice_in_a_batch_is_one_task(client: Stub) -> None:
    twice = [Submission("paid", 1, task_id=NO_TASK)] * 2
    results = await client.submit_many(twice)
    assert len(await everything(client)) == 1
    assert results[0] == results[1]


@pytest.mark.parametrize("count", [0, 1_001])
async def test_p7_a_batch_is_of_1_to_1000(client: Stub, count: int) -> None:
    with pytest.raises(InvalidFields, match="1 to 1000"):
        await client.submit_many(several(*["paid"] * count))


async def test_concurrent_submits_share_calls_and_one_bad_task_harms_no_other(
    distributor: Distributor,
) -> None:
    channel = connect(distributor)._channel
    client = Stub("in memory", channel=channel)
    tiers = ["paid", "gold", "free"] * 50
    submits = (client.submit(user_tier=tier, est_processing_time_s=1) for tier in tiers)
    results = await asyncio.gather(*submits, return_exceptions=True)
    for tier, result in zip(tiers, results, strict=True):
        assert isinstance(result, Refused if tier == "gold" else Submitted)
    assert len(await everything(client)) == 100
    client.close()


@pytest.mark.parametrize(
    "bad",
    [{"max_retries": -1}, {"kind": "\ud800"}, {"data": "text"}, {"kind": "k" * 5_000_000}],
    ids=["number", "text", "type", "size"],
)
async def test_one_that_cannot_be_sent_harms_no_other_of_its_batch(
    distributor: Distributor, bad: dict[str, Any]
) -> None:
    client = Stub("in memory", channel=connect(distributor)._channel)
    fine: dict[str, Any] = {"user_tier": "paid", "est_processing_time_s": 1}
    submits = [client.submit(**fine), client.submit(**(fine | bad)), client.submit(**fine)]
    first, refused, last = await asyncio.gather(*submits, return_exceptions=True)
    assert isinstance(first, Submitted)
    assert isinstance(last, Submitted)
    assert isinstance(refused, Exception)
    assert len(await everything(client)) == 2
    client.close()


@pytest.mark.parametrize("turns", range(12))
async def test_a_stream_that_is_cut_off_while_its_connection_is_lost_ends_without_a_traceback(
    client: Stub, caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    """P7: both may come in one turn of the loop, in any order, and are nobody's mistake."""
    await submit(client)

    with suppress(Unavailable):
        async with hello(client) as stream:
            await leases(stream, 1)
            async with hello(client):  # It is newer, and cuts the older one off …
                for _ in range(turns):
                    await asyncio.sleep(0)
                client.close()  # … and then the connection goes.
    await asyncio.sleep(1)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
