"""Some minutes in the life of a backend, by chance, and what it had said at which moment.

All that may become of a task happens, several things in one commit, with checkpoints, restarts of
the log, a restart of the backend and a file that is new at the start.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from taskdist.backends.requests import Batch, Request
from taskdist.backends.rows import TASK_COLUMNS, attempt_row, lease_row, task_row
from taskdist.backends.writer import Writer
from taskdist.core import commands
from taskdist.core.commands import Change, Command
from taskdist.core.entries import Entry
from taskdist.core.errors import Refused
from taskdist.core.task import Backoff, Task
from taskdist.limits import KIB, SECOND_US
from tests.support.backends import (
    Rig,
    fail,
    note,
    only_tasks,
    release,
    submit,
    succeed,
    take,
    turns,
)
from tests.support.recording_disk import Told, recorded

QUEUES = ("default", "other")

SETTINGS: dict[str, Any] = {
    "checkpoint_bytes": 64 * KIB,
    "lease_us": 3 * SECOND_US,
    "max_lost": 2,
    "finished_kept_max": 4,
    "dead_kept_max": 3,
    "entries_kept_max": 4,
    "entries_at_once_max": 6,
    "entries_per_second_max": 1,
}
"""A checkpoint every few commits, and lives that are short."""

POSITION_MAX = 4
"""Where a new task may stand in its queue; after that some are taken first, so that a store stays
small and is opened fast."""


class Row(NamedTuple):
    """All that is kept of a task, as the journal's columns."""

    task: tuple[Any, ...]
    data: bytes | None
    lease: tuple[Any, ...] | None
    attempts: tuple[tuple[Any, ...], ...]
    result: bytes | None
    entries: tuple[Entry, ...] = ()


Rows = dict[int, Row]
"""All tasks, by their sequence."""


class Story:
    """What the disk was told, and what others were."""

    def __init__(self) -> None:
        self.record: Sequence[Told] = ()
        self.after: list[Rows] = [{}]
        """All tasks after each commit that changed one; before the first there was none."""
        self.moments: list[int] = []
        """For each of these commits, how much the disk had been told when it could be spoken of."""
        self.seen: Counter[str] = Counter()
        """Steps of the life cycle that came about."""

    def durable(self, batch: Batch) -> None:
        """A batch may be spoken of from now on."""
        rows = dict(self.after[-1])
        for change in batch.changes:
            self.seen[_step(change)] += 1
            _follow(rows, change)
        if rows != self.after[-1]:  # A heartbeat's does not change what is kept.
            self.after.append(rows)
            self.moments.append(len(self.record))


def _step(change: Change) -> str:
    before = change.before.state if change.before else "new"
    after = change.after.state if change.after else "gone"
    if change.entries:
        return f"{before} {after}, entries" + (" gone" if change.entries_gone else "")
    return f"{before} {change.attempt.outcome} {after}" if change.attempt else f"{before} {after}"


def _follow(rows: Rows, change: Change) -> None:
    before, after = change.before, change.after
    if after is None:
        assert before is not None
        del rows[before.sequence]
        return
    number = after.sequence
    old = rows.get(number, Row((), change.data, None, (), None))
    attempts = (attempt_row(number, change.attempt),) if change.attempt else ()
    rows[number] = Row(
        task_row(after, TASK_COLUMNS),
        old.data,
        lease_row(number, after.lease) if after.lease else None,
        (*old.attempts, *attempts),
        old.result if change.result is None else change.result,
        _entries(old.entries, change),
    )


def _entries(old: tuple[Entry, ...], change: Change) -> tuple[Entry, ...]:
    """What its agents said of it, after a change."""
    kept = {(entry.attempt, entry.step): entry for entry in old}
    for place in change.entries_gone:
        del kept[place]
    kept |= {(entry.attempt, entry.step): entry for entry in change.entries}
    return tuple(kept[place] for place in sorted(kept))


async def live(path: Path, seed: int, steps: int, patch: pytest.MonkeyPatch) -> Story:
    """Runs a backend on a new file at this path, and tells what happened."""
    story = Story()
    step = Writer.step

    def noted_step(writer: Writer, requests: Sequence[Request]) -> Batch:
        batch = step(writer, requests)
        # The backend speaks of it at once, or a little later: this is the first moment at which
        # it may.
        story.durable(batch)
        return batch

    patch.setattr(Writer, "step", noted_step)
    with recorded(path) as record:
        story.record = record
        rig = Rig(f"sqlite:{path}", **SETTINGS)
        await rig.open()
        life = _Life(rig, random.Random(seed))
        for number in range(steps):
            if number == steps // 2:
                await rig.restart()
            await life.go_on()
        await rig.close()
    return story


