"""Backends under test: a rig that runs one by hand, and short ways to say each command.

The rig talks to its backend through the four methods only. Its time is moved by the test, and its
writer steps on the event loop, when woken, so that nothing sleeps and nothing races.
"""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from taskdist.backends.embedded import EmbeddedBackend
from taskdist.backends.runner import Runner, Step
from taskdist.core import commands
from taskdist.core.commands import Change, Command, Grants
from taskdist.core.entries import EntryKind, Remark
from taskdist.core.queries import GetTask, ListTasks, Query, TaskHistory
from taskdist.core.task import Outcome, Task, TaskState
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings
from tests.support.clocks import ManualTime

A = TypeVar("A")

DAY_S = 86_400
TICK_US = 250_000

_numbers = count(1)


def fresh_id() -> str:
    """A task id that no other call gave."""
    number = next(_numbers)
    return f"{number:08x}-0000-7000-8000-{number:012x}"


# --- saying commands --------------------------------------------------------------------------


def submit(
    user_tier: str = "free",
    est_s: float = 1,
    *,
    task_id: str | None = None,
    kind: str = "simulate",
    queue: str = "default",
    max_retries: int = 3,
    data: bytes = b"some data",
    not_before_us: int = 0,
    delay_s: float = 0,
    deadline_in_s: float = 0,
    **said: Any,
) -> commands.Submit:
    """A submit; the id is the distributor's unless given. `said` are further fields of the task."""
    task = Task(
        id=task_id or fresh_id(),
        user_tier=user_tier,
        est_processing_time_us=round(est_s * SECOND_US),
        kind=kind,
        queue=queue,
        max_retries=max_retries,
        **said,
    )
    return commands.Submit(
        task,
        data,
        client_made_id=task_id is not None,
        not_before_us=not_before_us,
        delay_us=round(delay_s * SECOND_US),
        deadline_in_us=round(deadline_in_s * SECOND_US),
    )


def take(
    agent_id: str = "agent-1",
    *,
    queues: tuple[str, ...] = ("default",),
    kinds: tuple[str, ...] = (),
    slots: int = 1,
    wait_s: float = 0,
    session: str = "",
    in_all: bool = False,
) -> commands.Take:
    """A take by this agent, for any kind unless said."""
    wait_us = round(wait_s * SECOND_US)
    token = f"token{next(_numbers)}"
    return commands.Take(agent_id, session, queues, kinds, slots, wait_us, token, in_all)


def several(*asked: Command[Any], atomic: bool = False) -> commands.Several:
    """All of these in one commit."""
    return commands.Several(asked, atomic)


def settle(
    task: Task,
    outcome: Outcome,
    *,
    agent_id: str | None = None,
    lease_id: str | None = None,
    result: bytes = b"",
    error: str = "",
    retryable: bool = True,
    retry_after_s: float | None = None,
) -> commands.Settle:
    """An outcome of a leased task, under its own lease and agent unless others are given."""
    assert task.lease is not None
    return commands.Settle(
        task.id,
        agent_id if agent_id is not None else task.lease.agent_id,
        lease_id if lease_id is not None else task.lease.lease_id,
        outcome,
        result,
        error,
        retryable,
        None if retry_after_s is None else round(retry_after_s * SECOND_US),
    )


def succeed(task: Task, result: bytes = b"a result") -> commands.Settle:
    """Its agent says that it succeeded."""
    return settle(task, Outcome.SUCCEEDED, result=result)


def fail(
    task: Task,
    error: str = "an error",
    *,
    retryable: bool = True,
    retry_after_s: float | None = None,
) -> commands.Settle:
    """Its agent says that it failed."""
    return settle(
        task, Outcome.FAILED, error=error, retryable=retryable, retry_after_s=retry_after_s
    )


def release(task: Task) -> commands.Settle:
    """Its agent hands it back."""
    return settle(task, Outcome.RELEASED)


def note(
    task: Task, *said: str | Remark, agent_id: str | None = None, lease_id: str | None = None
) -> commands.Note:
    """Its agent says these; a text is a log line."""
    assert task.lease is not None
    return commands.Note(
        task.id,
        agent_id if agent_id is not None else task.lease.agent_id,
        lease_id if lease_id is not None else task.lease.lease_id,
        tuple(Remark(EntryKind.LOG, 0, one) if isinstance(one, str) else one for one in said),
    )


def lease_id_of(task: Task) -> str:
    """The id of its lease, which it must have."""
    assert task.lease is not None
    return task.lease.lease_id


def page(
    *,
    states: Sequence[TaskState] = (),
    user_tier: str = "",
    kind: str = "",
    queue: str = "",
    id_ending: str = "",
    page_size: int = 100,
    before: int | None = None,
) -> ListTasks:
    """A page of all tasks, unless a filter is given."""
    return ListTasks(tuple(states), user_tier, kind, queue, id_ending, page_size, before)


# --- running a backend by hand ----------------------------------------------------------------


