"""The writer: queue, leases and journal in one pair of hands, a batch at a time.

`step` takes the requests that wait, decides them in the order of arrival, serves the agents that
wait, commits once, and returns what to answer: nobody hears of a change before it is on disk (P1).
Synchronous, and owned by one thread; `embedded.py` gives it one. Not here: any rule about tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apsw
import structlog

from taskdist.backends import reading
from taskdist.backends.clock import Clock
from taskdist.backends.journal import BadRow, Clocks, Journal
from taskdist.core import commands
from taskdist.core.commands import Change, Command, Done, Found, Grants, Moment, Placed
from taskdist.core.decide import decide
from taskdist.core.errors import Exhausted, Refused, StoreFull, Unavailable
from taskdist.core.leases import LeaseTable
from taskdist.core.order import Lane, Ranked, sequence_of, strict_key
from taskdist.core.queries import Query
from taskdist.core.queue import TaskQueue
from taskdist.core.task import Task, TaskState
from taskdist.core.waiting import WaitingAgents
from taskdist.settings import MESSAGE_BYTES_MAX, SECOND_US, DistributorSettings

log = structlog.get_logger()

LOAD_ROWS = 20_000
"""Rows loaded at a start between two looks at the requests: some 20 ms."""

GRANT_BYTES_MAX = MESSAGE_BYTES_MAX // 2
"""Data handed out by one `Take`; the next one gets the rest."""

FULL_RETRY_US = SECOND_US
"""After a full disk, when the leases that are over are looked at again."""


@dataclass(eq=False, slots=True)
class Request:
    """A command or query on its way, and what became of it."""

    asked: Command[Any] | Query[Any]
    reply_to: Any = None
    """For whoever made it; not looked at."""
    answer: Any = None
    """What came back, or the exception."""
    data_bytes: int = 0
    """How much it weighs in a batch."""


@dataclass(frozen=True, slots=True)
class Withdraw(Command[Done]):
    """The caller of a waiting `Take` is gone."""

    request: Request


@dataclass(slots=True)
class Batch:
    """What one commit made durable: now it may be spoken of."""

    answered: list[Request] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    moment: Moment = field(default_factory=lambda: Moment(0, 0, 0))
    rows: int = 0


class Writer:
    """Applies batches of requests to one journal."""

    def __init__(self, journal: Journal, clock: Clock, settings: DistributorSettings) -> None:
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._queue = TaskQueue()
        self._leases = LeaseTable()
        self._waiting: WaitingAgents[Request] = WaitingAgents()
        self._unserved: dict[Lane, None] = {}
        """Lanes in which a task became ready since those who wait were last served."""
        self._deferred: list[Request] = []
        self._stopping = False
        self._batch = Batch()
        self._full_until_us = 0
        saved = journal.clocks()
        clock.resume(saved.served_us)
        self._newest_enqueued_us = saved.newest_enqueued_us
        self._last_sequence = saved.last_sequence
        self._saved_us = saved.served_us
        self._loaded_to = 0
        self._load_to = saved.last_sequence
        self._load_leases()

    # --- starting ---

    @property
    def is_loading(self) -> bool:
        """Whether some waiting tasks are still on disk only. Submits and takes wait meanwhile."""
        return self._loaded_to < self._load_to

    def load_some(self) -> None:
        """Brings the next waiting tasks into the queue."""
        until = min(self._loaded_to + LOAD_ROWS, self._load_to)
        lanes: dict[Lane, list[bytes]] = {}
        for queue, kind, *ranked in self._journal.ready(self._loaded_to, until):
            key = strict_key(Ranked(*ranked), self._settings.tiers)
            lanes.setdefault((queue, kind), []).append(key)
        for lane, keys in lanes.items():
            self._queue.add_many(lane, keys)
        self._loaded_to = until

    def _load_leases(self) -> None:
        _, served_us = self._clock.read()
        for task in self._journal.leased(served_us):
            if isinstance(task, BadRow):
                log.error("row set aside", reason=str(task))
            else:
                self._leases.put(task)

    # --- one batch ---

    def step(self, requests: Sequence[Request]) -> Batch:
        """Applies what is due and then the requests, in one commit.

        A `Take` that found nothing is not answered yet: a later batch does. When the disk is full
        the batch is undone, and each request that frees or ends something is tried again alone.

        Raises:
            apsw.Error: the store failed. Nothing of this batch may be spoken of.
        """
        if self.is_loading:
            requests = self._defer(requests)
        else:
            requests = [*self._deferred, *requests]
            self._deferred = []
        try:
            return self._run(requests, whole=True)
        except apsw.FullError:
            return self._run_alone([*requests, *self._batch.answered])

    def next_due_us(self) -> int:
        """How long to wait for a request before the next step."""
        if self.is_loading or self._deferred:
            return 0
        _, now_us = self._clock.read()
        times = [self._waiting.next_due_us(), self._leases.next_due_us()]
        due_us = min((time for time in times if time is not None), default=now_us + SECOND_US)
        due_us = max(due_us, self._full_until_us)
        return max(0, min(due_us - now_us, self._settings.tick_us))

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Copies the journal's log into its database."""
        self._journal.checkpoint(truncate=truncate)

    def log_bytes(self) -> int:
        """How large the journal's log is."""
        return self._journal.log_bytes()

    def close(self) -> None:
        """Saves the clocks and closes the journal."""
        _, served_us = self._clock.read()
        clocks = Clocks(served_us, self._newest_enqueued_us, self._last_sequence)
        self._journal.save_clocks(clocks)
        self._journal.commit(clocks)
        self._journal.close()

    def abandon(self) -> list[Request]:
        """Closes the journal without another write, after it failed. Returns what was waiting."""
        self._journal.abandon()
        return self._waiting.all() + self._deferred

    def check(self) -> None:
        """Asserts that its parts agree. For tests, after every step."""
        self._queue.check()

    def _run(self, requests: Sequence[Request], *, whole: bool) -> Batch:
        """One transaction; `whole` also does what is due and serves those who wait."""
        wall_us, served_us = self._clock.read()
        enqueue_us = max(wall_us, self._newest_enqueued_us)
        batch = self._batch = Batch(moment=Moment(wall_us, served_us, enqueue_us))
        try:
            if whole:
                self._expire()
            for request in requests:
                self._decide(request)
            if whole:
                self._serve_waiting()
                self._time_out_waiting()
            self._save_clocks_sometimes()
            self._journal.commit(Clocks(served_us, self._newest_enqueued_us, self._last_sequence))
        except apsw.FullError:
            self._undo()
            raise
        if batch.rows:
            self._saved_us = served_us
        return batch

    def _run_alone(self, requests: Sequence[Request]) -> Batch:
        """After a full disk: what ends something gets another chance, each on its own.

        Submits and takes are refused, also those that this batch had served from among the waiting.
        """
        total = Batch()
        self._full_until_us = self._clock.read()[1] + FULL_RETRY_US
        log.error("disk full", store=str(self._journal.path))
        for request in {id(request): request for request in requests}.values():
            try:
                if isinstance(request.asked, commands.Submit | commands.Take):
                    self._waiting.discard(request)
                    raise apsw.FullError
                batch = self._run([request], whole=False)
                total.answered += batch.answered
                total.changes += batch.changes
            except apsw.FullError:
                request.answer = StoreFull()
                total.answered.append(request)
        return total

    def _undo(self) -> None:
        self._journal.rollback()
        for change in reversed(self._batch.changes):
            self._move(change.after, change.before)

    def _defer(self, requests: Sequence[Request]) -> list[Request]:
        """While tasks are loaded: what needs the whole queue waits, what ends leases does not."""
        now = []
        for request in requests:
            if isinstance(request.asked, commands.Heartbeat | commands.Settle | commands.TakeBack):
                now.append(request)
            else:
                self._deferred.append(request)
        return now

    # --- one request ---

    def _decide(self, request: Request) -> None:
        asked = request.asked
        if isinstance(asked, commands.Take):
            self._serve_waiting()  # They came first.
        try:
            answer = self._answer(asked)
        except Refused as reason:
            answer = reason
        if isinstance(asked, commands.Take) and answer == Grants() and asked.wait_us > 0:
            answer = self._wait(request, asked)
        if answer is not None:
            request.answer = answer
            self._batch.answered.append(request)

    def _answer(self, asked: Command[Any] | Query[Any]) -> Any:
        if isinstance(asked, Query):
            return reading.run(asked, self._journal.connection)
        if isinstance(asked, Withdraw):
            self._waiting.discard(asked.request)
            return Done()
        if isinstance(asked, commands.StopTakes):
            self._stopping = True
        if isinstance(asked, commands.Take) and self._stopping:
            raise Unavailable("the distributor is stopping")
        decision = decide(asked, self._find(asked), self._batch.moment, self._settings)
        for change in decision.changes:
            self._apply(change)
        if isinstance(decision.answer, Placed):
            task = decision.answer.task
            return replace(decision.answer, position=self._position(task))
        return decision.answer

    def _apply(self, change: Change) -> None:
        self._batch.rows += self._journal.save(change)
        self._move(change.before, change.after)
        self._batch.changes.append(change)
        if change.before is None:
            self._last_sequence = change.after.sequence
            self._newest_enqueued_us = change.after.enqueued_at_us

    def _move(self, before: Task | None, after: Task | None) -> None:
        """Brings queue and leases from one version of a task to another."""
        if before and before.state is TaskState.READY and before.sequence <= self._queue_to:
            self._queue.remove(_lane(before), self._key(before))
        if after and after.state is TaskState.READY and after.sequence <= self._queue_to:
            self._queue.add(_lane(after), self._key(after))
            self._unserved[_lane(after)] = None
        if before and before.lease and not (after and after.lease):
            self._leases.remove(before)
        if after and after.lease:
            self._leases.put(after)

    @property
    def _queue_to(self) -> float:
        """Up to which sequence ready tasks are in the queue: while loading, not all of them."""
        return self._loaded_to if self.is_loading else float("inf")

    # --- finding what a command needs ---

    def _find(self, asked: Command[Any]) -> Found:
        match asked:
            case commands.Submit():
                return self._find_submit(asked)
            case commands.Take():
                return self._find_take(asked)
            case commands.Heartbeat():
                return Found(tasks=self._find_held(asked))
            case commands.Settle():
                return self._find_settle(asked)
            case commands.Cancel() | commands.Locate():
                return Found(tasks=self._task(asked.task_id))
            case commands.Expire():
                return Found(tasks=self._leases.due(self._batch.moment.served_us))
            case commands.TakeBack():
                held = map(self._leases.of_lease, asked.lease_ids)
                return Found(tasks=[task for task in held if task])
        return Found()

    def _find_submit(self, asked: commands.Submit) -> Found:
        return Found(
            tasks=self._task(asked.task.id) if asked.client_made_id else [],
            next_sequence=self._last_sequence + 1,
            waiting=len(self._queue),
            lanes=self._queue.lane_count + (not self._queue.has_lane(_lane(asked.task))),
        )

    def _find_take(self, asked: commands.Take) -> Found:
        tasks: list[Task] = []
        data: list[bytes] = []
        for key in self._queue.first(asked.queues, asked.kinds, asked.slots):
            try:
                task, task_data = self._journal.task_with_data(sequence_of(key))
            except BadRow as reason:
                self._set_aside(key, asked, reason)
                return self._find_take(asked)
            if data and sum(map(len, data)) + len(task_data) > GRANT_BYTES_MAX:
                break
            tasks.append(task)
            data.append(task_data)
        return Found(tasks=tasks, data=data)

    def _find_held(self, asked: commands.Heartbeat) -> list[Task]:
        if not asked.lease_ids:
            return self._leases.of_agent(asked.agent_id)
        tasks = map(self._leases.of_lease, dict.fromkeys(asked.lease_ids))
        return [task for task in tasks if task]

    def _find_settle(self, asked: commands.Settle) -> Found:
        tasks = self._task(asked.task_id)
        if not tasks:
            return Found()
        lease = tasks[0].lease
        if lease and asked.lease_id == lease.lease_id:
            return Found(tasks=tasks)
        sequence = tasks[0].sequence
        return Found(
            tasks=tasks,
            attempt=self._journal.attempt(sequence, asked.lease_id, asked.agent_id),
            result=self._journal.result(sequence),
        )

    def _task(self, task_id: str) -> list[Task]:
        task = self._leases.of_task(task_id) or self._journal.task_by_id(task_id)
        return [task] if task else []

    def _set_aside(self, key: bytes, asked: commands.Take, reason: BadRow) -> None:
        """A row that cannot be read: it stays where it is, for people, and blocks nobody."""
        log.error("row set aside", sequence=sequence_of(key), reason=str(reason))
        self._queue.discard(asked.queues, asked.kinds, key)

    def _position(self, task: Task) -> int:
        if task.state is not TaskState.READY:
            return 0
        return self._queue.position(_lane(task), self._key(task))

    def _key(self, task: Task) -> bytes:
        return strict_key(task, self._settings.tiers)

    # --- what is due, and who waits ---

    def _expire(self) -> None:
        now_us = self._batch.moment.served_us
        due_us = self._leases.next_due_us()
        if due_us is not None and due_us <= now_us and now_us >= self._full_until_us:
            self._answer(commands.Expire())

    def _wait(self, request: Request, asked: commands.Take) -> Refused | None:
        if len(self._waiting) >= self._settings.waiting_agents_max:
            return Exhausted(f"{len(self._waiting)} agents are waiting, the most that may")
        until_us = self._batch.moment.served_us + asked.wait_us
        self._waiting.add(request, asked.queues, asked.kinds, until_us)
        return None

    def _serve_waiting(self) -> None:
        """Gives what became ready in this batch to those who wait for it, longest first."""
        while self._unserved:
            lanes = [lane for lane in self._unserved if self._queue.has_lane(lane)]
            request = self._waiting.first(lanes)
            if request is None:
                self._unserved.clear()
                return
            self._waiting.discard(request)
            self._batch.answered.append(request)
            request.answer = self._answer(request.asked)

    def _time_out_waiting(self) -> None:
        over = self._waiting.due(self._batch.moment.served_us)
        for request in self._waiting.all() if self._stopping else over:
            self._waiting.discard(request)
            request.answer = Grants()
            self._batch.answered.append(request)

    def _save_clocks_sometimes(self) -> None:
        """Heartbeats write nothing, yet a crash must not give every lease an hour again."""
        served_us = self._batch.moment.served_us
        if len(self._leases) and served_us - self._saved_us >= self._settings.clock_save_us:
            clocks = Clocks(served_us, self._newest_enqueued_us, self._last_sequence)
            self._journal.save_clocks(clocks)
            self._saved_us = served_us


def _lane(task: Task) -> Lane:
    return task.queue, task.kind
