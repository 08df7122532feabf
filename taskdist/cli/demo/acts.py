"""The three acts of the demo, and how each statement is checked.

A statement is true when the agents' own logs say so; where it is about what was kept, the
distributor is asked as well, and the two must agree.
"""

import asyncio
import sys
import time
from collections import Counter

from taskdist.cli.demo.screen import Screen
from taskdist.cli.demo.stage import Event, Player, Stage, Stuck
from taskdist.client import Stub
from taskdist.core.task import Outcome, TaskState
from taskdist.limits import MAX_RETRIES_DEFAULT
from taskdist.reports import TaskReport, gist

LEASE_S = 3.0
"""Short, so that an agent's death is noticed soon; a restart takes less than two thirds of it."""

FAILURE_RATE = 0.3
SEED = 126
"""With it, of the seven tasks of act b, three fail now and then, and one fails every time."""

LONG_TASK_S = 8.0
"""Expected time of a task of act c: long enough to be killed in the middle."""

FIRST_SHARE = 0.4
"""How far into a task its agent is killed."""


async def perform(speed: float) -> bool:
    """Plays all acts. Returns whether every statement was true."""
    began = time.monotonic()
    truths = []
    with Screen() as screen:
        try:
            async with Stage(screen.event, speed) as stage:
                distributor = await stage.distributor(LEASE_S)
                async with Stub(stage.address) as client:
                    show = _Show(stage, screen, client, speed)
                    truths.append(await show.order())
                    truths.append(await show.retries())
                    truths.append(await show.crashes(distributor))
        except Stuck as reason:
            print(f"taskdist: demo: {reason}", file=sys.stderr)
            return False
    took_s = time.monotonic() - began
    print(f"\n{'All statements hold' if all(truths) else 'A STATEMENT IS FALSE'} ({took_s:.1f} s).")
    return all(truths)


