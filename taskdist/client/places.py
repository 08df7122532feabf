"""Which of several tasks an error means: its place, as in `tasks[3].time`."""

import re
from collections.abc import Callable

from taskdist.core.errors import BadField, InvalidFields, Refused, TaskIdTaken

_PLACE = re.compile(r"\btasks\[(\d+)\]\.([\w.]+)")

Name = Callable[[int, str], str]
"""What to call a field of the task at this place."""


def placed(error: InvalidFields, place: int) -> InvalidFields:
    """The error of one task as that of the one at this place."""
    return type(error)([BadField(f"tasks[{place}].{field}", why) for field, why in error.fields])


def moved(error: Refused, count: int) -> Refused:
    """The error of a part of them as that of all: so many stand before the part."""
    return renamed(error, lambda place, field: f"tasks[{place + count}].{field}")


def renamed(error: Refused, name: Name) -> Refused:
    """The error with other names for `tasks[3].time`; itself if it names none."""

    def named(text: str) -> str:
        return _PLACE.sub(lambda found: name(int(found[1]), found[2]), text)

    if isinstance(error, InvalidFields):
        return type(error)([BadField(named(field), why) for field, why in error.fields])
    if isinstance(error, TaskIdTaken):
        return TaskIdTaken(named(str(error)))
    return error
