"""The process in which handlers with `process=True` run: one task after the other.

Started as `python -m taskdist.agent.child FD`. Over FD it is told what to run, and tells what the
handlers say and how they end. It ends when its agent does, and when it is told to by SIGTERM: then
the handler's own `finally` still runs, for as long as the grace lasts.
"""

import asyncio
import importlib
import signal
import sys
import time
from collections.abc import Callable
from inspect import isawaitable
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any, cast

from taskdist.agent.context import Context
from taskdist.agent.definition import Handler, found
from taskdist.agent.handlers import Failed, check_size, failure
from taskdist.reports import Work

TERMINATED = 128 + signal.SIGTERM


class _Agent:
    """The agent, as a handler here sees it: it takes what is said, and knows the lease.

    What a thread says that outlives its run is nobody's.
    """

    def __init__(self, link: "Connection[Any, Any]") -> None:
        self._link = link
        self._lock = Lock()
        self._lease_id = ""

    def begin(self, lease_id: str) -> None:
        """What is said now is said of this lease."""
        self._lease_id = lease_id

    def end(self, *said: object) -> None:
        """How the run ended. After that nothing is said of it."""
        with self._lock:
            self._lease_id = ""
            self._link.send(said)

    def progress(self, lease_id: str, fraction: float, text: str) -> None:
        """See `Sink.progress`."""
        self._say(lease_id, "progress", fraction, text)

    def log(self, lease_id: str, line: str) -> None:
        """See `Sink.log`."""
        self._say(lease_id, "log", line)

    def lease_left_s(self, lease_id: str) -> float:
        """Asks the agent, who renews it."""
        with self._lock:
            if lease_id != self._lease_id:
                return 0.0
            self._link.send(("lease",))
            return cast("float", self._link.recv())

    def _say(self, lease_id: str, *said: object) -> None:
        with self._lock:
            if lease_id == self._lease_id:
                self._link.send(said)


class _Child:
    def __init__(self, link: "Connection[Any, Any]", runner: asyncio.Runner) -> None:
        self._link = link
        self._agent = _Agent(link)
        self._runner = runner
        self._hooked: set[Callable[[], object]] = set()

    def serve(self) -> None:
        """Runs what comes, until the agent is gone."""
        sys.path[:] = self._link.recv()
        while True:
            try:
                (module, name), work, limit_s = self._link.recv()
            except EOFError:
                return
            self._agent.begin(work.lease_id)
            try:
                result = self._run(module, name, work, limit_s)
                check_size(result)
                self._agent.end("done", result)
            except (Exception, SystemExit, KeyboardInterrupt) as reason:
                if isinstance(reason, SystemExit) and reason.code == TERMINATED:
                    raise
                ended = failure(reason)
                self._agent.end("failed", ended.error, ended.retryable, ended.retry_after_s)

    def _run(self, module: str, name: str, work: Work, limit_s: float) -> bytes:
        handler = found(importlib.import_module(module), name)
        if not isinstance(handler, Handler):
            raise Failed(f"{module}.{name} is no handler any more", retryable=True)
        for hook in handler.process_hooks:
            if hook not in self._hooked:
                returned = hook()
                if isawaitable(returned):
                    self._runner.run(_awaited(returned))
                self._hooked.add(hook)
        ctx = Context(work, limit_s, self._agent, self._agent.lease_left_s, time.monotonic)
        if handler.is_async:
            return self._runner.run(handler.run_async(ctx))
        return handler.run(ctx)


async def _awaited(returned: Any) -> None:
    await returned


def main() -> None:
    link: Connection[Any, Any] = Connection(int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    with asyncio.Runner() as runner:
        _Child(link, runner).serve()


if __name__ == "__main__":
    main()
