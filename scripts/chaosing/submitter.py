"""A submitter: asks for tasks, repeats what got no answer, cancels some, and records every call.

Run as `python -m scripts.chaosing.submitter HOST:PORT NAME SEED RATE FOLDER`. It begins by asking
again for what an earlier one of its name left unanswered when it was killed. After SIGTERM it asks
for nothing new, and ends when all is answered, or after LAST_WORDS_S.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

from scripts.chaosing.history import Recorder, digest, read
from scripts.chaosing.wishes import Wish, data_of, draw, said
from taskdist import interpreter, logs
from taskdist.client import Stub
from taskdist.core.errors import Exhausted, Refused, Unavailable
from taskdist.signals import Signals

CALLERS = 8
TRIES = 6
PAUSE_S = (0.05, 0.6)
TIMEOUT_S = 3.0
"""How long a call may take: short, so that one is repeated while the first is on its way."""

CANCELLED_OF_100 = 5
REPEATED_OF_100 = 4
"""How many of a hundred are asked for once more although they were answered."""

PACES = (0.3, 0.9, 1.8)
"""How the rate goes up and down, so that sometimes many tasks wait and sometimes agents do."""

LAST_WORDS_S = 15.0


class Submitter:
    """Asks for tasks by chance.

    Args:
        name: its name, different for each process.
    """

    def __init__(self, server: str, name: str, seed: str, rate: float, record: Recorder) -> None:
        self._clients = [Stub(server, timeout_s=TIMEOUT_S, batching=on) for on in (True, False)]
        self._name = name
        self._rng = Random(f"{seed}/{name}")
        self._rate = rate
        self._pace = 1.0
        self._record = record
        self._count = 0
        self._over = asyncio.Event()

    async def run(self, signals: Signals, unanswered: list[Wish]) -> None:
        """Works until the first signal; first what was left unanswered."""
        again = [asyncio.ensure_future(self._submit(wish)) for wish in unanswered]
        callers = [asyncio.ensure_future(self._call()) for _ in range(CALLERS)]
        pacing = asyncio.ensure_future(self._vary())
        await signals.asked
        pacing.cancel()
        self._over.set()
        await asyncio.wait([*again, *callers], timeout=LAST_WORDS_S)
        for client in self._clients:
            client.close()

    async def _vary(self) -> None:
        while True:
            self._pace = self._rng.choice(PACES)
            await asyncio.sleep(self._rng.uniform(2, 5))

    async def _call(self) -> None:
        while True:
            await self._pause(self._rng.expovariate(self._rate * self._pace / CALLERS))
            if self._over.is_set():
                return
            self._count += 1
            wish = draw(self._rng, f"{self._name}-{self._count}")
            task_id = await self._submit(wish)
            if task_id and self._rng.random() < CANCELLED_OF_100 / 100:
                await self._pause(self._rng.uniform(0, 1))
                await self._cancel(task_id)
            if task_id and self._rng.random() < REPEATED_OF_100 / 100:
                await self._submit(wish)

    async def _submit(self, wish: Wish) -> str:
        """Until it is answered, or for so many tries; the id if it is accepted."""
        for _ in range(TRIES):
            self._record.write("submit", do="invoke", wish=wish, digest=digest(data_of(wish)))
            try:
                answer = await self._rng.choice(self._clients).submit(**said(wish))
            except (Unavailable, Exhausted) as reason:
                self._record.write("submit", do="unknown", ref=wish["ref"], why=str(reason))
                await asyncio.sleep(self._rng.uniform(*PAUSE_S))
            except Refused as reason:
                why = f"{type(reason).__name__}: {reason}"
                self._record.write("submit", do="fail", ref=wish["ref"], why=why)
                return ""
            else:
                task_id = answer.task_id
                self._record.write("submit", do="ok", ref=wish["ref"], task_id=task_id)
                return task_id
        return ""

    async def _cancel(self, task_id: str) -> None:
        self._record.write("cancel", do="invoke", task_id=task_id)
        try:
            await self._clients[1].cancel(task_id)
        except Unavailable as reason:
            self._record.write("cancel", do="unknown", task_id=task_id, why=str(reason))
        except Refused as reason:
            why = f"{type(reason).__name__}: {reason}"
            self._record.write("cancel", do="fail", task_id=task_id, why=why)
        else:
            self._record.write("cancel", do="ok", task_id=task_id)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)


def unanswered(folder: Path, player: str) -> list[Wish]:
    """What the earlier ones of this player were still asking for when they ended."""
    wishes: dict[str, Wish] = {}
    for path in sorted(folder.glob(f"{player}.*.jsonl")):
        for line in read(path):
            if line["event"] != "submit":
                continue
            if line["do"] == "invoke":
                wishes[line["wish"]["ref"]] = line["wish"]
            elif line["do"] != "unknown":
                wishes.pop(line["ref"], None)
    return list(wishes.values())


async def main(server: str, name: str, seed: str, rate: float, folder: Path) -> None:
    signals = Signals()
    left = unanswered(folder, name.split(".")[0])
    record = Recorder(folder / f"{name}.jsonl", name)
    record.write("began", repeats=len(left))
    await Submitter(server, name, seed, rate, record).run(signals, left)
    record.write("left")


if __name__ == "__main__":
    logs.configure("warning")
    server, name, seed, rate, folder = sys.argv[1:]
    interpreter.run(main(server, name, seed, float(rate), Path(folder)), "asyncio")
