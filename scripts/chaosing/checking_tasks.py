"""Whether every acknowledged task is there, whole, and came to its end for a reason (P1, P5)."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from scripts.chaosing.evidence import FINAL_STATES, Attempt, Evidence, Final, Submit
from scripts.chaosing.violation import Violation
from scripts.chaosing.wishes import data_of
from taskdist.limits import MAX_RETRIES_DEFAULT
from taskdist.settings import DistributorSettings

SETTINGS = DistributorSettings()
"""The limits that the campaign leaves as they are."""

SAID = ("user_tier", "est_processing_time_s", "kind", "queue")


def check_tasks(evidence: Evidence) -> Iterator[Violation]:
    """Violations of P1, and of P5 in the life of each task."""
    owners = owners_of(evidence)
    yield from _check_existence(evidence, owners)
    for final in evidence.finals.values():
        submit = owners.get(final.task_id)
        if submit is None:
            continue
        yield from _check_content(final, submit)
        yield from _check_state(evidence, final)
        yield from _check_attempts(final)
        yield from _check_counts(final)
    yield from _check_data(evidence, owners)


def owners_of(evidence: Evidence) -> dict[str, Submit]:
    """Whose wish each task is, by the id or the key that the submitter gave it."""
    ids = {s.wish["task_id"]: s for s in evidence.submits.values() if "task_id" in s.wish}
    keys = {
        (s.wish["queue"], s.wish["idempotency_key"]): s
        for s in evidence.submits.values()
        if "idempotency_key" in s.wish
    }
    found = {}
    for final in evidence.finals.values():
        submit = ids.get(final.task_id)
        submit = submit or keys.get((final.told["queue"], final.told["idempotency_key"]))
        if submit is not None:
            found[final.task_id] = submit
    return found


def _check_existence(evidence: Evidence, owners: dict[str, Submit]) -> Iterator[Violation]:
    theirs: defaultdict[str, list[str]] = defaultdict(list)
    for task_id, submit in owners.items():
        theirs[submit.wish["ref"]].append(task_id)
    for task_id in evidence.finals.keys() - owners.keys():
        yield Violation("task that nobody asked for", task_id)
    for ref, submit in evidence.submits.items():
        for task_id in submit.acknowledged - evidence.finals.keys():
            yield Violation("acknowledged task is missing", f"{ref}: {task_id}")
        if len(submit.acknowledged | set(theirs[ref])) > 1:
            ids = sorted(submit.acknowledged | set(theirs[ref]))
            yield Violation("one wish became two tasks", f"{ref}: {ids}")
        if submit.refused and (submit.acknowledged or theirs[ref]):
            yield Violation("refused task is there", f"{ref}: {submit.refused}")
        elif submit.refused:
            yield Violation("good task was refused", f"{ref}: {submit.refused}")


def _check_content(final: Final, submit: Submit) -> Iterator[Violation]:
    wish = submit.wish
    wanted = {name: wish[name] for name in SAID}
    retries = wish["max_retries"]
    wanted["max_retries"] = MAX_RETRIES_DEFAULT if retries is None else retries
    wanted["data_bytes"] = len(data_of(wish))
    for name, value in wanted.items():
        if final.told[name] != value:
            text = f"{final.task_id}: {name} is {final.told[name]!r}, asked for {value!r}"
            yield Violation("content changed", text)


def _check_state(evidence: Evidence, final: Final) -> Iterator[Violation]:
    cancel = evidence.cancels.get(final.task_id)
    if final.state not in FINAL_STATES:
        yield Violation("task did not end", f"{final.task_id} is {final.state}")
    if final.state == "CANCELLED" and cancel is None:
        yield Violation("cancelled although nobody asked", final.task_id)
    if cancel is not None and cancel.acknowledged and final.state != "CANCELLED":
        yield Violation("acknowledged cancel did not last", f"{final.task_id} is {final.state}")
    outcomes = [attempt.outcome for attempt in final.attempts]
    if (final.state == "SUCCEEDED") != (outcomes[-1:] == ["SUCCEEDED"]):
        text = f"{final.task_id} is {final.state} after {outcomes}"
        yield Violation("state is not what the last attempt led to", text)
    if final.state == "DEAD" and not _may_be_dead(evidence, final):
        yield Violation("dead without a reason", f"{final.task_id} after {outcomes}")


def _may_be_dead(evidence: Evidence, final: Final) -> bool:
    counts = Counter(attempt.outcome for attempt in final.attempts)
    told = final.told
    deadline = told["deadline"]
    return (
        counts["FAILED"] > told["max_retries"]
        or counts["LOST"] >= SETTINGS.max_lost
        or counts["RELEASED"] >= SETTINGS.hasty_releases_max
        or (deadline is not None and told["finished_at"] >= deadline)
        or _was_fatal(evidence, final.attempts)
    )


def _was_fatal(evidence: Evidence, attempts: list[Attempt]) -> bool:
    if not attempts or attempts[-1].outcome != "FAILED":
        return False
    outcomes = evidence.outcomes.get(attempts[-1].lease_id)
    return outcomes is not None and any(not said.retryable for said in outcomes.said)


def _check_attempts(final: Final) -> Iterator[Violation]:
    numbers = [attempt.number for attempt in final.attempts]
    if numbers != list(range(1, final.told["attempt"] + 1)):
        text = f"{final.task_id}: {numbers} of {final.told['attempt']}"
        yield Violation("attempts are missing", text)
    for attempt in final.attempts[:-1]:
        if attempt.outcome not in ("FAILED", "RELEASED", "LOST"):
            text = f"{final.task_id}: attempt {attempt.number} was {attempt.outcome}"
            yield Violation("further run without a reason", text)


def _check_counts(final: Final) -> Iterator[Violation]:
    counts = Counter(attempt.outcome for attempt in final.attempts)
    told = final.told
    failed, lost = told["retry_count"], told["lost_count"]
    if (counts["FAILED"], counts["LOST"]) != (failed, lost):
        text = f"{final.task_id}: {failed} failed and {lost} lost, but {dict(counts)}"
        yield Violation("counts are not those of the attempts", text)
    if failed > told["max_retries"] + 1 or (failed > told["max_retries"] and final.state != "DEAD"):
        yield Violation("too many failures", f"{final.task_id}: {failed} and {final.state}")
    if lost > SETTINGS.max_lost or (lost == SETTINGS.max_lost and final.state != "DEAD"):
        yield Violation("too many lost leases", f"{final.task_id}: {lost} and {final.state}")


def _check_data(evidence: Evidence, owners: dict[str, Submit]) -> Iterator[Violation]:
    known = {s.digest: s for s in evidence.submits.values()}
    for lease in evidence.leases.values():
        submit = owners.get(lease["task_id"])
        if lease["task_id"] not in evidence.finals or submit is None:
            yield Violation("run of an unknown task", f"{lease['task_id']} by {lease['who']}")
        elif known.get(lease["digest"]) is not submit:
            yield Violation("data changed", f"{lease['task_id']} at {lease['lease_id']}")
