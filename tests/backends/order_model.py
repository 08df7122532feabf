"""What taskdist promises of order and life, by brute force: a plain list, sorted when asked.

It shares no code with what it is compared with: no sort key, no tables, no lanes, no timetable.
Each method does what a verb does and returns the answer: a refusal's name, or plain values.
"""

from tests.backends.order_rows import (
    DEAD_KEPT_MAX,
    DEAD_RETENTION_US,
    FINISHED_KEPT_MAX,
    HASTY_MAX,
    HASTY_US,
    LEASE_US,
    MAX_LOST,
    RETENTION_US,
    SESSION_LEASES_MAX,
    WAITING_BYTES_MAX,
    WAITING_MAX,
    Answer,
    Ended,
    Held,
    Row,
    Wait,
    Wish,
)

FINAL = ("succeeded", "cancelled", "dead")


class Model:
    """All tasks, in the order of submission, and the line of those who wait."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.gone: list[str] = []
        """The ids of those that were forgotten."""
        self.line: list[Wait] = []
        self.answered: list[tuple[str, Answer]] = []
        """Who waited and was answered in this batch, in this order, and with what."""
        self.tiers: tuple[str, ...] = ()
        self.wall_us = self.served_us = 0
        self.newest_us = 0  # the newest age given
        self.submitted = self.full_until_us = 0
        """Until then, after a full disk, nothing happens by itself."""
        self.is_loading = self.is_stopping = False
        self.pause_us = LEASE_US // 3

    # --- the order ---

    def rank(self, row: Row) -> tuple[bool, int, int, int, int]:
        """The four rules, and the order of submission."""
        wish, tiers = row.wish, self.tiers
        tier_rank = tiers.index(wish.tier) if wish.tier in tiers else len(tiers)
        return (row.retry_count > 0, tier_rank, wish.est_us, row.enqueued_us, row.number)

    def ready(self, queues: tuple[str, ...], kinds: tuple[str, ...] = ()) -> list[Row]:
        """What is ready in these queues, of these kinds, the next one first."""
        rows = [row for row in self.rows if row.state == "ready" and row.wish.queue in queues]
        return sorted((row for row in rows if not kinds or row.wish.kind in kinds), key=self.rank)

    def placed(self, row: Row) -> Answer:
        """A task, and where it stands in its queue."""
        ready = self.ready((row.wish.queue,))
        return (row.id, row.state, 1 + ready.index(row) if row.state == "ready" else 0)

    def find(self, task_id: str) -> Row | None:
        """The task of this name."""
        return next((row for row in self.rows if row.id == task_id), None)

    def holding(self, agent_id: str, session: str) -> list[Row]:
        """The tasks whose leases a session has."""
        whose = (agent_id, session)
        return [r for r in self.rows if r.held and (r.held.agent_id, r.held.session) == whose]

    # --- a batch ---

    def begin(self, wall_us: int, served_us: int) -> None:
        """A moment of decision: what is due happens first."""
        self.wall_us, self.served_us = wall_us, served_us
        self.answered = []
        if served_us < self.full_until_us:
            return
        for row in self.rows:
            if row.held and row.held.expires_us <= served_us:
                row.lost_count += 1
                self.end(row, "lost", "ready" if row.lost_count < MAX_LOST else "dead")
        if self.is_loading:
            return
        for row in self.rows:
            if row.waits and self.is_late(row):
                self.finish(row, "dead")
        for row in self.rows:
            if row.state == "scheduled":
                self.come_due(row)
        self.forget_old(("succeeded", "cancelled"), RETENTION_US, FINISHED_KEPT_MAX)
        self.forget_old(("dead",), DEAD_RETENTION_US, DEAD_KEPT_MAX)

    def end_batch(self) -> None:
        """Those who wait get what became ready; who waited long enough gets nothing."""
        self.serve()
        over = [wait for wait in self.line if self.is_stopping or wait.until_us <= self.served_us]
        self.line = [wait for wait in self.line if wait not in over]
        self.answered += [(wait.token, ("got",)) for wait in over]

    def is_late(self, row: Row) -> bool:
        """Whether its deadline has passed."""
        return row.deadline_us is not None and row.deadline_us <= self.wall_us

    def come_due(self, row: Row) -> None:
        """A backoff ends by the served clock, and the age stays; a first time by the wall."""
        if row.backoff_until_us is not None:
            if row.backoff_until_us > self.served_us:
                return
        elif row.due_us is not None and row.due_us > self.wall_us:
            return
        else:
            row.enqueued_us = self.age()
        row.state, row.due_us, row.backoff_until_us = "ready", None, None

    def forget_old(self, states: tuple[str, ...], retention_us: int, kept_max: int) -> None:
        """Finished tasks go after their time, or when they are too many, the oldest first.

        Which of two that finished at once is the older is nobody's promise: by state, by number.
        """
        rows = [row for row in self.rows if row.state in states]
        rows.sort(key=lambda row: (row.finished_us, states.index(row.state), row.number))
        excess = len(rows) - kept_max
        for place, row in enumerate(rows):
            assert row.finished_us is not None
            if place < excess or row.finished_us + retention_us <= self.wall_us:
                self.forget(row)

    def forget(self, row: Row) -> None:
        """It is gone, and its id and key are free."""
        self.rows.remove(row)
        self.gone.append(row.id)

    def age(self) -> int:
        """From when a task counts that gets its age now: never less than an earlier one's."""
        self.newest_us = max(self.wall_us, self.newest_us)
        return self.newest_us

    def finish(self, row: Row, state: str) -> None:
        """A task is in this state now, and not scheduled any more."""
        row.state = state
        row.due_us = row.backoff_until_us = row.drawn_from_us = None
        row.finished_us = self.wall_us if state in FINAL else None

    def end(self, row: Row, outcome: str, state: str, error: str = "") -> None:
        """A lease ends."""
        assert row.held is not None
        agent_id, token = row.held.agent_id, row.held.token
        ended = Ended(row.attempt, token, agent_id, outcome, state, error, self.wall_us)
        row.history.append(ended)
        row.held = None
        self.finish(row, state)

    # --- submitting ---

    def submit(self, wish: Wish) -> Answer:
        """A new task, or the one that this repeats."""
        of_id = self.find(wish.id) if wish.is_clients else None
        of_key = next(
            (r for r in self.rows if wish.key and r.wish.has_key(wish.queue, wish.key)), None
        )
        first = of_key or of_id
        if first:
            is_two = of_id is not None and of_id is not first
            is_other = not first.wish.is_named or first.wish.content != wish.content
            if is_two or is_other or wish.key not in (None, first.wish.key):
                return "TaskIdTaken"
            return self.placed(first)
        starts_us = self.wall_us + wish.delay_us if wish.delay_us else wish.not_before_us
        ends_us = self.wall_us + wish.deadline_in_us if wish.deadline_in_us else wish.deadline_us
        if ends_us is not None and ends_us <= max(self.wall_us, starts_us):
            return "InvalidFields"
        if not self.has_room(wish.data_bytes):
            return "Exhausted"
        self.submitted += 1
        row = Row(wish, self.submitted, "ready", 0, deadline_us=ends_us)
        if starts_us > self.wall_us:
            row.state, row.due_us = "scheduled", starts_us
        else:
            row.enqueued_us = self.age()
        self.rows.append(row)
        return self.placed(row)

    def has_room(self, data_bytes: int) -> bool:
        """Whether another task may wait."""
        waiting = [row.wish.data_bytes for row in self.rows if row.waits]
        return len(waiting) < WAITING_MAX and sum(waiting) + data_bytes <= WAITING_BYTES_MAX

    # --- taking ---

    def take(self, asking: Wait) -> Answer:
        """What an agent gets; None when it waits. Those who wait came first."""
        if self.is_stopping:
            return "Unavailable"
        self.serve()
        answer = self.give(asking)
        if answer == ("got",) and asking.wait_us and self.free_slots(asking):
            asking.until_us = self.served_us + asking.wait_us
            self.line.append(asking)
            return None
        return answer

    def take_only(self, asking: Wait) -> Answer:
        """The same where nobody may wait."""
        asking.wait_us = 0
        return self.take(asking)

    def serve(self) -> None:
        """Gives what is ready to those who wait for it, the longest waiting first."""
        for wait in [] if self.is_stopping else list(self.line):
            if not self.ready(wait.queues, wait.kinds):
                continue
            answer = self.give(wait)
            if answer != ("got",) or not self.free_slots(wait):
                self.line.remove(wait)
                self.answered.append((wait.token, answer))

    def free_slots(self, asking: Wait) -> int:
        """How many tasks it has room for now."""
        held = len(self.holding(asking.agent_id, asking.session))
        return max(0, asking.slots - held) if asking.in_all else asking.slots

    def give(self, asking: Wait) -> Answer:
        """Leases the best of what is ready. What is too late to be started is dead instead."""
        room = SESSION_LEASES_MAX - len(self.holding(asking.agent_id, asking.session))
        if room <= 0:
            return "Exhausted"
        slots = min(self.free_slots(asking), room)
        given: list[Row] = []
        while not given and (rows := self.ready(asking.queues, asking.kinds)[:slots]):
            for row in rows:
                if self.is_late(row):
                    self.finish(row, "dead")
                    continue
                given.append(row)
                row.state = "leased"
                row.attempt += 1
                row.held = Held(asking.token, asking.agent_id, asking.session, self.served_us, 0)
                row.held.expires_us = self.served_us + row.term_us
                self.pause_us = min(self.pause_us, row.term_us // 3)
        return ("got", *(row.id for row in given))

    def undo(self, row: Row) -> None:
        """A lease whose answer did not arrive has never been."""
        row.attempt -= 1
        row.held = None
        row.state = "ready"

    def take_back(self, task_ids: tuple[str, ...]) -> Answer:
        """Undoes the leases of these tasks."""
        for row in self.rows:
            if row.held and row.id in task_ids:
                self.undo(row)
        return "Done"

    def resume(self, agent_id: str, session: str, claimed: tuple[str, ...]) -> Answer:
        """A session says what it holds; the rest of its leases have never been."""
        mine = self.holding(agent_id, session)
        for row in mine:
            if row.id not in claimed:
                self.undo(row)
        return ("held", *sorted(row.held_id for row in mine if row.held))

    # --- while a lease lasts, and its end ---

    def heartbeat(self, agent_id: str, lease_ids: tuple[str, ...]) -> Answer:
        """Terms begin anew: those named, or all of the agent's."""
        mine = [row for row in self.rows if row.held and row.held.agent_id == agent_id]
        beating = [row for row in mine if not lease_ids or row.held_id in lease_ids]
        for row in beating:
            row.extend(self.served_us)
        return ("held", *sorted(row.held_id for row in beating))

    def settle(
        self,
        task_id: str,
        agent_id: str,
        lease_id: str,
        outcome: str,
        said: str,
        retryable: bool = True,
        retry_after_us: int | None = None,
    ) -> Answer:
        """An outcome by who holds the task; the same again when it is repeated; else refused.

        What was said is the result of a success and the error of a failure.
        """
        row = self.find(task_id)
        if row is None:
            return "TaskNotFound"
        error = said if outcome == "failed" else ""
        if not row.held or row.held.agent_id != agent_id or lease_id not in ("", row.held_id):
            ended = [
                past
                for past in row.history
                if (row.lease_id(past.token, past.attempt) == lease_id or not lease_id)
                and past.agent_id == agent_id
            ]
            if not ended or (ended[-1].outcome, ended[-1].error) != (outcome, error):
                return "LeaseNotHeld"
            if outcome == "succeeded" and row.result != said.encode():
                return "LeaseNotHeld"
            return (outcome, ended[-1].led_to)
        if outcome == "succeeded":
            row.result = said.encode()
            self.end(row, outcome, "succeeded")
        elif outcome == "released":
            row.hasty += self.served_us - row.held.started_us < HASTY_US
            self.end(row, outcome, "ready" if row.hasty < HASTY_MAX else "dead")
        else:
            self.fail(row, error, retryable, retry_after_us)
        return (outcome, row.state)

    def fail(self, row: Row, error: str, retryable: bool, retry_after_us: int | None) -> None:
        """A failure is counted, and the age stays."""
        row.retry_count += 1
        if not retryable or row.retry_count > row.wish.max_retries:
            self.end(row, "failed", "dead", error)
            return
        least_us, most_us = (
            row.backoff_us() if retry_after_us is None else (retry_after_us, retry_after_us)
        )
        self.end(row, "failed", "scheduled" if most_us else "ready", error)
        if most_us:
            self.back_off(row, most_us)
            row.drawn_from_us = (least_us, most_us) if least_us != most_us else None

    def back_off(self, row: Row, delay_us: int) -> None:
        """It is ready again after so long."""
        row.due_us = self.wall_us + delay_us
        row.backoff_until_us = self.served_us + delay_us

    # --- what people do ---

    def locate(self, task_id: str) -> Answer:
        """Where it stands."""
        row = self.find(task_id)
        return self.placed(row) if row else "TaskNotFound"

    def cancel(self, task_id: str) -> Answer:
        """A live task ends."""
        row = self.find(task_id)
        if row is None or row.state in FINAL:
            return "TransitionRefused" if row else "TaskNotFound"
        if row.held:
            self.end(row, "cancelled", "cancelled")
        self.finish(row, "cancelled")
        return self.placed(row)

    def redrive(self, task_id: str) -> Answer:
        """A dead or cancelled task is as if it had been submitted now, without its deadline."""
        row = self.find(task_id)
        if row is None or row.state not in ("dead", "cancelled"):
            return "TransitionRefused" if row else "TaskNotFound"
        if not self.has_room(row.wish.data_bytes):
            return "Exhausted"
        self.finish(row, "ready")
        row.retry_count = row.lost_count = row.hasty = 0
        row.enqueued_us = self.age()
        row.deadline_us = None
        return self.placed(row)

    def purge(self, task_id: str) -> Answer:
        """A finished task is removed."""
        row = self.find(task_id)
        if row is None or row.state not in FINAL:
            return "TransitionRefused" if row else "TaskNotFound"
        self.forget(row)
        return "Done"

    # --- the distributor's own life ---

    def stop(self) -> Answer:
        """Nobody waits any more, and nobody gets anything."""
        self.is_stopping = True
        return "Done"

    def withdraw(self, token: str) -> Answer:
        """One that waits is gone."""
        self.line = [wait for wait in self.line if wait.token != token]
        return "Done"

    def restart(self, tiers: tuple[str, ...], served_us: int) -> None:
        """Every lease gets a full term; nobody waits any more."""
        self.tiers = tiers
        self.line.clear()
        self.full_until_us = 0
        self.is_stopping = False
        held = [row for row in self.rows if row.held]
        self.pause_us = min([LEASE_US, *(row.term_us for row in held)]) // 3
        for row in held:
            row.extend(served_us)
