"""A task that was submitted: what its submitter can ask of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from taskdist.client.errors import TaskCancelled, TaskFailed, WaitTimeout
from taskdist.client.options import Duration, seconds_of
from taskdist.core.task import TaskState
from taskdist.kinds import Kind
from taskdist.reports import News, TaskReport

Out = TypeVar("Out")


class AsksOfTasks(Protocol):
    """What a handle needs of its client."""

    async def get(self, task_id: str) -> TaskReport:
        """See `AsyncClient.get`."""

    async def cancel(self, task_id: str) -> None:
        """See `AsyncClient.cancel`."""

    def watch(
        self, task_id: str, *, entries: bool = True, after: int | None = None
    ) -> AsyncGenerator[News]:
        """See `AsyncClient.watch`."""


class Handle(Generic[Out]):
    """A task that is safe with the distributor.

    Args:
        task_id: its id.
        kind: what it is; says what its result is.
        client: asks the distributor.
    """

    def __init__(self, task_id: str, kind: Kind[Any, Out], client: AsksOfTasks) -> None:
        self.task_id = task_id
        self.kind = kind
        self._client = client

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind.name} {self.task_id}>"

    async def result(self, timeout: Duration | None = None) -> Out:
        """What its handler returned, once it has. Outlives restarts of the distributor.

        Args:
            timeout: how long to wait; None: for ever.

        Raises:
            TaskFailed: it is dead; with the last failure as its agent reported it.
            TaskCancelled: it was cancelled.
            WaitTimeout: it is not finished yet; it goes on.
            NotFound: it was forgotten after its retention.
            WrongResult: what is kept does not fit the kind.
        """
        task = await self.final(timeout)
        if task.state is TaskState.DEAD:
            raise TaskFailed(self.task_id, task.error)
        if task.state is TaskState.CANCELLED:
            raise TaskCancelled(self.task_id)
        return self.kind.decode_result(task.result)

    async def final(self, timeout: Duration | None = None) -> TaskReport:
        """The task, once it is finished, however it ended.

        Raises:
            WaitTimeout: it is not finished in time; it goes on.
            NotFound: it was forgotten after its retention.
        """
        timeout_s = None if timeout is None else seconds_of("timeout", timeout)
        try:
            async with asyncio.timeout(timeout_s):
                watching = self._client.watch(self.task_id, entries=False)
                async with aclosing(watching) as all_news:
                    async for news in all_news:
                        if news.task is not None and news.task.state.is_final:
                            return news.task
        except TimeoutError:
            raise WaitTimeout(
                f"task {self.task_id} was not finished within {timeout_s:g} s; it goes on"
            ) from None
        raise AssertionError("a watch ended before its task")

    def watch(self, *, entries: bool = True, after: int | None = None) -> AsyncGenerator[News]:
        """The task as it is, and all that is new of it until it is final: each change of its state,
        and what its handler says. Goes on where it was after a restart, and misses nothing.

        Args:
            entries: whether progress and log lines are wanted.
            after: the number of the last news that was seen; None: from the present on; 0: from the
                beginning, as far as it is kept.

        Raises:
            NotFound: it was forgotten after its retention.
        """
        return self._client.watch(self.task_id, entries=entries, after=after)

    async def report(self) -> TaskReport:
        """The task as it is now, with its attempts.

        Raises:
            NotFound: it was forgotten after its retention.
            Unavailable: the distributor did not answer in time.
        """
        return await self._client.get(self.task_id)

    async def cancel(self) -> None:
        """Ends the task; its handler is stopped.

        Raises:
            NotFound: it was forgotten after its retention.
            PreconditionFailed: it is finished.
            Unavailable: the distributor did not answer in time.
        """
        await self._client.cancel(self.task_id)
