"""The Python client for people: submits tasks, and waits for what becomes of them.

Every call is repeated until the distributor answers or the client's timeout passes: each task has
an id before it is sent, so that a repeat adds nothing twice.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar, Unpack, cast, overload

from taskdist.client.batching import fitting
from taskdist.client.errors import SubmittedInPart, WaitTimeout
from taskdist.client.handle import Handle
from taskdist.client.inputs import Schemas, Untyped, check
from taskdist.client.options import Duration, Options, seconds_of, submission
from taskdist.client.patience import Pauses, patiently
from taskdist.client.places import moved, placed
from taskdist.client.stub import Stub
from taskdist.core.errors import (
    BadField,
    Exhausted,
    InvalidFields,
    PreconditionFailed,
    Refused,
    Unavailable,
)
from taskdist.core.task import TaskState
from taskdist.kinds import Kind
from taskdist.limits import CALLS_PER_CHANNEL_MAX, SUBMIT_BATCH_BYTES_MAX, SUBMIT_TASKS_MAX
from taskdist.reports import News, Submission, Submitted, TaskReport

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

SERVER_DEFAULT = "127.0.0.1:50051"
SERVER_VARIABLE = "TASKDIST_SERVER"
TIMEOUT_DEFAULT_S = 30.0
"""A restart of the distributor with a million tasks takes a second or two."""

FIELDS_BYTES_MAX = 1_024
"""All that a submit says beside its data."""


class AsyncClient:
    """Talks to one distributor.

    Args:
        server: host:port. Unset: TASKDIST_SERVER, or this machine.
        timeout: how long each call tries to get an answer; waiting for a result is another matter.
        connect: makes a connection, instead of one to `server`.

    Raises:
        ValueError: the server is not HOST:PORT.
        InvalidFields: the timeout is no duration.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        timeout: Duration = TIMEOUT_DEFAULT_S,
        connect: Callable[[], Stub] | None = None,
    ) -> None:
        self.server = server or os.environ.get(SERVER_VARIABLE) or SERVER_DEFAULT
        self._connect = connect or (lambda: Stub(self.server))
        self._timeout_s = seconds_of("timeout", timeout)
        self._calls = self._connect()
        self._watching: dict[Stub, int] = {}
        self._schemas = Schemas()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections: whoever waits gets a RuntimeError. Tasks go on."""
        self._closed = True
        self._calls.close()
        for calls in self._watching:
            calls.close()

    @overload
    async def submit(
        self, kind: Kind[In, Out], value: In, /, **options: Unpack[Options]
    ) -> Handle[Out]: ...

    @overload
    async def submit(
        self, kind: str, value: object = b"", /, **options: Unpack[Options]
    ) -> Handle[bytes]: ...

    async def submit(
        self, kind: Kind[Any, Any] | str, value: object = b"", /, **options: Unpack[Options]
    ) -> Handle[Any]:
        """Adds a task. When this returns, it is on the distributor's disk.

        Args:
            kind: a handler, or the name of a kind.
            value: what the handler takes. For a name: bytes as they are, anything else as JSON; it
                is checked against the schema that agents have announced, if there is one.
            options: see `Options`.

        Raises:
            InvalidInput: the input does not fit; each bad field is named.
            InvalidFields: an option is bad; each is named.
            AlreadyExists: the id or the key belongs to a different task.
            QueueFull: too much waits; worth trying again after a while.
            Unavailable: the distributor did not answer in time; the outcome is unknown.
        """
        kind = _kind(kind)
        said = await self.checked(kind, value, **options)
        submitted = await self._patiently(lambda: self._calls.add(said))
        return Handle(submitted.task_id, kind, self)

    @overload
    async def submit_many(
        self, kind: Kind[In, Out], values: Iterable[In], /, **options: Unpack[Options]
    ) -> list[Handle[Out]]: ...

    @overload
    async def submit_many(
        self, kind: str, values: Iterable[object], /, **options: Unpack[Options]
    ) -> list[Handle[bytes]]: ...

    async def submit_many(
        self, kind: Kind[Any, Any] | str, values: Iterable[Any], /, **options: Unpack[Options]
    ) -> list[Handle[Any]]:
        """Adds many tasks with the same options, up to 1,000 in one commit.

        Each commit is all or nothing. Nothing is sent before every value was checked.

        Raises:
            SubmittedInPart: a later commit was refused; which tasks are submitted is in it.
            Refused: as `submit` does; no task is submitted. A field is named `tasks[3].data.text`.
        """
        kind = _kind(kind)
        said = []
        for place, value in enumerate(values):
            try:
                said.append(await self.checked(kind, value, **options))
            except InvalidFields as error:
                raise placed(error, place) from None
        handles: list[Handle[Any]] = []
        try:
            async for done in self.submit_in_commits(said):
                handles += [Handle(one.task_id, kind, self) for one in done]
        except Refused as refusal:
            if handles:
                raise SubmittedInPart(handles, refusal) from refusal
            raise
        return handles

    async def checked(
        self, kind: Kind[In, Any] | str, value: In, /, **options: Unpack[Options]
    ) -> Submission:
        """What `submit` would send. Sends nothing.

        Raises:
            InvalidInput, InvalidFields: as `submit` does.
        """
        kind = _kind(kind)
        said = submission(kind.name, options)
        return replace(said, data=await self._encoded(kind, value, options))

    async def submit_in_commits(
        self, submissions: Sequence[Submission]
    ) -> AsyncGenerator[list[Submitted]]:
        """Adds tasks, up to 1,000 in one commit, which is all or nothing.

        Yields what is submitted, in order, after each commit. Positions are not asked for.

        Args:
            submissions: each with an id, as `checked` gives them.

        Raises:
            Refused: this commit was; none of its tasks or of the rest is submitted, and which one
                is to blame is said as `tasks[1003]`.
            Unavailable: no answer in time; the outcome of this commit is unknown.
        """
        count = 0
        for commit in _commits(submissions):
            try:
                done = await self._patiently(partial(self._calls.submit_many, commit))
            except Refused as refusal:
                raise moved(refusal, count) from None
            count += len(commit)
            # All or nothing: what is not raised is no refusal.
            yield [cast(Submitted, one) for one in done]

    @overload
    def handle(self, task_id: str, kind: Kind[Any, Out]) -> Handle[Out]: ...

    @overload
    def handle(self, task_id: str, kind: str = "") -> Handle[bytes]: ...

    def handle(self, task_id: str, kind: Kind[Any, Any] | str = "") -> Handle[Any]:
        """A task that was submitted earlier, or elsewhere. Asks nobody whether there is one."""
        return Handle(task_id, _kind(kind), self)

    async def as_completed(
        self, handles: Iterable[Handle[Out]], timeout: Duration | None = None
    ) -> AsyncGenerator[Handle[Out]]:
        """These tasks, each once, as soon as it is finished, however it ended.

        Raises:
            WaitTimeout: some are not finished in time; they go on.
            NotFound: one was forgotten after its retention.
        """
        timeout_s = None if timeout is None else seconds_of("timeout", timeout)
        waiting = {asyncio.ensure_future(_finished(handle)) for handle in dict.fromkeys(handles)}
        loop = asyncio.get_running_loop()
        until = None if timeout_s is None else loop.time() + timeout_s
        try:
            while waiting:
                left_s = None if until is None else max(0.0, until - loop.time())
                done, waiting = await asyncio.wait(
                    waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    late = f"{len(waiting)} tasks were not finished within {timeout_s:g} s"
                    raise WaitTimeout(f"{late}; they go on")
                for one in done:
                    yield one.result()
        finally:
            for one in waiting:
                one.cancel()

    async def get(self, task_id: str) -> TaskReport:
        """A task with its result, its last error and its attempts.

        Raises:
            NotFound: there is no such task.
            Unavailable: the distributor did not answer in time.
        """
        return await self._patiently(lambda: self._calls.get(task_id))

    async def cancel(self, task_id: str) -> None:
        """Ends a live task; its handler is stopped.

        Raises:
            NotFound: there is no such task.
            PreconditionFailed: it is finished.
            Unavailable: the distributor did not answer in time; the outcome is unknown.
        """
        tries = 0

        async def cancel() -> None:
            nonlocal tries
            tries += 1
            try:
                await self._calls.cancel(task_id)
            except PreconditionFailed:
                # An earlier try may have done it, though its answer was lost.
                if tries == 1 or (await self._calls.get(task_id)).state is not TaskState.CANCELLED:
                    raise

        await self._patiently(cancel)

    async def watch(
        self, task_id: str, *, entries: bool = True, after: int | None = None
    ) -> AsyncGenerator[News]:
        """The task as it is, and all that is new of it until it is final: each change of its state,
        and what its handler says. Goes on where it was after a restart, and misses nothing.

        Args:
            entries: whether progress and log lines are wanted.
            after: the number of the last news that was seen; None: from the present on; 0: from the
                beginning, as far as it is kept.

        Raises:
            NotFound: there is no such task.
        """
        pauses = Pauses()
        while True:
            try:
                with self._place_to_watch() as calls:
                    following = calls.follow(task_id, entries=entries, after=after)
                    async with aclosing(following) as all_news:
                        async for news in all_news:
                            pauses.begin_anew()
                            after = news.number
                            yield news
                            if news.task is not None and news.task.state.is_final:
                                return
            except (Unavailable, Exhausted):
                # It is away, or has as many watches as it may have: some will end.
                pass
            await pauses.rest()

    @contextmanager
    def _place_to_watch(self) -> Iterator[Stub]:
        """A connection with room for one more watch, made if there is none."""
        self._check_open()
        free = (calls for calls, count in self._watching.items() if count < CALLS_PER_CHANNEL_MAX)
        calls = next(free, None) or self._connect()
        self._watching[calls] = self._watching.get(calls, 0) + 1
        try:
            yield calls
        finally:
            self._watching[calls] -= 1

    async def _encoded(self, kind: Kind[Any, Any], value: object, options: Options) -> bytes:
        data = kind.encode_input(value)
        if isinstance(kind, Untyped):
            queue = options.get("queue", "")
            schemas = await self._patiently(lambda: self._schemas.of(self._calls, queue, kind.name))
            check(data, schemas)
        return data

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        async def once() -> T:
            self._check_open()
            return await call()

        return await patiently(once, self.server, self._timeout_s)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")


def _kind(kind: Kind[Any, Any] | str) -> Kind[Any, Any]:
    if isinstance(kind, str):
        return Untyped(kind)
    if not isinstance(kind, Kind):
        raise InvalidFields([BadField("kind", f"is {kind!r}; allowed: a handler, or its name")])
    return kind


async def _finished(handle: Handle[Out]) -> Handle[Out]:
    await handle.final()
    return handle


def _commits(submissions: Sequence[Submission]) -> Iterator[Sequence[Submission]]:
    """As many at a time as fit one commit."""
    start = 0
    while start < len(submissions):
        together = submissions[start : start + SUBMIT_TASKS_MAX]
        count = fitting(
            (len(one.data) + FIELDS_BYTES_MAX for one in together), SUBMIT_BATCH_BYTES_MAX
        )
        yield together[:count]
        start += count
