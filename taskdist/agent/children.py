"""The processes of handlers with `process=True`, as their agent sees them.

One process a slot, made when it is first needed and used again: a model that a module loads costs
its time once, not once a task. One that is stopped or dies is replaced. The calls block, and are
for threads.
"""

import socket
import sys
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from taskdist.agent.context import Context, Sink
from taskdist.agent.definition import Handler
from taskdist.agent.handlers import Failed
from taskdist.agent.supervising import Ending, Stop, Supervised

Say = tuple[Any, ...]


class Children:
    """All of an agent's.

    Args:
        sink: takes what handlers say.
        grace_s: between SIGTERM and SIGKILL.
    """

    def __init__(self, sink: Sink, grace_s: float) -> None:
        self._sink = sink
        self._grace_s = grace_s
        self._lock = Lock()
        self._idle: list[_Child] = []

    def run(
        self,
        handler: Handler[Any, Any, ..., Any],
        ctx: Context,
        stop: Stop,
    ) -> bytes:
        """Runs a handler in a process; its result.

        Args:
            stop: stops it.

        Raises:
            Failed: it failed, or its process ended.
        """
        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None:
            child = _Child(self._grace_s)
        stop.started(child.supervised)
        try:
            child.tell((handler.found_at, ctx.task, ctx.limit_s))
            said = self._listen(child, ctx)
        except (EOFError, OSError):
            ending = child.end().told(stopped=stop.over())
            raise Failed(f"the process of {handler.place} {ending}\n") from None
        if stop.over():
            child.end()
        else:
            with self._lock:
                self._idle.append(child)
        if said[0] == "done":
            result: bytes = said[1]
            return result
        _, error, retryable, retry_after_s = said
        raise Failed(error, retryable=retryable, retry_after_s=retry_after_s)

    def close(self) -> None:
        """Ends those that have nothing to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.supervised.stop()
        for child in idle:
            child.end()

    def _listen(self, child: "_Child", ctx: Context) -> Say:
        """Passes on what a handler says, until it says how it ended."""
        while True:
            said = child.hear()
            if said[0] == "progress":
                self._sink.progress(ctx.lease_id, said[1], said[2])
            elif said[0] == "log":
                self._sink.log(ctx.lease_id, said[1])
            elif said[0] == "lease":
                child.tell(ctx.lease_time_left())
            else:
                return said


class _Child:
    def __init__(self, grace_s: float) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-m", "taskdist.agent.child", str(theirs.fileno())]
            self.supervised = Supervised(argv, grace_s=grace_s, pass_fds=[theirs.fileno()])
        self._link: Connection[Any, Any] = Connection(ours.detach())
        # It finds modules where we do.
        self._link.send(sys.path)

    def tell(self, said: object) -> None:
        self._link.send(said)

    def hear(self) -> Say:
        said: Say = self._link.recv()
        return said

    def end(self) -> Ending:
        """How it ended, once it has."""
        ending = self.supervised.end()
        self._link.close()
        return ending
