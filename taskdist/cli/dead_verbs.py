"""What `taskdist dead …` does, once `dead.py` has read its arguments."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

from taskdist.cli import output, verbs
from taskdist.client import Stub
from taskdist.core.errors import Damaged, PreconditionFailed, TaskNotFound
from taskdist.core.task import TaskState
from taskdist.reports import Selection, TaskReport, gist
from taskdist.settings import SettingsError

GETS_AT_ONCE = 16
"""Tasks asked for at the same time: a list has no errors, and each may have 16 KiB."""

FLAGS = {
    "selection.user_tier": "--tier",
    "selection.kind": "--kind",
    "selection.queue": "--queue",
    "selection.age_seconds": "--age",
    "selection.task_ids": "ID",
}
"""The flags behind the fields of a selection."""


async def list_dead(client: Stub, filters: dict[str, Any], limit: int, *, json: bool) -> None:
    """Prints the newest dead tasks that pass the filters, each with the reason."""
    listed = await verbs.newest(client, filters | {"states": [TaskState.DEAD]}, limit)
    turns = asyncio.Semaphore(GETS_AT_ONCE)

    async def whole(task: TaskReport) -> TaskReport | None:
        async with turns:
            try:
                told = await client.get(task.task_id)
            except TaskNotFound:  # purged meanwhile
                return None
            except Damaged as error:
                return replace(task, error=str(error))
        return told if told.state is TaskState.DEAD else None

    tasks = [task for task in await asyncio.gather(*map(whole, listed)) if task is not None]
    if json:
        output.as_json([output.task_dict(task) | {"error": task.error or None} for task in tasks])
        return
    output.table(("ID", "TIER", "KIND", "QUEUE", "RUNS", "DIED", "WHY"), map(_row, tasks))


def _row(task: TaskReport) -> tuple[str, ...]:
    died = task.finished_at or task.submitted_at
    return (
        task.task_id,
        task.user_tier,
        task.kind,
        task.queue,
        str(task.attempt),
        f"{output.ago(died)} ago" if sys.stdout.isatty() else died.isoformat(),
        gist(task.error),
    )


async def show_dead(client: Stub, ending: str, *, json: bool) -> None:
    """Prints all that is kept of a dead task.

    Raises:
        PreconditionFailed: it is not dead.
    """
    task = await client.get(await verbs.whole_id(client, ending))
    if task.state is not TaskState.DEAD:
        raise PreconditionFailed(f"task {task.task_id} is {task.state}, not dead")
    verbs.print_task(task, json=json)
    if not json and "\n" in task.error.strip():
        print(f"\n{task.error.rstrip()}")


class Bulk:
    """Puts tasks back or removes them: those named, or all that pass the filters, if agreed to.

    Args:
        verb: the client's method.
        words: what it does, for people.
        yes: nobody needs to be asked.
    """

    def __init__(
        self, verb: Literal["redrive", "purge"], words: str, *, yes: bool, json: bool
    ) -> None:
        self._verb = verb
        self._words = words
        self._yes = yes
        self._json = json

    def run(self, server: str, selection: Selection) -> None:
        """Does it, and prints to how many.

        Raises:
            SettingsError: nobody is there to be asked, or an id is none.
            TaskNotFound, PreconditionFailed: one that was named cannot be; nothing has changed.
        """
        # One after the other: while a loop runs, the first Ctrl-C would not end the question.
        if not (selection.task_ids or self._yes):
            count = verbs.run(server, lambda client: self._do(client, selection, count_only=True))
            if not self._agreed(count):
                self._print(0)
                return
        self._print(verbs.run(server, lambda client: self._do(client, selection)))

    async def _do(self, client: Stub, selection: Selection, *, count_only: bool = False) -> int:
        named = [await verbs.whole_id(client, ending) for ending in selection.task_ids]
        do: Callable[..., Awaitable[int]] = getattr(client, self._verb)
        with verbs.flags_named(FLAGS):
            return await do(replace(selection, task_ids=tuple(named)), count_only=count_only)

    def _agreed(self, count: int) -> bool:
        tasks = _tasks(count)
        if not sys.stdin.isatty():
            raise SettingsError(f"would {self._words} {tasks}; to do it, add --yes")
        if not count:
            return False
        print(f"{self._words} {tasks}? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _print(self, count: int) -> None:
        if self._json:
            output.as_json({"count": count})
        elif sys.stdout.isatty():
            print(f"{self._words}: {_tasks(count)}")
        else:
            print(count)


def _tasks(count: int) -> str:
    return f"{count} task" if count == 1 else f"{count} tasks"
