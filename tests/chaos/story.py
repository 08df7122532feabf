"""A small history of a campaign in which all was well, for tests to break one thing of.

Times are seconds from the beginning; `WALL_S` is what the wall clock is ahead of the monotonic one.
"""

from typing import Any

from scripts.chaosing.history import Line, digest
from scripts.chaosing.wishes import data_of

WALL_S = 1_000_000.0
LEASE_S = 3.0
LENGTH_S = 40.0
DELAY_S = 0.01
"""From a change to who hears of it."""

ERROR = b"it broke"
RESULT = b"it went well"

Final = dict[str, Any]


class Story:
    """Lines of all histories, made call by call."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._sequence = 0
        self._calls = 100
        for number in range(int(LENGTH_S * 5)):
            at = number / 5
            self.add(at, "campaign", "tick", monotonic=at, wall=at + WALL_S)
            self.add(at + DELAY_S, "campaign", "probe", invoked_at=at)
        self.distributor(0.0, "spawned")
        self.distributor(0.1, "serving")

    def add(self, at: float, who: str, event: str, **fields: object) -> None:
        """One line."""
        self.lines.append({"at": at, "who": who, "event": event, **fields})

    def sorted(self) -> list[Line]:
        """All lines, by their time."""
        return sorted(self.lines, key=lambda line: float(line["at"]))

    def distributor(self, at: float, what: str) -> None:
        """What befell the distributor."""
        self.add(at, "campaign", "process", what=what, role="distributor", process="distributor.1")

    def agent(self, name: str, slots: int = 2, kind: str = "quick", at: float = 0.2) -> None:
        """An agent's process; its stream is number 1."""
        self.add(
            at,
            name,
            "began",
            session=f"session of {name}",
            agent_id=name.split(".")[0],
            slots=slots,
            queues=["default"],
            kinds=[kind],
        )
        self.add(at, name, "stream", do="invoke", call=1, lease_ids=[])
        role = name.split(".")[0]
        self.add(at, "campaign", "connection", what="opened", role=role, number=1)

    def agent_ends(self, name: str, at: float) -> None:
        """It was killed."""
        role = name.split(".")[0]
        self.add(at, "campaign", "process", what="ended", role=role, process=name, code=-9)
        self.add(at, "campaign", "connection", what="closed", role=role, number=1)

    def heartbeat(self, name: str, lease_id: str, at: float, *, answered: bool = True) -> None:
        """A heartbeat for one lease."""
        self._calls += 1
        said = {"call": self._calls, "lease_ids": [lease_id]}
        self.add(at, name, "heartbeat", do="invoke", **said)
        if answered:
            self.add(at + DELAY_S, name, "heartbeat", do="ok", **said)

    # --- tasks ---

    def submit(self, ref: str, at: float, do: str = "ok", **more: Any) -> Final:
        """A task is submitted, and acknowledged unless said; it is there."""
        wish = {
            "ref": ref,
            "plan": ["ok"],
            "bytes": 10,
            "work_s": 0.1,
            "user_tier": "paid",
            "est_processing_time_s": 1.0,
            "kind": "quick",
            "queue": "default",
            "max_retries": None,
            **more,
        }
        task_id = f"id of {ref}"
        if "idempotency_key" not in wish:
            wish["task_id"] = task_id
        self._sequence += 1
        final = {
            "task_id": task_id,
            "state": "READY",
            **{name: wish[name] for name in ("user_tier", "est_processing_time_s")},
            **{name: wish[name] for name in ("kind", "queue")},
            "sequence": self._sequence,
            "retry_count": 0,
            "max_retries": 3 if wish["max_retries"] is None else wish["max_retries"],
            "lost_count": 0,
            "attempt": 0,
            "submitted_at": at + WALL_S,
            "enqueued_at": at + wish.get("delay_s", 0) + WALL_S,
            "finished_at": None,
            "deadline": at + wish["deadline_s"] + WALL_S if "deadline_s" in wish else None,
            "data_bytes": len(data_of(wish)),
            "lease_s": wish.get("lease_s", 0.0),
            "run_timeout_s": wish.get("run_timeout_s", 0.0),
            "idempotency_key": wish.get("idempotency_key", ""),
            "result_digest": digest(b""),
            "attempts": [],
        }
        self.add(
            at - DELAY_S, "payer.1", "submit", do="invoke", wish=wish, digest=digest(data_of(wish))
        )
        self.answer(ref, at + DELAY_S, do, task_id)
        self.add(LENGTH_S, "finals", "final", task=final)
        return final

    def answer(self, ref: str, at: float, do: str, task_id: str) -> None:
        """How a submit ended."""
        self.add(at, "payer.1", "submit", do=do, ref=ref, task_id=task_id, why="a reason")

    def cancel(self, final: Final, at: float) -> None:
        """Somebody ends the task."""
        for do, when in (("invoke", at - DELAY_S), ("ok", at + DELAY_S)):
            self.add(when, "payer.1", "cancel", do=do, task_id=final["task_id"])
        self.end(final, at, "CANCELLED")

    def end(self, final: Final, at: float, state: str) -> None:
        """The task has ended."""
        final["state"] = state
        final["finished_at"] = at + WALL_S

    def run(
        self,
        final: Final,
        name: str,
        started: float,
        ended: float,
        outcome: str,
        *,
        ends_as: str = "",
        retryable: bool = True,
    ) -> str:
        """An attempt: leased, begun, said and accepted; its lease."""
        number = final["attempt"] = final["attempt"] + 1
        lease_id = f"lease {number} of {final['task_id']}"
        names = {"task_id": final["task_id"], "lease_id": lease_id}
        got = started + DELAY_S
        seen = digest(data_of(self._wish(final)))
        self.add(got, name, "news", call=1)
        self.add(got, name, "lease", attempt=number, digest=seen, stream=1, **names)
        self.add(got, name, "run", do="began", attempt=number, **names)
        said = {"FAILED": ERROR, "SUCCEEDED": RESULT}.get(outcome, b"")
        if outcome in ("SUCCEEDED", "FAILED", "RELEASED"):
            self.add(ended - DELAY_S, name, "run", do="returned", **names)
            self.add(
                ended - DELAY_S,
                name,
                "outcome",
                do="invoke",
                outcome=outcome,
                digest=digest(said),
                retryable=retryable,
                **names,
            )
            self.add(ended + DELAY_S, name, "outcome", do="ok", lease_id=lease_id)
        kept = digest(ERROR if outcome == "FAILED" else b"")
        wall = (started + WALL_S, ended + WALL_S)
        final["attempts"].append([number, lease_id, f"session of {name}", *wall, outcome, kept])
        final["retry_count"] += outcome == "FAILED"
        final["lost_count"] += outcome == "LOST"
        if outcome == "SUCCEEDED":
            final["result_digest"] = digest(RESULT)
        if ends_as:
            self.end(final, ended, ends_as)
        return lease_id

    def _wish(self, final: Final) -> dict[str, Any]:
        found: dict[str, Any] = next(
            line["wish"]
            for line in self.lines
            if line["event"] == "submit"
            and line["do"] == "invoke"
            and final["task_id"] == f"id of {line['wish']['ref']}"
        )
        return found


