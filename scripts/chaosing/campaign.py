"""A campaign: starts the players, lets faults befall them, drains, and reads what became of all."""

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from scripts.chaosing import finals
from scripts.chaosing.checking_leases import PROBE_EVERY_S
from scripts.chaosing.faults import DISTRIBUTOR, Fault, phases, schedule
from scripts.chaosing.history import Recorder
from scripts.chaosing.proxy import Link
from scripts.chaosing.stage import HeldPort, Role, misbehave, serve_command
from taskdist.client import Stub
from taskdist.core.errors import Unavailable

TICK_S = 0.2

CLOCK_TRIES = 5
"""How often both clocks are read: between two readings others may have the processor."""

LEASE_S = 3.0

DRAIN_S = 120.0
"""How long the drain may take: the longest task, its retries and lost leases, on a slow machine."""

AGENTS = {
    "streaming": ("work", 8, "default,other", "quick,slow"),
    "fetching": ("fetch", 6, "default,other", "quick,slow"),
    "narrow": ("work", 4, "default", "quick"),
    "other": ("fetch", 4, "other,default", "slow,quick"),
}
"""Feed, slots, queues and kinds of each."""

SUBMITTERS = ("payer", "guest")


@dataclass
class Plan:
    """What a campaign is told.

    Attributes:
        rate: tasks a second, of all submitters, when nothing goes wrong.
    """

    seed: str
    duration_s: float
    rate: float


class Campaign:
    """One campaign, whose histories and store are in one folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._histories = folder / "histories"
        self._histories.mkdir()
        self._record = Recorder(self._histories / "campaign.jsonl", "campaign")
        self._port = HeldPort()
        serve = serve_command(self._port.number, folder / "tasks.db", [f"--lease={LEASE_S}s"])
        self._roles = {DISTRIBUTOR: Role(DISTRIBUTOR, serve, self._record, "serving")}
        self._links: dict[str, Link] = {}
        self._harm: set[asyncio.Task[None]] = set()
        self._beside: set[asyncio.Task[None]] = set()
        self._busy = {name: asyncio.Lock() for name in (*AGENTS, *SUBMITTERS)}

    async def run(self) -> float:
        """The whole of it; the processor time of all players, seconds."""
        try:
            await self._begin()
            for one in (self._tick(), self._probe()):
                self._beside.add(asyncio.ensure_future(one))
            await self._let_faults_happen()
            await self._drain()
            for task in self._beside:
                if task.done():
                    task.result()  # It failed.
            return sum(role.cpu_s for role in self._roles.values())
        finally:
            beside = [*self._beside, *self._harm]
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            for role in self._roles.values():
                role.kill()
            for link in self._links.values():
                await link.close()
            self._port.free()
            self._record.close()

    async def _begin(self) -> None:
        await self._roles[DISTRIBUTOR].start()
        for name in (*AGENTS, *SUBMITTERS):
            link = Link(("127.0.0.1", self._port.number), self._teller(name))
            self._links[name] = link
            self._roles[name] = self._role(name, await link.listen())
            await self._roles[name].start()
        self._record.write("campaign", what="began", seed=self._plan.seed)

    def _teller(self, name: str) -> "Teller":
        return Teller(self._record, name)

    def _role(self, name: str, server: str) -> Role:
        folder = str(self._histories)
        if name in AGENTS:
            feed, slots, queues, kinds = AGENTS[name]
            more = [feed, str(slots), queues, kinds, folder]
            module = "scripts.chaosing.agent"
        else:
            rate = self._plan.rate / len(SUBMITTERS)
            more = [self._plan.seed, str(rate), folder]
            module = "scripts.chaosing.submitter"
        return Role(name, lambda process: ["-m", module, server, process, *more], self._record)

    async def _tick(self) -> None:
        while True:
            at, wall = both_clocks()
            self._record.write("tick", monotonic=at, wall=wall)
            for role in self._roles.values():
                if not (role.busy.locked() or role.is_running or role.is_dismissed):
                    role.note_death()
            await asyncio.sleep(TICK_S)

    async def _probe(self) -> None:
        """Asks something that takes the writer, past every link, to know that it serves."""
        async with Stub(f"127.0.0.1:{self._port.number}") as client:
            while True:
                invoked_at = time.monotonic()
                with suppress(Unavailable):  # It is dead; that is no answer.
                    await client.heartbeat(agent_id="prober", lease_ids=["none"])
                    self._record.write("probe", invoked_at=invoked_at)
                await asyncio.sleep(PROBE_EVERY_S)

    # --- faults ---

    async def _let_faults_happen(self) -> None:
        rng = Random(f"{self._plan.seed}/faults")
        spans = phases(rng, self._plan.duration_s)
        for span in spans:
            self._record.write("phase", **asdict(span))
        faults = schedule(rng, spans, agents=tuple(AGENTS), submitters=SUBMITTERS)
        began = time.monotonic()
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
            task = asyncio.ensure_future(self._befall(fault))
            self._harm.add(task)
        await asyncio.sleep(max(0.0, began + self._plan.duration_s - time.monotonic()))
        if self._harm:
            await asyncio.gather(*self._harm)

    async def _befall(self, fault: Fault) -> None:
        busy = self._roles[fault.player].busy if fault.sort == "process" else None
        busy = busy or self._busy[fault.player]
        if busy.locked():
            return  # What befalls it is not over yet.
        async with busy:
            self._record.write("fault", what="begins", **asdict(fault))
            if fault.sort == "process":
                await self._roles[fault.player].befall(fault)
            else:
                await misbehave(self._links[fault.player], fault)
            self._record.write("fault", what="ends", name=fault.name, player=fault.player)

    # --- the end ---

    async def _drain(self) -> None:
        self._record.write("campaign", what="ended")
        for name in SUBMITTERS:
            await self._dismiss(name)
        if not self._roles[DISTRIBUTOR].is_running:
            await self._roles[DISTRIBUTOR].start()  # It ended by itself; what it kept is judged.
        address = f"127.0.0.1:{self._port.number}"
        async with Stub(address) as client:
            drained = await finals.wait_for_none_live(client, DRAIN_S)
            self._record.write("campaign", what="drained", whole=drained)
            for name in AGENTS:
                await self._dismiss(name)
            record = Recorder(self._histories / "finals.jsonl", "finals")
            await finals.write_all(client, record)
            record.close()
        await self._dismiss(DISTRIBUTOR)

    async def _dismiss(self, name: str) -> None:
        role = self._roles[name]
        role.is_dismissed = True
        await role.end(signal.SIGTERM)


def both_clocks() -> tuple[float, float]:
    """The monotonic clock and the wall's at one moment, or as near as this process gets."""
    tries = [(time.monotonic(), time.time(), time.monotonic()) for _ in range(CLOCK_TRIES)]
    before, wall, after = min(tries, key=lambda one: one[2] - one[0])
    return (before + after) / 2, wall


class Teller:
    """Records the connections of one player."""

    def __init__(self, record: Recorder, name: str) -> None:
        self._record = record
        self._name = name

    def __call__(self, what: str, number: int) -> None:
        self._record.write("connection", what=what, role=self._name, number=number)
