"""What is live of a journal: the ready tasks' keys and the leased tasks, in memory.

It follows the journal change by change, finds what a command needs in both, and brings itself back
at a start. Everything else stays on disk. Not here: commits, and who waits.
"""

import struct
from collections.abc import Iterable
from typing import Any

import structlog

from taskdist.backends.journal import Journal
from taskdist.backends.rows import BadRow
from taskdist.backends.timetable import TASKS_MAX, Timetable
from taskdist.core import commands
from taskdist.core.commands import Command, Found, Moment
from taskdist.core.leases import LeaseTable
from taskdist.core.order import Lane, Ranked, sequence_of, strict_key
from taskdist.core.queries import Query
from taskdist.core.queue import TaskQueue
from taskdist.core.task import Task, TaskState
from taskdist.limits import DATA_BYTES_MAX, MESSAGE_BYTES_MAX
from taskdist.settings import DistributorSettings

log = structlog.get_logger()

LOAD_ROWS = 20_000
"""Rows loaded at a start between two looks at the requests: some 20 ms."""

GRANTS_MAX = 256
"""Tasks handed out by one `Take`: some 10 ms of work, and one message, far from too many parts."""

GRANT_BYTES = 512
"""What a task weighs in a message besides its data."""

GRANT_BYTES_MAX = MESSAGE_BYTES_MAX // 2
"""Data handed out by one `Take`; the next one gets the rest."""


