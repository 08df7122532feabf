"""Forks a `taskdist serve` for each connection: its code is imported once, not by each of them.

The first line of a connection says how to start, each further one arms a point, lets the process go
on to die, or asks it to stop. What the distributor logs comes back; last the line `fell` with the
name of the point, if it died there, and `ended` with its exit code.
"""

import asyncio
import gc
import inspect
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from taskdist.backends import live
from taskdist.backends.embedded import _Inbox
from taskdist.cli.serve import serve
from taskdist.distributor.server import Distributor
from taskdist.settings import DistributorSettings
from taskdist.wire import codec, messages
from tests.crashes.contract import RPCS
from tests.crashes.disk import Disk
from tests.crashes.points import ALL, Point, Side

NAMED = {point.name: point for point in ALL}
assert len(NAMED) == len(ALL)


class Trap:
    """Where this process is to die, once that is said.

    Args:
        disk: under the store, for as long as the trap lasts.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._armed: Point | None = None
        self._left = 0
        self._may_die = threading.Event()

    @property
    def batch(self) -> int:
        """How many requests have to share a batch."""
        return self._armed.batch if self._armed else 1

    def arm(self, name: str) -> None:
        """From now on it is to die there. No name: nowhere."""
        self._armed = NAMED[name] if name else None
        # The last of a batch is met after all others; its commit is one.
        self._left = self.batch if self._armed and self._armed.side is Side.BEFORE else 1

    def let_go(self) -> None:
        """At a point whose answer is heard it dies only now: a client may miss an answer that comes
        together with its connection's end."""
        self._may_die.set()

    def meet(self, owner: Any, function: str, side: Side, arguments: Any, result: Any) -> None:
        """Dies here, if it is the place."""
        point = self._armed
        if point is None or (point.owner, point.function, point.side) != (owner, function, side):
            return
        if not point.when(arguments, result):
            return
        self._left -= 1
        if not self._left:
            _say(event="fell", point=point.name)
            if point.spoken:
                self._may_die.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, function: str) -> None:
        """Makes it meet both sides of this function."""
        original: Callable[..., Any] = getattr(owner, function)

        @wraps(original)
        def called(*arguments: Any, **named: Any) -> Any:
            self.meet(owner, function, Side.BEFORE, arguments, None)
            armed = self._armed
            result = original(*arguments, **named)
            # Else a reply would be met by the point that was armed when it had been heard.
            if armed is self._armed:
                self.meet(owner, function, Side.AFTER, arguments, result)
            return result

        @wraps(original)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            self.meet(owner, function, Side.BEFORE, arguments, None)
            result = await original(*arguments, **named)
            self.meet(owner, function, Side.AFTER, arguments, result)
            return result

        setattr(owner, function, awaited if inspect.iscoroutinefunction(original) else called)

    def gather(self) -> None:
        """Lets no batch begin before it has as many requests as it is to have."""
        take: Callable[[_Inbox], Any] = _Inbox.take

        def taken(inbox: _Inbox) -> Any:
            return take(inbox) if len(inbox) >= self.batch else []

        setattr(_Inbox, "take", taken)  # noqa: B010 # a plain assignment is a fault of types


def _say(**line: object) -> None:
    # A line of log may be half written.
    os.write(2, ("\n" + json.dumps(line) + "\n").encode())


def _serve(connection: socket.socket) -> NoReturn:
    """Is `taskdist serve` from here on."""
    os.dup2(connection.fileno(), 2)
    lines = connection.makefile()
    order = json.loads(lines.readline())
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["directory"])
    live.LOAD_ROWS = order["load_rows"]
    trap = Trap(Disk(Path(order["store"])))
    for owner, function in {(point.owner, point.function): None for point in NAMED.values()}:
        trap.wrap(owner, function)
    trap.gather()
    trap.arm(order["point"])

    def listen() -> None:
        for line in lines:
            match json.loads(line):
                case "arm", point:
                    trap.arm(point)
                    _say(event="armed")
                case ["let go"]:
                    trap.let_go()
                case ["terminate"]:
                    os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGKILL)  # Nobody looks any more.

    threading.Thread(target=listen, daemon=True).start()
    # The verb itself: to read the command line takes longer than all the rest of a start.
    serve(store=f"sqlite:{order['store']}", **order["flags"])
    os._exit(0)


async def _warm_up() -> None:
    """What is made at first use is made once for all of them."""
    for method in RPCS.values():
        for descriptor in (method.input_type, method.output_type):
            codec._copier(getattr(messages, descriptor.name))
    distributor = Distributor(DistributorSettings.load({"store": "memory:"}))
    await distributor.open()
    await distributor.stop(0)


def main() -> None:
    """Serves until its stdin is closed."""
    asyncio.run(_warm_up())
    listening = socket.create_server(("127.0.0.1", 0))
    connections: dict[int, socket.socket] = {}

    def reap(*_: object) -> None:
        while connections:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            line = json.dumps({"event": "ended", "code": os.waitstatus_to_exitcode(status)})
            with connections.pop(pid) as connection, suppress(OSError):  # Nobody may look.
                connection.sendall(f"\n{line}\n".encode())

    signal.signal(signal.SIGCHLD, reap)
    print(listening.getsockname()[1], flush=True)
    gc.freeze()
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        else:
            connections[pid] = connection
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        if not pid:
            listening.close()
            _serve(connection)


if __name__ == "__main__":
    main()
