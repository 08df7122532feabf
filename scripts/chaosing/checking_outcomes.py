"""Whether runs, outcomes and attempts belong together, with one holder at a time (P3, P5)."""

from collections.abc import Iterator

from scripts.chaosing.evidence import Attempt, Evidence, Final, Outcomes
from scripts.chaosing.violation import Violation

SPOKEN = ("SUCCEEDED", "FAILED", "RELEASED")
"""Outcomes that an agent has to say."""


def check_outcomes(evidence: Evidence) -> Iterator[Violation]:
    """Violations of P3, and runs that nothing explains."""
    attempts: dict[str, tuple[Final, Attempt]] = {}
    for final in evidence.finals.values():
        yield from _check_holders(final)
        for attempt in final.attempts:
            if attempt.lease_id in attempts:
                yield Violation("one lease, two attempts", attempt.lease_id)
            attempts[attempt.lease_id] = (final, attempt)
            yield from _check_said(evidence, final, attempt)
    for lease_id, outcomes in evidence.outcomes.items():
        _, attempt_of = attempts.get(lease_id, (None, None))
        yield from _check_verdicts(evidence, lease_id, outcomes, attempt_of)
    for run in evidence.runs:
        if run.lease_id not in attempts:
            text = f"{run.task_id} under {run.lease_id}"
            yield Violation("run without an attempt", text)
        elif attempts[run.lease_id][0].task_id != run.task_id:
            yield Violation("run of another task", f"{run.task_id} under {run.lease_id}")
    yield from _check_first_words(evidence, attempts)


def _check_holders(final: Final) -> Iterator[Violation]:
    for attempt in final.attempts:
        if attempt.ended_at < attempt.started_at:
            yield Violation("attempt ended before it began", f"{attempt.lease_id}")
    for earlier, later in zip(final.attempts, final.attempts[1:], strict=False):
        if later.started_at < earlier.ended_at:
            text = f"{final.task_id}: {earlier.lease_id} and {later.lease_id}"
            yield Violation("two live leases", text)


def _check_said(evidence: Evidence, final: Final, attempt: Attempt) -> Iterator[Violation]:
    """What counts was said, by the holder, and is kept as it was said."""
    if attempt.outcome not in SPOKEN:
        return
    outcomes = evidence.outcomes.get(attempt.lease_id)
    said = [one for one in outcomes.said if one.outcome == attempt.outcome] if outcomes else []
    if not said:
        text = f"{attempt.lease_id}: {attempt.outcome}"
        yield Violation("outcome that nobody said", text)
        return
    kept = attempt.error_digest
    if attempt.outcome == "SUCCEEDED":
        kept = final.told["result_digest"]
    if attempt.outcome != "RELEASED" and kept not in {one.digest for one in said}:
        yield Violation("outcome changed", f"{attempt.lease_id}: {attempt.outcome}")


def _check_verdicts(
    evidence: Evidence, lease_id: str, outcomes: Outcomes, attempt: Attempt | None
) -> Iterator[Violation]:
    accepted_at = None
    for verdict, at, said in outcomes.verdicts:
        text = f"{lease_id}: {said.outcome}, kept: {attempt.outcome if attempt else 'nothing'}"
        is_kept = attempt is not None and attempt.outcome == said.outcome
        if verdict == "ok" and not is_kept:
            yield Violation("stale outcome accepted", text)
        if verdict == "ok" and attempt is not None and evidence.moment(attempt.ended_at) > at:
            yield Violation("outcome accepted before it was kept", text)
        if verdict == "fail" and accepted_at is not None:
            yield Violation("accepted outcome refused when repeated", text)
        if verdict == "fail" and is_kept:
            yield Violation("refused outcome was kept", text)
        if verdict == "ok":
            accepted_at = at


def _check_first_words(
    evidence: Evidence, attempts: dict[str, tuple[Final, Attempt]]
) -> Iterator[Violation]:
    """Nobody gets a lease before it is there, or for a time that has passed."""
    for lease_id, line in evidence.leases.items():
        if lease_id not in attempts:
            continue
        attempt = attempts[lease_id][1]
        if evidence.moment(attempt.started_at) > line["at"]:
            yield Violation("lease before its time", lease_id)
        if attempt.number != line["attempt"]:
            yield Violation("attempt renumbered", lease_id)
