"""What a start makes of the states that a loss of power could leave, and what may not be wrong.

States are drawn for the moments right before and right after every sync of a story, and opened.
Whatever was acknowledged by then is there, and besides it all or nothing of the one commit that
was under way: all tables are just as they were after one of the two.
"""

import gc
import os
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from taskdist.backends.clock import Clocks
from taskdist.backends.journal import Journal
from taskdist.backends.live import Live
from taskdist.backends.rows import ATTEMPT_COLUMNS, LEASE_COLUMNS, TASK_COLUMNS
from taskdist.backends.writer import Writer
from taskdist.core.entries import Entry, EntryKind
from taskdist.core.errors import StoreFailed, StoreUnusable
from taskdist.core.order import sequence_of
from taskdist.settings import DistributorSettings
from tests.backends.power_story import QUEUES, SETTINGS, Row, Rows, Story
from tests.support.clocks import ManualTime
from tests.support.power_loss import Drawn, Platter, State
from tests.support.recording_disk import Deed

TIERS = ("paid", "free")

DRAWS = 56
"""Random states of a moment, besides those where each file has all or nothing of what waits."""

SYNCS = (Deed.SYNC, Deed.SYNC_ALL)


def moments(story: Story, deaf_to: str | None = None) -> Iterator[tuple[int, Platter]]:
    """The moments right before and right after every sync, and the end: how much the disk had been
    told by then, and the disk.

    Args:
        story: what happened.
        deaf_to: a file whose syncs do nothing, on a disk that lies about them.
    """
    platter = Platter()
    for place, told in enumerate(story.record):
        if told.deed in SYNCS:
            yield place, platter
        if told.deed not in SYNCS or told.file != deaf_to:
            platter.tell(told)
        if told.deed in SYNCS:
            yield place + 1, platter
    yield len(story.record), platter


def write(path: Path, state: State) -> None:
    """Makes the files of a state, and leaves no others of this name."""
    for ending in ("", "-wal", "-journal", "-shm"):
        if ending in state:
            with open(f"{path}{ending}", "wb", buffering=0) as file:
                file.write(state[ending])
        else:
            with suppress(FileNotFoundError):
                os.unlink(f"{path}{ending}")


# --- what a start makes of a state --------------------------------------------------------------


class Found(NamedTuple):
    """What a start has found."""

    rows: Rows
    order: list[int]
    """The sequences of the ready tasks, the next one first."""
    faults: list[str]


def start(path: Path, state: State, settings: DistributorSettings) -> Found:
    """Opens a state as `EmbeddedBackend.open` does, and looks at all that is there."""
    write(path, state)
    try:
        opened = Journal(path, "strict", TIERS)
    except (StoreFailed, StoreUnusable) as error:
        return Found({}, [], [f"{DAMAGED}: {error}"])
    # What closing does to the files is not looked at.
    opened.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        if (check := opened.connection.pragma("integrity_check")) != "ok":
            return Found({}, [], [f"{DAMAGED}: {check}"])
        writer = Writer(opened, ManualTime().clock(settings), settings)
        while writer.is_loading:
            writer.load_some()
        writer.check()
        rows, faults = read(opened.connection)
        if not is_ahead(opened.clocks(), rows):
            faults.append("P2: new tasks would come before old ones")
        order = [sequence_of(key) for key in writer._live.queue.first(QUEUES, (), count=256)]
        faults += unlike(writer._live, rows, opened.clocks().served_us)
    except apsw.Error as error:
        return Found({}, [], [f"{DAMAGED}: {error}"])
    finally:
        opened.abandon()
    return Found(rows, order, faults)


def unlike(live: Live, rows: Rows, served_us: int) -> list[str]:
    """What is live and should not be, or not for so long, when a start has read these rows."""
    faults = []
    full_us = {
        row.task[0]: served_us + row.lease[TERM] for row in rows.values() if row.lease is not None
    }
    expires_us = {task.sequence: task.lease.expires_us for task in live.leases if task.lease}
    if expires_us != full_us:
        faults.append(f"P4: leases end at {expires_us}, where a full term is {full_us}")
    if live._scheduled != sum(row.task[STATE] == "scheduled" for row in rows.values()):
        faults.append("P4: a scheduled task is forgotten")
    if live._aside:
        faults.append(f"P6: set aside, though whole: {live._aside}")
    return faults


def read(connection: apsw.Connection) -> tuple[Rows, list[str]]:
    """All that is kept, and what is wrong with it whatever was acknowledged."""
    data: dict[int, bytes] = dict(connection.execute("SELECT sequence, data FROM data"))
    results: dict[int, bytes] = dict(connection.execute("SELECT sequence, result FROM result"))
    leases = {
        row[0]: row
        for row in connection.execute(f"SELECT sequence, {', '.join(LEASE_COLUMNS)} FROM lease")
    }
    attempts: dict[int, list[tuple[Any, ...]]] = {}
    select = f"SELECT sequence, {', '.join(ATTEMPT_COLUMNS)} FROM attempt ORDER BY 1, 2"
    for row in connection.execute(select):
        attempts.setdefault(row[0], []).append(row)
    entries: dict[int, list[Entry]] = {}
    for number, *row in connection.execute(f"SELECT sequence, {ENTRY_COLUMNS} FROM entry"):
        attempt, step, kind, *more = row
        entries.setdefault(number, []).append(Entry(attempt, step, EntryKind(kind), *more))
    rows: Rows = {}
    for task in connection.execute(f"SELECT {', '.join(TASK_COLUMNS)} FROM task"):
        number = task[0]
        rows[number] = Row(
            task,
            data.pop(number, None),
            leases.pop(number, None),
            tuple(attempts.pop(number, ())),
            results.pop(number, None),
            tuple(entries.pop(number, ())),
        )
    lost = [left for left in (data, results, leases, attempts, entries) if left]
    return rows, [f"P1: rows without a task: {left}" for left in lost]


