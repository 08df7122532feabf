"""What `submit --wait` does: follows one task to its end, and shows how it ended."""

import asyncio
import sys
from contextlib import aclosing
from typing import Any

from taskdist.cli import exits, output
from taskdist.cli.bars import Following
from taskdist.client import Stub
from taskdist.core.errors import Unavailable
from taskdist.core.task import TaskState
from taskdist.core.telling import number_of
from taskdist.reports import News, Progress, Submitted, TaskReport

WATCH_AGAIN_S = 0.5
"""Pause before a broken watch is begun again."""


async def wait_for(
    client: Stub, submitted: Submitted, timeout_s: float | None, *, json: bool
) -> int:
    """Waits for a task's end, if that comes in time, and prints it. Returns the exit code."""
    task_id, states = submitted.task_id, [submitted.state]
    first = _line(task_id, submitted.state, submitted.queue_position, 0)
    try:
        with Following(first) as following:
            async with asyncio.timeout(timeout_s):
                task = await _follow_to_the_end(client, task_id, following, states)
    except TimeoutError:
        output.narrate(f"not finished within {output.seconds(timeout_s or 0)}; it goes on")
        if json:
            output.as_json({"id": task_id, "state": str(states[-1]), "error": None})
        return exits.WAIT_TIMED_OUT
    if json:
        output.as_json(ended_dict(task))
    elif task.state is TaskState.SUCCEEDED:
        # As it is: a redirected result is the file. A terminal's prompt wants a line of its own.
        wants_end = sys.stdout.isatty() and task.result and not task.result.endswith(b"\n")
        sys.stdout.buffer.write(task.result + b"\n" if wants_end else task.result)
    elif task.error:
        output.narrate(task.error.rstrip())
    ends = {TaskState.DEAD: exits.TASK_FAILED, TaskState.CANCELLED: exits.CANCELLED}
    return ends.get(task.state, exits.OK)


def ended_dict(task: TaskReport) -> dict[str, Any]:
    """How a task ended, for JSON."""
    succeeded = task.state is TaskState.SUCCEEDED
    result = output.result_dict(task.result) if succeeded else {}
    error = None if succeeded else task.error or None
    return {"id": task.task_id, "state": str(task.state), "error": error, **result}


async def _follow_to_the_end(
    client: Stub, task_id: str, following: Following, states: list[TaskState]
) -> TaskReport:
    """Follows a task, also over restarts of the distributor, and shows what is new.

    Each state it is seen in is added to `states`, for those who stop waiting; the first was told.
    """
    lost = False
    told = (states[0], 0)
    after = number_of((0, 0))
    task: TaskReport | None = None
    while True:
        try:
            async with aclosing(client.follow(task_id, after=after)) as all_news:
                async for news in all_news:
                    lost = False
                    after = max(after, news.number)
                    task = news.task or task
                    if news.task is not None:
                        told = _show_state(news.task, told, following)
                        states.append(news.task.state)
                    _show_entry(task_id, news, following)
            if task is not None and task.state.is_final:
                return task
        except Unavailable as reason:
            if not lost:
                following.tell(f"{reason}; waiting for it")
            lost = True
        await asyncio.sleep(WATCH_AGAIN_S)


def _show_state(
    task: TaskReport, told: tuple[TaskState, int], following: Following
) -> tuple[TaskState, int]:
    """In which state a task is, and in which attempt, unless that was told last."""
    if (task.state, task.attempt) != told:
        following.tell(_line(task.task_id, task.state, task.queue_position, task.retry_count))
    if task.waits_because:
        following.note(f"{task.task_id} waits: {task.waits_because}")
    return task.state, task.attempt


def _show_entry(task_id: str, news: News, following: Following) -> None:
    if news.entry is None:
        return
    line = f"{task_id} {output.entry_line(news.entry)}"
    if isinstance(news.entry, Progress):
        following.progress(line, news.entry.fraction)
    else:
        following.note(line)


def _line(task_id: str, state: TaskState, position: int, failures: int) -> str:
    place = f", position {position}" if position else ""
    failed = f", {failures} failed" if failures else ""
    return f"{task_id} {state}{place}{failed}"
