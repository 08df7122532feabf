"""What the machine of `order_machine.py` says to the writer for the rows of `order_model.py`."""

from collections.abc import Iterator
from contextlib import contextmanager

from taskdist.backends.journal import Journal
from taskdist.core import commands
from taskdist.core.task import Outcome
from tests.backends.order_model import Row, Wait

OUTCOMES = {
    "succeeded": Outcome.SUCCEEDED,
    "failed": Outcome.FAILED,
    "released": Outcome.RELEASED,
}


def take_command(asking: Wait, wait_us: int) -> commands.Take:
    """What this agent asks for."""
    return commands.Take(
        asking.agent_id,
        asking.session,
        asking.queues,
        asking.kinds,
        asking.slots,
        wait_us,
        asking.token,
        asking.in_all,
    )


def settle_command(row: Row, outcome: str, *, retryable: bool = True) -> commands.Settle:
    """An outcome by who holds the task."""
    held = row.held
    assert held is not None
    return commands.Settle(
        row.id, held.agent_id, held.lease_id, OUTCOMES[outcome], retryable=retryable
    )


@contextmanager
def room_for_nothing(journal: Journal) -> Iterator[None]:
    """The disk is full: the store cannot grow."""
    connection = journal.connection
    before = connection.pragma("max_page_count")
    connection.pragma("max_page_count", connection.pragma("page_count"))
    yield
    connection.pragma("max_page_count", before)
