"""How the writer is asked and the model of `order_model.py` followed, and what must be alike.

After every step every answer, what each of several agents would get next, the position of every
task, all that is counted of it, and what is gone are what the rules say. What happens is in
`order_verbs.py` and `order_riding.py`.
"""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from taskdist.backends.journal import Journal
from taskdist.backends.requests import Batch, Request
from taskdist.backends.store_check import StoreCheck
from taskdist.backends.writer import Writer
from taskdist.core import commands
from taskdist.core.commands import Command, Grants, Placed
from taskdist.core.queries import FollowTask, ListTasks
from taskdist.core.task import Task
from taskdist.settings import DistributorSettings
from tests.backends import order_rows as limits
from tests.backends.order_commands import (
    check_history,
    check_row,
    outline,
    plain,
    step_of,
    take_command,
)
from tests.backends.order_model import Model
from tests.backends.order_rows import LEASE_US, SECOND_US, Answer, Row, Wait
from tests.support.clocks import ManualTime

QUEUES = ("east", "west")
KINDS = ("long", "short")
VIEWS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (QUEUES, ()),
    (("east",), ("long",)),
    (("west", "nowhere"), ("short", "unknown")),
]
"""What the agents who look in after each step may take."""

CLOCK_SAVE_US = 2 * SECOND_US


def any_held(machine: "WriterAgainstModel") -> bool:
    """Whether there is a lease."""
    return any(row.held for row in machine.model.rows)


Said = Callable[[], tuple[Command[Any], Answer]]
"""Does it in the model; the command that says the same, and the answer that is due."""


CHANCES: dict[str, tuple[int, Callable[[Any], bool]]] = {}
"""How often each method is a step, and when it can be."""


