"""P6: a bad row among those that something falls due for blocks nobody, and nobody spins on it."""

import pytest
from structlog.testing import capture_logs

from taskdist.backends import timetable
from taskdist.core.task import TaskState
from taskdist.limits import SECOND_US
from tests.backends.test_bad_rows import spoil
from tests.support.backends import Rig, fail, succeed, turns


async def idle_steps(rig: Rig) -> int:
    """How many steps the writer makes by itself, while nothing happens and no time passes."""
    steps = 0
    step = rig.backend._writer.step

    def counted(*arguments: object) -> object:
        nonlocal steps
        steps += 1
        return step(*arguments)  # type: ignore[arg-type] # passes on whatever it gets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rig.backend._writer, "step", counted)
        rig.runner.wake()
        await turns(50)
    return steps


async def assert_well(rig: Rig) -> None:
    """It lives, and does not spin."""
    assert rig.hearer.failure is None
    assert await idle_steps(rig) <= 1
    placed = await rig.submit(queue="other")
    assert await rig.take_all(queues=("other",)) == [placed]


BAD_WAITING = [
    "UPDATE task SET kind = 'no kind!' WHERE sequence <= {}",
    "UPDATE task SET state = 'confused' WHERE sequence <= {}",
    "UPDATE task SET state = 'ready' WHERE sequence <= {}",
    "UPDATE task SET state = 'succeeded' WHERE sequence <= {}",
    "UPDATE task SET id = zeroblob(sequence) WHERE sequence <= {}",
]


@pytest.mark.parametrize("many", [1, 5])
@pytest.mark.parametrize("statement", BAD_WAITING)
async def test_p6_bad_rows_among_scheduled_tasks(
    kept: Rig, monkeypatch: pytest.MonkeyPatch, statement: str, many: int
) -> None:
    """As many as are looked at in one batch, and more; the good one comes after them all."""
    monkeypatch.setattr(timetable, "TASKS_MAX", 2)
    for _ in range(many):
        await kept.submit(delay_s=5)
    good = await kept.submit(delay_s=6)
    with capture_logs() as logs:
        await spoil(kept, statement.format(many))
        await kept.pass_s(7)
    assert (await kept.task(good)).state is TaskState.READY
    aside = [entry for entry in logs if entry["event"] == "row set aside"]
    assert len(aside) == many, "each is said once"
    await assert_well(kept)


@pytest.mark.parametrize("many", [1, 5])
@pytest.mark.parametrize("statement", BAD_WAITING)
async def test_p6_bad_rows_among_those_in_backoff(
    kept: Rig, monkeypatch: pytest.MonkeyPatch, statement: str, many: int
) -> None:
    monkeypatch.setattr(timetable, "TASKS_MAX", 2)
    for _ in range(many + 1):
        await kept.submit()
        await kept.apply(fail(await kept.take(), retry_after_s=5))
    good = await kept.task(await kept.submit())  # a later one, ready
    await spoil(kept, statement.format(many))
    await kept.pass_s(6)
    assert [task_id for task_id in await kept.take_all() if task_id != good.id], "the last one"
    await assert_well(kept)


@pytest.mark.parametrize("many", [1, 5])
async def test_p6_bad_rows_among_those_with_a_deadline(
    kept: Rig, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(timetable, "TASKS_MAX", 2)
    for _ in range(many):
        await kept.submit(deadline_in_s=5)
    good = await kept.submit(deadline_in_s=6)
    await spoil(kept, f"UPDATE task SET max_retries = 1000000 WHERE sequence <= {many}")
    await kept.pass_s(7)
    assert (await kept.task(good)).state is TaskState.DEAD
    await assert_well(kept)


@pytest.mark.parametrize("many", [1, 5])
@pytest.mark.parametrize(
    "kept_settings",
    [{"finished_kept_max": 0}, {"finished_kept_max": 1}, {"retention_us": SECOND_US}],
    ids=["none", "one", "a second"],
)
async def test_p6_bad_rows_among_finished_tasks_are_not_in_excess(
    kept: Rig, monkeypatch: pytest.MonkeyPatch, many: int, kept_settings: dict[str, int]
) -> None:
    """They are never forgotten, and no good one is forgotten in their place."""
    monkeypatch.setattr(timetable, "TASKS_MAX", 2)
    for _ in range(many):
        await kept.submit()
        await kept.apply(succeed(await kept.take()))
    await spoil(kept, f"UPDATE task SET max_retries = 1000000 WHERE sequence <= {many}")
    await kept.restart(**kept_settings)
    good = await kept.submit()
    await kept.apply(succeed(await kept.take()))
    if kept_settings == {"finished_kept_max": 1}:
        await turns(20)
        assert (await kept.task(good)).state is TaskState.SUCCEEDED
        await kept.submit()
        await kept.apply(succeed(await kept.take()))
    await kept.pass_s(3)
    connection = kept.backend._connection
    rows = connection.execute("SELECT count(*) FROM task").get
    assert rows == many + (kept_settings == {"finished_kept_max": 1})
    await assert_well(kept)
