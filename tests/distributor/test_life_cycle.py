"""What is said of time and retries, through the whole server: P2, P5, P7."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.core.errors import Exhausted, InvalidFields, Refused, TaskIdTaken
from taskdist.core.task import Backoff, TaskState
from taskdist.distributor.server import Distributor
from taskdist.limits import MIB
from taskdist.reports import RetryPause, Submission, TaskReport
from taskdist.settings import DistributorSettings
from taskdist.wire import messages as wire
from tests.distributor.story import (
    NO_TASK,
    bad_fields,
    fail,
    nothing_changes,
    submit,
    succeed,
    take,
)
from tests.distributor.test_watch import Watcher, states
from tests.support.channel import MemoryChannel, distributor_channel
from tests.support.clocks import NOON_US
from tests.support.streams import spoken

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

BEGAN = datetime.fromtimestamp(NOON_US / 1e6, UTC)
SCHEDULED, READY, LEASED = TaskState.SCHEDULED, TaskState.READY, TaskState.LEASED
PAUSE = RetryPause(Backoff.EXPONENTIAL, initial_s=2, max_s=60, jitter_percent=0)


def after(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


async def test_all_that_was_said_is_told_again(client: Stub) -> None:
    task_id = await submit(
        client,
        backoff=RetryPause(Backoff.EXPONENTIAL, 0.5, 8, 20),
        not_before=after(60.5),
        deadline_s=120,
        run_timeout_s=7.5,
        lease_s=5,
        idempotency_key="k-1",
        data=b"12345",
    )
    fixed = await submit(client, "free", backoff=RetryPause(Backoff.FIXED, 3), delay_s=9)
    task = await client.get(task_id)
    (listed,) = [one async for one in client.list_tasks(states=[SCHEDULED], user_tier="paid")]
    for told in (task, listed):
        assert told.state is SCHEDULED
        assert told.backoff == RetryPause(Backoff.EXPONENTIAL, 0.5, 8, 20)
        assert (told.due_at, told.deadline, told.enqueued_at) == (after(60.5), after(120), None)
        assert (told.run_timeout_s, told.lease_s) == (7.5, 5)
        assert (told.idempotency_key, told.data_bytes, told.queue_position) == ("k-1", 5, 0)
    other = await client.get(fixed)
    assert other.backoff == RetryPause(Backoff.FIXED, 3, None, 0)
    assert (other.due_at, other.deadline, other.idempotency_key) == (after(9), None, "")
    await asyncio.sleep(61)
    work = await take(client)
    assert (work.lease_s, work.run_timeout_s, work.deadline) == (5, 7.5, after(120))
    task = await client.get(task_id)
    assert task.due_at is None
    assert task.enqueued_at is not None
    assert after(60.5) <= task.enqueued_at <= after(61.5)


async def test_a_plain_task_has_none_of_it(client: Stub) -> None:
    task = await client.get(await submit(client))
    assert (task.due_at, task.deadline, task.backoff) == (None, None, None)
    assert (task.run_timeout_s, task.lease_s, task.idempotency_key) == (0, 0, "")
    assert (await take(client)).deadline is None


async def test_p5_pauses_grow_and_the_watcher_hears_each(
    client: Stub, distributor: Distributor
) -> None:
    task_id = await submit(client, backoff=PAUSE, max_retries=3)
    watcher = Watcher(distributor, task_id)
    await asyncio.sleep(1)
    for pause_s in (2, 4, 8):
        text = await fail(client, await take(client), error=f"before {pause_s}")
        assert text == "failed; it will be retried after a pause"
        assert await client.fetch(agent_id="agent-1", wait_s=pause_s - 0.3) is None
        await take(client, "agent-2", wait_s=1)
        work = await client.get(task_id)
        assert work.state is LEASED
        await client.release(
            task_id=task_id, agent_id="agent-2", lease_id=(await lease_of(client, work))
        )
    await succeed(client, await take(client), result=b"42")
    heard = await watcher.to_the_end()
    one_round = [LEASED, SCHEDULED, READY, LEASED, READY]
    assert states(heard) == [READY, *one_round * 3, LEASED, TaskState.SUCCEEDED]
    paused = [report for report in heard if report.state is SCHEDULED]
    assert [report.error for report in paused] == ["before 2", "before 4", "before 8"]
    assert all(report.due_at for report in paused)


async def lease_of(client: Stub, task: TaskReport) -> str:
    """The lease that agent-2 holds, as a heartbeat without a name tells it."""
    request = wire.HeartbeatRequest(agent_id="agent-2")
    (lease_id,) = (await client._call("Heartbeat", request, wire.HeartbeatResponse)).lease_ids
    assert task.agent_id == "agent-2"
    return str(lease_id)


async def test_a_watch_of_a_scheduled_task_goes_up_to_its_end(
    client: Stub, distributor: Distributor
) -> None:
    delayed = await submit(client, delay_s=10)
    late = await submit(client, queue="other", delay_s=10, deadline_s=20)
    cancelled = await submit(client, delay_s=1_000)
    watchers = [Watcher(distributor, one) for one in (delayed, late, cancelled)]
    await succeed(client, await take(client, wait_s=30), result=b"42")
    await asyncio.sleep(30)
    await client.cancel(cancelled)
    heard = [await watcher.to_the_end() for watcher in watchers]
    assert states(heard[0]) == [SCHEDULED, READY, LEASED, TaskState.SUCCEEDED]
    assert [report.queue_position for report in heard[0]] == [0] * 4, "it is taken at once"
    assert states(heard[1]) == [SCHEDULED, READY, TaskState.DEAD]
    assert heard[1][-1].error == "its deadline passed before it could be started"
    assert states(heard[2]) == [SCHEDULED, TaskState.CANCELLED]


async def test_p5_outcomes_over_work_say_whether_and_when_to_retry(
    client: Stub, distributor: Distributor
) -> None:
    ids = [await submit(client, seconds=n, backoff=PAUSE) for n in range(3)]
    async with spoken(distributor, slots=3) as work:
        heard = await work.hear()
        assert heard
        leases = heard.leases
        assert [lease.task_id for lease in leases] == ids
        named: list[dict[str, Any]] = [
            {"task_id": one.task_id, "lease_id": one.lease_id} for one in leases
        ]
        await work.say(
            outcomes=[
                wire.CompleteTaskRequest(**named[0], error="bad input", retryable=False),
                wire.CompleteTaskRequest(**named[1], error="busy", retry_after_seconds=100.5),
                wire.CompleteTaskRequest(**named[2], error="bad", retry_after_seconds=-1.0),
            ]
        )
        verdicts = [verdict for message in await work.all() for verdict in message.verdicts]
    refusals = [verdict.refusal for verdict in verdicts if verdict.lease_id == leases[2].lease_id]
    assert [bad.field for bad in refusals[0].bad_fields] == ["retry_after_seconds"]
    dead, paused, held = [await client.get(task_id) for task_id in ids]
    assert (dead.state, dead.error) == (TaskState.DEAD, "bad input")
    assert paused.state is SCHEDULED
    assert paused.due_at is not None
    assert after(100) <= paused.due_at <= after(102)
    assert held.state is LEASED


async def test_p5_outcomes_over_complete_task_likewise(client: Stub) -> None:
    task_id = await submit(client, backoff=PAUSE)
    text = await fail(client, await take(client), retry_after_s=0)
    assert text == "failed; it will be retried after all new tasks"
    work = await take(client)
    async with nothing_changes(client):
        with pytest.raises(InvalidFields) as refused:
            await fail(client, work, retry_after_s=1e9)
    assert bad_fields(refused.value) == {"retry_after_seconds"}
    assert await fail(client, work, retryable=False) == "failed; dead, its errors are kept"
    assert (await client.get(task_id)).state is TaskState.DEAD


# --- keys ----------------------------------------------------------------------------------------


async def test_p1_a_key_is_one_task(client: Stub) -> None:
    said: dict[str, Any] = {"delay_s": 60, "deadline_s": 600, "idempotency_key": "order 7/ü"}
    first = await submit(client, **said)
    await asyncio.sleep(61)
    assert await submit(client, **said) == first
    assert await submit(client, task_id=NO_TASK, **said) == first
    async with nothing_changes(client):
        for other in ({"data": b"x"}, {"delay_s": 61}, {"deadline_s": 601}, {"lease_s": 9}):
            with pytest.raises(TaskIdTaken, match="idempotency_key"):
                await submit(client, **{**said, **other})
        several = [Submission("paid", 1), Submission("paid", 1, b"x", idempotency_key="order 7/ü")]
        with pytest.raises(TaskIdTaken):
            await client.submit_many(several)
    assert await submit(client, queue="other", **said) != first


async def test_p1_a_client_that_shares_calls_repeats_a_key_as_well(
    distributor: Distributor,
) -> None:
    """It makes ids of its own, a new one for each submit."""
    channel = MemoryChannel(distributor.server)
    async with Stub("in memory", channel=channel) as client:
        calls = [submit(client, idempotency_key=f"k{n % 3}") for n in range(30)]
        ids = await asyncio.gather(*calls)
        assert len(set(ids)) == 3
        refused = await asyncio.gather(
            *(submit(client, idempotency_key="k0", data=b"x") for _ in range(2)),
            return_exceptions=True,
        )
    assert [type(one) for one in refused] == [TaskIdTaken] * 2


# --- bad values ----------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
BAD: list[tuple[dict[str, Any], str]] = [
    *(({"backoff": RetryPause(Backoff.FIXED, s)}, "backoff.initial_seconds") for s in (0, -1, NAN)),
    ({"backoff": RetryPause(Backoff.FIXED, 31_536_001)}, "backoff.initial_seconds"),
    ({"backoff": RetryPause(Backoff.NONE, 1)}, "backoff.initial_seconds"),
    ({"backoff": RetryPause(Backoff.FIXED, 1, 2)}, "backoff.max_seconds"),
    ({"backoff": RetryPause(Backoff.NONE, 0, 2)}, "backoff.max_seconds"),
    ({"backoff": RetryPause(Backoff.EXPONENTIAL, 5, 4.9)}, "backoff.max_seconds"),
    ({"backoff": RetryPause(Backoff.EXPONENTIAL, 5, INF)}, "backoff.max_seconds"),
    ({"backoff": RetryPause(Backoff.FIXED, 1, None, 101)}, "backoff.jitter_percent"),
    *(({"delay_s": s}, "timing.delay_seconds") for s in (-1e-9, NAN, INF, 31_536_001)),
    *(({"deadline_s": s}, "timing.deadline_seconds") for s in (-1, NAN, INF, 31_536_001)),
    ({"not_before": datetime(1969, 12, 31, tzinfo=UTC)}, "timing.not_before"),
    ({"deadline": datetime(1969, 1, 1, tzinfo=UTC)}, "timing.deadline"),
    ({"delay_s": 1, "not_before": after(60)}, "timing.not_before"),
    ({"deadline_s": 1, "deadline": after(60)}, "timing.deadline"),
    *(({"run_timeout_s": s}, "timing.run_timeout_seconds") for s in (0, -1, NAN, 315_360_001)),
    *(({"lease_s": s}, "timing.lease_seconds") for s in (0, 0.999, NAN, 86_401)),
    *(({"idempotency_key": key}, "idempotency_key") for key in ("k" * 129, "a\nb", "\0", "\u200b")),
    # What the distributor's clock refuses.
    ({"deadline": after(-1)}, "timing.deadline"),
    ({"delay_s": 9, "deadline_s": 9}, "timing.deadline_seconds"),
    ({"not_before": after(60), "deadline": after(60)}, "timing.deadline"),
]


@pytest.mark.parametrize(("said", "field"), BAD, ids=str)
async def test_p7_a_bad_value_is_refused_by_name_alone_and_among_several(
    client: Stub, said: dict[str, Any], field: str
) -> None:
    await submit(client)
    bad = Submission("paid", 1, **said)
    async with nothing_changes(client):
        with pytest.raises(InvalidFields) as refused:
            await submit(client, **said)
        assert bad_fields(refused.value) == {field}
        with pytest.raises(InvalidFields) as refused:
            await client.submit_many([Submission("paid", 1), bad])
        assert bad_fields(refused.value) == {f"tasks[1].{field}"}
        (answer,) = await client.submit_many([bad], atomic=False)
    assert isinstance(answer, InvalidFields)
    assert bad_fields(answer) == {field}


@pytest.mark.parametrize(
    "said",
    [
        {"backoff": RetryPause(Backoff.FIXED, 0.001, None, 100)},
        {"backoff": RetryPause(Backoff.EXPONENTIAL, 31_536_000)},
        {"backoff": RetryPause(Backoff.NONE)},
        {"delay_s": 31_536_000},
        {"deadline_s": 31_536_000},
        {"run_timeout_s": 0.001},
        {"run_timeout_s": 315_360_000},
        {"lease_s": 1},
        {"lease_s": 86_400},
        {"idempotency_key": "ü" * 128},
        {"not_before": after(-60)},
        {"not_before": datetime(9999, 12, 31, tzinfo=UTC)},
    ],
    ids=str,
)
async def test_the_values_at_the_limits_are_accepted(client: Stub, said: dict[str, Any]) -> None:
    task = await client.get(await submit(client, **said))
    assert task.state in (READY, SCHEDULED)


# --- limits --------------------------------------------------------------------------------------


async def test_p7_each_limit_refuses_for_a_while() -> None:
    """What is exhausted says when to try again: see test_grpcio.py for how."""
    settings = DistributorSettings(
        store="memory:", tasks_waiting_max=3, waiting_bytes_max=MIB, leases_per_session_max=1
    )
    async with distributor_channel(settings) as (client, _):
        await submit(client, data=bytes(MIB - 1), delay_s=60)
        await submit(client)
        async with nothing_changes(client):
            with pytest.raises(Exhausted, match="bytes of data are waiting"):
                await submit(client, data=b"xx")
        await submit(client)
        several = await client.submit_many([Submission("paid", 1)] * 2, atomic=False)
        assert [type(one) for one in several] == [Exhausted] * 2
        assert all(isinstance(one, Refused) for one in several)
        await take(client, session="s")
        async with nothing_changes(client):
            with pytest.raises(Exhausted, match="holds 1 leases"):
                await take(client, session="s")
        await take(client, session="t")


async def test_p7_a_stream_of_a_session_that_holds_all_it_may_goes_on() -> None:
    settings = DistributorSettings(store="memory:", leases_per_session_max=2)
    async with distributor_channel(settings) as (client, distributor):
        for _ in range(5):
            await submit(client)
        async with spoken(distributor, slots=5) as work:
            done = 0
            while done < 5:
                heard = await work.hear()
                assert heard
                assert len(heard.leases) <= 2
                outcomes = [
                    wire.CompleteTaskRequest(task_id=m.task_id, lease_id=m.lease_id, success=True)
                    for m in heard.leases
                ]
                done += len(outcomes)
                if outcomes:
                    await work.say(outcomes=outcomes)
