"""Whether each lease went to the task that came first, of those that surely waited (P2), and
whether none was started too early or too late.

The distributor's own records say in which batch a task became ready, was leased, ended. A task
waits from the batch after the one in which it became ready. One that was leased without its agent
ever hearing so went back uncounted: where a stream or a fetch was cut, or a stream said goodbye, as
many tasks may be passed over as may have gone that way, and no more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sortedcontainers import SortedList

from scripts.chaosing.checking_tasks import owners_of
from scripts.chaosing.evidence import FOREVER, Attempt, Call, Evidence, Final, Process, Submit
from scripts.chaosing.served import served_by
from scripts.chaosing.violation import Violation
from scripts.chaosing.wishes import TIERS

SET_BACK_MAX_S = 0.001
"""If the wall clock was set back by more, the order of batches is not that of their times."""

UNSEEN_S = 1.5
"""How much longer than its term a lease may live of which its agent has not heard."""

COMMIT_S = 0.5
"""How long it may take until what a stream took back at its end is in the distributor's store."""

EARLY_S = 0.002
"""How much two roundings of a time may differ."""

Key = tuple[Any, ...]

Lane = tuple[str, str]


@dataclass
class Ordered:
    """How much was judged."""

    leases: int = 0
    strictly: int = 0
    """Of these, while no stream or fetch ended unheard: not one task may be passed over."""
    waiting: int = 0
    """Of these, while others surely waited in the same lanes."""
    judged: bool = True


@dataclass
class _Step:
    """What happens to one task in one batch."""

    wall: float
    rank: int
    """0: it waits no more, 1: it is leased, 2: it waits from now on."""
    final: Final
    retried: bool = False
    attempt: Attempt | None = None


def check_order(evidence: Evidence, lease_s: float, ordered: Ordered) -> Iterator[Violation]:
    """Violations of P2.

    Args:
        lease_s: the term of a task that names none.
        ordered: counted into.
    """
    owners = owners_of(evidence)
    for final in evidence.finals.values():
        if final.task_id in owners:
            yield from _check_times(evidence, final, owners[final.task_id])
    if evidence.set_back_s() > SET_BACK_MAX_S:
        ordered.judged = False
        return
    steps = [
        step
        for final in evidence.finals.values()
        if final.task_id in owners
        for step in _steps(evidence, final, owners[final.task_id])
    ]
    steps.sort(key=lambda step: (step.wall, step.rank))
    sessions = {process.session: process for process in evidence.processes.values()}
    unseen = _Unseen(evidence, lease_s)
    waiting: dict[Lane, SortedList[tuple[Key, str]]] = {}
    for step in steps:
        lane = (step.final.told["queue"], step.final.told["kind"])
        line = waiting.setdefault(lane, SortedList())
        entry = (_key(step.final, step.retried), step.final.task_id)
        if step.rank == 2:
            line.add(entry)
        elif step.rank == 0:
            line.discard(entry)
        elif step.attempt is not None:
            process = sessions[step.attempt.session]
            lines = [waiting[lane] for lane in process.lanes if lane in waiting]
            passed = [str(one[1]) for line in lines for one in line[: line.bisect_left(entry)]]
            allowed = unseen.count(step.wall)
            ordered.leases += 1
            ordered.strictly += not allowed
            ordered.waiting += any(lines)
            if len(passed) > allowed:
                text = f"{step.attempt.lease_id} passed over {len(passed)}: {passed[:3]}"
                yield Violation("order not kept", text)


def _key(final: Final, retried: bool) -> Key:
    told = final.told
    return (
        retried,
        TIERS.index(told["user_tier"]),
        told["est_processing_time_s"],
        told["enqueued_at"] or FOREVER,
        told["sequence"],
    )


def _steps(evidence: Evidence, final: Final, submit: Submit) -> Iterator[_Step]:
    """When the task waited and when it was leased. A step of rank 0 for each that ends a wait."""
    told = final.told
    waits_since = told["enqueued_at"] if submit.wish.get("delay_s") else told["submitted_at"]
    retried = False
    for attempt in final.attempts:
        # One that is leased in the batch in which it became ready was never seen to wait.
        if waits_since is not None and waits_since < attempt.started_at:
            yield _Step(waits_since, 2, final, retried)
            yield _Step(attempt.started_at, 0, final, retried)
        yield _Step(attempt.started_at, 1, final, retried, attempt)
        retried = retried or attempt.outcome == "FAILED"
        waits_since = attempt.ended_at if not _pause_s(evidence, submit, attempt, 1) else None
    ended = told["finished_at"] or FOREVER
    if waits_since is not None and waits_since < ended:
        yield _Step(waits_since, 2, final, retried)
        yield _Step(ended, 0, final, retried)


