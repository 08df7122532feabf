"""Starts programs under a supervisor of their own, and stops them with all that they started.

The calls block, and are for threads. `supervisor.py` does the work.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO

from taskdist.core.values import value

SUPERVISOR = str(Path(__file__).with_name("supervisor.py"))

ANSWER_BYTES_MAX = 4_096
"""Of how a program ended."""


@value
class Ending:
    """How a program ended: one of three."""

    exit_code: int | None = None
    signal: int | None = None
    refused: str = ""
    """Why it could not be started."""

    def told(self, *, stopped: bool) -> str:
        """For people: how it ended, by itself or because we stopped it."""
        if self.refused:
            return f"could not be started: {self.refused}"
        if self.signal is None:
            return f"ended with exit code {self.exit_code}"
        hint = "; out of memory?" if self.signal == signal.SIGKILL and not stopped else ""
        return f"was ended by {_name(self.signal)}{hint}"


class Supervised:
    """A program that runs.

    Args:
        argv: what to run.
        env: its variables; None: ours.
        grace_s: between SIGTERM and SIGKILL.
        limits: of the system's resources, by name.
        pass_fds: files that it inherits besides standard input, output and error.
        piped: whether those three are pipes to us. If not, it has no input, and shares the others.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        grace_s: float,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        pass_fds: Sequence[int] = (),
        piped: bool = False,
    ) -> None:
        ours, theirs = socket.socketpair()
        request = (
            str(grace_s),
            ",".join(f"{name}={limit}" for name, limit in (limits or {}).items()),
            ",".join(map(str, pass_fds)),
            *argv,
        )
        with theirs:
            fd = theirs.fileno()
            try:
                self._popen = subprocess.Popen(
                    # Nothing of the environment or of the user's packages has a say in it.
                    [sys.executable, "-I", "-S", SUPERVISOR, str(fd), *request],
                    env=None if env is None else dict(env),
                    pass_fds=(fd, *pass_fds),
                    start_new_session=True,
                    stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if piped else None,
                    stderr=subprocess.PIPE if piped else None,
                )
            except BaseException:
                ours.close()
                raise
        self._control = ours
        self._lock = Lock()
        self._is_over = False

    @property
    def pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        """Its standard input, output and error."""
        popen = self._popen
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        return popen.stdin, popen.stdout, popen.stderr

    def stop(self) -> None:
        """SIGTERM, and after the grace SIGKILL; does not wait. From any thread."""
        self._say(b"T")

    def kill(self) -> None:
        """SIGKILL; does not wait. From any thread."""
        self._say(b"K")

    def end(self) -> Ending:
        """How it ended, once nothing of it is left."""
        answer = b""
        with suppress(ConnectionResetError):  # Then it did not say.
            while len(answer) < ANSWER_BYTES_MAX and (part := self._control.recv(1_024)):
                answer += part
        self._popen.wait()
        with self._lock:
            self._is_over = True
            self._control.close()
        how, _, what = answer.decode(errors="replace").strip().partition(" ")
        if how == "exit":
            return Ending(exit_code=int(what))
        if how == "refused":
            return Ending(refused=what)
        # If it said nothing, somebody killed the supervisor, and the system its program with it.
        return Ending(signal=int(what) if how == "signal" else signal.SIGKILL)

    def _say(self, word: bytes) -> None:
        with self._lock:
            if not self._is_over:
                with suppress(BrokenPipeError, ConnectionResetError):  # It is over just now.
                    self._control.send(word)


class Stop:
    """Stops what one run has started, or starts next. From any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._supervised: Supervised | None = None
        self._wanted: Callable[[Supervised], None] | None = None

    def started(self, supervised: Supervised) -> None:
        """This is what the run has started."""
        with self._lock:
            self._supervised = supervised
            if self._wanted is not None:
                self._wanted(supervised)

    def over(self) -> bool:
        """The run is over, and what it has started is not its own any more; whether it was stopped
        before that."""
        with self._lock:
            self._supervised = None
            return self._wanted is not None

    def stop(self) -> None:
        """See `Supervised.stop`."""
        self._want(Supervised.stop)

    def kill(self) -> None:
        """See `Supervised.kill`."""
        self._want(Supervised.kill)

    def _want(self, wanted: Callable[[Supervised], None]) -> None:
        with self._lock:
            self._wanted = wanted
            if self._supervised is not None:
                wanted(self._supervised)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
