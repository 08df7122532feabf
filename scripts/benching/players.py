"""The processes of a measurement: started, watched, stopped; and what they cost."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


class Player:
    """One process that logs JSON lines on stderr."""

    def __init__(self, arguments: list[str], environ: dict[str, str] | None = None) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith("TASKDIST_")}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=own | (environ or {}),
        )
        self.pid = self.process.pid
        self._lines: list[dict[str, Any]] = []
        self._ended = False
        """It will say nothing more."""
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, event: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The line of this event, once it has come."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self._lines if line.get("event") == event), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._ended, patience_s)
            line = found()
            if line is None:
                when = "before its end" if self._ended else f"within {patience_s} s"
                raise RuntimeError(f"no {event!r} {when}: {self._lines[-3:]}")
        return line

    def cpu_s(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Resident memory now, MiB."""
        return self._status_mib("VmRSS")

    def memory_most_mib(self) -> float:
        """The most resident memory that it ever had, MiB."""
        return self._status_mib("VmHWM")

    def sockets(self) -> int:
        """How many sockets it has open."""
        count = 0
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # It was closed meanwhile.
                count += os.readlink(link).startswith("socket:")
        return count

    def heard(self, event: str) -> int:
        """How often this event has come so far."""
        with self._news:
            return sum(line.get("event") == event for line in self._lines)

    def errors(self) -> list[dict[str, Any]]:
        """What it logged so far as an error, and what is no line of a log at all."""
        with self._news:
            bad = ("error", "critical")
            return [line for line in self._lines if line.get("level", "error") in bad]

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def _status_mib(self, name: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"no {name}")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"event": text.rstrip()}
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@contextmanager
def distributor(
    *,
    store: Path | None = None,
    listen: str = "127.0.0.1:0",
    variant: str = "",
    environ: dict[str, str] | None = None,
) -> Iterator[tuple[Player, str]]:
    """A distributor on a fresh store (or this one); its process and address.

    Args:
        variant: `echo`, `nothing` or `slow`: see `variants.py`. Empty: the real one.
    """
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as folder:
        path = store or Path(folder) / "tasks.db"
        module = ["-m", "scripts.benching.variants", variant] if variant else ["-m", "taskdist"]
        serve = ["serve", f"--listen={listen}", f"--store=sqlite:{path}"]
        player = Player([*module, *serve], environ)
        try:
            yield player, player.until("serving")["address"]
        finally:
            player.stop()


@contextmanager
def counting_agent(address: str, *, slots: int, count: int, wait: bool = True) -> Iterator[Player]:
    """An agent that stops, and says `done`, once it has run so many tasks.

    Args:
        wait: until it has started.
    """
    module = "scripts.benching.counting_agent"
    player = Player(["-m", module, address, str(slots), str(count)])
    try:
        if wait:
            player.until("agent started")
        yield player
    finally:
        player.stop()


@contextmanager
def prober(address: str, *calls: str) -> Iterator[Player]:
    """Something that asks all the time, and says `probed` once it is stopped: see `prober.py`."""
    player = Player(["-m", "scripts.benching.prober", address, *calls])
    try:
        player.until("probing")
        yield player
    finally:
        player.stop()


def fsync_ms(folder: Path) -> float:
    """Median time of an fsync after a small write here, milliseconds."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(101):
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return sorted(times)[50] * 1e3
