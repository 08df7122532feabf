"""What a campaign was and what came of it, in a few lines for people."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from scripts.chaosing.checker import Verdict
from scripts.chaosing.history import Line

VIOLATIONS_SHOWN = 20


def report(lines: Sequence[Line], verdict: Verdict) -> str:
    """The summary, one figure to a line."""
    rows = [*_faults(lines), *_calls(lines, verdict), *_judged(verdict)]
    text = "\n".join(f"{name:24} {value}" for name, value in rows)
    kinds = Counter(violation.kind for violation in verdict.violations)
    text += f"\n{'violations':24} {sum(kinds.values())}"
    for kind, count in kinds.items():
        text += f"\n  {kind}: {count}"
    for violation in verdict.violations[:VIOLATIONS_SHOWN]:
        text += f"\n  - {violation.kind}: {violation.text}"
    return text


def _faults(lines: Sequence[Line]) -> list[tuple[str, str]]:
    begun = [line for line in lines if line["event"] == "fault" and line["what"] == "begins"]
    theirs: dict[str, Counter[str]] = {}
    for line in begun:
        who = "distributor" if line["player"] == "distributor" else "players"
        theirs.setdefault(line["name"], Counter())[who] += 1
    rows = [("faults", str(len(begun)))]
    for name, counts in sorted(theirs.items()):
        of_distributor = counts["distributor"]
        more = f", {of_distributor} of them the distributor's" if of_distributor else ""
        rows.append((f"  {name}", f"{sum(counts.values())}{more}"))
    return rows


def _calls(lines: Sequence[Line], verdict: Verdict) -> list[tuple[str, str]]:
    evidence = verdict.evidence
    ends = Counter(line.get("do") for line in lines)
    states = Counter(final.state for final in evidence.finals.values())
    outcomes = Counter(a.outcome for final in evidence.finals.values() for a in final.attempts)
    acknowledged = sum(bool(submit.acknowledged) for submit in evidence.submits.values())
    by_state = ", ".join(f"{count:,} {state.lower()}" for state, count in states.most_common())
    by_outcome = ", ".join(f"{count:,} {name.lower()}" for name, count in outcomes.most_common())
    return [
        ("submits acknowledged", f"{acknowledged:,} of {len(evidence.submits):,}"),
        ("tasks", f"{len(evidence.finals):,}: {by_state}"),
        ("runs", f"{len(evidence.runs):,}"),
        ("attempts", by_outcome),
        ("calls", f"{ends['ok']:,} ok, {ends['fail']:,} fail, {ends['unknown']:,} unknown"),
        ("streams cut in mid-lease", f"{_cut_in_mid_lease(verdict):,}"),
        ("tasks ended a second", rate_text(verdict)),
    ]


def _cut_in_mid_lease(verdict: Verdict) -> int:
    """Work streams that broke while their agent had a task in hand."""
    runs: dict[str, list[tuple[float, float]]] = {}
    for run in verdict.evidence.runs:
        who = verdict.evidence.leases[run.lease_id]["who"]
        runs.setdefault(who, []).append((run.began_at, run.ended_at))
    return sum(
        any(began <= stream.ended_at <= ended for began, ended in runs.get(name, ()))
        for name, process in verdict.evidence.processes.items()
        for stream in process.streams.values()
        if not stream.well
    )


def _judged(verdict: Verdict) -> list[tuple[str, str]]:
    judged, ordered = verdict.judged, verdict.ordered
    order = (
        f"{ordered.leases:,} leases, {ordered.strictly:,} while nothing was cut, "
        f"{ordered.waiting:,} while others waited"
        if ordered.judged
        else "not judged, the wall clock was set back"
    )
    return [
        ("order", order),
        ("expiry", f"{judged.lost:,} lost leases, of {judged.sharply:,} the end known to 0.3 s"),
        ("longest silence", f"{judged.silent_s:.1f} s, but for kills and stops"),
    ]


def ends(verdict: Verdict) -> list[float]:
    """When each task ended, monotonic, sorted."""
    evidence = verdict.evidence
    walls = (final.told["finished_at"] for final in evidence.finals.values())
    return sorted(evidence.moment(wall) for wall in walls if wall is not None)


def rates(verdict: Verdict, step_s: float) -> list[float]:
    """Tasks ended a second, for each step of the campaign's time."""
    began, ended = verdict.evidence.began_at, verdict.evidence.ended_at
    found = [0.0] * max(1, int((ended - began) / step_s))
    for at in ends(verdict):
        number = int((at - began) / step_s)
        if 0 <= number < len(found):
            found[number] += 1 / step_s
    return found


def rate_text(verdict: Verdict) -> str:
    """The rate in words."""
    each = rates(verdict, 1.0)
    return f"{median(each):.0f} in the median second, {max(each):.0f} at most"
