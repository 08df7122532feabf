"""The distributor's served clock, as far as can be shown from outside.

Each change that it kept names the moment of its batch, in which it looked at its clocks. Between
two looks that are known it served at least as long as the time between them, or the longest that it
counts of a pause, whichever is less. Nothing here depends on how fast the machine was.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from scripts.chaosing.evidence import Evidence
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings


class Served:
    """How long the distributor served at least.

    Args:
        looks: times at which it looked at its clocks, sorted.
        pause_s: the longest gap that its clock counts in full.
    """

    def __init__(self, looks: Sequence[float], pause_s: float) -> None:
        self.looks = looks
        gaps = (min(later - earlier, pause_s) for earlier, later in pairwise(looks))
        self._sums = [0.0, *accumulate(gaps)]

    def between(self, since: float, until: float) -> float:
        """Seconds served from the first look at or after `since` to the last one before `until`."""
        first = bisect_left(self.looks, since)
        last = bisect_left(self.looks, until) - 1
        return self._sums[last] - self._sums[first] if last > first else 0.0

    def reaches(self, since: float, seconds: float) -> float:
        """When it has served so long since then, at the latest; infinity: it cannot be said."""
        first = bisect_left(self.looks, since)
        if first >= len(self.looks):
            return float("inf")
        last = bisect_right(self._sums, self._sums[first] + seconds, lo=first)
        return self.looks[last] if last < len(self.looks) else float("inf")


def served_by(evidence: Evidence, lease_s: float) -> Served:
    """The served clock of a campaign.

    Args:
        lease_s: the term of a task that names none.
    """
    terms = [final.told["lease_s"] for final in evidence.finals.values()]
    shortest_s = min([lease_s, *(term_s for term_s in terms if term_s)])
    pause_s = DistributorSettings().pause_us / SECOND_US
    return Served(looks_of(evidence), min(pause_s, shortest_s / 3))


def looks_of(evidence: Evidence) -> list[float]:
    """The moments of all batches that left a trace, on the monotonic clock."""
    walls: set[float] = set()
    for final in evidence.finals.values():
        walls.add(final.told["submitted_at"])
        if final.told["finished_at"] is not None:
            walls.add(final.told["finished_at"])
        for attempt in final.attempts:
            walls |= {attempt.started_at, attempt.ended_at}
    return sorted(map(evidence.moment, walls))
