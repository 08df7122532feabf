"""The schedule of faults comes from its seed alone, leaves a quarter calm, and knows them all."""

from collections import Counter
from random import Random

import pytest

from scripts.chaosing.faults import DISTRIBUTOR, LINK_FAULTS, PROCESS_FAULTS, phases, schedule

AGENTS = ("one", "two")
SUBMITTERS = ("payer",)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_draws_the_same_faults(seed: int) -> None:
    """A campaign can be repeated."""

    def draw() -> object:
        rng = Random(seed)
        spans = phases(rng, 60)
        return spans, schedule(rng, spans, agents=AGENTS, submitters=SUBMITTERS)

    assert draw() == draw()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("duration_s", [20, 60, 600])
def test_a_quarter_of_the_time_is_calm(seed: int, duration_s: int) -> None:
    """Nothing goes wrong in it."""
    rng = Random(seed)
    spans = phases(rng, duration_s)
    calm = [span for span in spans if span.is_calm]
    assert sum(span.to_s - span.from_s for span in calm) == pytest.approx(duration_s / 4)
    faults = schedule(rng, spans, agents=AGENTS, submitters=SUBMITTERS)
    assert faults
    for fault in faults:
        assert not any(span.from_s <= fault.at_s < span.to_s for span in calm)


def test_every_fault_befalls_somebody_and_the_mix_shifts() -> None:
    """In half an hour, all of them; and what is usual in one phase is rare in another."""
    rng = Random(1)
    spans = phases(rng, 1_800)
    faults = schedule(rng, spans, agents=AGENTS, submitters=SUBMITTERS)
    assert {fault.name for fault in faults} == PROCESS_FAULTS.keys() | LINK_FAULTS.keys()
    assert {fault.player for fault in faults} == {*AGENTS, *SUBMITTERS, DISTRIBUTOR}
    of_distributor = {fault.name for fault in faults if fault.player == DISTRIBUTOR}
    assert of_distributor == PROCESS_FAULTS.keys()
    usual = Counter(
        max(span.mix, key=lambda name: span.mix[name]) for span in spans if not span.is_calm
    )
    assert len(usual) > len(LINK_FAULTS)
