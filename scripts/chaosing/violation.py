"""A broken promise, as the checker found it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """A broken promise."""

    kind: str
    """Which one; always the same words."""
    text: str
    """Where, and what was found."""
