"""Which faults befall whom and when: a schedule drawn from a seed, before anything runs.

The time is cut into phases. A quarter of them are calm; each other one has a mix of faults of its
own, so that what is rare in one is usual in the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

PHASE_S = 5.0

CALM_SHARE = 4
"""One phase of so many is calm."""

FAULT_EVERY_S = 0.55
"""Mean time between two faults, outside the calm."""

Sort = Literal["process", "link"]

PROCESS_FAULTS: dict[str, tuple[float, float]] = {
    "kill": (0.0, 1.5),
    "stop": (0.2, 5.0),
    "term": (0.0, 0.5),
}
"""SIGKILL, or SIGTERM, and started again after so long; SIGSTOP, and SIGCONT after so long."""

LINK_FAULTS: dict[str, tuple[float, float]] = {
    "cut": (0.0, 0.0),
    "cut in mid-message": (0.5, 2.0),
    "half-close": (0.0, 0.0),
    "refuse": (0.2, 4.0),
    "slow": (0.5, 3.0),
    "stall": (0.2, 5.0),
    "stall in mid-message": (0.5, 5.0),
}
"""What the proxy does, and for how long."""

DISTRIBUTOR = "distributor"

DISTRIBUTOR_STOP_MAX_S = 4.5
"""Longer than a lease: none may end by it."""

DISTRIBUTOR_OF_10 = 3
"""How many of ten faults of processes are the distributor's: each befalls everybody."""

BYTES = (1, 2, 9, 10, 40, 150, 600, 4_000, 60_000)
"""After how many bytes something happens in mid-message: a frame's header has nine."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    at_s: float
    """When, from the start."""
    sort: Sort
    name: str
    player: str
    for_s: float
    """How long it lasts, or how long after it is put right."""
    way: Literal["up", "down", "both"] = "both"
    after_bytes: int = 0


@dataclass(frozen=True)
class Phase:
    """A span of time with a mix of faults of its own."""

    from_s: float
    to_s: float
    mix: dict[str, float]
    """Weights; none: it is calm."""

    @property
    def is_calm(self) -> bool:
        return not self.mix


def phases(rng: Random, duration_s: float) -> list[Phase]:
    """The phases of a campaign: of each four, one is calm."""
    count = max(CALM_SHARE, round(duration_s / PHASE_S))
    length_s = duration_s / count
    calm: set[int] = set()
    for start in range(0, count - count % CALM_SHARE, CALM_SHARE):
        calm.add(start + rng.randrange(CALM_SHARE))
    names = [*PROCESS_FAULTS, *LINK_FAULTS]
    found = []
    for number in range(count):
        # The square makes some usual and most rare.
        mix = {name: rng.random() ** 2 for name in names}
        mix = {} if number in calm else mix
        found.append(Phase(number * length_s, (number + 1) * length_s, mix))
    return found


def schedule(
    rng: Random, spans: Sequence[Phase], *, agents: Sequence[str], submitters: Sequence[str]
) -> list[Fault]:
    """The faults of these phases, by their time."""
    players = [*agents, *submitters]
    found = []
    for phase in spans:
        at_s = phase.from_s
        while phase.mix:
            at_s += rng.expovariate(1 / FAULT_EVERY_S)
            if at_s >= phase.to_s:
                break
            name = rng.choices(list(phase.mix), weights=list(phase.mix.values()))[0]
            if name in PROCESS_FAULTS:
                found.append(_of_process(rng, at_s, name, players))
            else:
                found.append(_of_link(rng, at_s, name, players))
    return found


def _of_process(rng: Random, at_s: float, name: str, players: Sequence[str]) -> Fault:
    for_s = rng.uniform(*PROCESS_FAULTS[name])
    player = rng.choice(players)
    if rng.randrange(10) < DISTRIBUTOR_OF_10:
        player = DISTRIBUTOR
        if name == "stop":
            for_s = min(for_s, rng.uniform(0.2, DISTRIBUTOR_STOP_MAX_S))
    return Fault(at_s, "process", name, player, round(for_s, 3))


def _of_link(rng: Random, at_s: float, name: str, players: Sequence[str]) -> Fault:
    return Fault(
        at_s,
        "link",
        name,
        rng.choice(players),
        round(rng.uniform(*LINK_FAULTS[name]), 3),
        rng.choice(("up", "down")) if "mid" in name else rng.choice(("up", "down", "both")),
        rng.choice(BYTES) if "mid" in name else 0,
    )
