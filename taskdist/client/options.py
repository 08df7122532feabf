"""What can be said of a task when it is submitted, in the words of the command line."""

from dataclasses import replace
from datetime import datetime
from typing import Any, TypedDict

import uuid_utils

from taskdist.core.errors import BadField, InvalidFields
from taskdist.limits import SECOND_US
from taskdist.reports import RetryPause, Submission
from taskdist.settings import parse_duration_us

Duration = float | str
"""Seconds, or a text such as "90s", "15m", "2h"."""

TIER_DEFAULT = "free"
QUEUE_DEFAULT = "default"
TIME_DEFAULT_S = 1.0


class Options(TypedDict, total=False):
    """What can be said of a task. Each but `key` and `task_id` is a flag of `taskdist submit` too;
    those are `--key` and `--id`."""

    tier: str
    """Who pays. Unset: free."""
    time: Duration
    """Expected work. Unset: 1 s."""
    queue: str
    """The line that it waits in. Unset: default."""
    max_retries: int
    """How many failures may follow the first. Unset: 3."""
    backoff: RetryPause
    """How long it waits before a retry. Unset: not at all."""
    delay: Duration
    """Not before so long from now."""
    at: datetime
    """… or not before this time, which has a time zone."""
    deadline: Duration | datetime
    """Not started by then, it is dead."""
    run_timeout: Duration
    """How long one run may take."""
    lease: Duration
    """How long its agent may be silent."""
    key: str
    """Idempotency key: in one queue, the same key and content is the same task."""
    task_id: str
    """A UUID of your own, with which a repeat adds nothing twice."""


_TYPES: tuple[tuple[str, type, str], ...] = (
    ("tier", str, "a text"),
    ("queue", str, "a text"),
    ("key", str, "a text"),
    ("task_id", str, "a text"),
    ("max_retries", int, "a whole number"),
    ("backoff", RetryPause, "a RetryPause"),
    ("at", datetime, "a datetime"),
)
"""What each must be that is no duration."""


def submission(kind: str, options: Options) -> Submission:
    """A task with these options, as yet without data. It has an id, so that it can be submitted
    again without harm.

    Raises:
        InvalidFields: a value is of another type, or no duration, or there is no such option.
    """
    known = Options.__annotations__
    bad = [
        BadField(name, f"not known; allowed: {', '.join(known)}")
        for name in options
        if name not in known
    ]
    bad += [
        BadField(name, f"is {options.get(name)!r}; allowed: {said}")
        for name, types, said in _TYPES
        if options.get(name) is not None and not isinstance(options.get(name), types)
    ]
    if bad:  # Left out silently, a misspelt tier would be the default one.
        raise InvalidFields(bad)
    said = Submission(
        user_tier=options.get("tier", TIER_DEFAULT),
        est_processing_time_s=seconds_of("time", options.get("time", TIME_DEFAULT_S)),
        kind=kind,
        queue=options.get("queue", ""),
        task_id=options.get("task_id") or "",
        max_retries=options.get("max_retries"),
        backoff=options.get("backoff"),
        idempotency_key=options.get("key", ""),
        **_times(options),
    )
    return said if said.task_id else replace(said, task_id=str(uuid_utils.uuid7()))


def _times(options: Options) -> dict[str, Any]:
    times: dict[str, Any] = {"not_before": options.get("at")}
    if (delay := options.get("delay")) is not None:
        times["delay_s"] = seconds_of("delay", delay)
    deadline = options.get("deadline")
    if isinstance(deadline, datetime):
        times["deadline"] = deadline
    elif deadline is not None:
        times["deadline_s"] = _more_than_nothing("deadline", deadline)
    if (run_timeout := options.get("run_timeout")) is not None:
        times["run_timeout_s"] = seconds_of("run_timeout", run_timeout)
    if (lease := options.get("lease")) is not None:
        times["lease_s"] = seconds_of("lease", lease)
    return times


def _more_than_nothing(name: str, duration: Duration) -> float:
    """For what 0 would switch off, unseen."""
    seconds = seconds_of(name, duration)
    if not seconds:
        raise InvalidFields([BadField(name, "is 0; allowed: more than 0")])
    return seconds


def seconds_of(name: str, duration: Duration) -> float:
    """A duration in seconds.

    Raises:
        InvalidFields: it is none.
    """
    try:
        return int(str(parse_duration_us(duration))) / SECOND_US
    except ValueError as error:
        raise InvalidFields([BadField(name, str(error))]) from None
