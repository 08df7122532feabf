"""Real `taskdist` processes: started, listened to, signalled, and never left behind.

What they log is waited for with a bound: a thread reads each process's stderr and wakes whoever
waits, so no test sleeps. They live in a directory of the test's own, which is their HOME, too.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any, Self, TypeVar

T = TypeVar("T")

Line = dict[str, Any]
"""A line of log; what is not JSON is `{"text": …}`."""

TASKDIST = (sys.executable, "-m", "taskdist")

LIMIT_S = 30.0
"""How long anything may take before a test fails: far more than it takes on a busy machine."""


class Spawned:
    """One running `taskdist …` and every line that it has written to stderr.

    Args:
        program: what to run instead of taskdist.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        directory: Path,
        program: Sequence[str] = TASKDIST,
        **environ: str,
    ) -> None:
        self.arguments = tuple(arguments)
        self._lines: list[Line] = []
        self._is_over = False
        self._news = threading.Condition()
        self._popen = subprocess.Popen(
            [*program, *arguments],
            cwd=directory,
            env=environment(directory) | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # A shell that runs the tests in the background has it ignored, also by our children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    # --- what it says ---

    def wait_for(self, event: str, *, count: int = 1, **fields: object) -> Line:
        """The count-th line with this event and these fields, as soon as it is there."""
        return self._wait(lambda: self.logged(event, **fields), count, f"{event!r} {fields}")

    def wait_for_any(self, *events: str) -> Line:
        """The first line with one of these events, as soon as it is there."""
        return self._wait(
            lambda: [line for event in events for line in self.logged(event)], 1, str(events)
        )

    def wait_for_text(self, part: str) -> str:
        """The first line with this part that is not JSON, as soon as it is there."""
        return self._wait(
            lambda: [text for text in self.texts() if part in text], 1, f"text {part!r}"
        )

    def logged(self, event: str, **fields: object) -> list[Line]:
        """The lines so far with this event and these fields."""
        wanted = {"event": event, **fields}
        with self._news:
            return [line for line in self._lines if wanted.items() <= line.items()]

    def texts(self) -> list[str]:
        """The lines so far that are not JSON."""
        with self._news:
            return [line["text"] for line in self._lines if "text" in line]

    def __str__(self) -> str:
        lines = "\n".join(f"  {line}" for line in self._lines)
        return f"{' '.join(self.arguments)}, which said:\n{lines or '  nothing'}"

    # --- what is done to it ---

    def terminate(self) -> None:
        """SIGTERM: asks it to stop well."""
        self._popen.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """SIGINT: Ctrl-C."""
        self._popen.send_signal(signal.SIGINT)

    def pause(self) -> None:
        """SIGSTOP: it stands still until `resume`."""
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: it is gone on return, without a chance to say or save anything."""
        self._popen.kill()
        self.wait_end()

    def wait_end(self) -> int:
        """Its exit code, once it has ended; -N if signal N ended it."""
        try:
            code = self._popen.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end of {self}") from None
        self._reader.join()
        return code

    def _wait(self, find: Callable[[], list[T]], count: int, wanted: str) -> T:
        end = monotonic() + LIMIT_S
        with self._news:
            while len(found := find()) < count:
                left = end - monotonic()
                if self._is_over or left <= 0:
                    raise AssertionError(f"no {wanted} ×{count} from {self}")
                self._news.wait(left)
        return found[count - 1]

    def _read(self) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as stderr:
            for text in stderr:
                with self._news:
                    self._lines.append(_line(text.decode()))
                    self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()


class Serving(Spawned):
    """A distributor that accepts calls."""

    @property
    def address(self) -> str:
        """Its host:port."""
        return str(self.wait_for("serving")["address"])


class Processes:
    """Starts processes in one directory, and ends all of them when the block ends.

    Args:
        directory: their working directory and HOME.

    Attributes:
        program: what is run: `taskdist`, or the same in an environment of a test's own.
        unary: whether its agents use FetchTask, as with a distributor that lacks Work.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program: Sequence[str] = TASKDIST
        self.unary = False
        self._spawned: list[Spawned] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for one in self._spawned:
            one.kill()

    def serve(
        self, *flags: str, listen: str = "127.0.0.1:0", store: str = "", **environ: str
    ) -> Serving:
        """A distributor on its store in this directory, once it accepts calls."""
        arguments = ["serve", "--listen", listen, "--store", store or self.store(), *flags]
        serving = Serving(arguments, self.directory, self.program, **environ)
        self._spawned.append(serving)
        serving.wait_for("serving")
        return serving

    def agent(self, name: str, server: str, *flags: str) -> Spawned:
        """An agent; it may not have connected yet."""
        environ = {"TASKDIST_UNARY": "1"} if self.unary else {}
        return self.spawn("agent", name, "--server", server, *flags, **environ)

    def spawn(self, *arguments: str, **environ: str) -> Spawned:
        """Any verb, in the background."""
        spawned = Spawned(arguments, self.directory, self.program, **environ)
        self._spawned.append(spawned)
        return spawned

    def script(self, path: Path, *arguments: str, **environ: str) -> Spawned:
        """A script in Python that is not ours alone, in the background."""
        spawned = Spawned(arguments, self.directory, (sys.executable, str(path)), **environ)
        self._spawned.append(spawned)
        return spawned

    def store(self, name: str = "tasks") -> str:
        """The --store of this name in this directory."""
        return f"sqlite:{self.directory / name}.db"


def environment(directory: Path) -> dict[str, str]:
    """The variables of a process: none of ours, and a HOME that is thrown away."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),  # for programs of the tests' own
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "COLUMNS": "200",  # so that help and errors are not wrapped
    }


def when(line: Line) -> datetime:
    """When a line was logged."""
    return datetime.fromisoformat(line["timestamp"])


def _line(text: str) -> Line:
    try:
        line = json.loads(text)
    except ValueError:
        return {"text": text.rstrip("\n")}
    return line if isinstance(line, dict) else {"text": text.rstrip("\n")}
