"""P7: whatever anybody does, what waits is bounded, and a refused request changes nothing."""

import asyncio
from pathlib import Path

import pytest

from taskdist.backends import live
from taskdist.core.commands import Done, Grants, StopTakes
from taskdist.core.errors import Exhausted
from taskdist.limits import MESSAGE_BYTES_MAX
from tests.support.backends import Rig, submit, take, turns


async def opened(tmp_path: Path, **settings: int) -> Rig:
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}", **settings)
    await rig.open()
    return rig


async def test_p7_requests_that_wait_for_the_disk_are_limited_by_weight(tmp_path: Path) -> None:
    rig = await opened(tmp_path, inbox_bytes_max=MESSAGE_BYTES_MAX)
    rig.runner.hold()
    calls = [rig.ask(submit(data=bytes(1_000_000))) for _ in range(10)]
    await turns()
    refused = [call for call in calls if call.done()]
    assert refused == calls[5:], "those that came when it was full already"
    for call in refused:
        with pytest.raises(Exhausted, match=r"requests of 50\d+ bytes wait for the disk"):
            await call
    rig.runner.let_go()
    ids = [placed.task.id for placed in await asyncio.gather(*calls[:5])]
    assert [task_id for _ in range(3) for task_id in await rig.take_all()] == ids
    await rig.submit(data=bytes(1_000_000))
    await rig.close()


async def test_p7_requests_that_wait_for_the_load_are_limited_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await opened(tmp_path, inbox_bytes_max=MESSAGE_BYTES_MAX)
    for _ in range(50):
        await rig.submit()
    monkeypatch.setattr(live, "LOAD_ROWS", 1)
    await rig.restart()
    calls = []
    for _ in range(10):
        calls.append(rig.ask(submit(data=bytes(1_000_000))))
        await turns(2)  # The writer takes it up, and cannot decide it yet.
    assert [call.done() for call in calls] == [False] * 5 + [True] * 5
    for call in calls[5:]:
        with pytest.raises(Exhausted):
            await call
    assert [placed.position for placed in await asyncio.gather(*calls[:5])][-1] == 55
    await rig.submit(data=bytes(1_000_000))
    await rig.close()


async def test_p7_a_stop_and_a_withdrawal_are_heard_also_when_too_much_waits(
    tmp_path: Path,
) -> None:
    rig = await opened(tmp_path, inbox_bytes_max=MESSAGE_BYTES_MAX)
    gone, here = rig.ask(take(wait_s=60)), rig.ask(take("agent-2", queues=("other",), wait_s=60))
    await turns()
    rig.runner.hold()
    calls = [rig.ask(submit(data=bytes(1_000_000))) for _ in range(5)]
    await turns()
    gone.cancel()
    stop = rig.ask(StopTakes())
    await turns()
    rig.runner.let_go()
    assert await stop == Done()
    assert await here == Grants()
    assert [placed.position for placed in await asyncio.gather(*calls)][-1] == 5
    await rig.close()
    await rig.open()
    first = await rig.take()
    assert first.attempt == 1, "who had gone was given nothing for good"
    await rig.close()


async def test_p7_as_many_tasks_wait_as_may(tmp_path: Path) -> None:
    rig = await opened(tmp_path, tasks_waiting_max=2)
    command = submit(task_id="00000001-0000-7000-8000-0000000000ff")
    await rig.apply(command)
    await rig.submit()
    with pytest.raises(Exhausted, match="2 tasks are waiting"):
        await rig.submit()
    assert (await rig.apply(command)).position == 1, "a repeat adds nothing"
    await rig.take()
    await rig.submit()
    await rig.close()
