"""The life cycle of a task, as a table. A pair that is absent is an error.

Rule: every change of a task's state goes through `step`. The diagram in ARCHITECTURE.md is made
from this table by `diagram`, and a test keeps it so. The shape is h11's `_state.py`.
"""

from enum import StrEnum
from typing import TypeVar

from taskdist.core.errors import TransitionRefused
from taskdist.core.task import TaskState
from taskdist.core.values import members


@members
class Event(StrEnum):
    """What can happen to a task."""

    SUBMIT = "submit"
    DUE = "due"
    OVERDUE = "overdue"
    LEASE = "lease"
    HEARTBEAT = "heartbeat"
    SUCCEED = "succeed"
    FAIL = "fail"
    RELEASE = "release"
    EXPIRE = "expire"
    CANCEL = "cancel"
    REDRIVE = "redrive"
    FORGET = "forget"

    __hash__ = str.__hash__


_S = TaskState
_E = Event

TRANSITIONS: dict[tuple[TaskState | None, Event], tuple[TaskState | None, ...]] = {
    # None stands for a task that does not exist: not yet, or no more.
    (None, _E.SUBMIT): (_S.READY, _S.SCHEDULED),
    (_S.SCHEDULED, _E.DUE): (_S.READY,),
    (_S.SCHEDULED, _E.OVERDUE): (_S.DEAD,),
    (_S.READY, _E.OVERDUE): (_S.DEAD,),
    (_S.READY, _E.LEASE): (_S.LEASED,),
    (_S.LEASED, _E.HEARTBEAT): (_S.LEASED,),
    (_S.LEASED, _E.SUCCEED): (_S.SUCCEEDED,),
    (_S.LEASED, _E.FAIL): (_S.READY, _S.SCHEDULED, _S.DEAD),
    (_S.LEASED, _E.RELEASE): (_S.READY, _S.DEAD),
    (_S.LEASED, _E.EXPIRE): (_S.READY, _S.DEAD),
    (_S.SCHEDULED, _E.CANCEL): (_S.CANCELLED,),
    (_S.READY, _E.CANCEL): (_S.CANCELLED,),
    (_S.LEASED, _E.CANCEL): (_S.CANCELLED,),
    (_S.DEAD, _E.REDRIVE): (_S.READY,),
    (_S.CANCELLED, _E.REDRIVE): (_S.READY,),
    (_S.DEAD, _E.FORGET): (None,),
    (_S.CANCELLED, _E.FORGET): (None,),
    (_S.SUCCEEDED, _E.FORGET): (None,),
}


To = TypeVar("To", TaskState, None)


def step(state: TaskState | None, event: Event, to: To) -> To:
    """Returns `to`, if the table allows this step.

    Raises:
        TransitionRefused: the event cannot happen to a task in this state.
        ValueError: it can, but never leads to `to`: a mistake of ours.
    """
    allowed = TRANSITIONS.get((state, event))
    if allowed is None:
        raise TransitionRefused(f"{event} is not possible: the task is {state}")
    if to not in allowed:
        raise ValueError(f"{event} never leads from {state} to {to}")
    return to


def states_before(event: Event) -> tuple[TaskState, ...]:
    """The states in which this can happen to a task."""
    return tuple(state for state, one in TRANSITIONS if one is event and state is not None)


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    for (state, event), targets in TRANSITIONS.items():
        lines += [f"    {state or '[*]'} --> {to or '[*]'}: {event}" for to in targets]
    return "\n".join(lines)
