"""Handlers that a process of its own has to find, and what they leave behind to be looked at."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from pydantic import BaseModel

from taskdist.agent.context import Context
from taskdist.agent.handlers import Fatal, Retry
from taskdist.agent.registry import Registry

deeds = Registry()

_loaded: list[int] = []


class Place(BaseModel):
    """A directory to write to."""

    path: Path


@deeds.on_start(process=True)
def load() -> None:
    """What a process needs before its first run."""
    _loaded.append(os.getpid())


@deeds.handler(process=True)
def whoami(_: None) -> list[int]:
    """Its process, and those in which `load` was called."""
    return [os.getpid(), *_loaded]


@deeds.handler(process=True)
async def talk(times: int, ctx: Context) -> bool:
    """Says something; whether it knows of its lease and time."""
    for number in range(times):
        await ctx.progress(number / times, f"step {number}")
        ctx.log(f"line {number}")
    return 0 < ctx.lease_time_left() <= 30 < ctx.time_left()


_spoke = threading.Event()


@deeds.handler(process=True)
def speak_later(first: bool, ctx: Context) -> bool:
    """Leaves a thread behind that speaks while the next one runs, which waits for it."""

    def speak() -> None:
        time.sleep(0.2)
        ctx.log("of the first")
        ctx.lease_time_left()
        _spoke.set()

    if first:
        threading.Thread(target=speak, daemon=True).start()
        return True
    ctx.log("of the second")
    return _spoke.wait(10)


@deeds.handler(process=True)
def end_by(how: str) -> None:
    """Ends its own process, or fails otherwise."""
    if how == "exit":
        sys.exit(3)
    elif how == "_exit":
        os._exit(4)
    elif how.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[how])
    elif how == "Fatal":
        raise Fatal("no such model")
    elif how == "Retry":
        raise Retry(after="1h")
    raise LookupError("no luck")


@deeds.handler(process=True)
def hang(place: Place) -> None:
    """Starts processes that are hard to stop, writes down their ids and its own, and hangs."""
    stubborn(place.path)
    (place.path / "ready").touch()
    time.sleep(1_000)


def stubborn(place: Path) -> None:
    """A child that ignores SIGTERM, and one that has left group, session and parent."""
    pids = place / "pids"
    pids.touch()
    script = f"trap '' TERM; echo $$ >> {pids}; exec sleep 1000"
    subprocess.Popen(["sh", "-c", script])
    subprocess.run(["sh", "-c", 'setsid sh -c "$1" &', "sh", script], check=True)
    while len(pids.read_text().split()) < 2:
        time.sleep(0.01)
    with pids.open("a") as file:
        file.write(f"{os.getpid()}\n")


def living(place: Path) -> list[int]:
    """Those that were written down and live."""
    found = []
    for text in (place / "pids").read_text().split():
        try:
            state = Path(f"/proc/{text}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":  # Nobody has reaped it; it is dead.
            found.append(int(text))
    return found


if __name__ == "__main__":  # as a command
    stubborn(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "ready").touch()
    time.sleep(float(sys.argv[2]))
