"""What a backend is: four methods, and they stay four.

A new store is one class with these methods and one more parameter of the suite in
tests/backends. What it must promise is P1 to P7; the suite checks them.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from taskdist.core.commands import Change, Command
from taskdist.core.queries import Query

A = TypeVar("A")


class Listener(Protocol):
    """Who wants to hear what happens in a backend. Called on the event loop that opened it."""

    def changed(self, changes: Sequence[Change]) -> None:
        """These changes are durable. In the order in which they were made."""

    def paced(self, is_disk_slow: bool) -> None:
        """The disk has become slow, and what waits for it should come together; or fast again."""

    def failed(self, error: BaseException) -> None:
        """The backend has stopped for good: `StoreFailed`, or a bug."""


class Backend(Protocol):
    """Applies commands durably, one at a time as far as anyone can tell."""

    async def open(self, listener: Listener) -> None:
        """Opens the store and brings back what it holds.

        Raises:
            StoreUnusable: it cannot be opened.
            StoreFailed: it is damaged.
        """

    async def apply(self, command: Command[A]) -> A:
        """Decides the command, saves the changes, and only then answers.

        A `Take` waits for a task if it says so. A cancelled call may have been applied, but the
        leases of a cancelled `Take` are taken back.

        Raises:
            Refused: nothing was changed.
        """

    async def read(self, query: Query[A]) -> A:
        """Looks at what is durable, without holding up the writer.

        Raises:
            Refused: what was asked for is not there.
        """

    async def close(self) -> None:
        """Applies what was asked before, then closes. Waiting `Take`s are answered with nothing."""