class _Show:
    def __init__(self, stage: Stage, screen: Screen, client: Stub, speed: float) -> None:
        self._stage = stage
        self._screen = screen
        self._client = client
        self._speed = speed
        self._labels: dict[str, str] = {}

    async def order(self) -> bool:
        """Act a: the exact order."""
        self._screen.act("(a) Paid before free, shorter before longer")
        submitted = ["free-10s", "paid-5s", "free-2s", "paid-3s"]
        expected = ["paid-3s", "paid-5s", "free-2s", "free-10s"]
        since = len(self._stage.events)
        for label in submitted:
            tier, _, seconds = label.removesuffix("s").partition("-")
            await self._submit(label, tier, float(seconds))
        agent = await self._stage.agent("agent-1", self._speed)
        await self._finished(len(submitted), since)
        await self._stage.stop(agent)
        worked = [self._label(event) for event in self._logged("task started", since)]
        return self._state(
            f"submitted as {', '.join(submitted)}; worked as {', '.join(worked)}",
            worked == expected,
            f"{agent.name} logged so, in this order",
        )

    async def retries(self) -> bool:
        """Act b: retries come after all new tasks, and end."""
        self._screen.act(f"(b) Failure rate {FAILURE_RATE}: retried at once, after all new ones")
        labels = [f"{tier}-{n}" for n in (1, 2, 3) for tier in ("free", "paid")] + ["free-4"]
        since = len(self._stage.events)
        tasks = [await self._submit(label, label.partition("-")[0], 1) for label in labels]
        agent = await self._stage.agent("agent-2", self._speed, FAILURE_RATE, SEED)
        await self._finished(len(labels), since)
        await self._stage.stop(agent)
        reports = [await self._client.get(task_id) for task_id in tasks]
        return self._retries_hold(since, reports)

    def _retries_hold(self, since: int, reports: list[TaskReport]) -> bool:
        starts = self._logged("task started", since)
        is_retry = [event["retry_count"] > 0 for event in starts]
        retried = sum(is_retry)
        after_new = self._state(
            f"{len(reports)} tasks, {retried} retries, each of them after all new tasks",
            retried > 0 and is_retry == sorted(is_retry),
            "agent-2 logged: " + ", ".join(self._label(event) for event in starts),
        )
        tries = Counter(event["task_id"] for event in starts)
        at_most = 1 + MAX_RETRIES_DEFAULT
        dead = [report for report in reports if report.state is TaskState.DEAD]
        errors = [self._errors_logged(report.task_id, since) for report in dead]
        kept = [[gist(attempt.error) for attempt in report.attempts] for report in dead]
        ends = self._state(
            f"none ran more than {at_most} times; {', '.join(map(self._name, dead))} never "
            f"succeeded and ended dead, its {at_most} errors kept",
            max(tries.values()) == at_most
            and [len(texts) for texts in kept] == [at_most]
            and kept == errors,
            f"agent-2 logged the same {at_most} errors; the last: {(errors or [['-']])[0][-1]}",
        )
        return after_new and ends

    async def crashes(self, distributor: Player) -> bool:
        """Act c: an agent dies, then the distributor."""
        self._screen.act("(c) kill -9 of an agent, then of the distributor")
        labels = [f"paid-{n}" for n in (1, 2, 3)] + ["free-1", "free-2"]
        since = len(self._stage.events)
        tasks = [
            await self._submit(label, label.partition("-")[0], LONG_TASK_S) for label in labels
        ]
        doomed = await self._stage.agent("agent-3", self._speed)
        victim = await self._stage.until(lambda event: event["event"] == "task started", since)
        await asyncio.sleep(FIRST_SHARE * LONG_TASK_S / self._speed)
        await self._stage.kill(doomed)
        self._screen.say(f"agent-3 was killed while it worked on {self._label(victim)}")
        survivor = await self._stage.agent("agent-4", self._speed)
        await self._stage.until(
            lambda event: event["who"] == "agent-4" and event["event"] == "task started", since, 2
        )
        await self._stage.kill(distributor)
        self._screen.say("the distributor was killed; it is started again on the same file")
        await self._stage.distributor(LEASE_S)
        await self._finished(len(labels), since)
        await self._stage.stop(survivor)
        reports = [await self._client.get(task_id) for task_id in tasks]
        return self._crashes_hold(since, victim, reports)

    def _crashes_hold(self, since: int, victim: Event, reports: list[TaskReport]) -> bool:
        finished = [event["task_id"] for event in self._logged("task succeeded", since)]
        runs = [
            (event["who"], event["attempt"])
            for event in self._logged("task started", since)
            if event["task_id"] == victim["task_id"]
        ]
        (report,) = [r for r in reports if r.task_id == victim["task_id"]]
        outcomes = [attempt.outcome for attempt in report.attempts]
        leased_again = self._state(
            f"{self._label(victim)}, lost with agent-3, was leased again and finished by agent-4",
            runs == [("agent-3", 1), ("agent-4", 2)]
            and outcomes == [Outcome.LOST, Outcome.SUCCEEDED]
            and report.retry_count == 0,
            f"logged: {', '.join(f'{who} began attempt {n}' for who, n in runs)}; no retry used up",
        )
        nothing_lost = self._state(
            f"all {len(reports)} acknowledged tasks finished, each of them once",
            Counter(finished) == Counter(r.task_id for r in reports)
            and all(r.state is TaskState.SUCCEEDED for r in reports),
            f"agent-4 logged: {', '.join(self._labels[task_id] for task_id in finished)}",
        )
        return leased_again and nothing_lost

    # --- the small things ---

    async def _submit(self, label: str, tier: str, estimate_s: float) -> str:
        submitted = await self._client.submit(
            user_tier=tier, est_processing_time_s=estimate_s, data=label.encode()
        )
        self._labels[submitted.task_id] = label
        self._screen.task(submitted.task_id, label)
        return submitted.task_id

    async def _finished(self, count: int, since: int) -> None:
        """Waits until so many tasks have succeeded or ended dead."""

        def final(event: Event) -> bool:
            return event["event"] in ("task succeeded", "task dead")

        await self._stage.until(final, since, count)

    def _logged(self, name: str, since: int) -> list[Event]:
        """What agents logged under this name, in the order in which it came in."""
        events = self._stage.events[since:]
        return [e for e in events if e["event"] == name and e["who"].startswith("agent-")]

    def _errors_logged(self, task_id: str, since: int) -> list[str]:
        failed = self._logged("task failed", since)
        return [event["error"] for event in failed if event["task_id"] == task_id]

    def _label(self, event: Event) -> str:
        return self._labels[event["task_id"]]

    def _name(self, report: TaskReport) -> str:
        return self._labels[report.task_id]

    def _state(self, text: str, holds: bool, detail: str) -> bool:
        self._screen.statement(text, holds=holds, detail=detail)
        return holds