def often(
    times: int, when: Callable[[Any], bool] = lambda machine: True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A method that is a step of the machine, that many times as often as one of 1.

    Not Hypothesis' own rules: it leaves half of those out in each run, so that hardly any run has
    all that a task needs to get through its life.
    """

    def mark(method: Callable[..., None]) -> Callable[..., None]:
        CHANCES[method.__name__] = (times, when)
        return method

    return mark


class WriterAgainstModel(RuleBasedStateMachine):
    """One journal, one writer at a time, one model."""

    path: Path | None = None
    seen: ClassVar[Counter[str]] = Counter()
    """Steps of the life cycle and answers that came about in all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.time = ManualTime()
        self.model = Model()
        self.numbers = count(1)
        self.steps = count()
        self.passed_us = 0
        self.served_us = 0
        self.saved_us = 0
        self.newest_sequence = 0
        self.drawn: dict[tuple[object, ...], int] = {}
        """What chance has made of each backoff."""
        self.waiting: dict[str, Request] = {}
        """The takes that were not answered at once, by their token."""
        self.seen_now: set[str] = set()
        self.open(("paid", "free"))

    def open(self, tiers: tuple[str, ...]) -> None:
        """A new writer on the journal, with these tiers."""
        self.settings = DistributorSettings(
            tiers=tiers,
            lease_us=LEASE_US,
            max_lost=limits.MAX_LOST,
            hasty_releases_max=limits.HASTY_MAX,
            hasty_release_us=limits.HASTY_US,
            run_timeout_us=limits.RUN_TIMEOUT_US,
            run_timeout_factor=1,
            retention_us=limits.RETENTION_US,
            dead_retention_us=limits.DEAD_RETENTION_US,
            finished_kept_max=limits.FINISHED_KEPT_MAX,
            dead_kept_max=limits.DEAD_KEPT_MAX,
            tasks_waiting_max=limits.WAITING_MAX,
            waiting_bytes_max=limits.WAITING_BYTES_MAX,
            leases_per_session_max=limits.SESSION_LEASES_MAX,
            clock_save_us=CLOCK_SAVE_US,
            entries_kept_max=limits.ENTRIES_MAX,
            entry_bytes_max=limits.ENTRY_BYTES_MAX,
            entries_at_once_max=limits.ENTRIES_AT_ONCE,
            entries_per_second_max=limits.ENTRIES_PER_SECOND,
        )
        self.journal = Journal(self.path, "strict", tiers)
        self.journal.connection.pragma("synchronous", "OFF")  # For speed: nothing crashes but us.
        self.writer = Writer(self.journal, self.time.clock(self.settings), self.settings)
        self.model.restart(tiers, self.served_us)
        self.passed_us = 0
        self.waiting.clear()

    def teardown(self) -> None:
        try:
            self.check_histories()
            self.check_store()
        finally:
            self.journal.abandon()
        self.seen.update(self.seen_now)
        for what in sorted(self.seen_now):
            event(what)

    def check_store(self) -> None:
        """What an operator's check holds true of a store is true of any (P1)."""
        *_, last = StoreCheck(self.journal.connection, lambda: None).steps()
        assert (last.faults, last.tasks, last.done) == ((), len(self.model.rows), True)

    def check_histories(self) -> None:
        """What is kept of each task's attempts is what happened, and of no others anything."""
        self.say()
        requests = [Request(FollowTask(row.id, (0, 0), 1_000)) for row in self.model.rows]
        listed = Request(ListTasks((), "", "", "", "", 1_000, None))
        self.follow(self.writer.step([*requests, listed]), [])
        assert [task.id for task in listed.answer.tasks] == [
            row.id for row in reversed(self.model.rows)
        ]
        for row, request in zip(self.model.rows, requests, strict=True):
            check_history(row, request.answer.history)
            told = [(e.attempt, e.step, e.text) for e in request.answer.entries]
            assert told == row.log.kept
        for table in ("data", "result", "lease", "attempt", "entry"):
            left = f"SELECT count(*) FROM {table} WHERE sequence NOT IN (SELECT sequence FROM task)"
            assert self.journal.connection.execute(left).get == 0, table

    @rule(data=st.data())
    def next_step(self, data: st.DataObject) -> None:
        """One of those that are possible now."""
        names = [
            name
            for name, (times, when) in CHANCES.items()
            if hasattr(self, name) and when(self)
            for _ in range(times)
        ]
        # Hypothesis likes the first of a list best: let that be another one each time.
        first = 7 * next(self.steps) % len(names)
        getattr(self, data.draw(st.sampled_from(names[first:] + names[:first])))(data)

    # --- asking the writer, and following it in the model ---

    def say(self, *said: Said) -> list[Any]:
        """One batch, first in the model; every answer must be the model's."""
        self.served_us += min(self.passed_us, self.model.pause_us)
        self.passed_us = 0
        self.model.is_loading = self.writer.is_loading
        self.model.begin(self.time.wall_us, self.served_us)
        follows = [follow() for follow in said]
        self.model.end_batch()
        requests = [Request(command) for command, _ in follows]
        batch = self.writer.step(requests)
        assert [plain(request.answer) for request in requests] == [due for _, due in follows]
        self.follow(batch, requests)
        for (command, due), request in zip(follows, requests, strict=True):
            self.seen_now.add(outline(command, due))
            self.check_data(request.answer)
            if isinstance(command, commands.Take) and request.answer is None:
                self.waiting[command.token] = request
        return [request.answer for request in requests]

    def follow(self, batch: Batch, requests: list[Request]) -> None:
        """What the batch says besides its answers."""
        moment = batch.moment
        assert (moment.wall_us, moment.served_us) == (self.time.wall_us, self.served_us)
        if batch.rows or (
            any(row.held for row in self.model.rows)
            and self.served_us - self.saved_us >= CLOCK_SAVE_US
        ):
            self.saved_us = self.served_us
        others = []
        for request in batch.answered:
            if isinstance(request.asked, commands.Take) and request not in requests:
                others.append((request.asked.token, plain(request.answer)))
                self.check_data(request.answer)
                del self.waiting[request.asked.token]
        assert others == self.model.answered
        self.model.answered = []
        for change in batch.changes:
            self.seen_now.add(step_of(change))
            row = change.after and self.model.find(change.after.id)
            if row and change.after:
                self.learn(row, change.after)

    def learn(self, row: Row, task: Task) -> None:
        """The number of a task is the store's to choose, and its jitter is left to chance."""
        row.sequence = task.sequence
        if row.drawn_from_us and task.backoff_until_us is not None:
            delay_us = task.backoff_until_us - self.served_us
            least_us, most_us = row.drawn_from_us
            assert least_us <= delay_us <= most_us
            drawn_for = (row.id, row.retry_count, row.wish.content)
            assert self.drawn.setdefault(drawn_for, delay_us) == delay_us
            row.drawn_from_us = None
            self.model.back_off(row, delay_us)

    def check_data(self, answer: Any) -> None:
        """P1: what is handed out was submitted, byte for byte."""
        for grant in answer.grants if isinstance(answer, Grants) else ():
            row = self.model.find(grant.task.id)
            assert row is None or grant.data == row.wish.data

    # --- short ways to say it ---

    def verb(self, command: Callable[..., Command[Any]], name: str, *asked: Any) -> Said:
        """A command and the method of the model that take the same."""
        return lambda: (command(*asked), getattr(self.model, name)(*asked))

    def locate(self, task_id: str) -> Said:
        """Where a task stands."""
        return self.verb(commands.Locate, "locate", task_id)

    def take(self, asking: Wait) -> Said:
        """An agent asks for tasks."""
        return lambda: (take_command(asking), self.model.take(asking))

    def several(self, said: list[Said], *, atomic: bool) -> Said:
        """All of these in one commit; the first refusal may be that of the whole."""

        def follow() -> tuple[Command[Any], Answer]:
            before = deepcopy(self.model)
            follows = [follow() for follow in said]
            answers = tuple(due for _, due in follows)
            refusals = [due for due in answers if isinstance(due, str) and due != "Done"]
            several = commands.Several(tuple(command for command, _ in follows), atomic)
            if atomic and refusals:
                self.model = before
                return several, refusals[0]
            return several, answers

        return follow

    def token(self) -> str:
        """A new one."""
        return f"token{next(self.numbers)}"

    # --- after every step ---

    @invariant()
    def every_task_is_where_the_rules_say(self) -> None:
        """And each agent really takes, and what it took is taken back as if it had never been."""
        self.say()  # Now nothing is due, and nobody waits who could have something.
        ids = [row.id for row in self.model.rows] + self.model.gone[-3:]
        looks: list[Said] = []
        for queues, kinds in VIEWS:
            look = Wait(f"look{next(self.numbers)}", "agent-0", queues, kinds, 2)
            looks += [self.take(look), self.undone]
        answers = self.say(*looks, *map(self.locate, ids))
        for placed in answers:
            if isinstance(placed, Placed):
                row = self.model.find(placed.task.id)
                assert row is not None
                check_row(row, placed.task)
        numbers = [row.sequence or 0 for row in self.model.rows]
        assert numbers == sorted(set(numbers))
        self.writer.check()

    def undone(self) -> tuple[Command[Any], Answer]:
        """What the agent who looks in has taken is taken back."""
        rows = self.model.holding("agent-0", "")
        lease_ids = tuple(row.held_id for row in rows)
        ids = tuple(row.id for row in rows)
        return commands.TakeBack(lease_ids), self.model.take_back(ids)
