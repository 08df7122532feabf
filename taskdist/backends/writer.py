"""The writer: the journal and what is live of it in one pair of hands, a batch at a time.

`step` takes the requests that wait, decides them in the order of arrival, serves the agents that
wait, commits once, and returns what to answer: nobody hears of a change before it is on disk (P1).
Synchronous, and owned by one thread; `embedded.py` gives it one. Not here: any rule about tasks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import apsw
import structlog

from taskdist.backends import reading
from taskdist.backends.clock import Clock, Clocks
from taskdist.backends.journal import Journal
from taskdist.backends.live import Live
from taskdist.backends.requests import GROWING, Batch, Request, Withdraw, is_of_leases
from taskdist.backends.reserve import FULL_RETRY_US
from taskdist.core import commands
from taskdist.core.commands import Change, Command, Done, Grants, Moment, Placed
from taskdist.core.decide import decide
from taskdist.core.errors import Exhausted, Refused, StoreFull, Unavailable
from taskdist.core.queries import Query
from taskdist.core.task import Task
from taskdist.core.waiting import WaitingAgents
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings

log = structlog.get_logger()

LATE_MAX = 250
"""Tasks too late to be started that one take looks past: some 5 ms of work. Then its agent asks
again."""


class Writer:
    """Applies batches of requests to one journal."""

    def __init__(self, journal: Journal, clock: Clock, settings: DistributorSettings) -> None:
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._waiting: WaitingAgents[Request] = WaitingAgents()
        self._deferred: list[Request] = []
        self._in_hand: list[Request] = []
        """Those of this step and those who waited and were served in it."""
        self._owed: list[commands.TakeBack] = []
        """What a full disk has refused and nobody will ask for again."""
        self._stopping = False
        self._batch = Batch()
        self._full_until_us = 0
        self._is_alone = False
        """While what ends something is tried alone, and what begins something is refused."""
        saved = journal.clocks()
        clock.resume(saved.served_us)
        self._newest_enqueued_us = saved.newest_enqueued_us
        self._saved_us = saved.served_us
        journal.reserve.begin()
        self._live = Live(journal, settings, saved.last_sequence)
        self._live.load_leases(saved.served_us)
        self._allow_for_short_leases(self._live.leases)

    @property
    def is_loading(self) -> bool:
        """Whether some waiting tasks are still on disk only. Submits and takes wait meanwhile."""
        return self._live.is_loading

    @property
    def deferred_bytes(self) -> int:
        """How much the requests weigh that wait for the end of the load."""
        return sum(request.data_bytes for request in self._deferred)

    def load_some(self) -> None:
        """Brings the next waiting tasks into memory."""
        self._live.load_some()

    # --- one batch ---

    def step(self, requests: Sequence[Request]) -> Batch:
        """Applies what is due and then the requests, in one commit.

        A `Take` that found nothing is not answered yet: a later batch does. When the disk is full
        the batch is undone, and each request that frees or ends something is tried again alone.

        Raises:
            apsw.Error: the store failed. Nothing of this batch may be spoken of.
        """
        if self._live.is_loading:
            requests = self._defer(requests)
        else:
            # What came in while tasks were loaded goes first, no more of it than fits one commit.
            came = [*self._deferred, *requests]
            count = max(len(requests), self._settings.batch_rows_max)
            requests, self._deferred = came[:count], came[count:]
        self._in_hand = list(requests)
        self._journal.reserve.look(self._clock.read()[1])
        try:
            batch = self._run(requests, whole=True)
        except apsw.FullError:
            batch = self._run_alone([*requests, *self._batch.answered])
        self._in_hand = []
        batch.is_disk_slow = self._journal.log.is_slow
        return batch

    def next_due_us(self) -> int:
        """How long to wait for a request before the next step."""
        if self._live.is_loading or self._deferred:
            return 0
        wall_us, now_us = self._clock.read()
        times = [self._waiting.next_due_us(), self._live.leases.next_due_us()]
        left_us = min((time - now_us for time in times if time is not None), default=SECOND_US)
        left_us = min(left_us, self._live.timetable.next_due_us(Moment(wall_us, now_us, 0)))
        left_us = max(left_us, self._full_until_us - now_us)
        return max(0, min(left_us, self._settings.tick_us))

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """Copies the journal's log into its database. Returns whether nobody was in the way."""
        return self._journal.log.checkpoint(truncate=truncate)

    def log_bytes(self) -> int:
        """How large the journal's log is."""
        return self._journal.log.bytes_in_use()

    def close(self) -> None:
        """Saves the clocks and closes the journal."""
        _, served_us = self._clock.read()
        clocks = Clocks(served_us, self._newest_enqueued_us, self._live.last_sequence)
        try:
            self._journal.save_clocks(clocks)
            self._journal.commit(clocks)
        except apsw.Error as error:
            self._journal.full_disk(error)
            self._journal.rollback()  # What was served since the last commit is forgotten.
        self._journal.close()

    def abandon(self) -> list[Request]:
        """Closes the journal without another write, after it failed. Returns the requests that were
        not answered."""
        self._journal.abandon()
        return self._in_hand + self._waiting.all() + self._deferred

    def check(self) -> None:
        """Asserts that its parts agree. For tests, after every step."""
        self._live.queue.check()

    def _run(self, requests: Sequence[Request], *, whole: bool) -> Batch:
        """One transaction; `whole` also does what is due and serves those who wait."""
        wall_us, served_us = self._clock.read()
        enqueue_us = max(wall_us, self._newest_enqueued_us)
        batch = self._batch = Batch(moment=Moment(wall_us, served_us, enqueue_us))
        try:
            if whole:
                self._do_what_is_due()
            self._live.look_ahead(request.asked for request in requests)
            for request in requests:
                self._decide(request)
            if whole:
                if not self._is_full:
                    self._serve_waiting()
                self._time_out_waiting()
            self._save_clocks_sometimes()
            newest_us = self._newest_enqueued_us
            if any(
                change.after and change.after.enqueued_at_us == enqueue_us
                for change in batch.changes
            ):
                newest_us = enqueue_us
            self._journal.commit(Clocks(served_us, newest_us, self._live.last_sequence))
            if whole and served_us >= self._full_until_us:
                self._owed.clear()
        except apsw.Error as error:
            full = self._journal.full_disk(error)
            self._undo()
            raise full from None
        self._newest_enqueued_us = newest_us
        self._allow_for_short_leases(change.after for change in batch.changes)
        if batch.rows:
            self._saved_us = served_us
        return batch

    def _run_alone(self, requests: Sequence[Request]) -> Batch:
        """After a full disk: what ends something gets another chance, each on its own.

        Submits and takes are refused, also those that this batch had served from among the waiting.
        """
        total = Batch(moment=self._batch.moment)
        now_us = self._clock.read()[1]
        if not self._journal.make_room(now_us) and now_us >= self._full_until_us:
            log.error("disk full", store=str(self._journal.path))
        self._full_until_us = now_us + FULL_RETRY_US
        self._is_alone = True
        for request in {id(request): request for request in requests}.values():
            self._waiting.discard(request)
            self._run_one(request, total)
            total.answered.append(request)
        self._is_alone = False
        return total

    @property
    def _is_full(self) -> bool:
        """Whether what begins something is refused: what room there is is for what ends it."""
        return self._is_alone or not self._journal.reserve.is_kept

    def _run_one(self, request: Request, total: Batch) -> None:
        """One transaction for one request; if it is too much, one for each of its commands."""
        try:
            batch = self._run([request], whole=False)
            total.changes += batch.changes
            total.rows += batch.rows
        except apsw.FullError:
            if isinstance(request.asked, commands.Several) and not request.asked.atomic:
                parts = [Request(command) for command in request.asked.commands]
                for part in parts:
                    self._run_one(part, total)
                request.answer = tuple(part.answer for part in parts)
            elif isinstance(request.asked, commands.TakeBack):
                self._owed.append(request.asked)
                request.answer = Done()
            else:
                request.answer = StoreFull()

    def _undo(self) -> None:
        self._journal.rollback()
        self._undo_changes(0)

    def _undo_changes(self, since: int) -> None:
        """Takes the changes of this batch, from the one of this number on, out of memory."""
        changes = self._batch.changes
        while len(changes) > since:
            change = changes.pop()
            self._live.move(change.after, change.before)

    def _defer(self, requests: Sequence[Request]) -> list[Request]:
        """While tasks are loaded: what needs the whole queue waits, what ends leases does not."""
        now = []
        for request in requests:
            if is_of_leases(request.asked):
                now.append(request)
            else:
                self._deferred.append(request)
        return now

    # --- one request ---

    def _decide(self, request: Request) -> None:
        asked = request.asked
        try:
            answer = self._answer(asked)
        except Refused as reason:
            answer = reason
        if isinstance(asked, commands.Take) and answer == Grants() and self._may_wait(asked):
            answer = self._wait(request, asked)
        if answer is not None:
            request.answer = answer
            self._batch.answered.append(request)

    def _answer(self, asked: Command[Any] | Query[Any]) -> Any:
        if isinstance(asked, Query):
            self._journal.flush()
            return reading.run(asked, self._journal.connection)
        if isinstance(asked, Withdraw):
            self._waiting.discard(asked.request)
            return Done()
        if isinstance(asked, commands.Several):
            return self._several(asked)
        if isinstance(asked, commands.StopTakes):
            self._stopping = True
        if isinstance(asked, commands.Take):
            self._let_take()
        if self._is_full and isinstance(asked, GROWING):
            raise StoreFull
        if isinstance(asked, commands.Take):
            return self._take(asked)
        return self._apply_decision(asked)

    def _let_take(self) -> None:
        if self._stopping:
            raise Unavailable("the distributor is stopping")
        if not self._is_full:
            self._serve_waiting()  # They came first.

    def _take(self, asked: commands.Take) -> Any:
        """What was too late to be started does not hide what comes after it (P2)."""
        changes = self._batch.changes
        enough = len(changes) + LATE_MAX
        while True:
            before = len(changes)
            answer = self._apply_decision(asked)
            if answer != Grants() or not before < len(changes) < enough:
                return answer

    def _apply_decision(self, asked: Command[Any]) -> Any:
        decision = decide(
            asked, self._live.find(asked, self._batch.moment), self._batch.moment, self._settings
        )
        for change in decision.changes:
            self._apply(change)
        if isinstance(decision.answer, Placed) and getattr(asked, "position_wanted", True):
            task = decision.answer.task
            return replace(decision.answer, position=self._live.position(task))
        return decision.answer

    def _several(self, asked: commands.Several) -> tuple[Any, ...]:
        answers: list[Any] = []
        before = len(self._batch.changes)
        if asked.atomic:
            self._journal.savepoint()
        for command in asked.commands:
            try:
                answers.append(self._answer(command))
            except Refused as refusal:
                if asked.atomic:
                    self._journal.rollback_to_savepoint()
                    self._undo_changes(before)
                    raise
                answers.append(refusal)
        if asked.atomic:
            self._journal.release_savepoint()
        return tuple(answers)

    def _apply(self, change: Change) -> None:
        self._batch.rows += self._journal.save(change)
        self._live.move(change.before, change.after)
        self._batch.changes.append(change)

    def _allow_for_short_leases(self, tasks: Iterable[Task | None]) -> None:
        """A pause of this process must not end a lease that is shorter than the usual (P4)."""
        for task in tasks:
            if task and task.lease_us is not None and task.lease is not None:
                self._clock.make_room_for(task.lease_us)

    # --- what is due, and who waits ---

    def _do_what_is_due(self) -> None:
        moment = self._batch.moment
        if moment.served_us < self._full_until_us:
            return
        for request in self._owed:
            self._answer(request)
        due_us = self._live.leases.next_due_us()
        if due_us is not None and due_us <= moment.served_us:
            self._answer(commands.Expire())
        if not self._live.is_loading:
            for command in self._live.timetable.due(moment):
                self._answer(command)

    def _may_wait(self, asked: commands.Take) -> bool:
        """Whether it wants to, and there is nothing for it now."""
        if not asked.wait_us or not self._live.free_slots(asked):
            return False
        return not self._live.queue.first(asked.queues, asked.kinds)

    def _wait(self, request: Request, asked: commands.Take) -> Exhausted | None:
        if len(self._waiting) >= self._settings.waiting_agents_max:
            return Exhausted(f"{len(self._waiting)} agents are waiting, the most that may")
        until_us = self._batch.moment.served_us + asked.wait_us
        self._waiting.add(request, asked.queues, asked.kinds, until_us)
        return None

    def _serve_waiting(self) -> None:
        """Gives what became ready in this batch to those who wait for it, longest first."""
        while self._live.became_ready and not self._stopping:
            lanes = self._live.lanes_to_serve()
            request = self._waiting.first(lanes)
            if request is None:
                self._live.became_ready.clear()
                return
            self._journal.flush()  # If the disk is full, nobody has left the line yet.
            assert isinstance(request.asked, commands.Take)
            try:
                answer = self._take(request.asked)
            except Refused as reason:
                answer = reason
            if answer == Grants() and self._may_wait(request.asked):
                continue  # All that it could have had was too late to be started.
            self._waiting.discard(request)
            self._in_hand.append(request)
            self._batch.answered.append(request)
            request.answer = answer

    def _time_out_waiting(self) -> None:
        over = self._waiting.due(self._batch.moment.served_us)
        for request in self._waiting.all() if self._stopping else over:
            self._waiting.discard(request)
            self._in_hand.append(request)
            request.answer = Grants()
            self._batch.answered.append(request)

    def _save_clocks_sometimes(self) -> None:
        """Heartbeats write nothing, yet a crash must not give every lease an hour again, nor let
        every backoff begin anew."""
        served_us = self._batch.moment.served_us
        is_needed = len(self._live.leases) or self._live.timetable.is_any_in_backoff
        if is_needed and served_us - self._saved_us >= self._settings.clock_save_us:
            clocks = Clocks(served_us, self._newest_enqueued_us, self._live.last_sequence)
            self._journal.save_clocks(clocks)
            self._saved_us = served_us
