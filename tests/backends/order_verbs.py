"""What happens to the machine of `order_machine.py`: every verb, time that passes, and trouble."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from taskdist.backends.requests import Withdraw
from taskdist.backends.reserve import FULL_RETRY_US
from taskdist.core import commands
from taskdist.core.commands import Command
from tests.backends.order_commands import (
    OUTCOMES,
    room_for_nothing,
    settle_command,
    submit_command,
)
from tests.backends.order_machine import (
    KINDS,
    QUEUES,
    Said,
    WriterAgainstModel,
    any_held,
    often,
)
from tests.backends.order_model import FINAL
from tests.backends.order_rows import SECOND_US, WAITING_MAX, Answer, Row, Wait, Wish

HOUR_US = 3_600 * SECOND_US

TIMES: list[dict[str, Any]] = [
    *[{}] * 4,
    {"delay_us": 300_000},
    {"delay_us": 1_500_000},
    {"not_before_us": -1},
    {"not_before_us": 500_000},
    {"not_before_us": HOUR_US},
    {"deadline_in_us": 400_000},
    {"deadline_in_us": 2 * SECOND_US},
    {"deadline_us": 700_000},
    {"deadline_us": HOUR_US},
    {"deadline_us": 0},
    {"delay_us": 300_000, "deadline_in_us": 1_200_000},
    {"delay_us": 600_000, "deadline_in_us": 600_000},
    {"not_before_us": 600_000, "deadline_us": 600_001},
]
"""When a task may start; `not_before_us` and `deadline_us` from now, by the wall clock."""

_FIXED = {"backoff": "fixed", "backoff_us": 300_000}
_EXPONENTIAL = {"backoff": "exponential", "backoff_us": 200_000, "backoff_max_us": 700_000}
BACKOFFS: list[dict[str, Any]] = [
    *[{}] * 3,
    _FIXED,
    _EXPONENTIAL,
    {**_FIXED, "jitter_percent": 50},
    {**_EXPONENTIAL, "jitter_percent": 20},
]
TERMS: list[dict[str, Any]] = [
    *[{}] * 3,
    {"lease_us": SECOND_US},
    {"lease_us": 3 * SECOND_US, "run_timeout_us": SECOND_US},
]

queues = st.lists(st.sampled_from(QUEUES), min_size=1, unique=True).map(tuple)
kinds = st.lists(st.sampled_from(KINDS), unique=True).map(tuple)
slots = st.integers(1, 3)
waits = st.sampled_from([0, SECOND_US])
agents = st.sampled_from(["agent-1", "agent-2"])
outcomes = st.sampled_from(sorted(OUTCOMES))
texts = st.sampled_from(["", "text"])
TWISTS: list[dict[str, Any]] = [
    *[{}] * 12,
    {"key": "key-1"},
    {"tier": "other"},
    {"est_us": 7},
    {"kind": "other"},
    {"max_retries": 9},
    {"data_bytes": 29},
    {"delay_us": 7},
    {"not_before_us": 7},
    {"deadline_in_us": 9 * HOUR_US},
    {"deadline_us": 253_402_300_799_000_000},
    {"backoff_us": 9},
    {"backoff_max_us": 9},
    {"jitter_percent": 9},
    {"lease_us": 4 * SECOND_US},
    {"run_timeout_us": 4 * SECOND_US},
]
"""What is different in a submit that is repeated."""

LARGE_BYTES = 500_000
"""Two of them may wait, three may not; and three, which is all that a session may hold, fit a
message."""

OURS = "ours"
"""Stands for an id that the distributor makes, or a client that takes care."""

NAMES = [f"0000000{number}-0000-7000-8000-0000000000aa" for number in (1, 2)]


def wish_of(
    times: dict[str, Any], backoff: dict[str, Any], terms: dict[str, Any], **said: Any
) -> Wish:
    """All of these together."""
    return Wish(**said, **times, **backoff, **terms)


wishes = st.builds(
    wish_of,
    id=st.sampled_from([OURS, OURS, OURS, *NAMES]),
    is_clients=st.booleans(),
    key=st.sampled_from([None, None, None, "key-1", "key-2"]),
    tier=st.sampled_from(["paid", "free", "gold"]),
    est_us=st.integers(0, 2),
    queue=st.sampled_from(QUEUES),
    kind=st.sampled_from(KINDS),
    max_retries=st.integers(0, 3),
    data_bytes=st.sampled_from([30, 31, 0, LARGE_BYTES]),
    times=st.sampled_from(TIMES),
    backoff=st.sampled_from(BACKOFFS),
    terms=st.sampled_from(TERMS),
)


OPERATIONS: dict[str, type[Command[Any]]] = {
    "cancel": commands.Cancel,
    "redrive": commands.Redrive,
    "purge": commands.Purge,
}


def any_task(machine: WriterAgainstModel) -> bool:
    """Whether there is a task."""
    return bool(machine.model.rows)


class VerbsAgainstModel(WriterAgainstModel):
    """The machine, and whoever speaks to a distributor."""

    def __init__(self) -> None:
        super().__init__()
        self.wishes: list[Wish] = []
        self.said: list[tuple[str, str, str, str, str]] = []
        """Outcomes that were accepted."""

    # --- submitting ---

    def fresh_id(self) -> str:
        """An id that no other call gave."""
        number = next(self.numbers)
        return f"{number:08x}-0000-7000-8000-{number:012x}"

    def meant(self, wish: Wish) -> Wish:
        """A wish said now, with an id of its own unless the client chose one of few."""
        is_ours = wish.id == OURS
        wish = replace(
            wish,
            id=self.fresh_id() if is_ours else wish.id,
            is_clients=wish.is_clients or not is_ours,
        )
        if wish.not_before_us:
            wish = replace(wish, not_before_us=self.time.wall_us + wish.not_before_us)
        if wish.deadline_us is not None:
            wish = replace(wish, deadline_us=self.time.wall_us + wish.deadline_us)
        self.wishes.append(wish)
        return wish

    def submitting(self, wish: Wish) -> Said:
        """Someone submits."""
        return lambda: (submit_command(wish), self.model.submit(wish))

    @often(4)
    def submit(self, data: st.DataObject) -> None:
        self.say(self.submitting(self.meant(data.draw(wishes))))

    @often(1)
    def crowd(self, data: st.DataObject) -> None:
        """There are as many as may wait, and nobody else gets in."""
        waiting = sum(row.waits for row in self.model.rows)
        wish = Wish("", False, None, "free", 1, data.draw(st.sampled_from(QUEUES)), "long", 1, 30)
        wishes = [replace(wish, id=self.fresh_id()) for _ in range(waiting, WAITING_MAX + 1)]
        ended = [row.id for row in self.model.rows if row.state in ("dead", "cancelled")]
        redrives = [self.verb(commands.Redrive, "redrive", task_id) for task_id in ended]
        self.say(*map(self.submitting, wishes), *redrives)

    @often(2)
    def submit_many(self, data: st.DataObject) -> None:
        many = data.draw(st.lists(wishes, min_size=2, max_size=4))
        self.say(*[self.submitting(self.meant(wish)) for wish in many])

    @often(2, lambda self: any(wish.is_named for wish in self.wishes))
    def submit_again(self, data: st.DataObject) -> None:
        """The same content under the same name is the same task, as it is now; or it is refused."""
        wish = data.draw(st.sampled_from([wish for wish in self.wishes if wish.is_named]))
        twist = data.draw(st.sampled_from(TWISTS))
        if not wish.is_clients:
            twist = {"id": self.fresh_id(), **twist}
        self.say(self.submitting(replace(wish, **twist)))

    # --- taking, and while a lease lasts ---

    @often(4)
    def take_some(self, data: st.DataObject) -> None:
        lanes = (data.draw(queues), data.draw(kinds))
        asking = Wait(self.token(), data.draw(agents), *lanes, data.draw(slots), data.draw(waits))
        self.say(self.take(asking))

    @often(3, lambda self: self.waiting)
    def withdraw(self, data: st.DataObject) -> None:
        """Who waits hangs up."""
        token = data.draw(st.sampled_from(sorted(self.waiting)))
        request = self.waiting[token]
        self.say(lambda: (Withdraw(request), self.model.withdraw(token)))
        self.waiting.pop(token, None)

    @often(2, any_held)
    def heartbeat(self, data: st.DataObject) -> None:
        lease_ids = [row.held_id for row in self.model.rows if row.held]
        wanted = tuple(data.draw(st.lists(st.sampled_from(lease_ids), unique=True)))
        self.say(self.verb(commands.Heartbeat, "heartbeat", data.draw(agents), wanted))

    def held(self, data: st.DataObject) -> Row:
        """One of the leased tasks."""
        return data.draw(st.sampled_from([row for row in self.model.rows if row.held]))

    def settling(self, *asked: Any) -> Said:
        """An outcome; what was accepted is remembered."""

        def follow() -> tuple[Command[Any], Answer]:
            answer = self.model.settle(*asked)
            if isinstance(answer, tuple):
                self.said.append(asked[:5])
            return settle_command(*asked), answer

        return follow

    @often(3, any_held)
    def end(self, data: st.DataObject) -> None:
        row = self.held(data)
        assert row.held is not None
        lease_id = data.draw(st.sampled_from([row.held_id, row.held_id, ""]))
        whose = (row.id, row.held.agent_id, lease_id)
        self.say(self.settling(*whose, data.draw(outcomes), data.draw(texts)))

    @often(3, any_held)
    def fail(self, data: st.DataObject) -> None:
        row = self.held(data)
        assert row.held is not None
        whose = (row.id, row.held.agent_id, row.held_id)
        retryable = data.draw(st.sampled_from([True, True, False]))
        retry_after_us = data.draw(st.sampled_from([None, None, 0, 500_000]))
        self.say(self.settling(*whose, "failed", "text", retryable, retry_after_us))

    @often(3, lambda self: self.model.ready(QUEUES))
    def go_round(self, data: st.DataObject) -> None:
        """The next task meets the same fate again and again, until it is ready no more."""
        fate = data.draw(st.sampled_from(["released", "silent", "failed", "cancel", "succeeded"]))
        is_purged = data.draw(st.booleans())
        task_id = self.model.ready(QUEUES)[0].id
        for _ in range(data.draw(st.integers(1, 3))):
            self.say(self.take(Wait(self.token(), "agent-4", QUEUES, (), 1)))
            row = self.model.find(task_id)
            if row is None or row.held is None:
                return
            if fate == "silent":
                self.fall_silent_under(row)
            elif fate == "cancel":
                self.say(self.verb(commands.Cancel, "cancel", task_id))
            else:
                self.say(self.settling(task_id, row.held.agent_id, row.held_id, fate, ""))
        if is_purged:
            self.say(self.verb(commands.Purge, "purge", task_id))

    @often(1, lambda self: self.said)
    def repeat(self, data: st.DataObject) -> None:
        """P3: the same answer, wherever the task has moved on to, and nothing changes."""
        self.say(self.settling(*data.draw(st.sampled_from(self.said))))

    @often(1, any_held)
    def meddle(self, data: st.DataObject) -> None:
        """P3: nobody else ends a lease, and nothing changes."""
        row, outcome = self.held(data), data.draw(outcomes)
        assert row.held is not None
        self.say(
            self.settling(row.id, "agent-3", row.held_id, outcome, ""),
            self.settling(row.id, row.held.agent_id, "gone", outcome, ""),
        )

    # --- what people do ---

    def operating(self, data: st.DataObject) -> Said:
        """An operator's command for any task that there is or was."""
        name = data.draw(st.sampled_from(sorted(OPERATIONS)))
        ids = [row.id for row in self.model.rows] + self.model.gone[-2:]
        return self.verb(OPERATIONS[name], name, data.draw(st.sampled_from(ids)))

    @often(2, lambda self: any_task(self) or self.model.gone)
    def operate_in_vain(self, data: st.DataObject) -> None:
        """What is gone is not found, and what a task's state does not allow is refused."""
        said: list[Said] = []
        for task_id in self.model.gone[-2:]:
            said += [self.verb(command, name, task_id) for name, command in OPERATIONS.items()]
            said.append(self.settling(task_id, "agent-1", "", "released", ""))
        for row in self.model.rows:
            names = ["cancel"] if row.state in FINAL else ["purge", "redrive"]
            said += [self.verb(OPERATIONS[name], name, row.id) for name in names]
        self.say(*said)

    @often(2, any_task)
    def operate(self, data: st.DataObject) -> None:
        self.say(self.operating(data))

    @often(1, lambda self: any(row.state == "scheduled" for row in self.model.rows))
    def cancel_early(self, data: st.DataObject) -> None:
        ids = [row.id for row in self.model.rows if row.state == "scheduled"]
        self.say(self.verb(commands.Cancel, "cancel", data.draw(st.sampled_from(ids))))

    @often(1, lambda self: any(row.state in ("dead", "cancelled") for row in self.model.rows))
    def redrive(self, data: st.DataObject) -> None:
        ids = [row.id for row in self.model.rows if row.state in ("dead", "cancelled")]
        self.say(self.verb(commands.Redrive, "redrive", data.draw(st.sampled_from(ids))))

    @often(2, lambda self: any(r.wish.key and r.state in FINAL for r in self.model.rows))
    def put_in_place(self, data: st.DataObject) -> None:
        """The key of one that is gone is free at once, also in a commit that has new tasks."""
        rows = [row for row in self.model.rows if row.wish.key and row.state in FINAL]
        row = data.draw(st.sampled_from(rows))
        wish = replace(row.wish, id=self.fresh_id())
        other = replace(wish, id=self.fresh_id(), key=None)
        purge = self.verb(commands.Purge, "purge", row.id)
        self.say(self.submitting(other), purge, self.submitting(wish))

    @often(1, any_task)
    def several_at_once(self, data: st.DataObject) -> None:
        """One commit: all of it, or as much as is not refused."""
        many = data.draw(st.lists(wishes, max_size=2))
        said = [self.submitting(self.meant(wish)) for wish in many]
        for _ in range(data.draw(st.integers(1, 3))):
            said.insert(data.draw(st.integers(0, len(said))), self.operating(data))
        self.say(self.several(said, atomic=data.draw(st.booleans())))

    # --- time and trouble ---

    def pass_us(self, us: int) -> None:
        """Time passes, and the next batch will see it."""
        self.time.pass_us(us)
        self.passed_us += us

    @often(3)
    def pass_time(self, data: st.DataObject) -> None:
        us = data.draw(st.sampled_from([1, 100_000, 400_000, 999_999]))
        for _ in range(data.draw(st.integers(1, 4))):
            self.pass_us(us)
            self.say()

    def fall_silent_under(self, row: Row) -> None:
        """P4: time passes until a lease is over, and not before."""
        while row.held and row in self.model.rows:
            left_us = row.held.expires_us - self.served_us
            # After a full disk it may be over for a while and not be ended yet.
            us = left_us - 1 if left_us > 1 else 1 if left_us == 1 else 100_000
            self.pass_us(min(self.model.pause_us, us))
            self.say()

    @often(1, any_held)
    def fall_silent(self, data: st.DataObject) -> None:
        self.fall_silent_under(self.held(data))

    @often(1)
    def pass_time_unseen(self, data: st.DataObject) -> None:
        """What is due comes about in the same batch as the command of the next step."""
        self.pass_us(data.draw(st.sampled_from([1, 300_000])))

    @often(1)
    def pause(self, data: st.DataObject) -> None:
        """P4: the machine sleeps for an hour; only a second of it ages a lease."""
        self.pass_us(HOUR_US)
        self.say()

    @often(1)
    def jump_wall(self, data: st.DataObject) -> None:
        self.time.jump_wall_us(
            data.draw(st.sampled_from([-HOUR_US, -1, 1, 60 * SECOND_US, HOUR_US]))
        )

    @often(1)
    def submit_to_a_full_disk(self, data: st.DataObject) -> None:
        """P6: it is refused, and nothing has changed."""
        self.say()
        with room_for_nothing(self.journal) as free_bytes:
            data_bytes = free_bytes + 100_000
            wish = Wish(self.fresh_id(), False, None, "paid", 0, "east", "long", 0, data_bytes)
            if not self.model.has_room(data_bytes):
                return
            self.say(lambda: (submit_command(wish), "StoreFull"))
        self.model.full_until_us = self.served_us + FULL_RETRY_US
