"""Progress and log lines are kept with their task, over restarts, and go with it (P1)."""

from taskdist.core import commands
from taskdist.core.commands import Noted, Purge
from taskdist.core.entries import EntryKind, Remark
from taskdist.core.errors import LeaseNotHeld
from taskdist.core.queries import Followed, FollowTask
from tests.support.backends import Rig, fail, note, several, succeed, turns


async def texts(rig: Rig, task_id: str, after: tuple[int, int] = (0, 0)) -> list[str]:
    return [entry.text for entry in (await follow(rig, task_id, after)).entries]


async def follow(
    rig: Rig, task_id: str, after: tuple[int, int] = (0, 0), limit: int = 100
) -> Followed:
    return await rig.read(FollowTask(task_id, after, limit))


async def test_p1_they_are_there_after_a_crash_and_numbers_go_on(kept: Rig) -> None:
    task_id = await kept.submit()
    task = await kept.take()
    half = Remark(EntryKind.PROGRESS, 5, "half", 0.5)
    assert await kept.apply(note(task, "one", half, "two")) == Noted(0)
    await kept.crash()
    await kept.apply(note(task, "three"))
    followed = await follow(kept, task_id)
    assert [(e.step, e.text) for e in followed.entries] == [
        (1, "one"),
        (2, "half"),
        (3, "two"),
        (4, "three"),
    ]
    assert (followed.newest, followed.is_more) == ((1, 4), False)
    progress = (await kept.history(task_id)).progress
    assert progress is not None
    assert (progress.fraction, progress.at_us) == (0.5, 5)


async def test_a_page_of_them(rig: Rig) -> None:
    task_id = await rig.submit()
    for attempt in range(2):
        task = await rig.take()
        await rig.apply(note(task, *(f"{attempt}.{n}" for n in range(3))))
        await rig.apply(fail(task))
    page = await follow(rig, task_id, limit=2)
    assert ([e.text for e in page.entries], page.is_more) == (["0.0", "0.1"], True)
    page = await follow(rig, task_id, (1, 2), limit=4)
    assert ([e.text for e in page.entries], page.is_more) == (["0.2", "1.0", "1.1", "1.2"], False)
    assert await texts(rig, task_id, (2, 3)) == []
    page = await follow(rig, task_id, limit=0)
    assert (page.entries, page.is_more, page.newest) == ((), False, (2, 3))


async def test_one_commit_keeps_what_was_said_before_the_end_and_nothing_after(rig: Rig) -> None:
    task_id = await rig.submit()
    task = await rig.take()
    before = len(rig.hearer.changes)
    answers = await rig.apply(several(note(task, "before"), succeed(task), note(task, "after")))
    assert answers[0] == Noted(0)
    assert isinstance(answers[2], LeaseNotHeld)
    assert await texts(rig, task_id) == ["before"]
    assert len(rig.hearer.changes) == before + 2


async def test_what_is_undone_is_not_kept(rig: Rig) -> None:
    task_id = await rig.submit()
    task = await rig.take()
    await rig.apply(note(task, "kept"))
    refused = note(task, "x", agent_id="agent-2")
    call = rig.ask(several(note(task, "undone"), refused, atomic=True))
    await turns()
    assert isinstance(call.exception(), LeaseNotHeld)
    await rig.apply(note(task, "next"))
    assert [(e.step, e.text) for e in (await follow(rig, task_id)).entries] == [
        (1, "kept"),
        (2, "next"),
    ]


async def test_a_redrive_keeps_them_and_a_purge_or_retention_does_not(kept: Rig) -> None:
    ids = [await kept.submit(max_retries=0) for _ in range(3)]
    for _ in ids:
        task = await kept.take()
        await kept.apply(note(task, "a line"))
        await kept.apply(fail(task))
    await kept.apply(commands.Redrive(ids[2]))
    assert await texts(kept, ids[2]) == ["a line"]
    await kept.apply(note(await kept.take(), "another"))
    assert await texts(kept, ids[2]) == ["a line", "another"]

    async def left() -> int:
        await turns()
        count: int = kept.backend._connection.execute("SELECT count(*) FROM entry").get
        return count

    await kept.restart()  # Nobody has said anything to this one yet.
    await kept.apply(Purge(ids[0]))
    assert await left() == 3
    await kept.restart(dead_kept_max=0)
    await kept.pass_s(1)
    assert await left() == 2


async def test_they_are_heard_while_waiting_tasks_are_loaded(kept: Rig) -> None:
    """P4: only what needs the order waits for it."""
    task_id = await kept.submit()
    task = await kept.take()
    kept.runner.hold()
    call = kept.ask(note(task, "early"))
    kept.runner.let_go()
    assert await call == Noted(0)
    assert await texts(kept, task_id) == ["early"]