class _Life:
    """Clients and agents of one backend."""

    def __init__(self, rig: Rig, chance: random.Random) -> None:
        self.rig = rig
        self.chance = chance
        self.ids: list[str] = []
        self.held: list[Task] = []
        self.position = 0
        """Where the newest task stood when it came."""

    async def go_on(self) -> None:
        """Something happens, by chance: mostly some of several things in one commit."""
        ways: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (6, self.submit),
            (6, self.take),
            (6, self.settle),
            (1, self.beat),
            (3, self.remark),
            (2, self.operate),
            (2, self.wait),
        ]
        way = self.chance.choices([way for _, way in ways], [weight for weight, _ in ways])[0]
        self.rig.time.pass_us(self.chance.randrange(20_000))
        await way()

    async def submit(self) -> None:
        """One to four tasks, at once."""
        if self.position > POSITION_MAX:
            await self.take()
        await self.ask_all(self.new_task() for _ in range(self.chance.randint(1, 4)))

    def new_task(self) -> commands.Submit:
        """One of many kinds."""
        chance = self.chance
        return submit(
            chance.choice(["free", "paid"]),
            chance.choice([1, 1, 2, 3]),
            queue=chance.choice(QUEUES),
            max_retries=chance.choice([0, 1, 3]),
            data=chance.randbytes(chance.choice([0, 10, 500, 9_000])),
            delay_s=chance.choice([0, 0, 0, 0, 1.5]),
            deadline_in_s=chance.choice([0, 0, 0, 0, 2]),
            backoff=chance.choice([Backoff.NONE, Backoff.NONE, Backoff.FIXED]),
            backoff_us=SECOND_US,
        )

    async def take(self) -> None:
        """An agent takes one to three tasks."""
        agent_id = self.chance.choice(["agent-1", "agent-2"])
        await self.ask_all([take(agent_id, queues=QUEUES, slots=self.chance.randint(1, 3))])

    async def settle(self) -> None:
        """Some tasks end, one way or another; some of them were lost, which is refused."""
        ended = self.chance.sample(self.held, min(len(self.held), self.chance.randint(1, 3)))
        self.held = [task for task in self.held if task not in ended]
        await self.ask_all(
            self.chance.choice(
                [
                    succeed(task, self.chance.randbytes(self.chance.choice([0, 20, 5_000]))),
                    succeed(task),
                    fail(task, "an error " * 20),
                    fail(task, retryable=False),
                    release(task),
                    commands.Cancel(task.id),
                    commands.TakeBack((task.lease.lease_id,) if task.lease else ()),
                ]
            )
            for task in ended
        )

    async def beat(self) -> None:
        """An agent says that it is there."""
        await self.ask_all([commands.Heartbeat("agent-1", ())])

    async def remark(self) -> None:
        """Agents say how far they are, some of it too often or too late."""
        chosen = self.chance.sample(self.held, min(len(self.held), 2))
        await self.ask_all(
            note(task, *(f"line {n} " * 30 for n in range(self.chance.randint(1, 4))))
            for task in chosen
        )

    async def operate(self) -> None:
        """People cancel, put back and remove, where they may."""
        asked = self.chance.choice([commands.Cancel, commands.Redrive, commands.Purge])
        chosen = self.chance.sample(self.ids, min(len(self.ids), 2))
        await self.ask_all(asked(task_id) for task_id in chosen)

    async def wait(self) -> None:
        """Time in which leases are lost, delays end, and an idle log is cut to nothing."""
        await self.rig.pass_s(self.chance.choice([0.3, 1.5, 1.5, 4]))

    async def ask_all(self, asked: Iterable[Command[Any]]) -> None:
        """All of these in one commit."""
        self.rig.runner.hold()
        calls = [self.rig.ask(command) for command in asked]
        await turns(2)
        self.rig.runner.let_go()
        for call in calls:
            with suppress(Refused):
                self.heard(await call)
        await asyncio.sleep(0)

    def heard(self, answer: object) -> None:
        """Remembers what there is now to do something with."""
        if isinstance(answer, commands.Placed):
            self.ids = [*self.ids[-20:], answer.task.id]
            self.position = answer.position
        elif isinstance(answer, commands.Grants):
            self.held += only_tasks(answer)
