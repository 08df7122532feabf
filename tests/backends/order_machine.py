"""What happens to the writer and to the model of `order_model.py`, and what must be alike.

Random submits, takes, outcomes, cancels, expiries, clocks that jump, restarts and crashes. After
every step, what each of several agents would get next, the position of every task, and all that is
counted of it are what the rules say.
"""

from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from taskdist.backends.journal import Journal
from taskdist.backends.requests import Batch, Request
from taskdist.backends.writer import FULL_RETRY_US, Writer
from taskdist.core import commands
from taskdist.core.commands import Command, Grants, Settled
from taskdist.core.errors import LeaseNotHeld, StoreFull, TransitionRefused
from taskdist.core.queries import GetTask, Query
from taskdist.core.task import Outcome, Task, TaskState
from taskdist.settings import DistributorSettings
from tests.backends.order_commands import (
    OUTCOMES,
    room_for_nothing,
    settle_command,
    take_command,
)
from tests.backends.order_model import (
    HASTY_MAX,
    HASTY_US,
    LEASE_US,
    MAX_LOST,
    RUN_TIMEOUT_US,
    SECOND_US,
    Model,
    Row,
    Wait,
)
from tests.support.clocks import ManualTime

QUEUES = ("east", "west")
KINDS = ("long", "short")
VIEWS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (QUEUES, ()),
    (("east",), ("long",)),
    (("west", "nowhere"), ("short", "unknown")),
]
"""What the agents who look in after each step may take."""

PAUSE_US = LEASE_US // 3

queues = st.lists(st.sampled_from(QUEUES), min_size=1, unique=True).map(tuple)
kinds = st.lists(st.sampled_from(KINDS), unique=True).map(tuple)
agents = st.sampled_from(["agent-1", "agent-2"])


