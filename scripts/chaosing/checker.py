"""The checker: histories in, violations out. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from scripts.chaosing.checking_leases import Judged, check_leases
from scripts.chaosing.checking_order import Ordered, check_order
from scripts.chaosing.checking_outcomes import check_outcomes
from scripts.chaosing.checking_tasks import check_tasks
from scripts.chaosing.evidence import Evidence
from scripts.chaosing.history import Line
from scripts.chaosing.violation import Violation


@dataclass
class Verdict:
    """What the checker says of a campaign."""

    evidence: Evidence
    violations: list[Violation]
    judged: Judged
    ordered: Ordered


def check(lines: Iterable[Line], lease_s: float) -> Verdict:
    """Whether the promises were kept, by these histories.

    Args:
        lines: of all histories, by their time.
        lease_s: the term of a task that names none.
    """
    evidence = Evidence(lines)
    judged, ordered = Judged(), Ordered()
    violations = [Violation("unexpected end or log", str(line)) for line in evidence.noise]
    violations += check_tasks(evidence)
    violations += check_outcomes(evidence)
    violations += check_leases(evidence, lease_s, judged)
    violations += check_order(evidence, lease_s, ordered)
    return Verdict(evidence, violations, judged, ordered)
