"""What tests read of changes."""

from taskdist.core.commands import Change
from taskdist.core.task import Task


def kept(change: Change) -> Task:
    """The task after a change that does not remove it."""
    assert change.after is not None
    return change.after
