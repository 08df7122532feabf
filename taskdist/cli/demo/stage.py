"""The stage of the demo: real processes, and what they log as they log it."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PATIENCE_S = 15.0
"""How long to wait for something that takes a second or two on a fast machine, …"""

LONGEST_WORK_S = 50.0
"""… and the simulated work that may come before it, at its real speed."""

STOP_S = 5.0
"""How long a process may take to stop before it is killed."""

Event = dict[str, Any]
"""A line that a process logged, with its name as `who`."""


class Stuck(Exception):
    """Something did not happen in time, or a process ended that should not have."""


@dataclass(slots=True)
class Player:
    """One process."""

    name: str
    process: asyncio.subprocess.Process
    reading: asyncio.Task[None]


class Stage:
    """Starts, stops and kills distributor and agents; collects their logs.

    Use as `async with`: at its end all processes are gone, and the store with them.
    """

    def __init__(self, on_event: Callable[[Event], None], speed: float) -> None:
        self._patience_s = PATIENCE_S + LONGEST_WORK_S / speed
        self.events: list[Event] = []
        self.address = "127.0.0.1:0"
        self._on_event = on_event
        self._news = asyncio.Condition()
        self._players: list[Player] = []
        self._folder = tempfile.TemporaryDirectory(prefix="taskdist-demo-")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for player in reversed(self._players):  # agents first: they may have to report
            await self.stop(player)
        self._folder.cleanup()

    async def distributor(self, lease_s: float) -> Player:
        """Starts the distributor, at the same place each time."""
        store = Path(self._folder.name) / "tasks.db"
        since = len(self.events)
        player = await self._start(
            "distributor",
            "serve",
            f"--listen={self.address}",
            f"--store=sqlite:{store}",
            f"--lease={lease_s}s",
        )
        serving = await self.until(lambda event: event["event"] == "serving", since)
        self.address = serving["address"]
        return player

    async def agent(
        self, name: str, speed: float, failure_rate: float = 0, seed: int = 0
    ) -> Player:
        """Starts an agent of one slot."""
        since = len(self.events)
        player = await self._start(
            name,
            "agent",
            name,
            f"--server={self.address}",
            f"--speed={speed}",
            f"--failure-rate={failure_rate}",
            f"--seed={seed}",
        )
        await self.until(lambda event: event["event"] == "agent started", since)
        return player

    async def stop(self, player: Player) -> None:
        """Asks a process to stop well."""
        if player.process.returncode is None:
            player.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(player.process.wait(), STOP_S)
            except TimeoutError:
                await self.kill(player)
        await player.reading

    async def kill(self, player: Player) -> None:
        """SIGKILL: the process has no say in it."""
        if player.process.returncode is None:
            player.process.kill()
        await player.process.wait()
        await player.reading

    async def until(self, wanted: Callable[[Event], bool], since: int = 0, count: int = 1) -> Event:
        """Waits for the `count`-th event from `since` on that is wanted.

        Raises:
            Stuck: it did not come in time.
        """

        def found() -> Event | None:
            hits = [event for event in self.events[since:] if wanted(event)]
            return hits[count - 1] if len(hits) >= count else None

        try:
            async with asyncio.timeout(self._patience_s), self._news:
                while (event := found()) is None:
                    await self._news.wait()
        except TimeoutError:
            last = self.events[-1] if self.events else "nothing"
            raise Stuck(f"waited {self._patience_s:g} s in vain; last logged: {last}") from None
        return event

    async def _start(self, name: str, *arguments: str) -> Player:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TASKDIST_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "taskdist", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            # Ctrl-C is for this process; it stops the others in its own order.
            start_new_session=True,
        )
        player = Player(name, process, asyncio.ensure_future(self._read(name, process)))
        self._players.append(player)
        return player

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            try:
                event = {"who": name, **json.loads(line)}
            except ValueError:
                event = {"who": name, "event": line.decode("utf-8", "replace").rstrip()}
            async with self._news:
                self.events.append(event)
                self._on_event(event)
                self._news.notify_all()
