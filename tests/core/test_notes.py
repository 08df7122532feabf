"""P7, P3: which progress and log lines are kept, and by whom; what is dropped leaves its trace."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.commands import Change, Found, Note, Noted
from taskdist.core.decide import decide
from taskdist.core.entries import STEP_MAX, Entry, EntryKind, Kept, Remark
from taskdist.core.errors import Exhausted, InvalidFields, LeaseNotHeld, TaskNotFound
from taskdist.core.task import Task
from taskdist.limits import ATTEMPTS_KEPT_MAX
from tests.core.making import SETTINGS, WALL_US, leased, moment, ready, task_id

FEW = SETTINGS.model_copy(
    update={
        "entries_kept_max": 4,
        "entry_bytes_max": 40,
        "entries_at_once_max": 6,
        "entries_per_second_max": 2,
    }
)


def line(text: str = "a line") -> Remark:
    return Remark(EntryKind.LOG, 0, text)


def lost(count: int) -> Remark:
    """The agent says that it dropped so many."""
    return Remark(EntryKind.DROPPED, 0, dropped=count)


class Kept4:
    """A leased task and what is kept of it, note by note."""

    def __init__(self, task: Task | None = None) -> None:
        self.task = task or leased()
        self.entries: dict[tuple[int, int], Entry] = {}

    def note(self, *remarks: Remark, after_s: float = 0) -> int:
        """How many of them were dropped."""
        command = Note(task_id(1), "agent-1", "lease-1", remarks)
        kept = [
            Kept(e.attempt, e.step, e.kind is EntryKind.DROPPED, len(e.text.encode()), e.place)
            for e in self.entries.values()
        ]
        found = Found(tasks=[self.task], entries=kept)
        decision = decide(command, found, moment(after_s), FEW)
        for change in decision.changes:
            self.follow(change)
        assert isinstance(decision.answer, Noted)
        return decision.answer.dropped

    def follow(self, change: Change) -> None:
        assert change.before is change.after is self.task
        for place in change.entries_gone:
            del self.entries[place]
        self.entries |= {(entry.attempt, entry.step): entry for entry in change.entries}
        self.entries = dict(sorted(self.entries.items()))

    @property
    def steps(self) -> list[str]:
        """Each entry's attempt and step, in brackets if it is a mark."""
        return [
            f"({a}.{s})" if entry.kind is EntryKind.DROPPED else f"{a}.{s}"
            for (a, s), entry in self.entries.items()
        ]


def test_what_is_said_is_kept_as_it_was_said() -> None:
    kept = Kept4()
    kept.note(Remark(EntryKind.PROGRESS, 77, "half", 0.5), line("said"), after_s=1)
    assert list(kept.entries.values()) == [
        Entry(1, 1, EntryKind.PROGRESS, 77, 0.5, "half", 1),
        Entry(1, 2, EntryKind.LOG, WALL_US + 1_000_000, None, "said", 2),
    ]


def test_nothing_said_changes_nothing() -> None:
    command = Note(task_id(1), "agent-1", "lease-1", ())
    decision = decide(command, Found(tasks=[leased()]), moment(), FEW)
    assert (decision.answer, decision.changes) == (Noted(0), [])


def test_p7_the_oldest_go_and_steps_go_on() -> None:
    kept = Kept4()
    for _ in range(6):
        kept.note(line("x"))
    assert kept.steps == ["1.3", "1.4", "1.5", "1.6"]
    kept.note(line("y" * 20), line("z" * 19), after_s=2)
    assert kept.steps == ["1.6", "1.7", "1.8"], "40 bytes"


def test_p7_what_comes_too_fast_is_dropped_with_a_mark_that_goes_on() -> None:
    kept = Kept4()
    assert kept.note(*[line("x")] * 9) == 3
    assert kept.steps == ["1.3", "1.4", "1.5", "1.6", "(1.9)"]
    assert kept.note(line()) == 1
    assert kept.steps == ["1.3", "1.4", "1.5", "1.6", "(1.10)"]
    assert kept.note(*[line("x")] * 4, after_s=1.5) == 2, "two more a second"
    assert kept.steps == ["1.5", "1.6", "1.11", "1.12", "(1.14)"]
    assert kept.note(line("x"), after_s=2) == 0
    assert kept.steps == ["1.6", "1.11", "1.12", "1.15"], "the gap says it"


