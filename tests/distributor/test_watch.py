"""WatchTask: the task as it is, each change of its state, and the end."""

import asyncio
from pathlib import Path

import pytest
from grpclib.const import Cardinality

from taskdist.client import Stub
from taskdist.core import commands
from taskdist.core.errors import Exhausted, TaskNotFound, Unavailable
from taskdist.core.task import Outcome, TaskState
from taskdist.distributor import watches
from taskdist.distributor.server import Distributor
from taskdist.reports import TaskReport
from taskdist.settings import DistributorSettings
from taskdist.wire import messages as wire
from tests.distributor.story import NO_TASK, fail, release, submit, succeed, take
from tests.support.channel import MemoryChannel, connect, distributor_channel

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

READY, LEASED = TaskState.READY, TaskState.LEASED


async def seen(client: Stub, task_id: str) -> list[TaskReport]:
    """All that a watcher hears until the end."""
    return [report async for report in client.watch(task_id)]


def states(reports: list[TaskReport]) -> list[TaskState]:
    return [report.state for report in reports]


class Watcher:
    """Watches in the background, on a connection of its own."""

    def __init__(self, distributor: Distributor, task_id: str) -> None:
        self.client = connect(distributor)
        self.heard: list[TaskReport] = []
        self._watching = asyncio.ensure_future(self._watch(task_id))

    async def _watch(self, task_id: str) -> None:
        async with self.client:
            async for report in self.client.watch(task_id):
                self.heard.append(report)

    async def to_the_end(self) -> list[TaskReport]:
        """All that it heard; raises what ended its watch."""
        await self._watching
        return self.heard

    async def leave(self) -> None:
        """Goes away in the middle."""
        self._watching.cancel()
        await asyncio.wait([self._watching])


async def test_each_change_is_told_until_the_end_with_its_result(
    client: Stub, distributor: Distributor
) -> None:
    task_id = await submit(client)
    watcher = Watcher(distributor, task_id)
    await asyncio.sleep(1)
    await fail(client, await take(client), error="first")
    await asyncio.sleep(1)
    await release(client, await take(client, "agent-2"), "agent-2")
    await asyncio.sleep(1)
    await take(client)  # and is silent
    await asyncio.sleep(31)
    await succeed(client, await take(client), result=b"42")

    heard = await watcher.to_the_end()
    assert states(heard) == [READY, LEASED] * 4 + [TaskState.SUCCEEDED]
    assert [report.attempt for report in heard] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [report.retry_count for report in heard] == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert [report.lost_count for report in heard] == [0] * 6 + [1] * 3
    assert [report.agent_id for report in heard if report.state is LEASED] == [
        "agent-1",
        "agent-2",
        "agent-1",
        "agent-1",
    ]
    assert [report.error for report in heard] == ["", ""] + ["first"] * 7
    assert [report.result for report in heard] == [b""] * 8 + [b"42"]
    assert [report.queue_position for report in heard] == [1, 0] * 4 + [0]
    assert heard[-1].finished_at is not None


async def test_changes_are_told_as_they_come(client: Stub, distributor: Distributor) -> None:
    task_id = await submit(client)
    watcher = Watcher(distributor, task_id)
    await asyncio.sleep(1)
    assert states(watcher.heard) == [READY]
    work = await take(client)
    await client.ping()
    assert states(watcher.heard) == [READY, LEASED]
    await client.heartbeat(agent_id="agent-1", lease_ids=[work.lease_id])
    await asyncio.sleep(20)
    assert states(watcher.heard) == [READY, LEASED], "a heartbeat is no change of state"
    await client.cancel(task_id)
    assert states(await watcher.to_the_end()) == [READY, LEASED, TaskState.CANCELLED]


async def test_a_dead_task_ends_with_its_last_error(client: Stub) -> None:
    task_id = await submit(client, max_retries=1)
    await fail(client, await take(client), error="first")
    await fail(client, await take(client), error="last")
    (end,) = await seen(client, task_id)
    assert (end.state, end.error, end.result) == (TaskState.DEAD, "last", b"")


async def test_a_watcher_that_comes_late_hears_of_the_present(
    client: Stub, distributor: Distributor
) -> None:
    task_id = await submit(client)
    await fail(client, await take(client), error="first")
    work = await take(client)
    late = Watcher(distributor, task_id)
    await asyncio.sleep(1)
    await succeed(client, work, result=b"42")
    heard = await late.to_the_end()
    assert states(heard) == [LEASED, TaskState.SUCCEEDED]
    assert [report.error for report in heard] == ["first", "first"]
    assert await seen(client, task_id) == heard[-1:], "and after the end just the end"


async def test_several_watchers_hear_the_same(client: Stub, distributor: Distributor) -> None:
    task_id, other = await submit(client, seconds=1), await submit(client, seconds=2)
    watchers = [Watcher(distributor, task_id) for _ in range(5)]
    bystander = Watcher(distributor, other)
    await asyncio.sleep(1)
    await watchers.pop().leave()
    await succeed(client, await take(client))
    heard = [await watcher.to_the_end() for watcher in watchers]
    assert states(heard[0]) == [READY, LEASED, TaskState.SUCCEEDED]
    assert all(one == heard[0] for one in heard)
    assert states(bystander.heard) == [READY]
    await bystander.leave()


