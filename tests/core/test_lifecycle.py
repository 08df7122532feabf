"""The life cycle: every state with every event is in the table or refused. No third way."""

import itertools

import pytest

from taskdist.core.errors import TransitionRefused
from taskdist.core.lifecycle import TRANSITIONS, Event, diagram, step
from taskdist.core.task import TaskState

STATES: list[TaskState | None] = [None, *TaskState]

DESIGN: dict[Event, tuple[str, str]] = {
    # The table of the design, once more, to be compared with that in the code.
    Event.SUBMIT: ("none", "ready scheduled"),
    Event.DUE: ("scheduled", "ready"),
    Event.OVERDUE: ("scheduled ready", "dead"),
    Event.LEASE: ("ready", "leased"),
    Event.HEARTBEAT: ("leased", "leased"),
    Event.SUCCEED: ("leased", "succeeded"),
    Event.FAIL: ("leased", "ready scheduled dead"),
    Event.RELEASE: ("leased", "ready dead"),
    Event.EXPIRE: ("leased", "ready dead"),
    Event.CANCEL: ("scheduled ready leased", "cancelled"),
    Event.REDRIVE: ("dead cancelled", "ready"),
    Event.FORGET: ("succeeded dead cancelled", "none"),
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, Event)))
def test_every_pair_is_in_the_table_or_refused(state: TaskState | None, event: Event) -> None:
    sources, targets = DESIGN[event]
    allowed = targets.split() if (state or "none") in sources.split() else []
    for to in TaskState:
        if not allowed:
            with pytest.raises(
                TransitionRefused, match=f"{event} is not possible: the task is {state}"
            ):
                step(state, event, to)
        elif to in allowed:
            assert step(state, event, to) is to
        else:
            with pytest.raises(ValueError, match="never leads"):
                step(state, event, to)


def test_the_table_has_no_pair_but_those_of_the_design() -> None:
    pairs = {
        (state, event): tuple(targets.split())
        for event, (sources, targets) in DESIGN.items()
        for state in sources.split()
    }
    table = {
        (state or "none", event): tuple(to or "none" for to in targets)
        for (state, event), targets in TRANSITIONS.items()
    }
    assert {pair: sorted(targets) for pair, targets in table.items()} == {
        pair: sorted(targets) for pair, targets in pairs.items()
    }


def test_only_an_explicit_redrive_or_forgetting_leads_out_of_a_final_state() -> None:
    """P5: terminal is final."""
    leads_out = {
        state: {event for from_state, event in TRANSITIONS if from_state is state}
        for state in TaskState
    }
    for state in TaskState:
        ends = leads_out[state] <= {Event.REDRIVE, Event.FORGET}
        assert state.is_final == ends, state


def test_a_task_that_succeeded_is_never_run_again() -> None:
    assert [event for state, event in TRANSITIONS if state is TaskState.SUCCEEDED] == [Event.FORGET]


def test_the_diagram_has_an_arrow_for_each_step() -> None:
    lines = diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert len(lines) - 1 == sum(map(len, TRANSITIONS.values()))
    assert "    [*] --> ready: submit" in lines
    assert "    leased --> dead: expire" in lines
    assert "    succeeded --> [*]: forget" in lines