def good() -> Story:
    """All that may happen to a task, and nothing wrong."""
    story = Story()
    story.agent("streaming.1")
    story.agent("narrow.1")
    story.agent("beats.1", kind="slow")
    one = story.submit("simple", 1.0)
    story.run(one, "streaming.1", 2.0, 2.5, "SUCCEEDED", ends_as="SUCCEEDED")
    failed = story.submit("failed once", 3.0)
    story.run(failed, "streaming.1", 3.1, 3.3, "FAILED")
    story.run(failed, "streaming.1", 3.5, 3.7, "SUCCEEDED", ends_as="SUCCEEDED")
    cancelled = story.submit("cancelled", 4.0)
    story.cancel(cancelled, 4.2)
    out = story.submit("out of retries", 5.0, max_retries=0)
    story.run(out, "streaming.1", 5.1, 5.2, "FAILED", ends_as="DEAD")
    fatal = story.submit("fatal", 5.5)
    story.run(fatal, "streaming.1", 5.6, 5.7, "FAILED", ends_as="DEAD", retryable=False)
    unknown = story.submit("unknown but there", 6.0, do="unknown")
    story.run(unknown, "streaming.1", 6.1, 6.2, "SUCCEEDED", ends_as="SUCCEEDED")
    story.submit("unknown", 6.3, do="unknown")
    del story.lines[-1]  # It is not there.
    keyed = story.submit("keyed", 6.5, idempotency_key="a key")
    story.answer("keyed", 6.7, "ok", keyed["task_id"])
    story.run(keyed, "streaming.1", 6.6, 6.9, "SUCCEEDED", ends_as="SUCCEEDED")
    back = story.submit("handed back", 7.0)
    story.run(back, "streaming.1", 7.1, 7.2, "RELEASED")
    story.run(back, "streaming.1", 7.3, 7.4, "SUCCEEDED", ends_as="SUCCEEDED")
    delayed = story.submit("delayed", 8.0, delay_s=1.0)
    story.run(delayed, "streaming.1", 9.1, 9.2, "SUCCEEDED", ends_as="SUCCEEDED")
    late = story.submit("overdue", 9.5, deadline_s=3.0, kind="unheard")
    paused = story.submit("paused", 10.0, backoff=["FIXED", 0.5, None, 0], max_retries=1)
    story.run(paused, "streaming.1", 10.1, 10.2, "FAILED")
    story.run(paused, "streaming.1", 10.8, 10.9, "SUCCEEDED", ends_as="SUCCEEDED")
    story.end(late, 12.51, "DEAD")
    lost = story.submit("lost", 14.0)
    lease_id = story.run(lost, "narrow.1", 14.1, 18.35, "LOST")
    story.heartbeat("narrow.1", lease_id, 15.1)
    story.agent_ends("narrow.1", 15.3)
    story.run(lost, "streaming.1", 18.5, 18.6, "SUCCEEDED", ends_as="SUCCEEDED")
    hung = story.submit("hung", 20.0, run_timeout_s=1.0)
    story.run(hung, "streaming.1", 20.1, 24.3, "LOST")
    for beat in range(3):
        story.heartbeat("streaming.1", "lease 1 of id of hung", 21.0 + beat)
    story.run(hung, "streaming.1", 24.4, 24.5, "SUCCEEDED", ends_as="SUCCEEDED")
    first = story.submit("first", 26.0)
    second = story.submit("second", 26.1, user_tier="free")
    story.run(first, "streaming.1", 26.5, 26.8, "FAILED")
    story.run(second, "streaming.1", 26.6, 26.7, "SUCCEEDED", ends_as="SUCCEEDED")
    story.run(first, "streaming.1", 26.9, 27.0, "SUCCEEDED", ends_as="SUCCEEDED")
    _fill(story)
    for name in ("streaming.1", "beats.1"):
        story.add(LENGTH_S + 1, name, "stream", do="ok", call=1)
    return story


def _fill(story: Story) -> None:
    """Others of another kind, so that the distributor's moments are known throughout."""
    for number in range(int(LENGTH_S * 4)):
        at = 0.5 + number / 4
        other = story.submit(f"other {number}", at, kind="slow")
        story.run(other, "beats.1", at + 0.08, at + 0.16, "SUCCEEDED", ends_as="SUCCEEDED")
