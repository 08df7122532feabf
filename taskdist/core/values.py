"""`value`: a dataclass that nobody changes, which is what commands, answers and changes are."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots, compared by its fields, and frozen as far as the type checker sees.

    Python's own `frozen=True` sets each field by a call of `object.__setattr__`, so that making one
    takes four times as long; a task's life makes some twenty.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