class WriterAgainstModel(RuleBasedStateMachine):
    """One journal, one writer at a time, one model."""

    path: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self.time = ManualTime()
        self.model = Model()
        self.numbers = count(1)
        self.passed_us = 0
        self.served_us = 0
        self.saved_us = 0
        self.newest_us = 0
        self.full_until_us = 0
        """For so long, leases that are over are left alone."""
        self.said: list[tuple[commands.Settle, str]] = []
        """Outcomes that were accepted, each with the state it led to."""
        self.submits: list[commands.Submit] = []
        self.open(("paid", "free"))

    def open(self, tiers: tuple[str, ...]) -> None:
        """A new writer on the journal, with these tiers."""
        self.model.tiers = tiers
        self.settings = DistributorSettings(
            tiers=tiers,
            lease_us=LEASE_US,
            max_lost=MAX_LOST,
            hasty_releases_max=HASTY_MAX,
            hasty_release_us=HASTY_US,
            run_timeout_us=RUN_TIMEOUT_US,
            run_timeout_factor=1,
        )
        self.journal = Journal(self.path, "strict", tiers)
        self.journal.connection.pragma("synchronous", "OFF")  # For speed: nothing crashes but us.
        self.writer = Writer(self.journal, self.time.clock(self.settings), self.settings)
        self.passed_us = self.full_until_us = 0

    def teardown(self) -> None:
        try:
            self.check_histories()
        finally:
            self.journal.abandon()

    def check_histories(self) -> None:
        """What is kept of each task's attempts is what happened."""
        for row in self.model.rows:
            history = self.ask(GetTask(row.id))
            attempts = [
                (attempt.attempt, attempt.lease_id, attempt.outcome.value, attempt.led_to.value)
                for attempt in history.attempts
            ]
            assert attempts == row.history

    # --- asking the writer, and following it in the model ---

    def step(self, *asked: Command[Any] | Query[Any]) -> tuple[list[Any], list[Request]]:
        """One batch: the answers, and who else was answered. The model sees the time pass."""
        requests = [Request(one) for one in asked]
        batch = self.writer.step(requests)
        self.check_clocks(batch)
        if self.served_us >= self.full_until_us:
            self.model.expire(self.served_us)
        others = [request for request in batch.answered if request not in requests]
        return [request.answer for request in requests], others

    def check_clocks(self, batch: Batch) -> None:
        """Time is served but for pauses, and no age is less than one that was given."""
        moment = batch.moment
        self.served_us += min(self.passed_us, PAUSE_US)
        self.passed_us = 0
        assert moment.served_us == self.served_us
        assert moment.wall_us == self.time.wall_us
        assert moment.enqueue_us == max(self.time.wall_us, self.newest_us)
        if batch.rows:
            self.saved_us = self.served_us

    def check_line(self, others: list[Request], served: list[tuple[str, list[str]]]) -> None:
        """Those who waited and were answered are those of the model, in this order."""
        served = served + self.model.serve(self.served_us) + self.model.time_out(self.served_us)
        answers = [
            (request.asked.token, [grant.task.id for grant in request.answer.grants])
            for request in others
            if isinstance(request.asked, commands.Take)
        ]
        assert answers == served

    def ask(self, asked: Command[Any] | Query[Any]) -> Any:
        """Asks what changes nothing else."""
        (answer,), others = self.step(asked)
        self.check_line(others, [])
        return answer

    def held(self, data: st.DataObject) -> Row:
        """One of the leased tasks, by the model; time passed by now has been looked at."""
        return data.draw(st.sampled_from([row for row in self.model.rows if row.held]))

    # --- submitting and taking ---

    @rule(
        tier=st.sampled_from(["paid", "free", "gold"]),
        est_us=st.integers(0, 2),
        queue=st.sampled_from(QUEUES),
        kind=st.sampled_from(KINDS),
        max_retries=st.integers(0, 2),
    )
    def submit(self, tier: str, est_us: int, queue: str, kind: str, max_retries: int) -> None:
        number = next(self.numbers)
        task = Task(
            id=f"{number:08x}-0000-7000-8000-{number:012x}",
            user_tier=tier,
            est_processing_time_us=est_us,
            queue=queue,
            kind=kind,
            max_retries=max_retries,
        )
        submit = commands.Submit(task, b"data", client_made_id=True)
        self.submits.append(submit)
        (placed,), others = self.step(submit)
        self.newest_us = max(self.time.wall_us, self.newest_us)
        row = Row(
            task.id, tier, est_us, queue, kind, max_retries, placed.task.sequence, self.newest_us
        )
        assert row.sequence > max((row.sequence for row in self.model.rows), default=0)
        served = self.model.serve(self.served_us)  # What expired goes to those who wait, as does …
        self.model.rows.append(row)
        assert placed.position == self.model.position(row)
        self.check_line(others, served)

    @precondition(lambda self: self.submits)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        """The same id and content: the same task, where it stands now."""
        number = data.draw(st.integers(0, len(self.submits) - 1))
        (placed,), others = self.step(self.submits[number])
        row = self.model.rows[number]
        assert placed.task.id == row.id
        assert placed.task.state == row.state
        assert placed.position == self.model.position(row)
        self.check_line(others, [])

    @rule(
        agent_id=agents,
        queues=queues,
        kinds=kinds,
        slots=st.integers(1, 3),
        wait_us=st.sampled_from([0, SECOND_US]),
    )
    def take(
        self,
        agent_id: str,
        queues: tuple[str, ...],
        kinds: tuple[str, ...],
        slots: int,
        wait_us: int,
    ) -> None:
        asking = Wait(self.token(), agent_id, queues, kinds, slots, self.served_us)
        self.take_as(asking, wait_us)

    def token(self) -> str:
        """A new one."""
        return f"token{next(self.numbers)}"

    def take_as(self, asking: Wait, wait_us: int) -> None:
        """Takes, in the machine and in the model."""
        (grants,), others = self.step(take_command(asking, wait_us))
        served = self.model.serve(self.served_us)  # They came first.
        is_free = self.model.free_slots(asking) > 0
        given = self.model.give(asking, self.served_us)
        if not given and wait_us and is_free:
            assert grants is None
            asking.until_us = self.served_us + wait_us
            self.model.line.append(asking)
        else:
            assert [grant.task.id for grant in grants.grants] == given
        self.check_line(others, served)

    # --- ending leases ---

    def settle(self, row: Row, outcome: str, *, retryable: bool = True) -> None:
        command = settle_command(row, outcome, retryable=retryable)
        (answer,), others = self.step(command)
        served = self.model.serve(self.served_us)  # What expired in this very batch.
        self.settled(row, command, answer)
        self.check_line(others, served)

    def settled(self, row: Row, command: commands.Settle, answer: Any) -> None:
        """Follows an outcome in the model, whose answer this is."""
        if row.held is None or row.held.lease_id != command.lease_id:
            assert isinstance(answer, LeaseNotHeld)  # Its time was up in this very batch.
            return
        if command.outcome is Outcome.SUCCEEDED:
            self.model.succeed(row)
        elif command.outcome is Outcome.FAILED:
            self.model.fail(row, retryable=command.retryable)
        else:
            self.model.release(row, self.served_us)
        assert answer == Settled(command.outcome, TaskState(row.state))
        self.said.append((command, row.state))

    @precondition(lambda self: self.any_held())
    @rule(data=st.data(), outcome=st.sampled_from(sorted(OUTCOMES)))
    def end(self, data: st.DataObject, outcome: str) -> None:
        self.settle(self.held(data), outcome)

    @precondition(lambda self: self.any_held())
    @rule(data=st.data(), retryable=st.sampled_from([True, True, False]))
    def fail(self, data: st.DataObject, retryable: bool) -> None:
        self.settle(self.held(data), "failed", retryable=retryable)

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """P3: the same answer, wherever the task has moved on to, and nothing changes."""
        command, led_to = data.draw(st.sampled_from(self.said))
        assert self.ask(command) == Settled(command.outcome, TaskState(led_to))

    @precondition(lambda self: self.any_held())
    @rule(data=st.data(), outcome=st.sampled_from(sorted(OUTCOMES)))
    def meddle(self, data: st.DataObject, outcome: str) -> None:
        """P3: nobody else ends a lease, and nothing changes."""
        row = self.held(data)
        assert row.held is not None
        for agent_id, lease_id in (("agent-3", row.held.lease_id), (row.held.agent_id, "gone")):
            command = commands.Settle(row.id, agent_id, lease_id, OUTCOMES[outcome])
            assert isinstance(self.ask(command), LeaseNotHeld)

    @precondition(lambda self: self.any_held())
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        lease_ids = [row.held.lease_id for row in self.model.rows if row.held]
        wanted = tuple(data.draw(st.lists(st.sampled_from(lease_ids), unique=True)))
        (answer,), others = self.step(commands.Heartbeat("agent-1", wanted))
        beating = []
        for row in self.model.rows:
            held = row.held
            if held and held.agent_id == "agent-1" and (not wanted or held.lease_id in wanted):
                held.extend(self.served_us)
                beating.append(held.lease_id)
        assert sorted(answer.lease_ids) == sorted(beating)
        self.check_line(others, [])

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.model.rows))
        (answer,), others = self.step(commands.Cancel(row.id))
        if row.state in ("ready", "leased"):
            self.model.cancel(row)
            assert answer.task.state is TaskState.CANCELLED
        else:
            assert isinstance(answer, TransitionRefused)
        self.check_line(others, [])

    # --- time and trouble ---

    @rule(us=st.sampled_from([1, 400_000, 999_999]))
    def pass_time(self, us: int) -> None:
        self.time.pass_us(us)
        self.passed_us += us
        _, others = self.step()
        self.check_line(others, [])

    @rule()
    def pause(self) -> None:
        """P4: the machine sleeps for an hour; only a second of it ages a lease."""
        self.pass_time(3_600 * SECOND_US)

    @rule(us=st.sampled_from([-3_600 * SECOND_US, -1, 1, 60 * SECOND_US]))
    def jump_wall(self, us: int) -> None:
        self.time.jump_wall_us(us)

    @rule()
    def submit_to_a_full_disk(self) -> None:
        """P6: it is refused, and nothing has changed."""
        self.step()
        number = next(self.numbers)
        name = f"{number:08x}-0000-7000-8000-{number:012x}"
        task = Task(id=name, user_tier="paid", est_processing_time_us=0, queue="east")
        with room_for_nothing(self.journal):
            (answer,), _ = self.step(commands.Submit(task, bytes(400_000), client_made_id=False))
        assert isinstance(answer, StoreFull)
        self.full_until_us = self.served_us + FULL_RETRY_US

    # --- after every step ---

    def any_held(self) -> bool:
        return any(row.held for row in self.model.rows)

    @invariant()
    def every_task_is_where_the_rules_say(self) -> None:
        answers, _ = self.step(*(commands.Locate(row.id) for row in self.model.rows))
        for row, placed in zip(self.model.rows, answers, strict=True):
            task = placed.task
            assert placed.position == self.model.position(row)
            assert task.state == row.state
            assert task.enqueued_at_us == row.enqueued_us
            counts = (task.retry_count, task.lost_count, task.hasty_releases, task.attempt)
            assert counts == (row.retry_count, row.lost_count, row.hasty, row.attempt)
            expected = row.held and (row.held.lease_id, row.held.agent_id, row.held.expires_us)
            lease = task.lease
            assert (lease and (lease.lease_id, lease.agent_id, lease.expires_us)) == expected
        self.writer.check()

    @invariant()
    def every_agent_would_get_the_next_task_of_the_rules(self) -> None:
        """Each really takes, and what it took is taken back as if it had never been."""
        for queues, kinds in VIEWS:
            token = f"look{next(self.numbers)}"
            look = commands.Take("agent-0", "", queues, kinds, 2, 0, token)
            (grants,), _ = self.step(look)
            assert isinstance(grants, Grants)
            tasks = [grant.task for grant in grants.grants]
            assert [task.id for task in tasks] == [
                row.id for row in self.model.ready(queues, kinds)[:2]
            ]
            leases = tuple(task.lease.lease_id for task in tasks if task.lease)
            if leases:
                self.step(commands.TakeBack(leases))