def test_what_the_agent_dropped_itself_is_a_gap_or_a_mark() -> None:
    kept = Kept4()
    kept.note(line("x"), lost(10), line("x"), lost(5))
    assert kept.steps == ["1.1", "1.12", "(1.17)"]
    kept.note(lost(1))
    assert kept.steps == ["1.1", "1.12", "(1.18)"]
    kept.note(line("x"))
    assert kept.steps == ["1.1", "1.12", "1.19"]


def test_p7_an_attempt_whose_last_is_gone_keeps_a_mark_as_long_as_its_history_is_kept() -> None:
    kept = Kept4()
    kept.note(line("x"), line("x"))
    for attempt in (2, 3):
        kept.task = leased(attempt=attempt)
        kept.note(line("x"), line("x"))
    assert kept.steps == ["(1.2)", "2.1", "2.2", "3.1", "3.2"]
    kept.note(line("y" * 40))
    assert kept.steps == ["(1.2)", "(2.2)", "3.3"]
    kept.task = leased(attempt=2 + ATTEMPTS_KEPT_MAX)
    kept.note(line("x"))
    assert kept.steps == ["(3.3)", "130.1"]


def test_p7_more_at_once_than_may_be_kept() -> None:
    kept = Kept4()
    assert kept.note(*[line("x" * 9)] * 6) == 0
    assert kept.steps == ["1.3", "1.4", "1.5", "1.6"]


def test_p7_the_numbers_of_an_attempt_are_not_used_up_into_those_of_its_states() -> None:
    kept = Kept4()
    kept.note(lost(STEP_MAX - 1))
    kept.note(line())
    with pytest.raises(Exhausted, match="has said too much"):
        kept.note(line())
    assert kept.steps == [f"1.{STEP_MAX}"]


@pytest.mark.parametrize(
    ("found", "said", "refusal"),
    [
        (Found(), {}, TaskNotFound),
        (Found(tasks=[ready()]), {}, LeaseNotHeld),
        (Found(tasks=[ready()]), {"lease_id": ""}, LeaseNotHeld),
        (Found(tasks=[leased()]), {"agent_id": "agent-2"}, LeaseNotHeld),
        (Found(tasks=[leased()]), {"lease_id": "lease-2"}, LeaseNotHeld),
    ],
    ids=str,
)
def test_p3_only_who_holds_the_lease_is_heard(
    found: Found, said: dict[str, Any], refusal: type[Exception]
) -> None:
    by = {"agent_id": "agent-1", "lease_id": "lease-1", **said}
    with pytest.raises(refusal):
        decide(Note(task_id(1), remarks=(line(),), **by), found, moment(), FEW)


def test_p3_without_a_lease_id_the_agent_id_alone_decides_unless_it_is_required() -> None:
    command = Note(task_id(1), "agent-1", "", (line(),))
    found = Found(tasks=[leased()])
    assert decide(command, found, moment(), FEW).changes
    strict = FEW.model_copy(update={"require_lease_id": True})
    with pytest.raises(InvalidFields, match="require-lease-id"):
        decide(command, found, moment(), strict)


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.one_of(
                    st.integers(0, 30).map(lambda n: line("x" * n)), st.integers(1, 5).map(lost)
                ),
                max_size=8,
            ),
            st.sampled_from([0, 0, 0.5, 3]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_p7_whatever_is_said_every_number_is_accounted_for(
    notes: list[tuple[list[Remark], float, bool]],
) -> None:
    """Each attempt's last step is that of its last remark, none is given twice, and what is kept is
    within its limits."""
    kept = Kept4()
    now_s = 0.0
    said: dict[int, int] = {}
    for remarks, pause_s, goes_on in notes:
        now_s += pause_s
        if not goes_on:
            kept.task = leased(attempt=kept.task.attempt + 1)
        kept.note(*remarks, after_s=now_s)
        attempt = kept.task.attempt
        said[attempt] = said.get(attempt, 0) + sum(one.dropped or 1 for one in remarks)
        last: dict[int, int] = dict(kept.entries.keys())  # of each attempt the greatest
        assert last == {a: count for a, count in said.items() if count}
        lines = [e for e in kept.entries.values() if e.kind is not EntryKind.DROPPED]
        assert len(lines) <= 4
        assert sum(len(e.text) for e in lines) <= 40
