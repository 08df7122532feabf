"""Threads for what blocks."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Executor):
    """As many threads as there are calls at once; each is used again.

    Unlike those of the standard library they do not keep the process alive: a plain function cannot
    be stopped, and one that never returns must not keep an agent from ending.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = self._count = 0

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Calls this in a thread."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as reason:
                future.set_exception(reason)

        with self._lock:
            self._calls.put(call)
            if self._idle:
                self._idle -= 1
            else:
                self._count += 1
                name = f"handler-{self._count}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the threads that have nothing to do, and the others after their call; waits for
        none."""
        for _ in range(self._count):
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # It holds a task's data, and this thread may wait long for the next.
            with self._lock:
                self._idle += 1
