"""ReportProgress and progress over Work: who may say what, and what is refused (P3, P7)."""

import math
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.core.errors import InvalidFields, PreconditionFailed
from taskdist.distributor.server import Distributor
from taskdist.reports import Dropped, LogLine, Progress, Remarks
from taskdist.wire import messages as wire
from tests.distributor.following import followed, say, word
from tests.distributor.story import bad_fields, fail, nothing_changes, submit, succeed, take
from tests.support.streams import spoken

pytestmark = pytest.mark.virtual_time


# --- over Work ---------------------------------------------------------------------------------


def progress(task_id: str, lease_id: str, *texts: str, **more: Any) -> wire.ReportProgressRequest:
    entries = [wire.TaskEntry(log=text) for text in texts]
    return wire.ReportProgressRequest(task_id=task_id, lease_id=lease_id, entries=entries, **more)


async def test_over_a_stream_it_comes_with_outcomes_and_before_them(
    client: Stub, distributor: Distributor
) -> None:
    task_id = await submit(client)
    async with spoken(distributor) as work:
        heard = await work.hear()
        assert heard is not None
        (lease,) = heard.leases
        await work.say(progress=[progress(task_id, lease.lease_id, "alone")])
        heard = await work.hear()
        assert heard is not None
        assert heard.progress_heard == 1, "it is kept; of the rest an agent says that it is missing"
        outcome = wire.CompleteTaskRequest(task_id=task_id, lease_id=lease.lease_id, success=True)
        said = progress(task_id, lease.lease_id, "last", agent_id="agent-1")
        await work.say(progress=[said], outcomes=[outcome])
        heard = await work.hear()
        assert heard is not None
        assert [verdict.lease_id for verdict in heard.verdicts] == [lease.lease_id]
        assert heard.progress_heard == 2
        await work.say(progress=[progress(task_id, lease.lease_id, "too late")])
        heard = await work.hear()
        assert heard is not None
        assert heard.progress_heard == 3, "heard, and passed over"
        another = await submit(client)
        heard = await work.hear()
        assert heard is not None
        assert [one.task_id for one in heard.leases] == [another]
    words = list(map(word, await followed(client, task_id)))
    assert words == ["READY.0", "LEASED.1", "alone", "last", "SUCCEEDED.1"]


async def test_over_a_stream_a_bad_entry_ends_it(client: Stub, distributor: Distributor) -> None:
    task_id = await submit(client)
    with pytest.raises(InvalidFields) as refusal:
        await _say_something_bad(client, task_id)
    assert bad_fields(refusal.value) == {
        "progress[1].task_id",
        "progress[1].entries[1].progress.fraction",
    }


async def _say_something_bad(client: Stub, task_id: str) -> None:
    async with client.work(agent_id="agent-1", session="s-1", slots=1) as stream:
        news = await stream.receive()
        assert news is not None
        (lease,) = news.leases
        bad = Remarks("x", lease.lease_id, (LogLine("fine"), Progress(2)))
        good = Remarks(task_id, lease.lease_id, (LogLine("fine"),))
        await stream.report([], [good, bad])
        await stream.receive()


# --- fencing and bad input ---------------------------------------------------------------------


async def test_p3_nobody_but_the_holder_is_heard(client: Stub) -> None:
    await submit(client)
    work = await take(client)
    await say(client, work, "first")
    async with nothing_changes(client):
        with pytest.raises(PreconditionFailed, match="does not hold"):
            await say(client, work, "a lie", agent_id="agent-2")
    await fail(client, work)
    with pytest.raises(PreconditionFailed, match="does not hold"):
        await say(client, work, "late")
    words = list(map(word, [n async for n in _until(client, work.task_id, "READY.1")]))
    assert words == ["READY.0", "LEASED.1", "first", "READY.1"]


async def _until(client: Stub, task_id: str, last: str) -> Any:
    async for news in client.follow(task_id, after=0):
        yield news
        if word(news) == last:
            return


BAD: list[tuple[list[wire.TaskEntry], str, str]] = [
    ([wire.TaskEntry()], "entries[0].what", "missing; allowed: progress, log or dropped"),
    ([wire.TaskEntry(dropped=0)], "entries[0].dropped", "1 to 1000000"),
    ([wire.TaskEntry(dropped=1_000_001)], "entries[0].dropped", "1 to 1000000"),
    (
        [wire.TaskEntry(log="x"), wire.TaskEntry(progress=wire.TaskProgress(text=""))],
        "entries[1].",
        "allowed: ",
    ),
    *(
        (
            [wire.TaskEntry(progress=wire.TaskProgress(fraction=fraction))],
            "entries[0].progress.fraction",
            "0 to 1",
        )
        for fraction in (-0.01, 1.01, math.nan, math.inf)
    ),
    ([wire.TaskEntry(log="x")] * 257, "entries", "257 of them; allowed: at most 256"),
]


@pytest.mark.parametrize(("entries", "field", "text"), BAD, ids=[text for *_, text in BAD])
async def test_a_bad_entry_is_refused_and_nothing_is_kept(
    client: Stub, entries: list[wire.TaskEntry], field: str, text: str
) -> None:
    await submit(client)
    work = await take(client)
    request = wire.ReportProgressRequest(
        task_id=work.task_id, agent_id="agent-1", lease_id=work.lease_id, entries=entries
    )
    async with nothing_changes(client):
        with pytest.raises(InvalidFields) as refusal:
            await client._call("ReportProgress", request, wire.ReportProgressResponse)
    (bad,) = bad_fields(refusal.value)
    assert bad.startswith(field)
    assert text in str(refusal.value)
    await succeed(client, work)
    assert len(await followed(client, work.task_id)) == 3


async def test_every_bad_field_is_named(client: Stub) -> None:
    entry = wire.TaskEntry(progress=wire.TaskProgress(fraction=3))
    request = wire.ReportProgressRequest(task_id="x", agent_id="", entries=[entry])
    with pytest.raises(InvalidFields) as refusal:
        await client._call("ReportProgress", request, wire.ReportProgressResponse)
    assert bad_fields(refusal.value) == {"task_id", "agent_id", "entries[0].progress.fraction"}


@pytest.mark.parametrize("text", ["x" * 5_000, "é" * 2_500, "€" * 1_400])
async def test_a_long_text_is_cut_at_a_whole_character(client: Stub, text: str) -> None:
    await submit(client)
    work = await take(client)
    await say(client, work, text, Progress(0.5, text))
    await succeed(client, work)
    heard = [news.entry for news in await followed(client, work.task_id) if news.entry]
    for entry in heard:
        assert not isinstance(entry, Dropped)
        assert text.startswith(entry.text)
        assert 4_093 < len(entry.text.encode()) <= 4_096
