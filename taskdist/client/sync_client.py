"""The client without `await`: the same one, on an event loop in a thread of its own.

Each method hands its call to that loop and waits. Threads may share a client.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Generic, Self, TypeVar, Unpack, overload
from weakref import finalize

from anyio.from_thread import BlockingPortal, start_blocking_portal

from taskdist.client.async_client import TIMEOUT_DEFAULT_S, AsyncClient
from taskdist.client.errors import SubmittedInPart
from taskdist.client.handle import Handle
from taskdist.client.options import Duration, Options
from taskdist.kinds import Kind
from taskdist.reports import News, TaskReport

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


class Client:
    """Talks to one distributor; see `AsyncClient`, whose methods these are.

    Args:
        server: host:port. Unset: TASKDIST_SERVER, or this machine.
        timeout: how long each call tries to get an answer.

    Raises:
        ValueError: the server is not HOST:PORT.
        InvalidFields: the timeout is no duration.
    """

    def __init__(self, server: str | None = None, *, timeout: Duration = TIMEOUT_DEFAULT_S) -> None:
        self._open = ExitStack()
        self._portal = self._open.enter_context(start_blocking_portal())
        try:
            self._client = self._portal.call(partial(AsyncClient, server, timeout=timeout))
        except BaseException:
            self._open.close()
            raise
        # At the latest before the interpreter ends: that would wait for the thread for ever.
        self._close = finalize(self, _close, self._open, self._portal, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections and ends the thread; calls that wait are cut. Tasks go on."""
        self._close()

    @overload
    def submit(
        self, kind: Kind[In, Out], value: In, /, **options: Unpack[Options]
    ) -> "SyncHandle[Out]": ...

    @overload
    def submit(
        self, kind: str, value: object = b"", /, **options: Unpack[Options]
    ) -> "SyncHandle[bytes]": ...

    def submit(
        self, kind: Any, value: Any = b"", /, **options: Unpack[Options]
    ) -> "SyncHandle[Any]":
        """See `AsyncClient.submit`."""
        call = partial(self._client.submit, kind, value, **options)
        return SyncHandle(self._portal.call(call), self._portal, self)

    @overload
    def submit_many(
        self, kind: Kind[In, Out], values: Iterable[In], /, **options: Unpack[Options]
    ) -> "list[SyncHandle[Out]]": ...

    @overload
    def submit_many(
        self, kind: str, values: Iterable[object], /, **options: Unpack[Options]
    ) -> "list[SyncHandle[bytes]]": ...

    def submit_many(
        self, kind: Any, values: Iterable[Any], /, **options: Unpack[Options]
    ) -> "list[SyncHandle[Any]]":
        """See `AsyncClient.submit_many`."""
        # Its items are made here: the loop would wait for an iterator that is slow.
        call = partial(self._client.submit_many, kind, list(values), **options)
        try:
            return self._mine(self._portal.call(call))
        except SubmittedInPart as part:
            raise SubmittedInPart(self._mine(part.handles), part.refusal) from part.refusal

    def _mine(self, handles: Iterable[Handle[Any]]) -> "list[SyncHandle[Any]]":
        return [SyncHandle(handle, self._portal, self) for handle in handles]

    @overload
    def handle(self, task_id: str, kind: Kind[Any, Out]) -> "SyncHandle[Out]": ...

    @overload
    def handle(self, task_id: str, kind: str = "") -> "SyncHandle[bytes]": ...

    def handle(self, task_id: str, kind: Any = "") -> "SyncHandle[Any]":
        """See `AsyncClient.handle`."""
        return SyncHandle(self._client.handle(task_id, kind), self._portal, self)

    def as_completed(
        self, handles: "Iterable[SyncHandle[Out]]", timeout: Duration | None = None
    ) -> "Iterator[SyncHandle[Out]]":
        """See `AsyncClient.as_completed`."""
        waited = {id(handle.awaited): handle for handle in handles}
        finished = self._client.as_completed([one.awaited for one in waited.values()], timeout)
        for one in _each(self._portal, finished):
            yield waited[id(one)]

    def get(self, task_id: str) -> TaskReport:
        """See `AsyncClient.get`."""
        return self._portal.call(self._client.get, task_id)

    def cancel(self, task_id: str) -> None:
        """See `AsyncClient.cancel`."""
        self._portal.call(self._client.cancel, task_id)


class SyncHandle(Generic[Out]):
    """A task that is safe with the distributor; see `Handle`, whose methods these are.

    Args:
        awaited: the handle on the client's loop.
        portal: the way there.
        client: kept open for as long as somebody has the handle.
    """

    def __init__(self, awaited: Handle[Out], portal: BlockingPortal, client: Client) -> None:
        self.awaited = awaited
        self._portal = portal
        self._client = client

    def __repr__(self) -> str:
        return repr(self.awaited)

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.awaited.task_id

    def result(self, timeout: Duration | None = None) -> Out:
        """See `Handle.result`."""
        return self._portal.call(self.awaited.result, timeout)

    def final(self, timeout: Duration | None = None) -> TaskReport:
        """See `Handle.final`."""
        return self._portal.call(self.awaited.final, timeout)

    def watch(self, *, entries: bool = True, after: int | None = None) -> Iterator[News]:
        """See `Handle.watch`."""
        yield from _each(self._portal, self.awaited.watch(entries=entries, after=after))

    def report(self) -> TaskReport:
        """See `Handle.report`."""
        return self._portal.call(self.awaited.report)

    def cancel(self) -> None:
        """See `Handle.cancel`."""
        self._portal.call(self.awaited.cancel)


def _close(opened: ExitStack, portal: BlockingPortal, client: AsyncClient) -> None:
    with opened:
        portal.call(client.close)
        # After Ctrl-C a call may still wait on the loop, though nobody waits for it.
        portal.call(portal.stop, True)


def _each(portal: BlockingPortal, items: Any) -> Iterator[Any]:
    """What an async generator yields; it is closed when nobody wants more."""
    end = object()

    async def following() -> Any:
        return await anext(items, end)

    try:
        while (item := portal.call(following)) is not end:
            yield item
    finally:
        with suppress(RuntimeError):  # The client was closed before, and this with it.
            portal.call(items.aclose)