def _pause_s(evidence: Evidence, submit: Submit, attempt: Attempt, failures: int) -> float:
    """How long the task has to wait after this attempt, at least."""
    outcomes = evidence.outcomes.get(attempt.lease_id)
    if attempt.outcome != "FAILED" or outcomes is None:
        return 0.0
    after_s = outcomes.said[-1].retry_after_s
    if after_s is not None:
        return after_s
    kind, first_s, most_s, jitter_percent = submit.wish.get("backoff") or ("", 0, None, 0)
    doubled = 2 ** (failures - 1) if kind == "EXPONENTIAL" else 1
    pause_s: float = min(first_s * doubled, FOREVER if most_s is None else most_s)
    return pause_s * (1 - jitter_percent / 100)


def _check_times(evidence: Evidence, final: Final, submit: Submit) -> Iterator[Violation]:
    """No attempt began before its task may start, or after its deadline."""
    told = final.told
    may_start = told["submitted_at"] + submit.wish.get("delay_s", 0)
    failures = 0
    for attempt in final.attempts:
        started = evidence.moment(attempt.started_at)
        if started < evidence.moment(may_start) - EARLY_S:
            yield Violation("started too early", attempt.lease_id)
        if told["deadline"] is not None and attempt.started_at > told["deadline"] + EARLY_S:
            yield Violation("started after its deadline", attempt.lease_id)
        failures += attempt.outcome == "FAILED"
        may_start = attempt.ended_at + _pause_s(evidence, submit, attempt, failures)


class _Unseen:
    """How many leases there may be at a moment that no agent heard of, and that went back."""

    def __init__(self, evidence: Evidence, lease_s: float) -> None:
        self._served = served_by(evidence, lease_s)
        self._evidence = evidence
        self._started = {
            attempt.lease_id: attempt.started_at
            for final in evidence.finals.values()
            for attempt in final.attempts
        }
        terms = [final.told["lease_s"] for final in evidence.finals.values()]
        self._longest_s = max([lease_s, *terms]) + UNSEEN_S
        self._changes: list[tuple[float, int]] = []
        for process in evidence.processes.values():
            for fetch in process.fetches.values():
                if not fetch.well:
                    self._add(evidence.wall(fetch.invoked_at), self._end(process, fetch), 1)
            self._add_streams(process)
        self._changes.sort()
        self._next = 0
        self._count = 0

    def count(self, wall: float) -> int:
        """Of this moment. Moments have to be asked for in their order."""
        while self._next < len(self._changes) and self._changes[self._next][0] <= wall:
            self._count += self._changes[self._next][1]
            self._next += 1
        return self._count

    def _add_streams(self, process: Process) -> None:
        """What came before the last lease that was heard of was written out, and heard of."""
        streams = list(process.streams.values())
        for number, stream in enumerate(streams):
            heard = [self._started[one] for one in stream.leases if one in self._started]
            since = max([self._evidence.wall(stream.invoked_at), *heard])
            if stream.well:
                # What was taken when the goodbye came was taken back before the end was said.
                until = self._evidence.wall(self._served.reaches(stream.ended_at, COMMIT_S))
                self._add(since, until, stream.slots)
                continue
            until = self._end(process, stream)
            # The first word on a later stream comes after the hello has put things right.
            for later in streams[number + 1 :]:
                if later.news_at:
                    until = min(until, self._evidence.wall(later.news_at[0]))
                    break
            self._add(since, until, stream.slots)

    def _end(self, process: Process, call: Call) -> float:
        """By when a lease that was never heard of is over, whoever ends it."""
        at = min(call.ended_at, process.ended_at)
        if at == FOREVER:
            return FOREVER
        return self._evidence.wall(self._served.reaches(at, self._longest_s))

    def _add(self, since: float, until: float, count: int) -> None:
        self._changes += [(since, count), (until, -count)]
