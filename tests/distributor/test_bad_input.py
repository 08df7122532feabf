"""Bad input: the right status, every bad field named, and nothing changed (P7).

The statuses and details as they are on the wire are in test_grpcio.py; here the client has turned
them back into the expected errors.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.core.errors import InvalidFields, TooLarge
from taskdist.limits import DATA_BYTES_MAX, RESULT_BYTES_MAX
from taskdist.settings import DistributorSettings
from taskdist.wire import messages as wire
from tests.distributor.story import NO_TASK, bad_fields, nothing_changes, submit, succeed, take
from tests.support.channel import distributor_channel

pytestmark = pytest.mark.virtual_time

GOOD_TASK: dict[str, Any] = {"user_tier": "paid", "est_processing_time_s": 1}
GOOD_END: dict[str, Any] = {"task_id": NO_TASK, "agent_id": "agent-1", "lease_id": "1-1"}

BAD_NAMES = ["a b", "a/b", "ä", "a\n", "\0", "x" * 65]
BAD_SECONDS = [-1.0, -1e-9, math.nan, math.inf, -math.inf]
BAD_IDS = [
    "",
    "1",
    NO_TASK[:-1],
    NO_TASK + "0",
    NO_TASK.replace("-", ""),
    "{" + NO_TASK[1:],
    "é" * 36,
]


async def refused(
    client: Stub, call: Awaitable[object], *fields: str, says: str = ""
) -> InvalidFields:
    """The call is refused for exactly these fields, and nothing changed."""
    async with nothing_changes(client):
        with pytest.raises(InvalidFields) as refusal:
            await call
    assert type(refusal.value) is InvalidFields
    assert bad_fields(refusal.value) == set(fields)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    return refusal.value


# --- SubmitTask ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["", "gold", "Paid", " paid", "paid\n", "x" * 100_000])
async def test_an_unknown_tier_is_refused_with_the_list_of_tiers(client: Stub, tier: str) -> None:
    await submit(client)
    call = client.submit(user_tier=tier, est_processing_time_s=1)
    await refused(client, call, "user_tier", says="paid, free")


async def test_the_list_of_tiers_is_the_distributors_own() -> None:
    settings = DistributorSettings(store="memory:", tiers=("gold", "silver"))
    async with distributor_channel(settings) as (client, _):
        await submit(client, "gold")
        call = client.submit(user_tier="paid", est_processing_time_s=1)
        await refused(
            client, call, "user_tier", says="'paid' is not allowed; allowed: gold, silver"
        )


@pytest.mark.parametrize("seconds", [*BAD_SECONDS, 365 * 86_400 + 1e-6, 1e300])
async def test_a_time_that_is_none_is_refused(client: Stub, seconds: float) -> None:
    await submit(client)
    call = client.submit(user_tier="paid", est_processing_time_s=seconds)
    await refused(client, call, "est_processing_time", says="0 to 31536000 seconds")


@pytest.mark.parametrize("seconds", [0.0, -0.0, 1e-9, 365 * 86_400])
async def test_the_times_at_the_limits_are_accepted(client: Stub, seconds: float) -> None:
    await submit(client, seconds=seconds)
    assert (await take(client)).est_processing_time_s == pytest.approx(seconds, abs=1e-6)


async def test_data_over_the_limit_is_too_large(client: Stub) -> None:
    await submit(client)
    async with nothing_changes(client):
        with pytest.raises(TooLarge, match="1048577 bytes; allowed: at most 1048576") as refusal:
            await client.submit(data=b"x" * (DATA_BYTES_MAX + 1), **GOOD_TASK)
    assert bad_fields(refusal.value) == {"data"}


async def test_data_over_the_limit_beside_another_bad_field_is_one_of_two(client: Stub) -> None:
    await submit(client)
    call = client.submit(
        user_tier="gold", est_processing_time_s=1, data=b"x" * (DATA_BYTES_MAX + 1)
    )
    await refused(client, call, "user_tier", "data")


@pytest.mark.parametrize("field", ["kind", "queue"])
@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_name_outside_the_pattern_is_refused(client: Stub, field: str, name: str) -> None:
    await submit(client)
    call = client.submit(**{**GOOD_TASK, field: name})
    await refused(client, call, field, says="1 to 64 characters of A-Z a-z 0-9 . _ -")


@pytest.mark.parametrize("field", ["kind", "queue"])
@pytest.mark.parametrize("name", ["a", "AZaz09._-", "x" * 64])
async def test_a_name_within_the_pattern_is_accepted(client: Stub, field: str, name: str) -> None:
    await client.submit(**{**GOOD_TASK, field: name})


@pytest.mark.parametrize("retries", [101, 2**32 - 1])
async def test_too_many_retries_are_refused(client: Stub, retries: int) -> None:
    await submit(client)
    call = client.submit(**GOOD_TASK, max_retries=retries)
    await refused(client, call, "max_retries", says="0 to 100")


@pytest.mark.parametrize("task_id", BAD_IDS[1:])  # an empty one asks the distributor for one
async def test_a_malformed_id_of_the_clients_making_is_refused(client: Stub, task_id: str) -> None:
    await submit(client)
    await refused(client, client.submit(**GOOD_TASK, task_id=task_id), "task_id", says="a UUID")


async def test_every_bad_field_of_a_submit_is_named(client: Stub) -> None:
    await submit(client)
    call = client.submit(
        user_tier="gold",
        est_processing_time_s=math.nan,
        data=b"x" * (DATA_BYTES_MAX + 1),
        task_id="1",
        kind="a b",
        queue="a/b",
        max_retries=101,
    )
    await refused(
        client,
        call,
        "user_tier",
        "est_processing_time",
        "data",
        "task_id",
        "kind",
        "queue",
        "max_retries",
    )


# --- FetchTask and Heartbeat ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *BAD_NAMES])
async def test_an_agent_needs_a_name(client: Stub, name: str) -> None:
    await submit(client)
    work = await take(client)
    end: dict[str, Any] = {**GOOD_END, "agent_id": name, "task_id": work.task_id}
    await refused(client, client.fetch(agent_id=name), "agent_id")
    await refused(client, client.heartbeat(agent_id=name, lease_ids=[work.lease_id]), "agent_id")
    await refused(client, client.complete(**end, success=True), "agent_id")
    await refused(client, client.release(**end), "agent_id")


@pytest.mark.parametrize("wait_s", [*BAD_SECONDS[:3], 60.000001, math.inf])
async def test_a_wait_of_more_than_a_minute_is_refused(client: Stub, wait_s: float) -> None:
    await submit(client, queue="other")
    # The client adds the wait to its own deadline, which infinity and NaN cannot be.
    fetch = client.fetch if math.isfinite(wait_s) else raw_fetch(client)
    call = fetch(agent_id="agent-1", wait_s=wait_s)
    await refused(client, call, "wait_seconds", says="0 to 60 seconds")


def raw_fetch(client: Stub) -> Callable[..., Awaitable[object]]:
    async def fetch(agent_id: str, wait_s: float) -> object:
        request = wire.FetchTaskRequest(agent_id=agent_id, wait_seconds=wait_s)
        return await client._call("FetchTask", request, wire.FetchTaskResponse)

    return fetch


async def test_every_bad_field_of_a_fetch_is_named_once(client: Stub) -> None:
    await submit(client)
    call = client.fetch(
        agent_id="", session="a b", queues=["ok", "", "a b"], kinds=["a/b"] * 100, wait_s=61
    )
    refusal = await refused(client, call, "agent_id", "session", "queues", "kinds", "wait_seconds")
    assert len(refusal.fields) == 5


@pytest.mark.parametrize(
    ("queues", "kinds"), [(257, 0), (0, 257), (16, 17), (5_000, 5_000)], ids=str
)
async def test_p7_an_agent_names_no_more_lanes_than_the_limit(
    client: Stub, queues: int, kinds: int
) -> None:
    await submit(client)
    call = client.fetch(
        agent_id="agent-1",
        queues=[f"q{i}" for i in range(queues)],
        kinds=[f"k{i}" for i in range(kinds)],
    )
    async with nothing_changes(client):
        with pytest.raises(InvalidFields, match="at most 256") as refusal:
            await call
    assert bad_fields(refusal.value) <= {"queues", "kinds"}


async def test_p7_a_heartbeat_names_no_more_leases_than_the_limit(client: Stub) -> None:
    await submit(client)
    call = client.heartbeat(agent_id="agent-1", lease_ids=[str(i) for i in range(10_001)])
    await refused(client, call, "lease_ids", says="at most 10000")
    assert not await client.heartbeat(agent_id="agent-1", lease_ids=[""] * 10_000)


# --- CompleteTask and the verbs that name a task -------------------------------------------------


@pytest.mark.parametrize("task_id", BAD_IDS)
async def test_a_malformed_id_is_refused_by_every_verb(client: Stub, task_id: str) -> None:
    await submit(client)
    end: dict[str, Any] = {**GOOD_END, "task_id": task_id}
    for call in (
        client.complete(**end, success=True),
        client.release(**end),
        client.get(task_id),
        client.cancel(task_id),
        anext(client.watch(task_id)),
    ):
        await refused(client, call, "task_id", says="a UUID, such as")


async def test_a_result_over_the_limit_is_too_large(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    async with nothing_changes(client):
        with pytest.raises(TooLarge) as refusal:
            await succeed(client, work, result=b"x" * (RESULT_BYTES_MAX + 1))
    assert bad_fields(refusal.value) == {"result"}
    await succeed(client, work)


async def test_every_bad_field_of_an_outcome_is_named(client: Stub) -> None:
    await submit(client)
    call = client.complete(
        task_id="1",
        agent_id="",
        lease_id="",
        success=False,
        result=b"x" * (RESULT_BYTES_MAX + 1),
    )
    await refused(client, call, "task_id", "agent_id", "result")


# --- ListTasks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["12345", "-----", "------", "-1-2-3-", "abcdeg", "a" * 33])
async def test_an_ending_that_no_id_has_is_refused(client: Stub, ending: str) -> None:
    await submit(client)
    await refused(client, anext(client.list_tasks(id_ending=ending)), "id_ending")


@pytest.mark.parametrize("field", ["user_tier", "kind", "queue"])
async def test_a_filter_outside_the_pattern_is_refused(client: Stub, field: str) -> None:
    await submit(client)
    filters: dict[str, Any] = {field: "a b"}
    await refused(client, anext(client.list_tasks(**filters)), field)


async def test_every_bad_field_of_a_list_is_named(client: Stub) -> None:
    await submit(client)
    request = wire.ListTasksRequest(
        states=[wire.TaskState.READY, wire.TaskState.UNSPECIFIED, 99],  # type: ignore[list-item] # of a newer one
        user_tier="a b",
        kind="a b",
        queue="a b",
        id_ending="xyz",
        page_size=1_001,
        cursor="-1",
    )
    await refused(
        client,
        client._call("ListTasks", request, wire.ListTasksResponse),
        "states",
        "user_tier",
        "kind",
        "queue",
        "id_ending",
        "page_size",
        "cursor",
    )


@pytest.mark.parametrize("cursor", ["x", "1.5", " 1", "1\n", "٣", "9" * 19])
async def test_a_cursor_that_was_never_given_is_refused(client: Stub, cursor: str) -> None:
    await submit(client)
    request = wire.ListTasksRequest(cursor=cursor)
    call = client._call("ListTasks", request, wire.ListTasksResponse)
    await refused(client, call, "cursor", says="next_cursor")
