"""What agents can run, as values: what is announced of kinds, and what is told of them."""

from taskdist.core.values import value


@value
class AnnouncedKind:
    """A kind that an agent has a handler for."""

    name: str
    input_schema: str = ""
    """A JSON Schema, as text; empty: any bytes will do."""


@value
class Offer:
    """What an agent takes: these kinds from these queues."""

    queues: tuple[str, ...]
    kinds: tuple[AnnouncedKind, ...]
    """None: any."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its kinds."""
        return tuple(kind.name for kind in self.kinds)

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return sum(64 + len(queue) for queue in self.queues) + sum(
            128 + len(kind.name) + len(kind.input_schema) for kind in self.kinds
        )


@value
class KindReport:
    """What is known of a kind."""

    name: str
    """Empty: agents that take any."""
    queues: tuple[str, ...]
    live_agents: int
    input_schemas: tuple[str, ...]
    """The newest first."""