async def test_watches_that_begin_in_the_middle_of_things_miss_and_repeat_nothing(
    client: Stub, distributor: Distributor
) -> None:
    """Whenever a watch begins, what it tells is a path of the life cycle without a gap."""
    task_id = await submit(client)
    watchers = []
    for _ in range(3):
        watchers.append(Watcher(distributor, task_id))
        work = await take(client)
        watchers.append(Watcher(distributor, task_id))
        await fail(client, work)
    await succeed(client, await take(client))
    paths = [states(await watcher.to_the_end()) for watcher in watchers]
    whole = [READY, LEASED] * 4 + [TaskState.SUCCEEDED]
    for path in paths:
        assert path == whole[-len(path) :]
    lengths = [len(path) for path in paths]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("task_id", [NO_TASK, NO_TASK.upper()])
async def test_an_unknown_task_is_not_found(client: Stub, task_id: str) -> None:
    await submit(client)
    with pytest.raises(TaskNotFound, match=NO_TASK):
        await seen(client, task_id)


async def test_at_shutdown_a_watch_ends_as_unavailable(
    client: Stub, distributor: Distributor
) -> None:
    watcher = Watcher(distributor, await submit(client))
    await asyncio.sleep(1)
    await distributor.stop(10)
    with pytest.raises(Unavailable, match="stopping"):
        await watcher.to_the_end()
    assert states(watcher.heard) == [READY]


async def test_p7_no_more_watches_than_the_limit_and_those_that_leave_make_room() -> None:
    settings = DistributorSettings(store="memory:", watches_max=2)
    async with distributor_channel(settings) as (client, distributor):
        task_id = await submit(client)
        for _ in range(3):
            watchers = [Watcher(distributor, task_id) for _ in range(2)]
            await asyncio.sleep(1)
            with pytest.raises(Exhausted, match="2 watches are open"):
                await seen(client, task_id)
            await watchers[0].leave()
            watchers[1].client.close()
            await asyncio.sleep(1)
            with pytest.raises(Unavailable):
                await watchers[1].to_the_end()
        await client.cancel(task_id)
        assert len(await seen(client, task_id)) == 1


async def test_p7_a_watcher_that_does_not_read_misses_states_but_never_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long errors fill its window; what it has not read is bounded; its last word is the end."""
    monkeypatch.setattr(watches, "WATCH_CHANGES_KEPT_MAX", 16)
    error = "x" * 16_384
    settings = DistributorSettings(store="memory:", hasty_releases_max=1_000)
    async with distributor_channel(settings) as (client, distributor):
        task_id = await submit(client)
        await fail(client, await take(client), error=error)
        async with (
            MemoryChannel(distributor.server) as channel,
            channel.request(
                "/taskdist.v1.TaskDistributor/WatchTask",
                Cardinality.UNARY_STREAM,
                wire.WatchTaskRequest,
                wire.WatchTaskResponse,
            ) as stream,
        ):
            await stream.send_message(wire.WatchTaskRequest(task_id=task_id), end=True)
            for _ in range(60):
                await release(client, await take(client))
            await succeed(client, await take(client), result=b"42")
            heard = [message async for message in stream]
    assert len(heard) < 90, "of 122 states: what its window holds, and then the newest 16"
    assert {message.error for message in heard[:-1]} == {error}
    assert heard[-1].task.state == wire.TaskState.SUCCEEDED
    assert heard[-1].result == b"42"


async def test_a_watch_of_a_file_tells_the_same(tmp_path: Path) -> None:
    """Its reads have a connection of their own, and may see less or more than the writer."""
    settings = DistributorSettings(store=f"sqlite:{tmp_path}/tasks.db")
    async with distributor_channel(settings) as (client, distributor):
        task_id = await submit(client)
        watchers = [Watcher(distributor, task_id)]
        await fail(client, await take(client), error="first")
        watchers.append(Watcher(distributor, task_id))
        await succeed(client, await take(client), result=b"42")
        whole = [READY, LEASED, READY, LEASED, TaskState.SUCCEEDED]
        for watcher in watchers:
            heard = await watcher.to_the_end()
            assert states(heard) == whole[-len(heard) :]
            assert (heard[-1].result, heard[-1].error) == (b"42", "first")


@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize("what", ["redriven", "purged"])
async def test_the_end_is_told_though_the_task_is_put_back_or_removed_at_once(
    tmp_path: Path, store: str, what: str
) -> None:
    """What followed the end is not this watch's to tell, nor in its way."""
    where = "memory:" if store == "memory" else f"sqlite:{tmp_path}/tasks.db"
    async with distributor_channel(DistributorSettings(store=where)) as (client, distributor):
        task_id = await submit(client)
        work = await take(client)
        watcher = Watcher(distributor, task_id)
        await asyncio.sleep(1)
        failed = commands.Settle(
            task_id, "agent-1", work.lease_id, Outcome.FAILED, error="last", retryable=False
        )
        after = commands.Redrive if what == "redriven" else commands.Purge
        await distributor._backend.apply(commands.Several((failed, after(task_id))))
        heard = await watcher.to_the_end()
        assert states(heard) == [LEASED, TaskState.DEAD]
        assert heard[-1].error == "last"
