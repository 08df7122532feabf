"""AnnounceKinds and ListKinds: a session is given what it announced; what nobody takes says so."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.core.errors import Exhausted, InvalidFields
from taskdist.core.offers import AnnouncedKind, KindReport
from taskdist.distributor.server import Distributor
from taskdist.settings import DistributorSettings
from taskdist.wire import messages as wire
from tests.distributor.story import bad_fields, succeed, take
from tests.distributor.story import submit as submit_task
from tests.support.channel import connect, distributor_channel
from tests.support.streams import spoken

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

SCHEMA = '{"type": "object"}'
HEARD_S = 90


def kinds(*names: str, schema: str = "") -> Sequence[AnnouncedKind]:
    return [AnnouncedKind(name, schema) for name in names]


async def announce(client: Stub, *names: str, session: str = "s-1", **more: Any) -> float:
    said: dict[str, Any] = {"agent_id": "agent-1", "kinds": kinds(*names), **more}
    return await client.announce_kinds(session=session, **said)


async def submit(client: Stub, kind: str, queue: str = "default") -> str:
    return await submit_task(client, kind=kind, queue=queue)


async def listed(client: Stub, **of: str) -> list[KindReport]:
    return [report async for report in client.list_kinds(**of)]


async def why(client: Stub, task_id: str) -> str:
    return (await client.get(task_id)).waits_because


# --- what a session is given -------------------------------------------------------------------


async def test_a_session_that_asks_for_nothing_is_given_what_it_announced(client: Stub) -> None:
    await announce(client, "infer", "resize", queues=["gpu"])
    for kind in ("other", "resize", "infer"):
        await submit(client, kind, "gpu")
    await submit(client, "infer", "default")
    given = [(await take(client, session="s-1")).kind for _ in range(2)]
    assert given == ["resize", "infer"]
    assert await client.fetch(agent_id="agent-1", session="s-1") is None
    assert (await take(client, session="s-2")).queue == "default", "others are as ever"


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({"kinds": ["other"]}, {"kinds"}),
        ({"queues": ["default"]}, {"queues"}),
        ({"queues": ["gpu", "x"], "kinds": ["infer", "y"]}, {"queues", "kinds"}),
    ],
    ids=["kinds", "queues", "both"],
)
async def test_it_cannot_ask_for_others(
    client: Stub, asked: dict[str, Any], fields: set[str]
) -> None:
    await announce(client, "infer", queues=["gpu"])
    with pytest.raises(InvalidFields, match="was not announced; allowed: ") as refusal:
        await client.fetch(agent_id="agent-1", session="s-1", **asked)
    assert bad_fields(refusal.value) == fields
    task_id = await submit(client, "infer", "gpu")
    work = await take(client, session="s-1", queues=["gpu"], kinds=["infer"])
    assert work.task_id == task_id


async def test_a_later_announcement_replaces_the_first(client: Stub) -> None:
    await announce(client, "infer")
    await announce(client, "resize")
    await submit(client, "infer")
    assert await client.fetch(agent_id="agent-1", session="s-1") is None
    assert [report.name for report in await listed(client)] == ["resize"]


async def test_a_stream_is_given_what_its_session_announces_meanwhile(
    client: Stub, distributor: Distributor
) -> None:
    """Also where its question was already waiting."""
    async with spoken(distributor, slots=2) as work:
        await asyncio.sleep(1)
        await announce(client, "infer")
        await asyncio.sleep(1)
        other, infer = await submit(client, "other"), await submit(client, "infer")
        heard = await work.hear()
        assert heard is not None
        assert [lease.task_id for lease in heard.leases] == [infer]
        assert await why(client, other), "it waits, and nobody takes it"
        await announce(client, "other", queues=["elsewhere"])
        await announce(client, "other")
        heard = await work.hear()
        assert heard is not None
        assert [lease.task_id for lease in heard.leases] == [other]


async def test_a_hello_that_asks_for_others_is_refused(
    client: Stub, distributor: Distributor
) -> None:
    await announce(client, "infer", queues=["gpu"])
    with pytest.raises(InvalidFields) as refusal:
        async with client.work(
            agent_id="agent-1", session="s-1", queues=["other"], kinds=["infer"], slots=1
        ) as stream:
            await stream.receive()
    assert bad_fields(refusal.value) == {"hello.queues"}


async def test_a_stream_whose_session_announces_others_than_it_asked_for_is_given_nothing(
    client: Stub, distributor: Distributor
) -> None:
    async with spoken(distributor, kinds=("infer",)) as work:
        await asyncio.sleep(1)
        await announce(client, "resize")
        task_ids = [await submit(client, kind) for kind in ("infer", "resize")]
        await asyncio.sleep(100)
        assert [(await client.get(task_id)).attempt for task_id in task_ids] == [0, 0]
        await announce(client, "infer")
        heard = await work.hear()
        assert heard is not None
        assert [lease.task_id for lease in heard.leases] == task_ids[:1]


# --- who is live, and what is told of it -------------------------------------------------------


async def test_a_task_says_that_no_live_agent_takes_it_until_one_does(client: Stub) -> None:
    task_id = await submit(client, "infer", "gpu")
    text = "no live agent runs kind infer in queue gpu"
    assert await why(client, task_id) == (
        f"{text}; the distributor has just started, and agents may be on their way back"
    )
    await asyncio.sleep(HEARD_S)
    assert await why(client, task_id) == text
    assert (await anext(aiter(client.watch(task_id)))).waits_because == text
    await announce(client, "infer")
    assert await why(client, task_id) == text, "that was another queue"
    await announce(client, "other", queues=["gpu"], session="s-2")
    assert await why(client, task_id) == text, "that was another kind"
    assert await announce(client, "infer", queues=["gpu"], session="s-3") == HEARD_S / 3
    assert await why(client, task_id) == ""
    await client.cancel(task_id)
    await asyncio.sleep(HEARD_S + 1)
    assert await why(client, task_id) == "", "only what is ready waits for an agent"


async def test_an_announcement_that_is_not_repeated_is_forgotten(client: Stub) -> None:
    again_s = await announce(client, "infer")
    for _ in range(5):
        await asyncio.sleep(again_s)
        await announce(client, "infer")
    await asyncio.sleep(HEARD_S - 1)
    assert len(await listed(client)) == 1
    await asyncio.sleep(1)
    assert await listed(client) == []
    task_id = await submit(client, "other")
    assert (await take(client, session="s-1")).task_id == task_id


async def test_agents_that_only_ask_are_live_for_what_they_ask(
    client: Stub, distributor: Distributor
) -> None:
    """While they ask, while they work, and for a while after."""
    asking = asyncio.ensure_future(
        client.fetch(agent_id="plain", queues=["gpu"], kinds=["infer"], wait_s=60)
    )
    await asyncio.sleep(50)
    assert await listed(client) == [KindReport("infer", ("gpu",), 1, ())]
    await submit(client, "infer", "gpu")
    work = await asking
    assert work is not None
    for _ in range(20):
        await asyncio.sleep(20)
        await client.heartbeat(agent_id="plain", lease_ids=[work.lease_id])
    assert await listed(client) == [KindReport("infer", ("gpu",), 1, ())]
    await succeed(client, work, "plain")
    await asyncio.sleep(HEARD_S - 1)
    assert len(await listed(client)) == 1
    await asyncio.sleep(1)
    assert await listed(client) == []


async def test_a_stream_is_live_as_long_as_it_is_open(
    client: Stub, distributor: Distributor
) -> None:
    task_id = await submit(client, "infer", "other")
    async with spoken(distributor, slots=0, queues=("gpu",)):
        await asyncio.sleep(10 * HEARD_S)
        assert await listed(client) == [KindReport("", ("gpu",), 1, ())], "any kind"
        assert await why(client, task_id)
    await asyncio.sleep(HEARD_S - 1)
    assert len(await listed(client)) == 1
    await asyncio.sleep(2)
    assert await listed(client) == []


async def test_sessions_and_schemas_are_counted_and_told_the_newest_first(client: Stub) -> None:
    for number in range(12):
        schema = f'{{"version": {number // 2}}}'
        session, queue = f"s-{number}", f"q{number % 2}"
        said = kinds("infer", schema=schema)
        await announce(client, session=session, queues=[queue], kinds=said)
    await announce(client, "infer", session="s-12")
    (report,) = await listed(client, kind="infer")
    assert (report.queues, report.live_agents) == (("default", "q0", "q1"), 13)
    assert report.input_schemas == tuple(f'{{"version": {n}}}' for n in (5, 4, 3, 2, 1, 0))
    (report,) = await listed(client, queue="q1")
    assert report.live_agents == 6
    assert await listed(client, kind="other") == []
    assert await listed(client, queue="other") == []


async def test_p7_no_page_of_kinds_is_too_long_for_a_message(client: Stub) -> None:
    """Long schemas, eight of each that are told, over several pages, and none is missing."""
    text = "x" * 65_000
    for version in range(10):
        said = [AnnouncedKind(f"k{n}", f'{{"{version}": "{text}"}}') for n in range(12)]
        await announce(client, session=f"s-{version}", kinds=said)
    pages = 0
    cursor, names = "", []
    while cursor or not pages:
        request = wire.ListKindsRequest(page_size=5, cursor=cursor)
        page = await client._call("ListKinds", request, wire.ListKindsResponse)
        assert 1 <= len(page.kinds) <= 5
        assert {len(kind.input_schemas) for kind in page.kinds} == {8}
        names += [kind.name for kind in page.kinds]
        cursor, pages = page.next_cursor, pages + 1
    assert names == sorted(f"k{n}" for n in range(12))
    assert pages > 3


async def test_p7_there_is_an_end_to_what_is_remembered_and_what_is_gone_makes_room() -> None:
    """Who is one too many is refused when it announces, and served as ever when it asks."""
    settings = DistributorSettings(store="memory:", live_agents_max=2, announced_bytes_max=2**20)
    async with distributor_channel(settings) as (client, _):
        await announce(client, "a", session="s-1")
        await announce(client, "b", session="s-2")
        with pytest.raises(Exhausted, match="2 agents are live"):
            await announce(client, "c", session="s-3")
        task_id = await submit(client, "c")
        assert (await take(client, "agent-3", kinds=["c"])).task_id == task_id
        assert [report.name for report in await listed(client)] == ["a", "b"]
        large = [AnnouncedKind(f"k{n}", f'{{"n": "{"x" * 60_000}"}}') for n in range(20)]
        with pytest.raises(Exhausted, match="bytes are announced; allowed: 2, 1048576"):
            await announce(client, session="s-2", kinds=large)
        await announce(client, session="s-1", kinds=large[:10])
        await announce(client, session="s-2", kinds=large[:10])
        assert {report.live_agents for report in await listed(client)} == {2}
        await asyncio.sleep(HEARD_S)
        await announce(client, session="s-3", kinds=large[10:])
        await announce(client, session="s-3", kinds=large[:10])


async def test_a_connection_that_is_lost_in_a_long_poll_leaves_nobody_live(
    client: Stub, distributor: Distributor
) -> None:
    gone = connect(distributor)
    asking = asyncio.ensure_future(gone.fetch(agent_id="gone", kinds=["infer"], wait_s=60))
    await asyncio.sleep(1)
    asking.cancel()
    gone.close()
    await asyncio.wait([asking])
    await asyncio.sleep(HEARD_S + 1)
    assert await listed(client) == []


# --- bad input -----------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"agent_id": "agent-1", "session": "s-1", "kinds": kinds("infer")}

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"agent_id": ""}, "agent_id", "1 to 64 characters"),
    ({"session": ""}, "session", "1 to 64 characters"),
    ({"queues": ["a b"]}, "queues", "1 to 64 characters"),
    ({"kinds": []}, "kinds", "0 of them; allowed: 1 to 256"),
    ({"kinds": kinds("")}, "kinds", "1 to 64 characters"),
    ({"kinds": kinds("a", "b", "a")}, "kinds", "'a' is there twice; allowed: each name once"),
    ({"kinds": kinds(*map(str, range(257)))}, "kinds", "257 of them; allowed: at most 256"),
    (
        {"queues": ["a", "b"], "kinds": kinds(*map(str, range(129)))},
        "queues",
        "queues times kinds; allowed: at most 256",
    ),
    *(
        ({"kinds": kinds("a", schema=schema)}, "kinds[0].input_schema", "allowed: a JSON object")
        for schema in ("[]", "{", "true", "null", "nan", '{"a": NaN}', "[" * 60_000, "\0")
    ),
    (
        {"kinds": kinds("a", schema='{"a": "' + "é" * 32_800 + '"}')},
        "kinds[0].input_schema",
        "allowed: at most 65536",
    ),
]


@pytest.mark.parametrize(("said", "field", "text"), BAD, ids=[field for _, field, _ in BAD])
async def test_a_bad_announcement_is_refused_and_changes_nothing(
    client: Stub, said: dict[str, Any], field: str, text: str
) -> None:
    await announce(client, "resize")
    before = await listed(client)
    with pytest.raises(InvalidFields) as refusal:
        await client.announce_kinds(**{**GOOD, **said})
    assert bad_fields(refusal.value) == {field}
    assert text in str(refusal.value)
    assert await listed(client) == before


@pytest.mark.parametrize("cursor", ["x", "after: ", "after:a b", "after:é", "after:" + "a" * 65])
async def test_a_bad_question_is_refused(client: Stub, cursor: str) -> None:
    request = wire.ListKindsRequest(queue="a b", kind="a/b", page_size=1_001, cursor=cursor)
    with pytest.raises(InvalidFields) as refusal:
        await client._call("ListKinds", request, wire.ListKindsResponse)
    assert bad_fields(refusal.value) == {"queue", "kind", "page_size", "cursor"}
