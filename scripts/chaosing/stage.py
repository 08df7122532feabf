"""The processes of a campaign and the links between them: started, harmed, put right, ended."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.benching.players import Player
from scripts.chaosing.faults import Fault
from scripts.chaosing.history import Recorder
from scripts.chaosing.proxy import Link, Way

START_S = 60.0
END_S = 40.0

Command = Callable[[str], list[str]]
"""The arguments of a player's next process, given that one's name."""


class Role:
    """One player: a process that is replaced when it was ended, under the same role.

    Args:
        name: of the player; its processes are NAME.1, NAME.2, …
        command: what they run.
        ready: the event on stderr which says that one is ready; empty: nothing does.
    """

    def __init__(self, name: str, command: Command, record: Recorder, ready: str = "") -> None:
        self.name = name
        self.busy = asyncio.Lock()
        """Held while a fault befalls it: one after the other."""
        self.is_dismissed = False
        """It has ended for good, as it was told to."""
        self.cpu_s = 0.0
        """Processor time of those that have ended."""
        self._command = command
        self._record = record
        self._ready = ready
        self._count = 0
        self._player: Player | None = None

    @property
    def is_running(self) -> bool:
        return self._player is not None and self._player.process.poll() is None

    async def start(self) -> None:
        """Starts the next process."""
        self._count += 1
        process = f"{self.name}.{self._count}"
        self._tell("spawned", process=process)
        self._player = Player(self._command(process))
        if self._ready:
            await asyncio.to_thread(self._player.until, self._ready, START_S)
            self._tell("serving", process=process)

    async def end(self, number: signal.Signals) -> int:
        """Sends this signal, and returns once it is gone: its exit code."""
        player = self._player
        assert player is not None
        self.cpu_s += player.cpu_s() if self.is_running else 0
        process = f"{self.name}.{self._count}"
        self._tell("ending", process=process, signal=number.name)
        player.process.send_signal(number)
        try:
            code = await asyncio.to_thread(player.process.wait, END_S)
        except Exception:
            player.process.kill()
            code = await asyncio.to_thread(player.process.wait)
            self._tell("stuck", process=process)
        self._tell("ended", process=process, code=code)
        if code not in (0, -number, -signal.SIGTERM):
            self._record.write("noise", what=f"{process} ended with {code}")
        self._note_errors(player, process)
        return code

    async def befall(self, fault: Fault) -> None:
        """Lets a fault happen to it, and puts it right."""
        if fault.name == "stop":
            assert self._player is not None
            self._tell("stopping")
            self._player.process.send_signal(signal.SIGSTOP)
            self._tell("stopped")
            await asyncio.sleep(fault.for_s)
            self._tell("continuing")
            self._player.process.send_signal(signal.SIGCONT)
            self._tell("continued")
            return
        await self.end(signal.SIGKILL if fault.name == "kill" else signal.SIGTERM)
        await asyncio.sleep(fault.for_s)
        await self.start()

    def note_death(self) -> None:
        """It has ended by itself."""
        assert self._player is not None
        self.is_dismissed = True
        process = f"{self.name}.{self._count}"
        code = self._player.process.returncode
        self._record.write("noise", what=f"{process} ended by itself with {code}")
        self._note_errors(self._player, process)

    def _note_errors(self, player: Player, process: str) -> None:
        """Tracebacks and the like that it logged."""
        for line in player.errors():
            self._record.write("noise", what=f"{process} logged", line=line)

    def kill(self) -> None:
        """At the very end: it is gone, whatever it was doing."""
        if self._player is not None and self.is_running:
            self._player.process.kill()
            self._player.process.wait()

    def _tell(self, what: str, **fields: object) -> None:
        self._record.write("process", what=what, role=self.name, **fields)


async def misbehave(link: Link, fault: Fault) -> None:
    """Lets a fault happen to a link, and puts it right."""
    ways: tuple[Way, ...] = ("up", "down") if fault.way == "both" else (fault.way,)
    if fault.name == "cut":
        link.cut()
    elif fault.name == "half-close":
        link.half_close(ways[0])
    elif fault.name == "refuse":
        link.refuse()
    elif fault.name == "slow":
        link.slow()
    elif fault.name == "stall":
        link.stall(*ways)
    elif fault.name == "cut in mid-message":
        link.cut_after(fault.after_bytes, ways[0])
    elif fault.name == "stall in mid-message":
        link.stall_after(fault.after_bytes, ways[0])
    else:
        raise ValueError(fault.name)
    await asyncio.sleep(fault.for_s)
    link.heal()


class HeldPort:
    """A port that stays ours while the distributor is down: bound here, and never listened on."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def free(self) -> None:
        """Lets it go."""
        self._socket.close()


def serve_command(port: int, store: Path, flags: Sequence[str]) -> Command:
    """A distributor's."""
    return lambda process: [
        *("-m", "taskdist", "serve", f"--listen=127.0.0.1:{port}", f"--store=sqlite:{store}"),
        *flags,
    ]
