"""What the core's values are made by: `value`, a dataclass that nobody changes, which is what
commands, answers and changes are; and `members`, for the enums in them."""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar, dataclass_transform

T = TypeVar("T")
E = TypeVar("E", bound=type[Enum])


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots, compared by its fields, and frozen as far as the type checker sees.

    Python's own `frozen=True` sets each field by a call of `object.__setattr__`, so that making one
    takes four times as long; a task's life makes some twenty.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


def members(cls: E) -> E:
    """An enum whose members are plain attributes of their class, as they are from Python 3.12 on.

    3.11 finds each by a descriptor written in Python, which takes ten times as long; a task's life
    names some fifty.
    """
    for name, member in cls.__members__.items():
        type.__setattr__(cls, name, member)
    return cls
