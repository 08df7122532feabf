"""What the histories of a campaign say, sorted by what they tell of. Pure: lines in, values out."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from scripts.chaosing.history import Line

FINAL_STATES = ("SUCCEEDED", "DEAD", "CANCELLED")

FOREVER = float("inf")


@dataclass
class Submit:
    """All calls that asked for one wish."""

    wish: dict[str, Any]
    digest: str
    acknowledged: set[str] = field(default_factory=set)
    """The ids that it was answered with."""
    refused: str = ""


@dataclass
class Cancel:
    """All calls that asked for the end of one task."""

    acknowledged: bool = False


@dataclass
class Said:
    """An outcome as an agent said it."""

    outcome: str
    digest: str
    retryable: bool
    retry_after_s: float | None


@dataclass
class Outcomes:
    """What was said under one lease, and the verdicts."""

    task_id: str
    said: list[Said] = field(default_factory=list)
    verdicts: list[tuple[str, float, Said]] = field(default_factory=list)
    """ok, fail or unknown, when, and of what."""


@dataclass
class Run:
    """A handler's run."""

    lease_id: str
    task_id: str
    began_at: float
    ended_at: float = FOREVER


@dataclass
class Beat:
    """A heartbeat."""

    invoked_at: float
    lease_ids: frozenset[str]
    answered_at: float | None = None
    held: frozenset[str] = frozenset()


@dataclass
class Call:
    """A fetch or a stream, which may have ended without its agent seeing all that it was given."""

    invoked_at: float
    ended_at: float = FOREVER
    well: bool = False
    news_at: list[float] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)
    slots: int = 1


@dataclass
class Process:
    """A process of an agent."""

    name: str
    session: str
    agent_id: str
    lanes: frozenset[tuple[str, str]]
    slots: int
    ended_at: float = FOREVER
    beats: dict[int, Beat] = field(default_factory=dict)
    fetches: dict[int, Call] = field(default_factory=dict)
    streams: dict[int, Call] = field(default_factory=dict)


@dataclass
class Life:
    """A process of the distributor."""

    spawned_at: float
    serving_at: float = FOREVER
    ended_at: float = FOREVER


@dataclass
class Attempt:
    """A lease as the distributor keeps it, when it is over. Wall clock."""

    number: int
    lease_id: str
    session: str
    started_at: float
    ended_at: float
    outcome: str
    error_digest: str


@dataclass
class Final:
    """A task after the drain, as the distributor tells of it. Wall clock."""

    task_id: str
    state: str
    told: dict[str, Any]
    """All else."""
    attempts: list[Attempt]


