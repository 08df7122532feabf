"""P4: LeaseTable against a plain dict: which leases are due, whatever heartbeats came."""

import tracemalloc
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskdist.core.leases import LeaseTable
from taskdist.core.task import Task
from taskdist.limits import MIB
from tests.core.making import lease, leased
from tests.support.examples import examples

AGENTS = ("agent-1", "agent-2", "agent-3")


def expires_us(task: Task) -> int:
    assert task.lease is not None
    return task.lease.expires_us


class LeasesAgainstDict(RuleBasedStateMachine):
    """Each lease in a LeaseTable and in a dict by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable()
        self.dict: dict[str, Task] = {}
        self.number = 0
        self.now_us = 0

    @rule(agent_id=st.sampled_from(AGENTS), term_us=st.integers(0, 50))
    def begin(self, agent_id: str, term_us: int) -> None:
        self.number += 1
        held = lease(f"lease-{self.number}", agent_id, expires_us=self.now_us + term_us)
        self.dict[held.lease_id] = task = leased(self.number, held)
        self.table.put(task)

    @precondition(lambda self: self.dict)
    @rule(data=st.data(), term_us=st.integers(0, 80))
    def extend_or_undo(self, data: st.DataObject, term_us: int) -> None:
        """A heartbeat; an undone batch may also bring an earlier end back."""
        task = self.dict[data.draw(st.sampled_from(sorted(self.dict)))]
        assert task.lease is not None
        later = task.evolve(lease=replace(task.lease, expires_us=self.now_us + term_us))
        self.dict[task.lease.lease_id] = later
        self.table.put(later)

    @precondition(lambda self: self.dict)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        task = self.dict.pop(data.draw(st.sampled_from(sorted(self.dict))))
        self.table.remove(task)

    @rule(us=st.integers(0, 40))
    def pass_time(self, us: int) -> None:
        self.now_us += us

    @rule(ends=st.booleans())
    def look_at_what_is_due(self, ends: bool) -> None:
        """A lease that was told of and not ended is told of again, a microsecond later."""
        due = [task for task in self.dict.values() if expires_us(task) <= self.now_us]
        found = self.table.due(self.now_us, 1_000)
        assert [expires_us(task) for task in found] == sorted(map(expires_us, due))
        assert {task.id for task in found} == {task.id for task in due}
        for task in found if ends else ():
            assert task.lease is not None
            self.table.remove(task)
            del self.dict[task.lease.lease_id]
        self.now_us += 1

    @invariant()
    def nothing_is_due_before_it_says(self) -> None:
        next_us = self.table.next_due_us()
        assert (next_us is None) == (not self.dict)
        for task in self.dict.values():
            # What is over already may be looked for at once.
            assert next_us is not None
            assert next_us <= max(expires_us(task), self.now_us)

    @invariant()
    def it_finds_each_by_lease_by_task_and_by_agent(self) -> None:
        assert len(self.table) == len(self.dict)
        assert {task.id for task in self.table} == {task.id for task in self.dict.values()}
        for lease_id, task in self.dict.items():
            assert self.table.of_lease(lease_id) is task
            assert self.table.of_task(task.id) is task
        for agent_id in AGENTS:
            mine = [t.id for t in self.dict.values() if t.lease and t.lease.agent_id == agent_id]
            assert sorted(task.id for task in self.table.of_agent(agent_id)) == sorted(mine)


TestLeasesAgainstDict = LeasesAgainstDict.TestCase
TestLeasesAgainstDict.settings = settings(max_examples=examples(60), stateful_step_count=40)


def test_what_ended_is_found_no_more() -> None:
    table = LeaseTable()
    task = leased()
    table.put(task)
    table.remove(task)
    assert table.of_lease("lease-1") is None
    assert table.of_task(task.id) is None
    assert table.of_agent("agent-1") == []
    assert table.due(10**18, 1_000) == []
    assert table.next_due_us() is None


def test_a_lease_that_was_extended_is_looked_at_when_it_ends_and_not_before() -> None:
    table = LeaseTable()
    table.put(leased(held=lease(expires_us=10)))
    table.put(leased(held=lease(expires_us=30)))
    assert table.next_due_us() == 10, "a heartbeat costs nothing"
    assert table.due(10, 1_000) == []
    assert table.next_due_us() == 30


def test_p7_as_many_end_at_once_as_may_and_the_rest_right_after() -> None:
    table = LeaseTable()
    for number in range(1, 6):
        table.put(leased(number, held=lease(f"lease-{number}", expires_us=number)))
    assert [task.sequence for task in table.due(10, 3)] == [1, 2, 3]
    assert table.next_due_us() == 4


def test_p7_leases_that_ended_long_before_their_time_take_no_room() -> None:
    table = LeaseTable()
    kept = leased(1, held=lease("lease-1", expires_us=10**12))
    table.put(kept)
    tracemalloc.start()
    for number in range(2, 50_000):
        task = leased(number, held=lease(f"lease-{number}", expires_us=10**9 + number))
        table.put(task)
        table.remove(task)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < MIB
    assert table.next_due_us() is not None
    assert table.due(10**12, 1_000) == [kept]
