"""How a run is done: on the event loop, in a thread, in a process, or by a command; and stopped.

| | cancelled, out of time, lease lost, drained |
|---|---|
| async function | CancelledError is raised in it |
| plain function | is told by `ctx.cancelled`, its result dropped; has its slot until it returns |
| process, command | SIGTERM, after the grace SIGKILL, to it and all that it started |
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from taskdist.agent.children import Children
from taskdist.agent.command import Command
from taskdist.agent.context import Context, Sink
from taskdist.agent.definition import Handler
from taskdist.agent.handlers import Failed, failure
from taskdist.agent.registry import AnyHandler
from taskdist.agent.running import run_command
from taskdist.agent.supervising import Stop
from taskdist.agent.threads import Threads

STOPPED_S = 10.0
"""How long after the grace what was stopped may take until it is gone. After that, where the kernel
does not let it go, it is left alone, and keeps its slot."""


class Execution:
    """Runs handlers for one agent.

    Args:
        sink: takes what they say.
        grace_s: between SIGTERM and SIGKILL.
        slots_kept: told how many runs are over that keep their slot, whenever that changes.
    """

    def __init__(self, sink: Sink, grace_s: float, slots_kept: Callable[[int], None]) -> None:
        self._grace_s = grace_s
        self._slots_kept = slots_kept
        self._threads = Threads()
        self._children = Children(sink, grace_s)
        self._kept: set[asyncio.Future[Any]] = set()

    async def run(self, handler: AnyHandler, ctx: Context) -> bytes:
        """Runs a task; its result. Stopped by being cancelled.

        Raises:
            Failed: it failed. So does any other exception of an async function.
        """
        if isinstance(handler, Command):
            return await self._by_force(lambda stop: run_command(handler, ctx, self._grace_s, stop))
        if handler.process:
            return await self._by_force(lambda stop: self._children.run(handler, ctx, stop))
        if handler.is_async:
            return await handler.run_async(ctx)
        return await self._by_word(handler, ctx)

    def in_thread(self, call: Callable[[], object]) -> Awaitable[object]:
        """Calls this in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def close(self) -> None:
        """Ends what runs idly. Threads that do not return are left behind."""
        for running in self._kept:
            running.cancel()
        closing = self._in_thread(self._children.close)
        _result(await asyncio.wait_for(closing, STOPPED_S + self._grace_s))
        self._threads.shutdown()

    # --- what blocks ---

    async def _by_word(self, handler: Handler[Any, Any, ..., Any], ctx: Context) -> bytes:
        """Runs a plain function, which cannot be stopped."""
        told = ctx.cancelled
        running = self._in_thread(lambda: handler.run(ctx))
        try:
            result: bytes = _result(await asyncio.shield(running))
            return result
        except asyncio.CancelledError:
            told.set()
            self._keep_slot(running)
            raise asyncio.CancelledError(
                f"{handler.place}: the function was told, and has its slot until it returns\n"
            ) from None

    async def _by_force(self, run: Callable[[Stop], bytes]) -> bytes:
        """Runs what is a program, and can be stopped."""
        stop = Stop()
        running = self._in_thread(lambda: run(stop))
        try:
            result: bytes = _result(await asyncio.shield(running))
            return result
        except asyncio.CancelledError:
            stop.stop()
            try:
                await asyncio.wait({running}, timeout=self._grace_s + STOPPED_S)
            except asyncio.CancelledError:
                stop.kill()  # The agent is ended.
                raise
            if not running.done():
                self._keep_slot(running)
            elif isinstance(ended := running.result(), Failed):
                raise asyncio.CancelledError(ended.error) from None
            raise

    def _in_thread(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        def caught() -> Any:
            # As a value, since futures do not take every exception.
            try:
                return call()
            except BaseException as reason:
                return failure(reason)

        return asyncio.get_running_loop().run_in_executor(self._threads, caught)

    def _keep_slot(self, running: asyncio.Future[Any]) -> None:
        if running.done():
            return

        def over(_: object) -> None:
            self._kept.discard(running)
            self._slots_kept(len(self._kept))

        self._kept.add(running)
        running.add_done_callback(over)
        self._slots_kept(len(self._kept))


def _result(ended: Any) -> Any:
    if isinstance(ended, Failed):
        raise ended
    return ended