class Evidence:
    """The lines of all histories of one campaign."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.submits: dict[str, Submit] = {}
        self.cancels: dict[str, Cancel] = {}
        self.outcomes: dict[str, Outcomes] = {}
        self.leases: dict[str, Line] = {}
        """As agents got them."""
        self.runs: list[Run] = []
        self.processes: dict[str, Process] = {}
        self.lives: list[Life] = []
        self.stops: list[tuple[float, float]] = []
        """When the distributor was stopped, and continued: no longer than this."""
        self.surely_stopped: list[tuple[float, float]] = []
        """… and no shorter."""
        self.connections: defaultdict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        """When each opened and closed, by the role of its player."""
        self.probes: list[Call] = []
        """Answered calls of the campaign itself, past every link."""
        self.finals: dict[str, Final] = {}
        self.noise: list[Line] = []
        """What ended or was logged that should not be."""
        self.began_at = self.ended_at = 0.0
        self._ticks: list[tuple[float, float]] = []
        self._running: dict[str, Run] = {}
        for line in lines:
            self._take_in(line)
        self._walls = [wall for _, wall in self._ticks]

    # --- clocks ---

    def moment(self, wall: float) -> float:
        """A time of the wall clock on the monotonic one, by the nearest tick before."""
        at, tick = self._ticks[max(0, bisect_right(self._walls, wall) - 1)]
        return at + wall - tick

    def wall(self, at: float) -> float:
        """A time of the monotonic clock on the wall's."""
        number = bisect_right(self._ticks, (at, FOREVER)) - 1
        tick_at, tick = self._ticks[max(0, number)]
        return tick + at - tick_at

    def set_back_s(self) -> float:
        """By how much the wall clock was ever set back."""
        offsets = [wall - at for at, wall in self._ticks]
        return max((a - b for a, b in pairwise(offsets)), default=0.0)

    def away(self) -> list[tuple[float, float]]:
        """When the distributor was dead or stopped, by the log of faults."""
        dead = [(one.ended_at, next_one.serving_at) for one, next_one in pairwise(self.lives)]
        return sorted([*self.stops, *dead])

    # --- lines ---

    def _take_in(self, line: Line) -> None:
        take = getattr(self, f"_take_{line['event']}", None)
        if take is not None:
            take(line)

    def _take_tick(self, line: Line) -> None:
        self._ticks.append((line["monotonic"], line["wall"]))

    def _take_campaign(self, line: Line) -> None:
        if line["what"] == "began":
            self.began_at = line["at"]
        elif line["what"] == "ended":
            self.ended_at = line["at"]

    def _take_probe(self, line: Line) -> None:
        self.probes.append(Call(line["invoked_at"], line["at"], well=True))

    def _take_noise(self, line: Line) -> None:
        self.noise.append(line)

    def _take_submit(self, line: Line) -> None:
        if line["do"] == "invoke":
            wish = line["wish"]
            self.submits.setdefault(wish["ref"], Submit(wish, line["digest"]))
            return
        submit = self.submits[line["ref"]]
        if line["do"] == "ok":
            submit.acknowledged.add(line["task_id"])
        elif line["do"] == "fail":
            submit.refused = line["why"]

    def _take_cancel(self, line: Line) -> None:
        cancel = self.cancels.setdefault(line["task_id"], Cancel())
        cancel.acknowledged |= line["do"] == "ok"

    def _take_outcome(self, line: Line) -> None:
        if line["do"] == "invoke":
            outcomes = self.outcomes.setdefault(line["lease_id"], Outcomes(line["task_id"]))
            said = Said(
                line["outcome"],
                line.get("digest", ""),
                line.get("retryable", True),
                line.get("retry_after_s"),
            )
            outcomes.said.append(said)
            return
        outcomes = self.outcomes[line["lease_id"]]
        outcomes.verdicts.append((line["do"], line["at"], outcomes.said[-1]))

    def _take_lease(self, line: Line) -> None:
        self.leases[line["lease_id"]] = line
        if line["stream"] is not None:
            stream = self.processes[line["who"]].streams[line["stream"]]
            stream.leases.append(line["lease_id"])

    def _take_run(self, line: Line) -> None:
        if line["do"] == "began":
            run = Run(line["lease_id"], line["task_id"], line["at"])
            self.runs.append(run)
            self._running[run.lease_id] = run
        else:
            self._running[line["lease_id"]].ended_at = line["at"]

    def _take_began(self, line: Line) -> None:
        if "session" in line:
            lanes = frozenset((queue, kind) for queue in line["queues"] for kind in line["kinds"])
            process = Process(line["who"], line["session"], line["agent_id"], lanes, line["slots"])
            self.processes[line["who"]] = process

    def _take_heartbeat(self, line: Line) -> None:
        beats = self.processes[line["who"]].beats
        if line["do"] == "invoke":
            beats[line["call"]] = Beat(line["at"], frozenset(line["lease_ids"]))
        elif line["do"] == "ok":
            beats[line["call"]].answered_at = line["at"]
            beats[line["call"]].held = frozenset(line["lease_ids"])

    def _take_fetch(self, line: Line) -> None:
        self._take_call(self.processes[line["who"]].fetches, line, 1)

    def _take_stream(self, line: Line) -> None:
        process = self.processes[line["who"]]
        self._take_call(process.streams, line, process.slots)

    def _take_call(self, calls: dict[int, Call], line: Line, slots: int) -> None:
        if line["do"] == "invoke":
            calls[line["call"]] = Call(line["at"], slots=slots)
        else:
            calls[line["call"]].ended_at = line["at"]
            calls[line["call"]].well = line["do"] == "ok"

    def _take_news(self, line: Line) -> None:
        self.processes[line["who"]].streams[line["call"]].news_at.append(line["at"])

    def _take_process(self, line: Line) -> None:
        what = line["what"]
        if line["role"] != "distributor":
            if what == "ended" and line["process"] in self.processes:
                self.processes[line["process"]].ended_at = line["at"]
        elif what == "spawned":
            self.lives.append(Life(line["at"]))
        elif what == "serving":
            self.lives[-1].serving_at = line["at"]
        elif what == "ended":
            self.lives[-1].ended_at = line["at"]
        elif what == "stopping":
            self.stops.append((line["at"], FOREVER))
        elif what == "stopped":
            self.surely_stopped.append((line["at"], FOREVER))
        elif what == "continuing":
            self.surely_stopped[-1] = (self.surely_stopped[-1][0], line["at"])
        elif what == "continued":
            self.stops[-1] = (self.stops[-1][0], line["at"])

    def _take_connection(self, line: Line) -> None:
        connections = self.connections[line["role"]]
        if line["what"] == "opened":
            connections[line["number"]] = (line["at"], FOREVER)
        else:
            connections[line["number"]] = (connections[line["number"]][0], line["at"])

    def _take_final(self, line: Line) -> None:
        told = dict(line["task"])
        attempts = [Attempt(*attempt) for attempt in told.pop("attempts")]
        final = Final(told["task_id"], told["state"], told, attempts)
        self.finals[final.task_id] = final
