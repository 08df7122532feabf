"""Whether each lost lease ended when its time was up: not before, and within a second (P4).

A lease begins anew with its grant, with each heartbeat and with each start of the distributor. Of a
heartbeat that was answered it is known between which two times that was; one that was not may have
come as late as its connection closed. What cannot be shown is not judged.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from scripts.chaosing.evidence import Attempt, Beat, Evidence, Final, Process
from scripts.chaosing.served import Served, served_by
from scripts.chaosing.violation import Violation
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings

LATE_MAX_S = 1.0
"""How long after its end a lease may be ended."""

CLOCK_S = 0.005
"""How far two clocks of one machine may be apart, by the ticks that compare them."""

PAUSE_S = DistributorSettings().pause_us / SECOND_US
"""What the distributor's clock counts of a pause, at most."""

SIGNAL_S = 0.1
"""How long a signal may take until it is obeyed."""

PROBE_EVERY_S = 0.25
"""How often the campaign asks something that takes the distributor's writer."""

SILENT_MAX_S = 10.0
"""How long such a call may be without an answer: far more than a busy machine makes of it."""

TIGHT_S = 0.3
"""Of a renewal known to this, the second is judged sharply."""


@dataclass
class Renewals:
    """When a lease's term began anew for the last time."""

    surely_after: float
    at_the_latest: float


@dataclass
class Judged:
    """How much could be judged."""

    lost: int = 0
    """Leases that were lost."""
    sharply: int = 0
    """Of these, those whose last renewal is known to TIGHT_S."""
    silent_s: float = 0.0
    """The longest time without an answer in which the distributor was neither dead nor stopped."""


def check_leases(evidence: Evidence, lease_s: float, judged: Judged) -> Iterator[Violation]:
    """Violations of P4.

    Args:
        lease_s: the term of a task that names none.
        judged: counted into.
    """
    served = served_by(evidence, lease_s)
    renewing = _Renewing(evidence)
    yield from _check_silence(evidence, judged)
    for final in evidence.finals.values():
        term_s = final.told["lease_s"] or lease_s
        for attempt in final.attempts:
            yield from _check_run_timeout(evidence, served, final, attempt, term_s)
            if attempt.outcome == "LOST":
                renewals = renewing.of(attempt)
                judged.lost += 1
                judged.sharply += renewals.at_the_latest - renewals.surely_after < TIGHT_S
                yield from _check_end(evidence, served, final, attempt, renewals, term_s)


def _check_silence(evidence: Evidence, judged: Judged) -> Iterator[Violation]:
    """A pause that the distributor's clock excuses has to be in the log of faults."""
    away = evidence.away()
    probes = sorted(evidence.probes, key=lambda probe: probe.ended_at)
    for earlier, later in pairwise(probes):
        # From when a probe had been asked that could have been answered.
        since = max(earlier.ended_at, min(later.invoked_at, earlier.ended_at + PROBE_EVERY_S))
        silent_s = later.ended_at - since
        silent_s -= sum(
            max(0.0, min(until, later.ended_at) - max(start, since)) for start, until in away
        )
        judged.silent_s = max(judged.silent_s, silent_s)
        if silent_s > SILENT_MAX_S:
            yield Violation("distributor was silent", f"{silent_s:.1f} s until {later.ended_at}")


def _check_end(
    evidence: Evidence,
    served: Served,
    final: Final,
    attempt: Attempt,
    renewals: Renewals,
    term_s: float,
) -> Iterator[Violation]:
    started, ended = evidence.moment(attempt.started_at), evidence.moment(attempt.ended_at)
    earliest = renewals.surely_after + term_s
    earliest += _stopped_s(evidence, renewals.surely_after, ended)
    if final.told["run_timeout_s"]:
        earliest = min(earliest, started + final.told["run_timeout_s"] + term_s)
    if ended < earliest - CLOCK_S:
        text = f"{attempt.lease_id}: {earliest - ended:.3f} s before its end"
        yield Violation("lease cut short", text)
    # Looks that are as late as a renewal: those before may be older than it.
    late_s = served.between(renewals.at_the_latest + CLOCK_S, ended) - term_s
    if late_s > LATE_MAX_S:
        text = f"{attempt.lease_id}: the distributor served {late_s:.3f} s more"
        yield Violation("lease kept too long", text)


def _stopped_s(evidence: Evidence, since: float, until: float) -> float:
    """By how much a lease is longer because the distributor was stopped meanwhile, at least."""
    spans = ((max(start, since), min(end, until)) for start, end in evidence.surely_stopped)
    return sum(max(0.0, end - start - PAUSE_S - SIGNAL_S) for start, end in spans)


def _check_run_timeout(
    evidence: Evidence, served: Served, final: Final, attempt: Attempt, term_s: float
) -> Iterator[Violation]:
    timeout_s = final.told["run_timeout_s"]
    if not timeout_s:
        return
    started, ended = evidence.moment(attempt.started_at), evidence.moment(attempt.ended_at)
    # A kill may take back what was served since the last batch, and grants a term.
    lives = [life for life in evidence.lives if started < life.spawned_at < ended]
    allowed_s = timeout_s + term_s + LATE_MAX_S + len(lives) * (term_s + LATE_MAX_S)
    over_s = served.between(started, ended) - allowed_s
    if over_s > 0:
        yield Violation("run past its time", f"{attempt.lease_id}: by {over_s:.3f} s")


class _Renewing:
    """Finds the last renewal of a lease."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._sessions = {process.session: process for process in evidence.processes.values()}
        self._beats: defaultdict[str, list[Beat]] = defaultdict(list)
        for process in evidence.processes.values():
            for beat in process.beats.values():
                for lease_id in beat.lease_ids:
                    self._beats[lease_id].append(beat)

    def of(self, attempt: Attempt) -> Renewals:
        started = self._evidence.moment(attempt.started_at)
        ended = self._evidence.moment(attempt.ended_at)
        found = Renewals(started, started)
        for life in self._evidence.lives:
            # What was leased before is read after the start of the process.
            if started < life.spawned_at < ended:
                found.surely_after = max(found.surely_after, life.spawned_at)
                found.at_the_latest = max(found.at_the_latest, life.serving_at)
        process = self._sessions.get(attempt.session)
        for beat in self._beats[attempt.lease_id]:
            assert process is not None
            if beat.answered_at is None:
                latest = self._latest(process, beat)
                found.at_the_latest = max(found.at_the_latest, latest)
            elif attempt.lease_id in beat.held:
                found.surely_after = max(found.surely_after, beat.invoked_at)
                found.at_the_latest = max(found.at_the_latest, beat.answered_at)
        return found

    def _latest(self, process: Process, beat: Beat) -> float:
        """When an unanswered heartbeat may have come at the latest."""
        role = process.name.split(".")[0]
        through = [
            closed
            for opened, closed in self._evidence.connections[role].values()
            if opened <= beat.invoked_at <= closed
        ]
        # One that had no connection yet went through one that was opened for it.
        later = [
            closed
            for opened, closed in self._evidence.connections[role].values()
            if opened > beat.invoked_at
        ]
        answered = [
            other.answered_at
            for other in process.beats.values()
            if other.invoked_at > beat.invoked_at and other.answered_at is not None
        ]
        if answered:
            return min(answered)  # Heartbeats of one connection come in order.
        return max([*through, *later], default=process.ended_at)