ENTRY_COLUMNS = "attempt, step, kind, at_us, fraction, text, place"
FINAL = ("succeeded", "dead", "cancelled")
STATE = TASK_COLUMNS.index("state")
ENQUEUED_AT = TASK_COLUMNS.index("enqueued_at_us")
COUNTS = [
    TASK_COLUMNS.index(column)
    for column in ("max_retries", "retry_count", "lost_count", "attempt", "finished_at_us")
]
TERM = 1 + LEASE_COLUMNS.index("term_us")

RANKED = [
    TASK_COLUMNS.index(column)
    for column in ("retry_count", "user_tier", "est_processing_time_us", "enqueued_at_us")
]


def is_ahead(clocks: Clocks, rows: Rows) -> bool:
    """Whether the next task's number and age come after those of all that are there."""
    newest_us = max((row.task[ENQUEUED_AT] for row in rows.values()), default=0)
    return clocks.last_sequence >= max(rows, default=0) and clocks.newest_enqueued_us >= newest_us


def rank(row: Row) -> tuple[bool, int, int, int, int]:
    """The four rules of the order, and the order of submission."""
    retry_count, user_tier, est_us, enqueued_us = (row.task[place] for place in RANKED)
    return (retry_count > 0, TIERS.index(user_tier), est_us, enqueued_us, row.task[0])


def ready(rows: Rows) -> list[int]:
    """The sequences of the ready tasks, the next one first."""
    found = [row for row in rows.values() if row.task[STATE] == "ready"]
    return [row.task[0] for row in sorted(found, key=rank)]


def faults_of(found: Found) -> list[str]:
    """What is wrong with a state, whatever was acknowledged."""
    faults = list(found.faults)
    rows = found.rows.values()
    if found.order != ready(found.rows):
        faults.append(f"P2: the order is {found.order}, not {ready(found.rows)}")
    leased = {row.task[0] for row in rows if row.task[STATE] == "leased"}
    if leased != {row.task[0] for row in rows if row.lease}:
        faults.append("P3: leased without a lease, or a lease of what is not leased")
    if leased & set(found.order):
        faults.append("P3: leased twice")
    return faults + [f"P5: {row.task[0]} {why}" for row in rows if (why := unbounded(row))]


def unbounded(row: Row) -> str:
    """What a task has had more of than it may; or nothing."""
    max_retries, retry_count, lost_count, attempt, finished_at_us = (
        row.task[place] for place in COUNTS
    )
    is_final = row.task[STATE] in FINAL
    if retry_count > max_retries + is_final or lost_count > SETTINGS["max_lost"] - (not is_final):
        return f"is {row.task[STATE]} after {retry_count} failures and {lost_count} lost leases"
    numbers = [tried[1] for tried in row.attempts]
    if numbers != sorted(set(numbers)) or numbers[-1:] > [attempt]:
        return f"has attempts {numbers}, of {attempt}"
    if is_final != (finished_at_us is not None):
        return f"is {row.task[STATE]}, and ended at {finished_at_us}"
    return ""


# --- all states of all moments ------------------------------------------------------------------


DAMAGED = "P1: the file is damaged"
LOST = "P1: acknowledged, and lost"
NEVER_SO = "P1: tasks as they never were"


class Verdict(NamedTuple):
    """What was found in a state."""

    commits: tuple[int, ...]
    """After how many commits the tasks were just so. None: never."""
    faults: tuple[str, ...]


@dataclass
class Survey:
    """States of a story's moments, what is wrong with them, and how many there were."""

    story: Story
    path: Path
    """Where they are opened."""
    seed: int
    """Of what is drawn."""
    deaf_to: str | None = None
    moments: int = 0
    states: int = 0
    """Of all moments; those of one are different."""
    faults: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """At which moments, by how much the disk had been told."""
    verdicts: dict[Drawn, Verdict] = field(default_factory=dict)
    """What is left at several moments is opened once, and judged at each of them."""

    def run(self) -> "Survey":
        """Looks at all moments."""
        self._settings = DistributorSettings.model_validate(SETTINGS)
        self._chance = random.Random(self.seed)
        self._commits: dict[frozenset[tuple[int, Row]], list[int]] = {}
        for number, rows in enumerate(self.story.after):
            self._commits.setdefault(frozenset(rows.items()), []).append(number)
        gc.disable()  # Else it takes a quarter of the time, and finds nothing: there are no cycles.
        try:
            for place, platter in moments(self.story, self.deaf_to):
                self._look(platter, place)
        finally:
            gc.enable()
        return self

    def _look(self, platter: Platter, place: int) -> None:
        acknowledged = bisect_right(self.story.moments, place)
        self.moments += 1
        for drawn in set(platter.draws(self._chance, DRAWS)):
            self.states += 1
            if drawn not in self.verdicts:
                self.verdicts[drawn] = self._open(platter.state(drawn))
            commits, faults = self.verdicts[drawn]
            for fault in faults:
                self.faults[fault].append(place)
            # What is under way may be there too: all of it, or nothing.
            if not {acknowledged, acknowledged + 1} & set(commits):
                self.faults[_fault(acknowledged, commits)].append(place)

    def _open(self, state: State) -> Verdict:
        found = start(self.path, state, self._settings)
        commits = self._commits.get(frozenset(found.rows.items()), [])
        return Verdict(tuple(commits), tuple(faults_of(found)))


def _fault(acknowledged: int, commits: tuple[int, ...]) -> str:
    if not commits:
        return NEVER_SO
    return LOST if max(commits) < acknowledged else "P1: more than was done"
