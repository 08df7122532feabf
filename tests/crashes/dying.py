"""Distributors that die where a test says, as the test sees them: one real process each."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.crashes.points import Point
from tests.support.processes import LIMIT_S, environment

ROOT = Path(__file__).parents[2]
SIGKILLED = -9
UNUSED = {"TASKDIST_RESERVE_BYTES": "0"}
"""8 MiB that each start would write anew, for a disk that is full."""


class Dying:
    """A `taskdist serve` on a real disk.

    Args:
        server: the port of the fork server.
        store: the file of its store.
        environ: settings.
        point: where it is to die, from its start on.
        load_rows: how many waiting tasks it loads at once.
    """

    def __init__(
        self,
        server: int,
        store: Path,
        environ: Mapping[str, str],
        point: Point | None,
        load_rows: int,
    ) -> None:
        self._connection = socket.create_connection(("127.0.0.1", server), timeout=LIMIT_S)
        self._lines = self._connection.makefile()
        order = {
            "store": str(store),
            "directory": str(store.parent),
            # Longer than any test: no lease is lost by itself.
            "flags": {"listen": "127.0.0.1:0", "lease": "1h"},
            "environ": environment(store.parent) | UNUSED | dict(environ),
            "point": point.name if point else "",
            "load_rows": load_rows,
        }
        self._spoken = False
        self._tell(order)
        self.fell = ""
        """The point at which it died."""

    def address(self) -> str:
        """Its host:port, once it serves."""
        return str(self._wait("serving")["address"])

    def arm(self, point: Point | None) -> None:
        """From now on it dies at this point, or at none."""
        self._tell(["arm", point.name if point else ""])
        self._wait("armed")
        self._spoken = bool(point and point.spoken)

    def let_go(self) -> None:
        """The answer is heard: only then it dies at a point that is after it."""
        if self._spoken:
            self._spoken = False
            self._tell(["let go"])

    def terminate(self) -> None:
        """SIGTERM: asks it to stop well."""
        self._tell(["terminate"])

    def end(self) -> int:
        """Its exit code, once it has ended."""
        return int(self._wait("ended")["code"])

    def close(self) -> None:
        """Kills it, if it lives; it is gone on return."""
        with self._connection, self._lines, suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            for _ in self._lines:
                pass

    def _tell(self, said: object) -> None:
        self._connection.sendall((json.dumps(said) + "\n").encode())

    def _wait(self, event: str) -> dict[str, Any]:
        heard = []
        for text in self._lines:
            heard.append(text)
            line: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
            if line.get("event") == "fell":
                self.fell = line["point"]
            if line.get("event") == event:
                return line
        raise AssertionError(f"no {event!r}, but {''.join(heard) or 'nothing'}")


@contextmanager
def fork_server() -> Iterator[int]:
    """The port of one."""
    command = [sys.executable, "-m", "tests.crashes.fork_server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.stdin.close()