class Hearer:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.failure: BaseException | None = None
        self.is_disk_slow = False
        self.when_changed: Callable[[], object] = lambda: None
        """Called after each `changed`."""

    def changed(self, changes: Sequence[Change]) -> None:
        """Remembers the changes."""
        self.changes += changes
        self.when_changed()

    def paced(self, is_disk_slow: bool) -> None:
        """Remembers how the disk is."""
        self.is_disk_slow = is_disk_slow

    def failed(self, error: BaseException) -> None:
        """Remembers the failure."""
        assert self.failure is None, "told of twice"
        self.failure = error


class HandRunner:
    """Steps on the event loop when woken, and never by itself. While it is held, not at all."""

    def __init__(self) -> None:
        self._step: Step | None = None
        self._held = False
        self._woken = False
        self._finished = asyncio.Event()

    def start(self, step: Step) -> None:
        """Begins at the loop's next turn."""
        self._step = step
        self.wake()

    def wake(self) -> None:
        """There is something to do now."""
        if not self._held and not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._run)

    async def finished(self) -> None:
        """Returns once the step has ended the run."""
        await self._finished.wait()

    def hold(self) -> None:
        """Requests wait from now on, as they do while a commit is under way."""
        self._held = True

    def let_go(self) -> None:
        """All that waited goes into the next batch."""
        self._held = False
        self.wake()

    def _run(self) -> None:
        self._woken = False
        if self._step is None or self._held:
            return
        seconds = self._step()
        if seconds is None:
            self._step = None
            self._finished.set()
        elif seconds == 0:
            self.wake()


async def turns(number: int = 10) -> None:
    """Lets all that is ready on the event loop run."""
    for _ in range(number):
        await asyncio.sleep(0)


class Rig:
    """One store and the backend on it, which can be closed, crashed and opened again.

    Args:
        store: as in the settings, `memory:` or `sqlite:PATH`.
        settings: those that are not to be the defaults.
    """

    def __init__(self, store: str, **settings: object) -> None:
        self.time = ManualTime()
        said = {"store": store, "reserve_bytes": 0, **settings}
        self.settings = DistributorSettings.model_validate(said)
        self.is_open = False

    @property
    def path(self) -> Path:
        """The file of the store."""
        return Path(self.settings.store.removeprefix("sqlite:"))

    async def open(self, runner: Runner | None = None) -> None:
        """Opens a new backend on the store."""
        self.runner = HandRunner()
        self.hearer = Hearer()
        clock = self.time.clock(self.settings)
        self.backend = EmbeddedBackend(self.settings, clock, runner or self.runner)
        await self.backend.open(self.hearer)
        self.is_open = True

    async def close(self) -> None:
        """Closes the backend, if it is open."""
        if self.is_open:
            self.is_open = False
            self.runner.let_go()
            await self.backend.close()

    async def restart(self, **settings: object) -> None:
        """Closes and opens again, with some settings changed."""
        await self.close()
        self.settings = self.settings.model_copy(update=settings)
        await self.open()

    async def crash(self) -> None:
        """Goes on with what a SIGKILL would have left on the disk at this moment."""
        store = f"sqlite:{copy_store(self.path)}"
        await self.close()  # What it does now happens to the files that were left behind.
        self.settings = self.settings.model_copy(update={"store": store})
        await self.open()

    async def pass_s(self, seconds: float, *, tick_us: int = TICK_US) -> None:
        """Time passes while the backend runs, a tick at a time; a second is the longest."""
        left_us = round(seconds * SECOND_US)
        while left_us > 0:
            self.time.pass_us(min(left_us, tick_us))
            left_us -= tick_us
            self.runner.wake()
            await turns(5)

    def ask(self, asked: Command[A]) -> "asyncio.Task[A]":
        """Asks, and does not wait for the answer."""
        return asyncio.ensure_future(self.backend.apply(asked))

    async def apply(self, asked: Command[A]) -> A:
        """Asks, and waits for the answer."""
        return await self.backend.apply(asked)

    async def read(self, query: Query[A]) -> A:
        """Reads."""
        return await self.backend.read(query)

    # --- what tests do all the time ---

    async def submit(self, user_tier: str = "free", est_s: float = 1, **said: Any) -> str:
        """Submits a task; its id."""
        placed = await self.apply(submit(user_tier, est_s, **said))
        return placed.task.id

    async def take(self, agent_id: str = "agent-1", **said: Any) -> Task:
        """Takes the one task that there must be."""
        (task,) = only_tasks(await self.apply(take(agent_id, **said)))
        return task

    async def take_all(self, **said: Any) -> list[str]:
        """The ids of all tasks that can be taken, in the order in which they are handed out."""
        said = {"slots": 1_000, **said}
        taken = await self.apply(take("agent-all", **said))
        return [task.id for task in only_tasks(taken)]

    async def history(self, task_id: str) -> TaskHistory:
        """All that is kept of a task."""
        return await self.read(GetTask(task_id))

    async def task(self, task_id: str) -> Task:
        """A task as it is kept."""
        return (await self.history(task_id)).task

    async def position(self, task_id: str) -> int:
        """Where a task stands."""
        return (await self.apply(commands.Locate(task_id))).position


def copy_store(path: Path) -> Path:
    """Copies the files of a store that is in use, as they are now."""
    copy = path.with_name(f"copy-{next(_numbers)}.db")
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    return copy


def only_tasks(grants: Grants) -> list[Task]:
    """The tasks of some grants, without their data."""
    return [grant.task for grant in grants.grants]