class Live:
    """The tasks that something may happen to next.

    Args:
        journal: where they are kept.
        settings: the tiers.
        last_sequence: that of the newest task in the journal.
    """

    def __init__(self, journal: Journal, settings: DistributorSettings, last_sequence: int) -> None:
        self.queue = TaskQueue()
        self.leases = LeaseTable()
        self.last_sequence = last_sequence
        self.became_ready: dict[Lane, None] = {}
        """Lanes in which a task became ready since those who wait were last served."""
        self.timetable = Timetable(journal, settings)
        self._scheduled = 0
        self._waiting_bytes = 0
        self._journal = journal
        self._settings = settings
        self._aside: set[int] = set()
        """Sequences of rows that could not be read when it was their turn."""
        self._tiers: set[str] = set()
        """Of the tasks that were loaded."""
        self._loaded_to = 0
        self._load_to = last_sequence

    # --- starting ---

    @property
    def is_loading(self) -> bool:
        """Whether some waiting tasks are still on disk only. Submits and takes wait meanwhile."""
        return self._loaded_to < self._load_to

    def load_some(self) -> None:
        """Brings the next waiting tasks into the queue."""
        # From row to row: a damaged number may be far behind the one before.
        first = self._journal.next_sequence(self._loaded_to) or self._load_to
        until = min(first - 1 + LOAD_ROWS, self._load_to)
        lanes: dict[Lane, list[bytes]] = {}
        for row in self._journal.waiting(self._loaded_to, until):
            queue, kind, state, data_bytes, *ranked = row
            try:
                # The scheduled ones as well: whether there is a key, is whether it is good.
                key = strict_key(Ranked(*ranked), self._settings.tiers)
                if not (
                    type(queue) is type(kind) is type(ranked[1]) is str
                    and 0 <= data_bytes <= DATA_BYTES_MAX
                ):
                    raise TypeError("a value that its column cannot have")
            except (struct.error, TypeError) as reason:
                log.error("row set aside", sequence=ranked[-1], reason=str(reason))
                self._aside.add(ranked[-1])
                continue
            self._waiting_bytes += data_bytes
            if state != TaskState.READY:
                self._scheduled += 1
                continue
            lanes.setdefault((queue, kind), []).append(key)
            self._tiers.add(ranked[1])
        for lane, keys in lanes.items():
            self.queue.add_many(lane, keys)
        self._loaded_to = until
        unlisted = self._tiers - set(self._settings.tiers)
        if unlisted and not self.is_loading:
            log.warning("tiers not listed rank last", tiers=sorted(unlisted))

    def load_leases(self, served_us: int) -> None:
        """Brings the leased tasks into memory, each lease with a full term from now."""
        for task in self._journal.leased(served_us):
            if isinstance(task, BadRow):
                log.error("row set aside", reason=str(task))
            elif task.lease and self.leases.of_lease(task.lease.lease_id):
                log.error("row set aside", sequence=task.sequence, reason="another has its lease")
            else:
                self.leases.put(task)

    # --- following changes ---

    def move(self, before: Task | None, after: Task | None) -> None:
        """Brings all that is in memory from one version of a task to another."""
        if before is None:
            assert after is not None
            self.last_sequence = max(self.last_sequence, after.sequence)
        elif before.lease is None:
            self._take_out(before)
        elif after is None or after.lease is None:
            self.leases.remove(before)
        if after is not None:
            if after.lease is None:
                self._put_in(after)
            else:
                self.leases.put(after)

    def _put_in(self, task: Task) -> None:
        if task.state is not TaskState.READY:
            self.timetable.add(task)
            if task.state is TaskState.SCHEDULED and self._is_loaded(task.sequence):
                self._scheduled += 1
                self._waiting_bytes += task.data_bytes
            return
        if task.deadline_us is not None:
            self.timetable.add(task)
        if self._is_loaded(task.sequence):
            self._waiting_bytes += task.data_bytes
            lane = _lane(task)
            self.queue.add(lane, self._key(task))
            self.became_ready[lane] = None

    def _take_out(self, task: Task) -> None:
        if task.state is TaskState.READY:
            if self._is_loaded(task.sequence):
                self._waiting_bytes -= task.data_bytes
                self.queue.remove(_lane(task), self._key(task))
        elif task.state is not TaskState.SCHEDULED:
            self.timetable.remove(task)
        elif self._is_loaded(task.sequence):
            self._scheduled -= 1
            self._waiting_bytes -= task.data_bytes

    def _is_loaded(self, sequence: int) -> bool:
        """Whether a task that waits is known here by now, and not set aside."""
        if sequence in self._aside:
            return False
        return sequence <= self._loaded_to or self._loaded_to >= self._load_to

    def lanes_to_serve(self) -> list[Lane]:
        """The lanes of `became_ready` that still have a task."""
        return [lane for lane in self.became_ready if self.queue.has_lane(lane)]

    # --- finding what a command needs ---

    def find(self, asked: Command[Any], moment: Moment) -> Found:
        """What this command needs."""
        match asked:
            case commands.Submit():
                return self._find_submit(asked)
            case commands.Settle():
                return self._find_settle(asked)
            case commands.Take():
                return self._find_take(asked)
            case commands.Note():
                return self._find_note(asked)
            case commands.Resume():
                return Found(tasks=self.leases.of_session(asked.agent_id, asked.session))
            case commands.Heartbeat():
                return Found(tasks=self._find_held(asked))
            case commands.Cancel() | commands.Locate() | commands.Purge():
                return Found(tasks=self._task(asked.task_id))
            case commands.Redrive():
                return self._find_redrive(asked)
            case commands.Due():
                return Found(tasks=self.timetable.not_early(moment))
            case commands.Overdue():
                return Found(tasks=self.timetable.overdue(moment))
            case commands.Forget():
                return Found(tasks=self.timetable.forgettable(moment))
            case commands.Expire():
                return Found(tasks=self.leases.due(moment.served_us, TASKS_MAX))
            case commands.TakeBack():
                held = map(self.leases.of_lease, asked.lease_ids)
                return Found(tasks=[task for task in held if task])
        return Found()

    def look_ahead(self, asked: Iterable[Command[Any] | Query[Any]]) -> None:
        """These are to be decided next: looks for the tasks that they may repeat, all at once."""
        ids = []
        for one in asked:
            for part in one.commands if isinstance(one, commands.Several) else (one,):
                if isinstance(part, commands.Submit) and part.client_made_id:
                    ids.append(part.task.id)
        if ids:
            self._journal.identities.look_ahead(ids)

    def _find_submit(self, asked: commands.Submit) -> Found:
        task = asked.task
        key = task.idempotency_key
        return Found(
            tasks=self._task(task.id) if asked.client_made_id else [],
            of_key=None if key is None else self._task_by_key(task.queue, key),
            next_sequence=self.last_sequence + 1,
            waiting=len(self.queue) + self._scheduled,
            waiting_bytes=self._waiting_bytes,
            lanes=self._lanes_with(task),
        )

    def _find_redrive(self, asked: commands.Redrive) -> Found:
        tasks = self._task(asked.task_id)
        return Found(
            tasks=tasks,
            waiting=len(self.queue) + self._scheduled,
            waiting_bytes=self._waiting_bytes,
            lanes=self._lanes_with(tasks[0]) if tasks else 0,
        )

    def _lanes_with(self, task: Task) -> int:
        return self.queue.lane_count + (not self.queue.has_lane(_lane(task)))

    def free_slots(self, asked: commands.Take) -> int:
        """How many tasks this one may have now: none while some that may be better are on disk."""
        if self.is_loading:
            return 0
        if not asked.slots_in_all:
            return asked.slots
        return max(0, asked.slots - self.leases.count_of_session(asked.agent_id, asked.session))

    def _find_take(self, asked: commands.Take) -> Found:
        tasks: list[Task] = []
        data: list[bytes] = []
        grant_bytes = 0
        # Again, when all of these were set aside.
        held = self.leases.count_of_session(asked.agent_id, asked.session)
        room = max(0, self._settings.leases_per_session_max - held)
        slots = min(self.free_slots(asked), room, GRANTS_MAX)
        while not tasks and (keys := self.queue.first(asked.queues, asked.kinds, slots)):
            read = self._journal.tasks_with_data([sequence_of(key) for key in keys])
            for key, found in zip(keys, read, strict=True):
                if isinstance(found, BadRow):
                    self._set_aside(key, asked, found)
                    continue
                task, task_data = found
                grant_bytes += GRANT_BYTES + len(task_data)
                if data and grant_bytes > GRANT_BYTES_MAX:
                    break
                tasks.append(task)
                data.append(task_data)
        return Found(tasks=tasks, data=data, held=held)

    def _find_held(self, asked: commands.Heartbeat) -> list[Task]:
        if not asked.lease_ids:
            return self.leases.of_agent(asked.agent_id)
        tasks = map(self.leases.of_lease, dict.fromkeys(asked.lease_ids))
        return [task for task in tasks if task]

    def _find_settle(self, asked: commands.Settle) -> Found:
        tasks = self._task(asked.task_id)
        if not tasks:
            return Found()
        lease = tasks[0].lease
        if lease and asked.lease_id == lease.lease_id:
            return Found(tasks=tasks)
        sequence = tasks[0].sequence
        is_there = tasks[0].state is TaskState.SUCCEEDED
        return Found(
            tasks=tasks,
            attempt=self._journal.attempt(sequence, asked.lease_id, asked.agent_id),
            result=self._journal.result(sequence) if is_there else b"",
        )

    def _find_note(self, asked: commands.Note) -> Found:
        tasks = self._task(asked.task_id)
        is_held = tasks and tasks[0].lease is not None
        return Found(tasks=tasks, entries=self._journal.entries(tasks[0]) if is_held else ())

    def _task(self, task_id: str) -> list[Task]:
        task = self.leases.of_task(task_id) or self._journal.identities.by_id(task_id)
        return [task] if task else []

    def _task_by_key(self, queue: str, key: str) -> Task | None:
        task = self._journal.identities.by_key(queue, key)
        return task and (self.leases.of_task(task.id) or task)

    def _set_aside(self, key: bytes, asked: commands.Take, reason: BadRow) -> None:
        """A row that cannot be read: it stays where it is, for people, and blocks nobody."""
        log.error("row set aside", sequence=sequence_of(key), reason=str(reason))
        self.queue.discard(asked.queues, asked.kinds, key)
        self._aside.add(sequence_of(key))

    def position(self, task: Task) -> int:
        """Where a task stands in its queue; 0 when it is not ready."""
        if task.state is not TaskState.READY:
            return 0
        return self.queue.position(_lane(task), self._key(task))

    def _key(self, task: Task) -> bytes:
        return strict_key(task, self._settings.tiers)


def _lane(task: Task) -> Lane:
    return task.queue, task.kind
