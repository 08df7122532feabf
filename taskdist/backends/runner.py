"""Who calls the writer's step: a thread in production, the event loop itself in tests.

Both promise the same: `step` is called soon after `wake`, and at the latest after as many seconds
as it returned; never twice at once.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

Step = Callable[[], float | None]
"""Does what there is to do. Returns after how many seconds to be called again; None ends it."""


class Runner(Protocol):
    """Calls a step again and again."""

    def start(self, step: Step) -> None:
        """Begins."""

    def wake(self) -> None:
        """There is something to do now. May be called from any thread."""

    async def finished(self) -> None:
        """Returns once the step has ended the run."""


class ThreadRunner:
    """A thread of its own, so that a slow disk holds up nobody but those who wait for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._awake = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finished = asyncio.Event()

    def start(self, step: Step) -> None:
        """Begins, in a new thread."""
        self._loop = asyncio.get_running_loop()
        # A daemon: a disk that hangs must not keep the process from ending.
        threading.Thread(target=self._run, args=(step,), name=self._name, daemon=True).start()

    def wake(self) -> None:
        """There is something to do now."""
        self._awake.set()

    async def finished(self) -> None:
        """Returns once the thread has ended."""
        await self._finished.wait()

    def _run(self, step: Step) -> None:
        assert self._loop is not None
        while (seconds := step()) is not None:
            if seconds > 0:
                self._awake.wait(seconds)
            self._awake.clear()
        self._loop.call_soon_threadsafe(self._finished.set)


class LoopRunner:
    """The event loop that started it: all in one thread, by one clock, real or virtual."""

    def __init__(self) -> None:
        self._step: Step | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._finished = asyncio.Event()

    def start(self, step: Step) -> None:
        """Begins at the loop's next turn."""
        self._step = step
        self.wake()

    def wake(self) -> None:
        """There is something to do now."""
        self._call_after(0)

    async def finished(self) -> None:
        """Returns once the step has ended the run."""
        await self._finished.wait()

    def _call_after(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._run)

    def _run(self) -> None:
        self._timer = None
        if self._step is None:
            return
        seconds = self._step()
        if seconds is None:
            self._step = None
            self._finished.set()
        else:
            self._call_after(seconds)
