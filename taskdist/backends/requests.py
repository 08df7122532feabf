"""What goes to the writer, and what comes back: requests, and what one commit made durable."""

from dataclasses import dataclass, field
from typing import Any

from taskdist.core import commands
from taskdist.core.commands import Change, Command, Done, Moment
from taskdist.core.queries import Query
from taskdist.core.values import value


@dataclass(eq=False, slots=True)
class Request:
    """A command or query on its way, and what became of it."""

    asked: Command[Any] | Query[Any]
    reply_to: Any = None
    """For whoever made it; not looked at."""
    answer: Any = None
    """What came back, or the exception."""
    data_bytes: int = 0
    rows: int = 1
    """How much it weighs in a batch."""


@value
class Withdraw(Command[Done]):
    """The caller of a waiting `Take` is gone."""

    request: Request


@dataclass(slots=True)
class Batch:
    """What one commit made durable: now it may be spoken of."""

    answered: list[Request] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    moment: Moment = field(default_factory=lambda: Moment(0, 0, 0))
    rows: int = 0
    is_disk_slow: bool = False
    """Whether more should share a commit from now on."""


GROWING = commands.Submit | commands.Take | commands.Redrive | commands.Note
"""What a full disk has to refuse, so that what ends something gets through."""

OF_LEASES = (
    commands.Heartbeat | commands.Settle | commands.Note | commands.TakeBack | commands.Resume
)


def is_of_leases(asked: Command[Any] | Query[Any]) -> bool:
    """Whether it is only about leases that there are, for which waiting tasks need not be known."""
    if isinstance(asked, commands.Several):
        # A take among them gets nothing yet, and does not wait.
        rest = [one for one in asked.commands if not isinstance(one, commands.Take)]
        return bool(rest) and all(map(is_of_leases, rest))
    return isinstance(asked, OF_LEASES)
